"""Notifications over real HTTP: signed, in order, tried again, never in anybody's way."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from tidegate_operator.adapters.webhook import Webhook
from tidegate_operator.core.notification import Delivery, Notification


class Receiver:
    """Answers with `statuses` in turn, then 200; what came is kept."""

    def __init__(self):
        self.url, self.statuses, self.came, self.hang = "", [], [], False

    async def take(self, request):
        self.came.append((dict(request.headers), await request.read()))
        if self.hang:
            await asyncio.Event().wait()
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    @property
    def ids(self):
        return [json.loads(body)["id"] for _, body in self.came]


@pytest.fixture
async def receiver():
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook", made.take)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    made.url = f"{server.make_url('/hook')}"
    yield made
    await server.close()


def event(name="e1", age_s=0.0):
    return Notification(
        id=name, reason="RolloutAborted", message="größer", namespace="ml", rollout="vision",
        revision="r2", at_s=time.time() - age_s, warning=True,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(webhook):
    task = asyncio.create_task(webhook.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition, what, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s} s for {what}")
        await asyncio.sleep(0.01)


async def test_a_notification_bears_its_id_and_the_signature_of_its_bytes(receiver, tmp_path):
    key, counted = tmp_path / "key", []
    key.write_bytes(b"secret\n")
    webhook = Webhook(receiver.url, str(key), counted.append)
    async with running(webhook):
        webhook.offer(event())
        await until(lambda: counted, "a delivery")
        key.write_bytes(b"rotated")
        webhook.offer(event("e2"))
        await until(lambda: len(counted) == 2, "another one")
    for (headers, body), secret in zip(receiver.came, [b"secret", b"rotated"], strict=True):
        expected = hmac.new(secret, body, hashlib.sha256).hexdigest()
        assert headers["X-Tidegate-Signature"] == f"sha256={expected}"
        assert headers["X-Tidegate-Event-Id"] == json.loads(body)["id"]
        assert headers["Content-Type"] == "application/json"
    assert counted == [Delivery.DELIVERED] * 2
    assert json.loads(receiver.came[0][1])["message"] == "größer"


async def test_without_a_key_it_is_sent_unsigned(receiver):
    webhook = Webhook(receiver.url, "", lambda _: None)
    async with running(webhook):
        webhook.offer(event())
        await until(lambda: receiver.came, "a delivery")
    assert "X-Tidegate-Signature" not in receiver.came[0][0]


async def test_a_key_that_cannot_be_read_sends_nothing_until_it_can(receiver, tmp_path):
    key, counted = tmp_path / "key", []
    webhook = Webhook(receiver.url, str(key), counted.append)
    async with running(webhook):
        webhook.offer(event())
        await until(lambda: counted == [Delivery.FAILED], "an attempt")
        assert receiver.came == []
        key.write_bytes(b"\n")
        await until(lambda: counted == [Delivery.FAILED] * 2, "an attempt with an empty key")
        assert receiver.came == []
        key.write_bytes(b"secret")
        await until(lambda: counted[2:] == [Delivery.DELIVERED], "a delivery")
    assert receiver.ids == ["e1"]


@pytest.mark.parametrize("status", [500, 429, 302])
async def test_a_receiver_in_trouble_gets_the_same_event_again_before_the_next(receiver, status):
    receiver.statuses, counted = [status], []
    webhook = Webhook(receiver.url, "", counted.append)
    async with running(webhook):
        webhook.offer(event("e1"))
        webhook.offer(event("e2"))
        await until(lambda: len(counted) == 3, "three attempts")
    assert receiver.ids == ["e1", "e1", "e2"]
    assert receiver.came[0][1] == receiver.came[1][1]
    assert counted == [Delivery.FAILED, Delivery.DELIVERED, Delivery.DELIVERED]


async def test_a_refused_event_holds_up_nothing(receiver):
    receiver.statuses, counted = [400], []
    webhook = Webhook(receiver.url, "", counted.append)
    async with running(webhook):
        webhook.offer(event("e1"))
        webhook.offer(event("e2"))
        await until(lambda: len(counted) == 2, "both attempts")
    assert receiver.ids == ["e1", "e2"]
    assert counted == [Delivery.REFUSED, Delivery.DELIVERED]


async def test_an_event_that_is_too_old_is_tried_once_and_given_up(caplog):
    counted = []
    secret = f"http://127.0.0.1:{unused_port()}/hook?token=hush"
    webhook = Webhook(secret, "", counted.append)
    async with running(webhook):
        webhook.offer(event(age_s=601))
        await until(lambda: len(counted) == 2, "the end of it")
    assert counted == [Delivery.FAILED, Delivery.EXPIRED]
    assert "given up after 1 attempts, ClientConnectorError" in caplog.text
    assert "hush" not in caplog.text


def test_offering_returns_at_once_and_drops_the_oldest_of_more_than_a_thousand():
    counted = []
    webhook = Webhook("http://127.0.0.1:1/never", "", counted.append)
    for number in range(1500):
        webhook.offer(event(f"n{number}"))
    assert counted == [Delivery.DROPPED] * 500


async def test_what_comes_while_the_queue_is_full_is_sent_and_the_oldest_is_not(receiver):
    counted = []
    webhook = Webhook(receiver.url, "", counted.append)
    for number in range(1001):
        webhook.offer(event(f"n{number}"))
    async with running(webhook):
        await until(lambda: len(receiver.came) >= 3, "the first of them")
    assert receiver.ids[:3] == ["n1", "n2", "n3"]


async def test_a_receiver_that_hangs_ends_at_the_deadline_and_gets_the_event_again(receiver):
    receiver.hang, counted = True, []
    webhook = Webhook(receiver.url, "", counted.append)
    async with running(webhook):
        webhook.offer(event())
        await until(lambda: receiver.came, "the request")
        began_s = time.monotonic()
        receiver.hang = False
        await until(lambda: counted, "the deadline")
        assert time.monotonic() - began_s >= 4.0
        await until(lambda: len(counted) == 2, "a delivery")
    assert counted == [Delivery.FAILED, Delivery.DELIVERED]
    assert receiver.ids == ["e1", "e1"]
