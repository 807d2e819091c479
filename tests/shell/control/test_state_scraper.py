"""The scraper against real HTTP servers: honest, slow, dead, lying and huge ones."""

import asyncio
import time
from collections import Counter

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from tidegate_api.names import HEADER_DRAIN_ACK
from tidegate_api.state import Phase, WorkerState
from tidegate_operator.adapters.scrape import Scraper, Target


def document(uid="w1"):
    return WorkerState(
        uid=uid, pool="vision", revision="aaaaaaaa", accelerator="cpu", phase=Phase.READY
    ).to_wire()


class Agent:
    """A worker agent with a switchable answer."""

    def __init__(self):
        self.answer = lambda: web.json_response(document())
        self.headers = []
        self.delay_s = 0.0
        self.url = ""

    async def handle(self, request):
        self.headers.append(request.headers)
        await asyncio.sleep(self.delay_s)
        return self.answer()

    async def hang(self, _request):
        await asyncio.Event().wait()


@pytest.fixture
async def agent():
    made = Agent()
    app = web.Application()
    app.router.add_get("/v1/state", made.handle)
    app.router.add_get("/v1/hang", made.hang)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    made.url = str(server.make_url("/v1/state"))
    yield made
    await server.close()


@pytest.fixture
def targets():
    return {}


@pytest.fixture
def results():
    return Counter()


@pytest.fixture
def scraper(background, targets, results):
    made = Scraper(
        WorkerState, lambda: targets, lambda result: results.update([result]), time.time, 0.1
    )
    background(made.run())
    return made


def aim(targets, agent, key="w1", **headers):
    targets[key] = Target(key, agent.url, headers)


async def test_an_answer_is_kept_with_its_time(scraper, targets, agent, until):
    aim(targets, agent)
    reading = await until(lambda: scraper.readings.get("w1"), "a reading")
    assert reading.state.uid == "w1"
    assert abs(reading.scraped_s - time.time()) < 5
    assert reading.error == ""


async def test_one_dead_and_one_hanging_agent_do_not_delay_the_others(
    scraper, targets, agent, until
):
    aim(targets, agent)
    targets["dead"] = Target("dead", f"http://127.0.0.1:{unused_port()}/v1/state", {})
    targets["hanging"] = Target("hanging", agent.url.replace("state", "hang"), {})
    await until(lambda: len(agent.headers) >= 5, "five answers of the live one")
    assert scraper.readings["dead"].error
    await until(lambda: scraper.readings.get("hanging"), "the time limit of the hanging one")
    assert "Timeout" in scraper.readings["hanging"].error
    assert scraper.readings["hanging"].scraped_s is None


async def test_the_last_good_answer_stays_when_an_agent_dies(
    scraper, targets, agent, until, results
):
    aim(targets, agent)
    good = await until(lambda: scraper.readings.get("w1"), "a reading")
    agent.answer = lambda: web.Response(status=500)
    bad = await until(lambda: (r := scraper.readings["w1"]).error and r, "an error")
    assert bad.state == good.state
    assert bad.scraped_s is not None
    assert "500" in bad.error
    assert results["ok"] >= 1
    assert results["error"] >= 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(body=b"{"), "not a state document"),
        (lambda: web.json_response({"phase": "Ready"}), "not a state document"),
        (lambda: web.Response(body=b" " * 5_000_000), "longer than"),
        (lambda: web.Response(status=302, headers={"Location": "/v1/state"}), "302"),
        (lambda: web.Response(status=204), "204"),
    ],
    ids=["half written", "fields missing", "endless", "sends us elsewhere", "empty"],
)
async def test_a_bad_answer_is_an_error_and_no_state(scraper, targets, agent, until, answer, words):
    agent.answer = answer
    aim(targets, agent)
    reading = await until(lambda: scraper.readings.get("w1"), "a reading")
    assert reading.state is None
    assert words in reading.error


async def test_a_bad_document_is_logged_once_and_without_its_values(
    scraper, targets, agent, until, caplog
):
    agent.answer = lambda: web.json_response({**document(), "uid": ["s3cr3t"]})
    aim(targets, agent)
    await until(lambda: len(agent.headers) >= 4, "four scrapes")
    lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(lines) == 1
    assert "uid" in lines[0]
    assert "s3cr3t" not in lines[0] + scraper.readings["w1"].error


async def test_the_drain_acknowledgement_travels_in_the_header(scraper, targets, agent, until):
    aim(targets, agent, **{HEADER_DRAIN_ACK: "1"})
    await until(lambda: agent.headers, "a scrape")
    assert agent.headers[0][HEADER_DRAIN_ACK] == "1"
    assert scraper is not None


async def test_a_worker_that_is_gone_is_forgotten(scraper, targets, agent, until):
    aim(targets, agent)
    await until(lambda: "w1" in scraper.readings, "a reading")
    targets.clear()
    await until(lambda: "w1" not in scraper.readings, "nothing to be left")


async def test_a_slow_agent_is_asked_once_at_a_time(scraper, targets, agent, until):
    agent.delay_s = 0.5
    aim(targets, agent)
    await until(lambda: scraper.readings.get("w1"), "the slow answer")
    assert len(agent.headers) <= 2
