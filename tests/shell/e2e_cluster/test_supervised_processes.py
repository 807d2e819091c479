"""Programs outlive us, come back when killed, and are found and ended by pid alone."""

import os
import signal
import subprocess
import threading
import time

import pytest

from tidegate_e2e.localcluster import system

SLEEP = "/bin/sleep"


def until(probe, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not (answer := probe()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
    return answer


class Program:
    """A `sleep` whose number of seconds is its name."""

    def __init__(self, folder, seconds):
        self.pid_file = folder / "pids" / "sleep"
        self.log = folder / "logs" / "sleep.log"
        self.command = [SLEEP, seconds]

    def start(self):
        system.start(self.pid_file, self.log, self.command)

    def supervisor(self):
        return int(self.pid_file.read_text().split()[0])

    def children(self):
        found = system.processes_of(self.command)
        return [pid for pid in found if system.arguments_of(pid)[0] == SLEEP]


@pytest.fixture
def program(tmp_path):
    one = Program(tmp_path, str(10**8 + os.getpid()))
    yield one
    system.stop(one.pid_file)
    system.end_all(lambda: system.processes_of(one.command))


def test_a_started_program_runs_in_a_session_of_its_own(program):
    program.start()
    (child,) = until(program.children)
    assert os.getsid(child) == program.supervisor()
    assert system.running(program.pid_file)


def test_starting_twice_runs_it_once(program):
    program.start()
    first = until(program.children)
    program.start()
    assert program.children() == first


def test_a_killed_program_is_started_again(program):
    program.start()
    first = until(program.children)
    system.end(first)
    until(lambda: program.children() not in ([], first))
    assert system.running(program.pid_file)


def test_what_a_killed_supervisor_left_is_ended_before_the_next_start(program):
    program.start()
    orphans = until(program.children)
    os.kill(program.supervisor(), signal.SIGKILL)
    until(lambda: not system.running(program.pid_file))
    program.start()
    until(lambda: len(program.children()) == 1 and program.children() != orphans)


def test_a_lost_pid_file_does_not_make_two_supervisors(program):
    program.start()
    until(program.children)
    first = program.supervisor()
    program.pid_file.unlink()
    program.start()
    assert program.supervisor() != first
    until(lambda: len(program.children()) == 1)
    assert os.getsid(program.children()[0]) == program.supervisor()


def test_stop_ends_supervisor_and_program_and_may_be_repeated(program):
    program.start()
    until(program.children)
    began = time.monotonic()
    system.stop(program.pid_file)
    assert time.monotonic() - began < 2
    assert program.children() == []
    assert not system.running(program.pid_file)
    system.stop(program.pid_file)


def test_a_pid_that_another_process_took_over_is_not_ours(program):
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        program.pid_file.parent.mkdir()
        program.pid_file.write_text(f"{stranger.pid} 1")
        assert not system.running(program.pid_file)
        system.stop(program.pid_file)
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_is_found_by_a_whole_argument_only():
    with subprocess.Popen(["/bin/sleep", "61.125"]) as process:
        until(lambda: process.pid in system.processes_with("61.125"))
        assert process.pid not in system.processes_with("61.12")
        process.kill()


def test_a_failing_program_is_reported_with_its_last_words():
    with pytest.raises(system.CommandError, match=r"ended with 3: no such thing"):
        system.run("sh", "-c", "echo no such thing >&2; exit 3")


def test_a_hanging_program_is_reported_with_its_limit():
    with pytest.raises(system.CommandError, match="did not end within 0 s"):
        system.run("sleep", "60", limit_s=0.1)


def test_a_long_programs_lines_are_passed_on_and_its_failure_quotes_them(capsys):
    with pytest.raises(system.CommandError, match="second"):
        system.stream("sh", "-c", "echo first; echo second; exit 1")
    assert capsys.readouterr().out == "    first\n    second\n"


def test_the_second_starter_waits_for_the_first(tmp_path, capsys):
    lock, order = tmp_path / "one.lock", []

    def second():
        with system.locked(lock):
            order.append("second")

    thread = threading.Thread(target=second)
    with system.locked(lock):
        thread.start()
        until(lambda: "waiting" in capsys.readouterr().out)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
