"""Reading the API server over the client library's connection: list, then watch, as plain JSON.

KubeError
  +-- ExpiredError   the watch must list again (410, or an ERROR event)
"""

import json
from collections.abc import AsyncIterator, Mapping

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config import ConfigException

from tidegate_api.template import JsonObject

_CALL_S = 5.0
_LIST_S = 30.0
_SILENCE_S = 90.0  # bookmarks come every minute; a watch that says less is dead
_PAGE = 500
_WATCH_S = 300
Query = Mapping[str, str | int]


class KubeError(Exception):
    """The API server gave no usable answer."""


class ExpiredError(KubeError):
    """What is known is too old to watch from."""


class KubeReader:
    """Lists and watches; never writes."""

    def __init__(self, api: kubernetes_client.ApiClient) -> None:
        self._api = api

    async def list(self, path: str, query: Query) -> tuple[list[JsonObject], str]:
        """Return every object below `path` and the version to watch from."""
        items: list[JsonObject] = []
        wanted: dict[str, str | int] = {"limit": _PAGE, **query}
        while True:
            answer = await self._get(
                path, wanted, aiohttp.ClientTimeout(total=_LIST_S, sock_connect=_CALL_S)
            )
            page = _parse(await _read(answer))
            found, metadata = page.get("items"), page.get("metadata")
            listed = found if isinstance(found, list) else []
            items += [item for item in listed if isinstance(item, dict)]
            known = metadata if isinstance(metadata, dict) else {}
            if not known.get("continue"):
                return items, str(known.get("resourceVersion", ""))
            wanted["continue"] = str(known["continue"])

    async def watch(
        self, path: str, query: Query, version: str
    ) -> AsyncIterator[tuple[str, JsonObject]]:
        """Yield (type, object) of each event until the stream ends; bookmarks are left out."""
        wanted = {
            **query, "watch": "true", "allowWatchBookmarks": "true",
            "timeoutSeconds": _WATCH_S, "resourceVersion": version,
        }  # fmt: skip
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_S, sock_read=_SILENCE_S)
        answer = await self._get(path, wanted, limits)
        try:
            async for line in answer.content:
                event = _parse(line)
                kind, item = str(event.get("type")), event.get("object")
                if kind == "ERROR":
                    raise ExpiredError(f"WATCH {path}: {item}")
                if kind != "BOOKMARK" and isinstance(item, dict):
                    yield kind, item
        except (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError) as error:
            # HttpProcessingError: a line longer than any object.
            raise KubeError(f"WATCH {path}: {error!r}") from error
        finally:
            answer.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _get(
        self, path: str, query: Query, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        try:
            request = await self._api.param_serialize(
                "GET", path, query_params=list(query.items()),
                header_params={"Accept": "application/json"}, auth_settings=["BearerToken"],
            )  # fmt: skip
            answer = await self._api.call_api(*request, _request_timeout=limits)
        except (aiohttp.ClientError, ApiException, TimeoutError, OSError) as error:
            raise KubeError(f"GET {path}: {error!r}") from error
        response: aiohttp.ClientResponse = answer.response
        if response.status != 200:
            response.close()
            known = ExpiredError if response.status == 410 else KubeError
            raise known(f"GET {path}: {response.status}")
        return response


async def connect(kubeconfig: str) -> KubeReader:
    """Return a reader from the pod's service account, else from a kubeconfig; else KubeError."""
    configuration = kubernetes_client.Configuration()
    try:
        kubernetes_config.load_incluster_config(configuration)
    except ConfigException:
        try:
            await kubernetes_config.load_kube_config(kubeconfig or None, None, configuration)
        except (ConfigException, OSError) as error:
            raise KubeError(
                f"no service account and no usable kubeconfig ({error}): run in a pod, set "
                "KUBECONFIG, or serve a file with --routes-file"
            ) from error
    return KubeReader(kubernetes_client.ApiClient(configuration))


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    try:
        return await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise KubeError(f"GET {answer.url.path}: {error!r}") from error


def _parse(data: bytes) -> JsonObject:
    try:
        found = json.loads(data) if data.strip() else {}
    except ValueError as error:
        raise KubeError(f"no JSON from the API server: {error}") from error
    if not isinstance(found, dict):
        raise KubeError("no JSON object from the API server")
    return found
