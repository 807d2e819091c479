"""Asks every worker and router for its state once a second and keeps the last good answer."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import aiohttp
from pydantic import ValidationError

from tidegate_api.meta import ApiModel

_log = logging.getLogger(__name__)
_TIMEOUT_S = 1.0
_IN_FLIGHT = 100
_MOST_BYTES = 4 * 1024 * 1024  # a state is some KiB; more is a broken or lying program
State = TypeVar("State", bound=ApiModel)


class OversizedError(ValueError):
    """An answer longer than any honest state."""


@dataclass(frozen=True, slots=True)
class Target:
    """One program to ask; `key` is a pod's UID or name."""

    key: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading(Generic[State]):
    """The last good answer, when it came (epoch seconds), and the last try's error."""

    scraped_s: float | None = None
    state: State | None = None
    error: str = ""


class Scraper(Generic[State]):
    """Scrapes what `targets()` names, each `interval_s`, spread over the interval.

    `observe(result)` counts; `now_s()` gives epoch seconds; `changed(key)` hears of each answer.
    """

    def __init__(
        self,
        document: type[State],
        targets: Callable[[], Mapping[str, Target]],
        observe: Callable[[str], None],
        now_s: Callable[[], float],
        interval_s: float = 1.0,
    ) -> None:
        self._document = document
        self._targets = targets
        self._observe = observe
        self._now_s = now_s
        self._interval_s = interval_s
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self.readings: dict[str, Reading[State]] = {}

    async def run(self) -> None:
        """Scrape for ever; one slow program never delays another."""
        busy: dict[str, asyncio.Task[None]] = {}
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=_IN_FLIGHT * 2, keepalive_timeout=30)
        async with (
            aiohttp.ClientSession(
                timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            while True:
                targets = self._targets()
                self._forget(targets)
                busy = {key: task for key, task in busy.items() if not task.done()}
                for key, target in targets.items():
                    if key not in busy:
                        busy[key] = group.create_task(self._scrape(session, target))
                await asyncio.sleep(self._interval_s)

    def _forget(self, targets: Mapping[str, Target]) -> None:
        for key in self.readings.keys() - targets.keys():
            del self.readings[key]

    async def _scrape(self, session: aiohttp.ClientSession, target: Target) -> None:
        # Not for secrets: this only keeps scrapes of many workers from bunching up.
        await asyncio.sleep(random.random() * self._interval_s * 0.5)  # noqa: S311
        async with self._slots:
            try:
                state = self._document.model_validate_json(await _fetch(session, target))
            except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
                self._failed(target, error)
                return
        self._observe("ok")
        self.readings[target.key] = Reading(self._now_s(), state)

    def _failed(self, target: Target, error: Exception) -> None:
        text = _describe(error)
        before = self.readings.get(target.key) or Reading()
        if before.error != text:
            # A worker that starts refuses connections, which is no news; a bad document is.
            level = logging.WARNING if isinstance(error, ValueError) else logging.DEBUG
            _log.log(level, "scrape of %s: %s", target.url, text)
        self._observe("error")
        self.readings[target.key] = replace(before, error=text)


async def _fetch(session: aiohttp.ClientSession, target: Target) -> bytes:
    """Return the document; redirects are not followed: a worker must not send us elsewhere."""
    async with session.get(target.url, headers=target.headers, allow_redirects=False) as answer:
        if answer.status != 200:
            answer.release()
            raise aiohttp.ClientPayloadError(f"status {answer.status}")
        data = bytearray()
        async for piece in answer.content.iter_any():
            data += piece
            if len(data) > _MOST_BYTES:
                answer.close()
                raise OversizedError(f"the state is longer than {_MOST_BYTES} bytes")
        return bytes(data)


def _describe(error: Exception) -> str:
    """Name the error; of a bad document the fields, never the values."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_context=False, include_input=False)
        fields = ("".join(f".{part}" for part in item["loc"])[1:] for item in found[:3])
        return f"not a state document: {', '.join(fields)}"
    return f"{type(error).__name__}: {str(error)[:200]}"
