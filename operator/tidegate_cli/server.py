"""Whom a command talks to, as its options say it. The clients take long to load, this does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from tidegate_api import names
from tidegate_cli.errors import InputError


@dataclass(frozen=True, slots=True)
class Access:
    """Which cluster, as kubectl's options say it; empty: as kubeconfig says."""

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""


class Protocol(StrEnum):
    """How to speak to the server."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where and how to ask, and for which model. `address` is host:port."""

    address: str
    protocol: Protocol
    tls: bool
    timeout_s: float
    model: str
    version: str
    headers: Mapping[str, str]

    def url(self, path: str) -> str:
        """Return where requests go, for people to read."""
        scheme = f"{self.protocol}s" if self.tls else str(self.protocol)
        return f"{scheme}://{self.address}{path}" + (f" {self.model}" if self.model else "")


_PORTS = {Protocol.HTTP: names.PORT_ROUTER_HTTP, Protocol.GRPC: names.PORT_ROUTER_GRPC}
_SCHEMES = {
    "": Protocol.HTTP, "http": Protocol.HTTP, "https": Protocol.HTTP,
    "grpc": Protocol.GRPC, "grpcs": Protocol.GRPC,
}  # fmt: skip


def server_of(
    url: str, protocol: Protocol | None, model: str, version: str, pool: str, timeout_s: float
) -> Server:
    """Return what --url and its companions mean; an empty URL is this machine."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    chosen = protocol or _SCHEMES.get(parts.scheme)
    if chosen is None:
        raise InputError(f"--url {url}: expected http, https, grpc, grpcs, or HOST:PORT")
    address = parts.netloc or "localhost"
    if parts.port is None:
        address = f"{address}:{_PORTS[chosen]}"
    return Server(
        address=address,
        protocol=chosen,
        tls=parts.scheme in {"https", "grpcs"},
        timeout_s=timeout_s,
        model=model,
        version=version,
        headers={names.HEADER_POOL: pool} if pool else {},
    )
