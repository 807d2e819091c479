"""A closed loop of clients with a log of its own: what every request got, and from whom."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp

_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: when it ended (epoch seconds), what came of it and which revision answered."""

    at_s: float
    outcome: str  # "ok", a status with the body's beginning, or an error
    revision: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the client got what it asked for."""
        return self.outcome == "ok"


@dataclass(slots=True)
class Load:
    """Sends `body` to `url` from a few clients until stopped."""

    url: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    expected: object = None  # outputs[0].data of a right answer; None: not compared
    pause_s: float = 0.0  # between two requests of a client
    log: list[Answer] = field(default_factory=list)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, clients: int) -> None:
        """Send until `stop`."""
        limits = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=limits) as session, asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(session))

    def stop(self) -> None:
        """Let every client end its request and go."""
        self._stopped.set()

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._stopped.is_set():
            began_s = time.time()
            outcome, revision = await self._request(session)
            now_s = time.time()
            self.log.append(Answer(now_s, outcome, revision, now_s - began_s))
            await asyncio.sleep(self.pause_s)

    async def _request(self, session: aiohttp.ClientSession) -> tuple[str, str]:
        try:
            async with session.post(self.url, data=self.body, headers=self.headers) as answer:
                revision = answer.headers.get("x-tidegate-revision", "")
                text = await answer.text()
                if answer.status != 200:
                    return f"{answer.status} {text[:200]}", revision
                if self.expected is None:
                    return "ok", revision
                data = (await answer.json())["outputs"][0]["data"]
                return ("ok" if data == self.expected else f"wrong answer {data}"), revision
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return repr(error), ""

    def since(self, at_s: float) -> list[Answer]:
        """Return the answers that ended after `at_s`."""
        return [answer for answer in self.log if answer.at_s > at_s]


def outcomes(answers: Iterable[Answer]) -> Counter[str]:
    """Count what came of the requests."""
    return Counter(answer.outcome for answer in answers)


def by_revision(answers: Iterable[Answer]) -> Counter[str]:
    """Count who answered."""
    return Counter(answer.revision for answer in answers)
