"""The command against a real server that answers, breaks, stalls and refuses by path."""

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHAPE = "IN:FP32=1,4"
BODY = b'{"outputs":[]}'
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\nX-Tidegate-Revision: r1\r\n"
PLAIN = {
    "/ok": GOOD + b"x-tidegate-worker: w1\r\n\r\n" + BODY,
    "/bad": b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n",
    "/error": b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
    "/full": b"HTTP/1.1 503 Full\r\ncontent-length: 0\r\n"
    b"x-tidegate-dropped-reason: saturated\r\n\r\n",
    "/chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
    "/early": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + GOOD + b"\r\n" + BODY,
}
ENDING = {
    "/close": GOOD + b"connection: close\r\n\r\n" + BODY,
    "/eof": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + BODY,
    "/cut": GOOD + b"\r\n{",
    "/drop": b"",
    "/noise": b"what is this\r\n\r\n",
}


class Target:
    """`seen` are the bodies in order; `connections` how many were accepted."""

    def __init__(self):
        self.seen = []
        self.heads = []
        self.connections = 0
        self.busy = self.busiest = 0
        self.handling = set()

    async def handle(self, reader, writer):
        self.connections += 1
        self.handling.add(asyncio.current_task())
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def end(self):
        """End what still handles: a connection must not outlive its loop."""
        for task in self.handling:
            task.cancel()
        await asyncio.gather(*self.handling, return_exceptions=True)
        await asyncio.sleep(0)  # the transports tell their protocols

    async def _one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        self.heads.append(head)
        self.seen.append(await reader.readexactly(length))
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            return await self._answer(path, writer)
        finally:
            self.busy -= 1

    async def _answer(self, path, writer):
        if path == "/stall":
            await asyncio.sleep(60)
        if path == "/turns":
            return self._say(writer, b"%-14s" % b"{}" if len(self.seen) % 2 else BODY)
        if path == "/pieces":
            for byte in PLAIN["/ok"]:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            return True
        if path == "/v2/models/m/infer":
            await asyncio.sleep(0.02)
            path = "/ok"
        writer.write(PLAIN.get(path) or ENDING[path])
        return path in PLAIN

    def _say(self, writer, body):
        writer.write(GOOD + b"\r\n" + body)
        return True


@pytest.fixture
async def target():
    made = Target()
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    await made.end()


@asynccontextmanager
async def started(target, *options):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate_cli", "loadtest", "m", "--url", target.url,
        "--shape", SHAPE, *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def eventually(condition):
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110  # polls; nothing is timed by it
            await asyncio.sleep(0.01)


@pytest.fixture
def loadtest(target, tmp_path):
    """Run the command; return its exit code, its JSON and what it said."""

    async def run(*options):
        file = tmp_path / "result.json"
        async with started(target, *options, "--json", str(file)) as process:
            said, errors = await process.communicate()
        found = json.loads(file.read_text()) if file.exists() else None
        return process.returncode, found, (said + errors).decode()

    return run


@pytest.mark.parametrize(
    ("path", "outcome", "lost"),
    [
        pytest.param("/ok", "ok", 0, id="a good answer"),
        pytest.param("/chunked", "ok", 0, id="an answer in chunks"),
        pytest.param("/pieces", "ok", 0, id="an answer byte by byte"),
        pytest.param("/early", "ok", 0, id="an answer after early hints"),
        pytest.param("/close", "ok", 0, id="an answer that closes"),
        pytest.param("/eof", "ok", 0, id="an answer that ends with its connection"),
        pytest.param("/bad", "client", 6, id="a client's fault"),
        pytest.param("/full", "refused", 6, id="a refusal with a reason"),
        pytest.param("/error", "error", 6, id="an error"),
        pytest.param("/cut", "reset", 6, id="an answer cut short"),
        pytest.param("/drop", "reset", 6, id="a connection that closes without an answer"),
        pytest.param("/noise", "error", 6, id="something that is not HTTP"),
    ],
)
async def test_every_answer_is_classified(loadtest, target, path, outcome, lost):
    code, found, said = await loadtest("--path", path, "-c", "2", "--count", "6")
    assert (code, found["outcomes"], found["lost"]) == (0, {outcome: 6}, lost), said
    assert len(target.seen) == 6


async def test_connections_are_kept_and_answers_counted_by_who_gave_them(loadtest, target):
    _, found, _ = await loadtest("--path", "/ok", "-c", "3", "--count", "60")
    assert target.connections == 3
    assert found["workers"] == {"w1": 60}
    assert found["revisions"] == {"r1": 60}


async def test_the_request_is_oip_as_asked(loadtest, target):
    await loadtest("--count", "1", "--pool", "ml/vision", "--header", "X-Mine: yes", "--binary")
    (head,) = target.heads
    assert head.startswith("POST /v2/models/m/infer HTTP/1.1\r\n")
    assert "x-tidegate-pool: ml/vision\r\n" in head
    assert "x-mine: yes\r\n" in head
    assert "inference-header-content-length: " in head
    assert b'"binary_data_size": 16' in target.seen[0].replace(b":16", b": 16")


async def test_an_open_loop_sends_when_requests_are_due(loadtest, target):
    _, found, said = await loadtest("--rate", "200", "--duration", "1", "--warmup", "0.5")
    assert found["requests"] == 200, said
    assert len(target.seen) == 300
    assert found["latency_ms"]["p50"] >= 20
    assert target.busiest > 1


async def test_latency_counts_from_the_intended_time(loadtest):
    """One connection of 20 ms answers 50 a second: the tenth of ten due at once waits for nine."""
    _, found, said = await loadtest("--rate", "1000", "--connections", "1", "--count", "10")
    assert found["requests"] == 10, said
    assert found["latency_ms"]["max"] >= 190
    assert found["generator"]["late_ms"]["max"] >= 160


async def test_what_stalls_times_out_also_before_it_was_sent(loadtest):
    code, found, said = await loadtest(
        "--path", "/stall", "--rate", "20", "--connections", "1", "--count", "5",
        "--timeout", "0.3", "--max-lost", "4",
    )  # fmt: skip
    assert (code, found["outcomes"]) == (1, {"timeout": 5}), said
    assert "timeout before it could be sent" in found["details"]


async def test_answers_that_differ_are_wrong(loadtest):
    code, found, _ = await loadtest("--path", "/turns", "--compare", "--count", "6")
    assert (code, found["outcomes"]) == (0, {"ok": 3, "wrong": 3})
    assert found["lost"] == 3
    assert len(found["answers_sha256"]) == 1


async def test_bodies_are_sent_in_turn(loadtest, target, tmp_path):
    files = []
    for name in ("one", "two"):
        file = tmp_path / name
        file.write_text(name)
        files += ["--body", str(file)]
    await loadtest("--path", "/ok", *files, "--count", "4")
    assert target.seen == [b"one", b"two", b"one", b"two"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        pytest.param(["--path", "/error", "--max-lost", "0"], 1, id="too many lost"),
        pytest.param(["--path", "/full", "--max-lost", "0"], 1, id="refusals count as lost"),
        pytest.param(
            ["--path", "/full", "--max-lost", "0", "--expect-refusals"], 0, id="unless expected"
        ),
        pytest.param(
            ["--path", "/bad", "--max-lost", "0", "--expect-client-errors"], 0, id="so do 4xx"
        ),
        pytest.param(["--max-p99", "1"], 1, id="too slow"),
        pytest.param(["--path", "/ok", "--max-p99", "5000"], 0, id="fast enough"),
    ],
)
async def test_the_exit_code_judges_the_demands(loadtest, options, code):
    assert (await loadtest(*options, "--count", "3"))[0] == code


async def test_interrupted_it_reports_what_there_is(target, tmp_path):
    report, figures = tmp_path / "r.html", tmp_path / "r.json"
    files = ["--html", str(report), "--json", str(figures)]
    async with started(target, "-c", "2", "--duration", "600", *files) as process:
        await eventually(lambda: len(target.seen) >= 10)
        process.send_signal(signal.SIGINT)
        said, _ = await process.communicate()
    found = json.loads(figures.read_text())
    assert process.returncode == 0
    assert found["interrupted"]
    assert found["requests"] >= 8
    assert b"good ones a second" in said
    assert "<svg" in report.read_text()


async def test_nobody_there_is_said_in_one_line(loadtest, target):
    target.url = "127.0.0.1:1"
    code, found, said = await loadtest("--count", "1")
    assert (code, found) == (1, None)
    assert said.startswith("error: 127.0.0.1:1 cannot be reached over http")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["--rate", "1", "-c", "1"], "give one of them", id="both loops"),
        pytest.param(["--shape", "IN"], "--shape IN", id="a shape without sizes"),
        pytest.param(["--header", "x"], "--header x", id="a header without a value"),
        pytest.param(["--json", "/dev/null/x", "--count", "1"], "cannot be written", id="a file"),
    ],
)
async def test_wrong_options_are_said_in_one_line(target, options, words):
    async with started(target, "--path", "/ok", *options) as process:
        _, said = await process.communicate()
    assert process.returncode == 1
    assert words in said.decode()
    assert "Traceback" not in said.decode()


async def test_a_server_that_dies_and_returns_is_reached_again(tmp_path):
    target, file = Target(), tmp_path / "r.json"
    first = await asyncio.start_server(target.handle, "127.0.0.1", 0)
    port = first.sockets[0].getsockname()[1]
    target.url = f"127.0.0.1:{port}"
    options = ["--path", "/close", "--duration", "600", "--json", str(file)]
    async with started(target, *options) as process:
        await eventually(lambda: len(target.seen) >= 5)
        first.close()
        before = len(target.seen)
        again = await asyncio.start_server(target.handle, "127.0.0.1", port)
        await eventually(lambda: len(target.seen) >= before + 5)
        process.send_signal(signal.SIGINT)
        await process.communicate()
    again.close()
    await target.end()
    assert json.loads(file.read_text())["outcomes"]["ok"] >= 10
