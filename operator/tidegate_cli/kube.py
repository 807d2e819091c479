"""The API server with the user's kubeconfig, as plain JSON; library errors mapped once."""

import http
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import (
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

from tidegate_api.names import GROUP, PLURALS, VERSION, Kind
from tidegate_api.template import JsonObject
from tidegate_cli.core.documents import field, full_name, mapping, records, text
from tidegate_cli.errors import ConflictError, InputError, NotFoundError, ServerError
from tidegate_cli.server import Access

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_CALL_S = 10.0
_PAGE = 500
OWN_ROOT = f"/apis/{GROUP}/{VERSION}"


class Cluster:
    """One API server and the namespace that commands mean."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    def get(self, kind: Kind, name: str) -> JsonObject:
        """Return one of our objects; NotFoundError names it."""
        path = f"{OWN_ROOT}/namespaces/{self.namespace}/{PLURALS[kind]}/{name}"
        return self._call("GET", path, full_name(PLURALS[kind], self.namespace, name))

    def patch(self, kind: Kind, name: str, patch: Mapping[str, object]) -> JsonObject:
        """Merge a patch into one of our objects and return it."""
        path = f"{OWN_ROOT}/namespaces/{self.namespace}/{PLURALS[kind]}/{name}"
        what = full_name(PLURALS[kind], self.namespace, name)
        return self._call("PATCH", path, what, body=patch)

    def own(self, kind: Kind, *, everywhere: bool = False) -> list[JsonObject]:
        """Return all our objects of a kind in the namespace, or in all."""
        scope = "" if everywhere else f"/namespaces/{self.namespace}"
        return self._list(f"{OWN_ROOT}{scope}/{PLURALS[kind]}", "")

    def children(self, root: str, plural: str, selector: str) -> list[JsonObject]:
        """Return the namespace's objects of a built-in kind that bear a label."""
        return self._list(f"{root}/namespaces/{self.namespace}/{plural}", selector)

    def _list(self, path: str, selector: str) -> list[JsonObject]:
        found: list[JsonObject] = []
        query = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = self._call("GET", path, path, query=query)
            found += [dict(item) for item in records(page, "items")]
            token = text(page, "metadata", "continue")
            if not token:
                return found
            query["continue"] = token

    def _call(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> JsonObject:
        """Return the answer's object; `what` names the object in errors."""
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json"
        try:
            request = self._client.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*request, _request_timeout=_CALL_S)
            status, content = answer.status, answer.read()
        except ApiException as error:
            status, content = error.status, (error.body or "").encode()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            host = self._client.configuration.host
            raise ServerError(f"the API server {host} cannot be reached: {error}") from error
        return _answer(status, content, what)


def _answer(status: int, content: bytes, what: str) -> JsonObject:
    try:
        document = json.loads(content or b"null")
    except ValueError:
        document = {"message": content[:200].decode("utf-8", "replace")}
    if status < http.HTTPStatus.BAD_REQUEST and isinstance(document, dict):
        return cast("JsonObject", document)
    said = text(document, "message") or f"status {status}"
    causes = [f"{text(one, 'field')}: {text(one, 'message')}" for one in _causes(document)]
    if status == http.HTTPStatus.NOT_FOUND:
        raise NotFoundError(f"{what} not found: {said}")
    if status == http.HTTPStatus.CONFLICT:
        raise ConflictError(f"{what} was changed meanwhile, try again: {said}")
    raise ServerError(f"{what}: {'; '.join(causes) or said}")


def _causes(document: object) -> list[Mapping[str, object]]:
    return [one for one in records(mapping(document, "details"), "causes") if field(one, "field")]


def connect(access: Access) -> Cluster:
    """Return the cluster that kubectl would talk to with these options."""
    try:
        configuration = Configuration()
        namespace = _load(access, configuration)
    except (ConfigException, OSError, ValueError) as error:
        raise InputError(f"kubeconfig: {error}; give --kubeconfig or KUBECONFIG") from error
    # The library would try three times more, with nobody told why it takes so long.
    configuration.retries = False
    client = ApiClient(configuration)
    return Cluster(client, access.namespace or namespace or "default")


def _load(access: Access, configuration: Configuration) -> str:
    """Fill in the configuration and return the context's namespace."""
    location = access.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
    files = [Path(part).expanduser() for part in location.split(os.pathsep) if part]
    if not any(file.exists() for file in files) and _NAMESPACE_FILE.exists():
        load_incluster_config(client_configuration=configuration)
        return _NAMESPACE_FILE.read_text("utf-8").strip()
    load_kube_config(
        config_file=location,
        context=access.context or None,
        client_configuration=configuration,
        persist_config=False,
    )
    contexts, active = list_kube_config_contexts(config_file=location)
    named = [one for one in contexts if one.get("name") == access.context]
    return text(named[0] if named else active, "context", "namespace")
