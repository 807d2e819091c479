"""The record of a request: what is written, and that writing never waits."""

import asyncio
import json
import os
import select

import pytest

from tidegate_router.records import MAX_WAITING_BYTES, Records
from tidegate_router.telemetry import Telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331"


class Pipe:
    """A pipe that records are written into, read when a test wants."""

    def __init__(self, ratio=0.0):
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.telemetry = Telemetry()
        self.records = Records(self.telemetry.records_dropped, ratio, self.write_end)

    def read(self):
        """Return the lines that are in the pipe."""
        data = b""
        while select.select([self.read_end], [], [], 0)[0]:
            piece = os.read(self.read_end, 1 << 20)
            if not piece:
                break
            data += piece
        return [json.loads(line) for line in data.splitlines()]

    @property
    def dropped(self):
        return self.telemetry.registry.get_sample_value("tidegate_router_records_dropped_total")

    def close(self):
        os.close(self.read_end)
        os.close(self.write_end)


@pytest.fixture
def start_pipe():
    pipes = []

    def start(**more):
        pipes.append(Pipe(**more))
        return pipes[-1]

    yield start
    for pipe in pipes:
        pipe.close()


@pytest.fixture
def pipe(start_pipe, router):
    pipe = start_pipe()
    router.lane.records = pipe.records
    return pipe


@pytest.fixture
async def worker(start_worker):
    return await start_worker("w1")


@pytest.fixture
def served(router, worker, kit):
    router.serve(kit.table(kit.routed(worker)))
    return router


async def written(pipe, kit):
    """Return the lines, once there is one."""
    lines = []

    def some():
        lines.extend(pipe.read())
        return lines

    return await kit.eventually(some)


async def test_a_failure_leaves_a_record(served, worker, kit, pipe):
    worker.answer = kit.answering(500, b'{"error":"model failed"}')
    answer, _ = await served.infer(headers={"x-request-id": "id-1"})
    assert answer.status == 500
    [line] = await written(pipe, kit)
    assert line["id"] == "id-1"
    assert (line["status"], line["outcome"]) == ("500", "modelError")
    assert (line["pool"], line["model"], line["revision"]) == ("ml/vision", "m", "r1")
    assert (line["worker"], line["attempts"], line["protocol"]) == ("w1", 1, "http")
    assert line["total_ms"] >= line["upstream_ms"] > 0
    assert len(line["trace"]) == 32


async def test_a_refusal_leaves_a_record_with_its_reason(router, kit, pipe):
    await router.infer(model="none")
    [line] = await written(pipe, kit)
    assert (line["status"], line["outcome"], line["reason"]) == ("404", "refused", "unknown-model")


async def test_a_success_leaves_one_only_if_it_is_sampled(served, kit, pipe, start_pipe):
    await served.infer()
    await served.ask("GET", "/healthz")
    assert pipe.read() == []
    served.lane.records = (every := start_pipe(ratio=1.0)).records
    await served.infer()
    [line] = await written(every, kit)
    assert (line["outcome"], line["status"]) == ("ok", "200")
    await served.ask("GET", "/readyz")
    await asyncio.sleep(0)
    assert every.read() == []  # a probe is no request


async def test_a_sampled_trace_leaves_a_record_and_goes_on(served, worker, kit, pipe):
    headers = {"traceparent": f"{PARENT}-01", "tracestate": "a=1"}
    await served.infer(headers=headers)
    [line] = await written(pipe, kit)
    assert line["trace"] == TRACE
    [seen] = worker.seen
    [parent] = seen.header("traceparent")
    assert parent.startswith(f"00-{TRACE}-")
    assert not parent.startswith(PARENT)
    assert parent.endswith("-01")
    assert seen.header("tracestate") == ["a=1"]


async def test_an_invalid_trace_is_replaced_and_its_state_dropped(served, worker, pipe):
    await served.infer(headers={"traceparent": "00-0-0-01", "tracestate": "a=1"})
    [parent] = worker.seen[0].header("traceparent")
    assert len(parent) == 55
    assert worker.seen[0].header("tracestate") == []
    assert pipe.read() == []


async def test_every_answer_of_a_worker_says_where_its_time_went(served):
    answer, _ = await served.infer()
    parts = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    assert set(parts) == {"queue", "upstream", "router"}
    assert all(float(value) >= 0 for value in parts.values())
    streamed, _ = await served.ask("POST", "/v2/models/m/generate_stream", data=b"{}")
    assert "upstream;dur=" in streamed.headers["Server-Timing"]


async def test_a_blocked_output_costs_no_wait_and_what_is_lost_is_counted(start_pipe, kit):
    pipe = start_pipe()
    for number in range(MAX_WAITING_BYTES // 20):
        pipe.records.note(f"id-{number}", None, "404", "http", "unknown-model")
        if number % 100 == 0:
            await asyncio.sleep(0)
    assert pipe.dropped > 0
    lines = []

    def all_came():
        lines.extend(pipe.read())
        return not pipe.records.waiting

    await kit.eventually(all_came)
    lines.extend(pipe.read())
    assert len(lines) + pipe.dropped == MAX_WAITING_BYTES // 20
    assert [line["id"] for line in lines] == [f"id-{n}" for n in range(len(lines))]


async def test_an_output_that_is_gone_is_counted(start_pipe, kit):
    pipe = start_pipe()
    os.close(pipe.read_end)
    pipe.read_end = os.dup(pipe.write_end)
    pipe.records.note("id-1", None, "404", "http", "unknown-model")
    await kit.eventually(lambda: pipe.dropped == 1)


async def test_a_process_writes_its_records_beside_its_log(start_process, tmp_path, kit, worker):
    table = kit.table(kit.routed(worker)).to_wire()
    routes = tmp_path / "routes.json"
    routes.write_text(json.dumps([table]))
    process = await start_process(ROUTES_FILE=routes, ACCESS_LOG_SAMPLE=1)
    await process.until_ready()
    answer, _ = await process.infer()
    assert answer.status == 200
    await kit.eventually(lambda: '"msg":"request"' in process.log())
    lines = [json.loads(line) for line in process.log().splitlines()]
    [line] = [line for line in lines if line["msg"] == "request"]
    assert line["id"] == answer.headers["x-request-id"]
