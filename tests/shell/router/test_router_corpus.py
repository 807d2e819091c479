"""Malformed and ambiguous requests: a worker sees exactly what the corpus says, 0 or 1 request.

The worker is an aiohttp server: another parser than the router's, which would count what a head
or a body smuggles. A probe behind each entry must get its own answer.
"""

import asyncio
import json
from pathlib import Path

import pytest

CORPUS = Path(__file__).with_name("corpus") / "requests.jsonl"
ENTRIES = [json.loads(line) for line in CORPUS.read_text().splitlines()]
PIECE_BYTES = 7
GROUPS = 16
ANSWER_S = 3.0


@pytest.fixture
async def scene(router, start_worker, kit):
    worker = await start_worker("w1")

    async def echo(request, body):
        return await kit.answering(200, body)(request, body)

    worker.answer = echo
    router.serve(kit.table(kit.routed(worker)))
    return router, worker


async def talk(router, entry, *, in_pieces):
    """Send an entry; return the statuses that came until the last expected one, or the end."""
    raw, statuses = entry["raw"].encode("latin-1"), []
    async with router.connect() as (reader, writer):
        if in_pieces and len(raw) < 4096:
            for at in range(0, len(raw), PIECE_BYTES):
                writer.write(raw[at : at + PIECE_BYTES])
                await asyncio.sleep(0)
        else:
            writer.write(raw)
        if not entry["status"]:
            writer.write_eof()
            return [await reader.read()]
        while not statuses or statuses == [100]:
            line = await reader.readuntil(b"\r\n")
            statuses.append(int(line.split()[1]))
            await reader.readuntil(b"\r\n\r\n")
    return statuses


def test_the_corpus_is_large_and_its_names_are_sentences():
    assert len(ENTRIES) >= 200
    assert len({entry["name"] for entry in ENTRIES}) == len(ENTRIES)
    assert {entry["worker"] for entry in ENTRIES} == {0, 1}


@pytest.mark.parametrize("in_pieces", [False, True], ids=["at-once", "in-pieces"])
@pytest.mark.parametrize("group", range(GROUPS))
async def test_a_worker_sees_exactly_what_was_meant(scene, group, in_pieces):
    router, worker = scene
    wrong = []
    for number, entry in enumerate(ENTRIES[group::GROUPS]):
        worker.seen.clear()
        try:
            async with asyncio.timeout(ANSWER_S):
                statuses = await talk(router, entry, in_pieces=in_pieces)
        except TimeoutError:
            statuses = ["none"]
        probe = b"probe %d" % number
        _, body = await router.infer(probe)
        seen = [one.body for one in worker.seen]
        expected = set(entry["status"]) or {b""}
        if body != probe or seen[-1:] != [probe] or len(seen) - 1 != entry["worker"]:
            wrong.append((entry["name"], "seen", seen))
        if not set(statuses) <= expected:
            wrong.append((entry["name"], "answered", statuses))
    assert wrong == []
