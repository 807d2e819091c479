"""The API server over the client library's connection, as plain JSON; errors mapped once.

ApiError
  +-- UnavailableError   no answer, 5xx, 429: try again
  +-- ConflictError      409 or a stale resourceVersion: read again
  +-- NotFoundError      404
  +-- ExpiredError       410: list again
  +-- RefusedError       any other 4xx: trying again does not help; carries the server's text
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from tidegate_api.template import JsonObject

_CALL_S = 5.0
Query = Mapping[str, str | int]


class ApiError(Exception):
    """The API server did not do what was asked."""


class UnavailableError(ApiError):
    """No answer, or one that says: later."""


class ConflictError(ApiError):
    """Somebody wrote first."""


class NotFoundError(ApiError):
    """There is no such object."""


class ExpiredError(ApiError):
    """The resourceVersion is too old to watch from."""


class RefusedError(ApiError):
    """The request is wrong or forbidden."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind and where the API server keeps it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path; without a namespace that of all namespaces."""
        root = "/api" if "/" not in self.api_version else "/apis"
        scope = ("namespaces", namespace) if namespace else ()
        return "/".join(filter(None, (f"{root}/{self.api_version}", *scope, self.plural, name,
                                      subresource)))  # fmt: skip


Observer = Callable[[str, int], None]


class KubeClient:
    """One connection pool for the process. `observe(verb, code)` sees every answer."""

    def __init__(self, api: kubernetes_client.ApiClient, observe: Observer) -> None:
        self._api = api
        self._observe = observe

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        content_type: str = "application/json",
        timeout_s: float = _CALL_S,
    ) -> JsonObject:
        """Return the answer's JSON; raises ApiError."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        response = await self._send(method, path, query, body, content_type, timeout)
        try:
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"{method} {path}: {error!r}") from error
        self._check(method, path, response.status, data)
        return _decode(method, path, data)

    async def watch(self, path: str, query: Query, silence_s: float) -> AsyncIterator[JsonObject]:
        """Yield watch events {type, object} until the server ends the stream.

        Raises ApiError, also when nothing came for `silence_s`.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_S, sock_read=silence_s)
        wanted = {**query, "watch": "true", "allowWatchBookmarks": "true"}
        response = await self._send("GET", path, wanted, None, "application/json", timeout)
        try:
            if response.status != 200:
                self._check("WATCH", path, response.status, await response.read())
            async for line in response.content:
                if line.strip():
                    yield _decode("WATCH", path, line)
        except (aiohttp.ClientError, HttpProcessingError, TimeoutError, ValueError) as error:
            raise UnavailableError(f"WATCH {path}: {error!r}") from error
        finally:
            response.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: object,
        content_type: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        parameters: Sequence[tuple[str, str | int]] = list((query or {}).items())
        try:
            serialized = await self._api.param_serialize(
                method, path, query_params=parameters, header_params=headers, body=body,
                auth_settings=["BearerToken"],
            )  # fmt: skip
            answer = await self._api.call_api(*serialized, _request_timeout=limits)
        except (aiohttp.ClientError, ApiException, TimeoutError, OSError) as error:
            self._observe(method, 0)
            raise UnavailableError(f"{method} {path}: {error!r}") from error
        response: aiohttp.ClientResponse = answer.response
        return response

    def _check(self, verb: str, path: str, status: int, data: bytes) -> None:
        self._observe(verb, status)
        if status >= 400:
            raise _error(status)(f"{verb} {path}: {status} {_message(data)}")


def _error(status: int) -> type[ApiError]:
    known = {404: NotFoundError, 409: ConflictError, 410: ExpiredError, 429: UnavailableError}
    return known.get(status, UnavailableError if status >= 500 else RefusedError)


def _decode(verb: str, path: str, data: bytes) -> JsonObject:
    """Return a JSON object; a proxy that answers with something else counts as no answer."""
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise UnavailableError(f"{verb} {path}: the answer is no JSON") from error
    if not isinstance(answer, dict):
        raise UnavailableError(f"{verb} {path}: the answer is no JSON object")
    return answer


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data).get("message", ""))
    except (ValueError, AttributeError):
        return data[:200].decode(errors="replace")


async def connect(observe: Observer) -> KubeClient:
    """Return a client from the pod's service account, else from KUBECONFIG."""
    configuration = kubernetes_client.Configuration()
    try:
        kubernetes_config.load_incluster_config(configuration)
    except ConfigException:
        await kubernetes_config.load_kube_config(client_configuration=configuration)
    configuration.connection_pool_maxsize = 100
    return KubeClient(kubernetes_client.ApiClient(configuration), observe)
