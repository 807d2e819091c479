"""A load generator as a process of its own: classifies files, and writes down every answer.

`python -m tidegate_e2e.loadgen --url URL --pool NAMESPACE/NAME --log FILE` runs until SIGTERM.
The log has a JSON object a line, written as soon as the answer is there:
{"at": epoch seconds of its end, "seconds": how long, "outcome": "ok" or what else, "revision"}.
"""

import argparse
import asyncio
import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import aiohttp

from tidegate_api.names import HEADER_POOL, HEADER_REVISION

ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 20.0
_WORDS = 200  # of an answer that is none
_FILES = 50
_BYTES = 8192  # of each file: more would measure JSON


def bodies(root: Path = ROOT) -> Sequence[str]:
    """Return inference requests for text files of a folder."""
    files = [path for path in sorted(root.glob("*/*/*.py")) if path.is_file()][:_FILES]
    return [_body(path.read_text(errors="replace")[:_BYTES]) for path in files]


def _body(content: str) -> str:
    tensor = {"name": "CONTENT", "datatype": "BYTES", "shape": [1, 1], "data": [content]}
    return json.dumps({"inputs": [tensor]})


def judge(status: int, text: str) -> str:
    """Return "ok" for an answer that holds a label, else what it is."""
    if status != 200:
        return f"{status} {text[:_WORDS]}"
    try:
        outputs = {item["name"]: item["data"] for item in json.loads(text)["outputs"]}
    except (ValueError, KeyError, TypeError):
        return f"no answer: {text[:_WORDS]}"
    return "ok" if outputs.get("LABEL") else f"no label: {text[:_WORDS]}"


class Generator:
    """A closed loop of clients on one log."""

    def __init__(self, url: str, pool: str, log: TextIO) -> None:
        self._url = url
        self._headers = {HEADER_POOL: pool, "content-type": "application/json"}
        self._log = log
        self._bodies: Iterator[str] = itertools.cycle(bodies())
        self.stopped = asyncio.Event()

    async def run(self, clients: int, pause_s: float) -> None:
        """Send from `clients` at once, each `pause_s` after its last answer, until stopped."""
        limits = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=limits) as session, asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(session, pause_s))

    async def _client(self, session: aiohttp.ClientSession, pause_s: float) -> None:
        while not self.stopped.is_set():
            began_s = time.monotonic()
            outcome, revision = await self._ask(session)
            self._note(outcome, revision, time.monotonic() - began_s)
            await asyncio.sleep(pause_s)

    async def _ask(self, session: aiohttp.ClientSession) -> tuple[str, str]:
        body = next(self._bodies)
        try:
            async with session.post(self._url, data=body, headers=self._headers) as answer:
                revision = answer.headers.get(HEADER_REVISION, "")
                return judge(answer.status, await answer.text()), revision
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return repr(error), ""

    def _note(self, outcome: str, revision: str, seconds: float) -> None:
        entry = {
            "at": round(time.time(), 3),
            "seconds": round(seconds, 4),
            "outcome": outcome,
            "revision": revision,
        }
        self._log.write(json.dumps(entry) + "\n")
        self._log.flush()


async def _run(arguments: argparse.Namespace, log: TextIO) -> None:
    generator = Generator(arguments.url, arguments.pool, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, generator.stopped.set)
    await generator.run(arguments.clients, arguments.pause)


def main() -> int:
    """Send until told to end."""
    parser = argparse.ArgumentParser(prog="python -m tidegate_e2e.loadgen")
    parser.add_argument("--url", required=True, help="where to send inference requests")
    parser.add_argument("--pool", required=True, help="NAMESPACE/NAME")
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two requests")
    arguments = parser.parse_args()
    with arguments.log.open("w") as log:
        asyncio.run(_run(arguments, log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
