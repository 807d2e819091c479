"""Asks Prometheus the queries of all rollouts and keeps the newest answer of each.

PrometheusError
  +-- NoAnswerError       no answer within 5 s, a broken one, or 5xx: asked again
  +-- RefusedQueryError   Prometheus understood the request and refuses it; carries its words
  +-- NoNumberError       it answered, but not with one number: nothing, NaN, several series
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection

import aiohttp
from pydantic import BaseModel, Field, JsonValue, ValidationError

from tidegate_operator.core.observation import QueryResult

_log = logging.getLogger(__name__)
_TIMEOUT_S = 5.0
_IN_FLIGHT = 10
_MOST_BYTES = 1024 * 1024
_MOST_WORDS = 300
_NO_ADDRESS = "no address of Prometheus: set the chart's operator.prometheusUrl"


class PrometheusError(Exception):
    """A query gave no number."""


class NoAnswerError(PrometheusError):
    """Prometheus is away or broken."""


class RefusedQueryError(PrometheusError):
    """The query is wrong or too large."""


class NoNumberError(PrometheusError):
    """The answer is no single finite or infinite number."""


class _Data(BaseModel):
    result_type: str = Field(alias="resultType")
    result: list[JsonValue]


class _Answer(BaseModel):
    """https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries."""

    status: str
    data: _Data | None = None
    error: str = ""


class Prometheus:
    """Asks every query that `queries()` names each `interval_s`, into `results` by PromQL.

    `url` is the server's, a path prefix included; empty: each query is answered by the setting
    that is missing. `now_s()` gives epoch seconds.
    """

    def __init__(
        self,
        url: str,
        queries: Callable[[], Collection[str]],
        results: dict[str, QueryResult],
        now_s: Callable[[], float],
        interval_s: float = 5.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._queries = queries
        self._results = results
        self._now_s = now_s
        self._interval_s = interval_s
        self._slots = asyncio.Semaphore(_IN_FLIGHT)

    async def run(self) -> None:
        """Ask for ever; one slow query never delays another's next turn."""
        busy: dict[str, asyncio.Task[None]] = {}
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            while True:
                wanted = set(self._queries())
                for query in self._results.keys() - wanted:
                    del self._results[query]
                busy = {query: task for query, task in busy.items() if not task.done()}
                for query in wanted - busy.keys():
                    busy[query] = group.create_task(self._keep(session, query))
                await asyncio.sleep(self._interval_s)

    async def _keep(self, session: aiohttp.ClientSession, query: str) -> None:
        try:
            async with self._slots:
                value = await self.ask(session, query)
        except PrometheusError as error:
            before = self._results.get(query)
            if before is None or before.error != str(error):
                _log.warning("Prometheus: %s: %s", query[:_MOST_WORDS], error)
            self._results[query] = QueryResult(at_s=self._now_s(), value=None, error=str(error))
            return
        self._results[query] = QueryResult(at_s=self._now_s(), value=value)

    async def ask(self, session: aiohttp.ClientSession, query: str) -> float:
        """Return the one number of an instant query. Raises PrometheusError."""
        if not self._url:
            raise NoAnswerError(_NO_ADDRESS)
        try:
            status, body = await self._fetch(session, query)
        except TimeoutError as error:
            raise NoAnswerError(f"no answer within {_TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswerError(f"{type(error).__name__}: {str(error)[:_MOST_WORDS]}") from error
        return _number(_answer(status, body))

    async def _fetch(self, session: aiohttp.ClientSession, query: str) -> tuple[int, bytes]:
        """Return status and body; redirects are not followed: the setting says whom we ask."""
        url = f"{self._url}/api/v1/query"
        async with session.get(url, params={"query": query}, allow_redirects=False) as answer:
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _MOST_BYTES:
                    answer.close()
                    raise NoNumberError(f"the answer is longer than {_MOST_BYTES} bytes")
            return answer.status, bytes(body)


def _answer(status: int, body: bytes) -> _Answer:
    try:
        found = _Answer.model_validate_json(body)
    except ValidationError as error:
        raise NoAnswerError(f"status {status}, and not an answer of Prometheus") from error
    if found.status == "success" and status < 300:
        return found
    words = found.error[:_MOST_WORDS] or "no reason given"
    kind = NoAnswerError if status >= 500 else RefusedQueryError
    raise kind(f"status {status}: {words}")


def _number(answer: _Answer) -> float:
    data = answer.data
    if data is None or data.result_type not in {"vector", "scalar"}:
        shown = data.result_type if data else "no data"
        raise NoNumberError(f"the query gives {shown}, expected one number")
    if data.result_type == "scalar":
        return _value(data.result)
    if len(data.result) != 1:
        raise NoNumberError(
            f"the query gives {len(data.result)} series, expected one"
            if data.result
            else "the query gives nothing: no such series now"
        )
    series = data.result[0]
    return _value(series.get("value") if isinstance(series, dict) else None)


def _value(sample: JsonValue) -> float:
    """Return the number of [time, "text"]."""
    if not isinstance(sample, list) or len(sample) != 2:
        raise NoNumberError("the query gives no sample")
    try:
        number = float(str(sample[1]))
    except ValueError as error:
        raise NoNumberError("the query's value is no number") from error
    if math.isnan(number):
        raise NoNumberError("the query gives NaN")
    return number
