"""What reading one request head costs, by how much of it was seen before (docs/adr/0019).

`python tests/bench/bench_heads.py [HEADS]`. Writes .bench/heads.json and ends with one key=value
line: CPU microseconds per head, the best of five.
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import httptools

from tidegate_router.core.head import Head, HeadBook, parse

OUTPUT = Path(__file__).parents[2] / ".bench/heads.json"
HEAD = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: router:8000\r\nUser-Agent: python-client/2.60\r\n"
    b"Accept: */*\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n"
    b"Content-Type: application/json\r\nContent-Length: 300\r\nx-tidegate-pool: ml/vision\r\n"
    b"x-request-id: %d\r\n\r\n"
)


class Callbacks:
    """What httptools calls; it only stores, and checks no rule."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store."""
        self.headers.append((name, value))


def by_httptools(raw: bytes) -> None:
    """Parse with llhttp."""
    httptools.HttpRequestParser(Callbacks()).feed_data(raw)


def best_us(read: Callable[[], object], heads: int) -> float:
    """Return CPU microseconds per head, the best of five rounds."""
    rounds = []
    for _ in range(5):
        began_s = time.process_time()
        for _ in range(heads):
            read()
        rounds.append((time.process_time() - began_s) / heads * 1e6)
    return round(min(rounds), 2)


def main(heads: int) -> int:
    """Measure each way, once it is known that the head is understood."""
    book, number, same = HeadBook(), count(), HEAD % 1
    if not isinstance(parse(same), Head):
        raise SystemExit("the head of this bench is refused")
    found = {
        "seenBeforeUs": best_us(lambda: book.read(same), heads),
        "oneLineDiffersUs": best_us(lambda: book.read(HEAD % next(number)), heads),
        "nothingRememberedUs": best_us(lambda: parse(same), heads),
        "httptoolsWithoutRulesUs": best_us(lambda: by_httptools(same), heads),
    }
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n")
    print(" ".join(f"{key}={value}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 5000))
