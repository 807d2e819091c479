"""Whom a command talks to, as its options say it. The clients take long to load, this does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


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
