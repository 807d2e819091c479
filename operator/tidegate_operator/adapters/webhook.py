"""Sends notifications of rollouts to one URL, in order, and never makes anybody wait.

WebhookError
  +-- NoKeyError      the key's file cannot be read or is empty: nothing is sent unsigned
  +-- NoReceiptError  no connection, no answer within 5 s, or a broken one
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import aiohttp

from tidegate_operator.core.notification import (
    HEADER_EVENT_ID,
    HEADER_SIGNATURE,
    Delivery,
    Notification,
    body_of,
    judge,
    next_attempt_s,
    signature,
)

_log = logging.getLogger(__name__)
_TIMEOUT_S = 5.0
_MOST_WAITING = 1000


class WebhookError(Exception):
    """An attempt failed."""


class NoKeyError(WebhookError):
    """There is a key to sign with, and it cannot be read."""


class NoReceiptError(WebhookError):
    """The receiver did not answer."""


class Webhook:
    """Keeps at most 1 000 notifications; the oldest one goes when another comes.

    `key_file` is read anew for each attempt, so that a rotated Secret counts at once; empty: sent
    without a signature. `count` hears how each attempt ended, and of each event that is given up.
    Neither URL nor answer is ever logged: either may hold a credential.
    """

    def __init__(
        self,
        url: str,
        key_file: str,
        count: Callable[[Delivery], None],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._key_file = Path(key_file) if key_file else None
        self._count = count
        self._now_s = now_s
        self._waiting: deque[Notification] = deque()
        self._news = asyncio.Event()

    def offer(self, event: Notification) -> None:
        """Take an event; returns at once."""
        if len(self._waiting) >= _MOST_WAITING:
            lost = self._waiting.popleft()
            self._count(Delivery.DROPPED)
            _tell("the queue is full: not sent", lost)
        self._waiting.append(event)
        self._news.set()

    async def run(self) -> None:
        """Send for ever, one event after the other."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            while True:
                while self._waiting:
                    await self._deliver(session, self._waiting.popleft())
                self._news.clear()
                await self._news.wait()

    async def _deliver(self, session: aiohttp.ClientSession, event: Notification) -> None:
        """Attempt until it is delivered, refused or too old."""
        attempts = 0
        while True:
            attempts += 1
            outcome, words = await self._attempt(session, event)
            self._count(outcome)
            if outcome is Delivery.DELIVERED:
                return
            if outcome is Delivery.REFUSED:
                _tell(f"refused, {words}", event)
                return
            wait_s = next_attempt_s(event, attempts, self._now_s())
            if wait_s is None:
                self._count(Delivery.EXPIRED)
                _tell(f"given up after {attempts} attempts, {words}", event)
                return
            if attempts == 1:
                _tell(f"tried again, {words}", event)
            await asyncio.sleep(wait_s)

    async def _attempt(
        self, session: aiohttp.ClientSession, event: Notification
    ) -> tuple[Delivery, str]:
        try:
            status = await self._post(session, event)
        except WebhookError as error:
            return Delivery.FAILED, str(error)
        return judge(status), f"status {status}"

    async def _post(self, session: aiohttp.ClientSession, event: Notification) -> int:
        """Return the answer's status; its body is not read. Raises WebhookError."""
        body = body_of(event)
        headers = {"Content-Type": "application/json", HEADER_EVENT_ID: event.id}
        if self._key_file is not None:
            headers[HEADER_SIGNATURE] = signature(_read_key(self._key_file), body)
        try:
            async with session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status
        except TimeoutError as error:
            raise NoReceiptError(f"no answer within {_TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoReceiptError(type(error).__name__) from error


def _read_key(path: Path) -> bytes:
    """Return the key without the line's end that editors add. Raises NoKeyError."""
    try:
        key = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise NoKeyError(f"key file {path}: {error.strerror}") from error
    if not key:
        raise NoKeyError(f"key file {path} is empty")
    return key


def _tell(words: str, event: Notification) -> None:
    _log.warning(
        "notification %s %s: %s", event.reason, event.id, words,
        extra={"object": f"{event.namespace}/{event.rollout}", "revision": event.revision},
    )  # fmt: skip
