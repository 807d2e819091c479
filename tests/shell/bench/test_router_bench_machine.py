"""What the bench says of processes, against a process whose cost is known."""

import os
import re
import sys
from pathlib import Path

import pytest

from tidegate_e2e.routerbench.load import PEERS
from tidegate_e2e.routerbench.machine import Bench, cpu_s, peak_bytes, reset_peak, rss_bytes, until
from tidegate_e2e.routerbench.peers import _arguments, _filled

SPIN = (
    "import time\nwhile time.process_time() < 0.3: pass\nprint('spun', flush=True)\ntime.sleep(60)"
)
EAT = "kept = bytes(64 << 20)\nprint('eaten', flush=True)\nimport time\ntime.sleep(60)"
PLACE = re.compile(r"\{[a-z]+\}")


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()


def start(bench, code):
    return bench.start("one", [sys.executable, "-c", code], 0)


def test_a_program_runs_on_its_core_and_ends_with_its_part(bench):
    with bench.part() as part:
        program = start(part, "import time; print('up', flush=True); time.sleep(60)")
        until(lambda: "up" in program.tail(), "not up", program)
        pid = program.pid
        assert os.sched_getaffinity(pid) == {0}
    assert not Path(f"/proc/{pid}").exists()


def test_cpu_of_a_process_is_counted(bench):
    program = start(bench, SPIN)
    until(lambda: "spun" in program.tail(), "not spun", program)
    assert 0.28 <= cpu_s(program.pid) <= 1.0


def test_memory_and_its_peak_are_counted(bench):
    program = start(bench, EAT)
    until(lambda: "eaten" in program.tail(), "not eaten", program)
    reset_peak(program.pid)
    assert peak_bytes(program.pid) <= rss_bytes(program.pid) + (1 << 20)
    assert rss_bytes(program.pid) < 128 << 20


def test_a_program_that_ends_is_told_with_its_last_words(bench):
    program = start(bench, "raise SystemExit('no such port')")
    with pytest.raises(RuntimeError, match="no such port"):
        until(lambda: False, "not ready", program)


@pytest.mark.parametrize("name", ["nginx.conf", "nginx-stub.conf", "haproxy.cfg"])
def test_a_configuration_has_no_place_left(name, tmp_path):
    values = {"port": 1, "servers": "server x;", "listen": "listen 2;", "answer": "ok"}
    assert not PLACE.search(_filled(name, tmp_path, **values).read_text())


@pytest.mark.parametrize("file", sorted(PEERS.glob("*.args")), ids=lambda file: file.name)
def test_a_command_line_has_no_place_left(file):
    values = {"port": 1, "grpc": 2, "spare": 3, "routes": "r", "urls": "http://h:1 http://h:2"}
    found = _arguments(file.name, **values)
    assert not any(PLACE.search(one) for one in found)
    assert "1" in found
