"""EndpointSlices of worker sets (the API server's JSON) -> endpoints. Pure."""

from collections.abc import Iterator, Mapping

from tidegate_api.names import LABEL_CLASS, LABEL_POOL, LABEL_REVISION
from tidegate_api.routetable import Ports
from tidegate_api.template import JsonObject
from tidegate_router.core.endpoints import Endpoint, Pool

_MAX_PORT = 65535


def pool_of(item: JsonObject) -> Pool:
    """Return the pool that a slice belongs to, by its label."""
    metadata = _mapping(item.get("metadata"))
    labels = _mapping(metadata.get("labels"))
    return str(metadata.get("namespace", "")), str(labels.get(LABEL_POOL, ""))


def read_slice(item: JsonObject) -> Iterator[Endpoint]:
    """Yield the endpoints of a slice; those without a pod or an address are skipped."""
    labels = _mapping(_mapping(item.get("metadata")).get("labels"))
    ports = _ports(item)
    for entry in _records(item.get("endpoints")):
        target, conditions = _mapping(entry.get("targetRef")), _mapping(entry.get("conditions"))
        addresses = entry.get("addresses")
        if target.get("uid") and isinstance(addresses, list) and addresses:
            yield Endpoint(
                uid=str(target["uid"]),
                name=str(target.get("name", "")),
                address=str(addresses[0]),
                revision=str(labels.get(LABEL_REVISION, "")),
                accelerator=str(labels.get(LABEL_CLASS, "")),
                serving=conditions.get("serving") is True,
                terminating=conditions.get("terminating") is True,
                ports=ports,
            )


def _ports(item: JsonObject) -> Ports:
    found = {str(port.get("name")): port.get("port") for port in _records(item.get("ports"))}
    known = {name: found[name] for name in ("http", "grpc", "agent") if _is_port(found.get(name))}
    return Ports.model_validate(known)


def _is_port(number: object) -> bool:
    return type(number) is int and 0 < number <= _MAX_PORT


def _records(value: object) -> list[Mapping[str, object]]:
    return (
        [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
    )


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
