"""Queries of analysis against Debian's Prometheus, and against answers that no honest one gives."""

import asyncio
import contextlib
import math
import shutil
import time

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from tidegate_operator.adapters.prometheus import (
    NoAnswerError,
    NoNumberError,
    Prometheus,
    PrometheusError,
    RefusedQueryError,
)

HOW = "prometheus is not installed: apt-get install prometheus (`make test` does it)"


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as made:
        yield made


async def until(condition, what, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s for {what}")
        await asyncio.sleep(0.02)


@pytest.fixture
async def real(tmp_path):
    """A Prometheus that scrapes itself each 200 ms; its address."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.fail(HOW)
    port = unused_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        "scrape_configs:\n"
        f"- {{job_name: me, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def asker(url, queries=(), results=None, interval_s=0.05):
    kept = {} if results is None else results
    return Prometheus(url, lambda: queries, kept, time.time, interval_s=interval_s)


@contextlib.asynccontextmanager
async def running(prometheus):
    task = asyncio.create_task(prometheus.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_real_prometheus_gives_numbers_and_says_what_is_wrong_with_a_query(real):
    results = {}
    queries = {"up{job='me'}", "scalar(vector(2.5))", "no_such_series", "rate(", "up", "0/0 * up",
               "up or vector(3)"}  # fmt: skip
    async with running(asker(real, queries, results)):
        await until(
            lambda: (found := results.get("up{job='me'}")) and found.value == 1.0,
            "a first scrape by Prometheus",
        )
        await until(lambda: results["0/0 * up"].error.endswith("NaN"), "every query's turn")
        await until(lambda: results["up or vector(3)"].value is None, "two series")
    assert results["scalar(vector(2.5))"].value == 2.5
    assert results["no_such_series"].error == "the query gives nothing: no such series now"
    assert "parse error" in results["rate("].error
    assert results["up or vector(3)"].error == "the query gives 2 series, expected one"
    assert {results[q].value for q in ("no_such_series", "rate(", "0/0 * up")} == {None}


def vector(*values):
    series = [{"metric": {}, "value": [1.0, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": series}}


class Fake:
    """Answers what the test sets."""

    def __init__(self):
        self.status, self.body, self.asked, self.hang = 200, vector("1"), [], False
        self.url = ""

    async def answer(self, request):
        self.asked.append(request.query["query"])
        if self.hang:
            await asyncio.Event().wait()
        if isinstance(self.body, bytes):
            return web.Response(status=self.status, body=self.body)
        return web.json_response(self.body, status=self.status)


@pytest.fixture
async def fake():
    made = Fake()
    app = web.Application()
    app.router.add_get("/prefix/api/v1/query", made.answer)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    made.url = f"{server.make_url('/prefix/')}"
    yield made
    await server.close()


def scalar(value):
    return {"status": "success", "data": {"resultType": "scalar", "result": value}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, vector("NaN"), NoNumberError, "NaN"),
        (200, vector(), NoNumberError, "gives nothing"),
        (200, vector("1", "2"), NoNumberError, "2 series"),
        (200, vector("lots"), NoNumberError, "no number"),
        (200, scalar([1.0]), NoNumberError, "no sample"),
        (200, {"status": "success"}, NoNumberError, "no data"),
        (200, {"status": "success", "data": {"resultType": "matrix", "result": []}},
         NoNumberError, "matrix"),
        (200, {"status": "success", "data": {"resultType": "vector", "result": ["x"]}},
         NoNumberError, "no sample"),
        (400, {"status": "error", "error": "parse error: oops"}, RefusedQueryError, "oops"),
        (422, {"status": "error"}, RefusedQueryError, "422: no reason given"),
        (503, {"status": "error", "error": "too busy"}, NoAnswerError, "503: too busy"),
        (200, b"<html>", NoAnswerError, "not an answer"),
        (200, b"9" * 2_000_000, NoNumberError, "longer than"),
        (302, b"", NoAnswerError, "status 302"),
    ],
)  # fmt: skip
async def test_an_answer_without_one_number_is_an_error_that_says_why(
    fake, session, status, body, kind, words
):
    fake.status, fake.body = status, body
    with pytest.raises(kind, match=words):
        await asker(fake.url).ask(session, "up")


@pytest.mark.parametrize(
    ("body", "value"),
    [(vector("0.25"), 0.25), (scalar([1.0, "3"]), 3.0), (vector("+Inf"), math.inf)],
)
async def test_one_number_is_the_result(fake, session, body, value):
    fake.body = body
    assert await asker(fake.url).ask(session, 'rate(x{a="b"}[1m])') == value
    assert fake.asked == ['rate(x{a="b"}[1m])']


async def test_a_prometheus_that_hangs_ends_in_an_error_at_the_deadline(fake):
    fake.hang = True
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as hasty:
        with pytest.raises(NoAnswerError, match="no answer within"):
            await asker(fake.url).ask(hasty, "up")


async def test_a_prometheus_that_is_away_or_unnamed_is_an_error(session):
    with pytest.raises(NoAnswerError, match="ClientConnector"):
        await asker(f"http://127.0.0.1:{unused_port()}").ask(session, "up")
    with pytest.raises(PrometheusError, match=r"operator\.prometheusUrl"):
        await asker("").ask(session, "up")


async def test_queries_that_nobody_asks_any_more_are_forgotten(fake):
    queries, results = {"a", "b"}, {}
    async with running(asker(fake.url, queries, results)):
        await until(lambda: set(results) == {"a", "b"}, "both answers")
        queries.remove("b")
        await until(lambda: set(results) == {"a"}, "b to be forgotten")
    assert results["a"].value == 1.0


async def test_an_error_replaces_the_number_of_before(fake):
    results = {}
    async with running(asker(fake.url, {"up"}, results)):
        await until(lambda: "up" in results and results["up"].value == 1.0, "a number")
        fake.body = vector("NaN")
        await until(lambda: results["up"].value is None, "no number")
        assert "NaN" in results["up"].error
