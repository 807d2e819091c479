"""Random clients and random workers: every answer is its request's own, and nothing is left taken.

Seeds are fixed; what happens in which order is the event loop's.
"""

import asyncio
import random

import pytest

CLIENTS, REQUESTS = 12, 8
OK = b"HTTP/1.1 200 OK\r\n"


def framed(body, draw):
    """Return a right answer in one of the framings."""
    match draw.randrange(3):
        case 0:
            return OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        case 1:
            return OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
                len(body),
                body,
            )
        case _:
            interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
            return interim + OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


async def misbehave(writer, body, draw):
    """Answer rightly, late, in pieces or not at all; return whether the connection goes on."""
    answer, how = framed(body, draw), draw.random()
    if how < 0.02:
        return False
    if how < 0.04:
        writer.write(answer[: draw.randrange(1, len(answer))])
        return False
    if how < 0.08:
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    elif how < 0.12:
        writer.write(answer + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    elif how < 0.4:
        for at in range(0, len(answer), 11):
            writer.write(answer[at : at + 11])
            await asyncio.sleep(0)
    elif how < 0.6:
        await asyncio.sleep(draw.random() * 0.02)
        writer.write(answer)
    else:
        writer.write(answer)
    return True


class RawWorker:
    """Reads requests with a length and misbehaves."""

    def __init__(self, name, draw):
        self.name, self.draw, self.port = name, draw, 0
        self.tasks = set()

    async def start(self):
        self.server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self):
        self.server.close()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _talk(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                if not await misbehave(writer, await reader.readexactly(length), self.draw):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.tasks.discard(asyncio.current_task())
            writer.close()


async def one_client(router, number, draw, found):
    for at in range(REQUESTS):
        body = b"%d/%d " % (number, at) + b"x" * draw.choice([0, 10, 10, 5000, 5000, 150_000])
        head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        raw = head % len(body) + body
        async with router.connect() as (reader, writer):
            how = draw.random()
            if how < 0.2:  # leaves in the middle of its request
                writer.write(raw[: draw.randrange(len(raw))])
            elif how < 0.4:  # leaves before its answer
                writer.write(raw)
                await writer.drain()
                await asyncio.sleep(draw.random() * 0.01)
            else:
                for _ in range(draw.randrange(1, 4)):
                    writer.write(raw)
                    found.append((body, await answer_of(reader)))
                    if found[-1][1][0] != 200:
                        break


async def answer_of(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    named = dict(line.split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(named["content-length"]))
    return int(head[0].split()[1]), named.get("x-tidegate-dropped-reason"), body


@pytest.fixture
async def start_workers():
    started = []

    async def start(draw):
        for number in range(4):
            started.append(RawWorker(f"w{number}", draw))
            await started[-1].start()
        return started

    yield start
    for worker in started:
        await worker.stop()


@pytest.mark.parametrize("seed", range(3))
async def test_every_answer_is_its_requests_own_and_nothing_is_left(
    start_router, start_workers, kit, seed
):
    draw = random.Random(seed)
    workers = await start_workers(draw)
    router, found = await start_router(max_body_bytes=1024 * 1024), []
    policy = {"retry": {"maxBodyBytes": 100_000, "budgetPercent": 100}, "timeoutSeconds": 5}
    router.serve(kit.table(*[kit.routed(one, limit=6) for one in workers], policy=policy))
    await asyncio.gather(*[one_client(router, n, draw, found) for n in range(CLIENTS)])
    assert len(found) > CLIENTS
    for body, (status, reason, got) in found:
        assert (status == 200 and got == body) or reason, (status, reason, got[:50])
    served = sum(status == 200 for _, (status, _, _) in found)
    assert served > 0.8 * len(found)
    await kit.eventually(lambda: not router.fast.connections)
    await kit.eventually(lambda: sum(router.in_flight(one.name) for one in workers) == 0)
    [view] = router.dispatcher.pools.values()
    assert view.in_flight == 0
    assert router.dispatcher.holds.waiting() == {}
