"""The API server as plain JSON, with the administrator's certificate."""

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import aiohttp

Json = dict[str, Any]
_LIMITS = aiohttp.ClientTimeout(total=15, sock_connect=5)
_TYPES = {"PATCH": "application/merge-patch+json"}
POOLS = "/apis/tidegate.dev/v1alpha1/namespaces/{}/inferencepools"
ROLLOUTS = "/apis/tidegate.dev/v1alpha1/namespaces/{}/modelrollouts"
TABLES = "/apis/tidegate.dev/v1alpha1/namespaces/{}/routetables"
DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"
REVISIONS = "/apis/apps/v1/namespaces/{}/controllerrevisions"
PODS = "/api/v1/namespaces/{}/pods"


class AnswerError(RuntimeError):
    """The API server refused; `status` is HTTP's."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status


AWAY = (aiohttp.ClientError, TimeoutError, OSError)  # what a request raises without an answer


def context(pki: Path, user: str = "admin") -> ssl.SSLContext:
    """Return TLS that trusts the cluster's authority and speaks as `user`."""
    made = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    made.load_cert_chain(pki / f"{user}.crt", pki / f"{user}.key")
    return made


class Api:
    """One connection pool to one API server."""

    def __init__(self, server: str, pki: Path) -> None:
        self.server = server
        self._pki = pki
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=context(self._pki), limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_LIMITS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the open session."""
        if self._session is None:
            raise RuntimeError("not open")
        return self._session

    async def request(
        self, method: str, path: str, body: object = None, content_type: str = ""
    ) -> Json:
        """Return the answer; AnswerError for 4xx and 5xx, one of AWAY without an answer."""
        headers = {"Content-Type": content_type or _TYPES.get(method, "application/json")}
        data = None if body is None else json.dumps(body)
        async with self.session.request(
            method, self.server + path, data=data, headers=headers
        ) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise AnswerError(answer.status, text[:500])
            found: Json = json.loads(text)
            return found

    async def get(self, path: str) -> Json:
        """Return one object, or a list."""
        return await self.request("GET", path)

    async def items(self, path: str) -> list[Json]:
        """Return the items of a list."""
        found: list[Json] = (await self.get(path))["items"]
        return found

    async def watch(self, path: str) -> AsyncIterator[Json]:
        """Yield {type, object} from what exists now on, until the stream ends."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5)
        url = f"{self.server}{path}?watch=true&timeoutSeconds=3000"
        async with self.session.get(url, timeout=limits, read_bufsize=2**22) as answer:
            async for line in answer.content:
                yield json.loads(line)

    async def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            async with self.session.get(f"{self.server}/readyz") as answer:
                return answer.status == 200
        except AWAY:
            return False
