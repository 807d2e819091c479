"""One request on its way: from its plan over every attempt to the answer's last byte.

Driven by callbacks of the client's and the worker's connection; nothing here waits. What happens
to a slot when the worker goes on alone is router.md section 8.
"""

import hashlib
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from tidegate_router.adapters.upstream import WorkerAnswer
from tidegate_router.core.answer import AnswerHead
from tidegate_router.core.cache import Hit
from tidegate_router.core.chunks import LAST, chunk
from tidegate_router.core.faults import HEAD_BYTES, Outcome, judge_http
from tidegate_router.core.head import Head, sequence_of
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.rename import Renamed, RenamedStream
from tidegate_router.core.request import Attempt, Call, Ending, Route, Step, Wait
from tidegate_router.http1 import answers, renamed, sharing
from tidegate_router.http1.abandoned import Abandoned
from tidegate_router.http1.contract import Client
from tidegate_router.http1.sharing import Absent, Share
from tidegate_router.http1.upload import Upload
from tidegate_router.http1.workers import Sink, WorkerConnection
from tidegate_router.lane import clock

if TYPE_CHECKING:
    from tidegate_router.http1.lane import FastLane

HELD_BYTES = 1024 * 1024  # of an answer: what is whole before it is passed on can be retried
_STALL_S = 300.0  # without any byte, once an answer has begun
_ABANDONED_S = 600.0
_LEFT = 499  # of a record: its client left before the answer


class Exchange(Sink):
    """One request. `upload` is its body unless `body` is."""

    __slots__ = (
        "_answer",
        "_attempt",
        "_begun_s",
        "_body",
        "_chunked",
        "_client",
        "_head",
        "_lane",
        "_named",
        "_parked",
        "_replayable",
        "_route",
        "_sent_s",
        "_share",
        "_stalled",
        "_trace",
        "_upload",
        "_worker",
        "identity",
    )  # fmt: skip

    def __init__(
        self,
        lane: "FastLane",
        client: Client,
        head: Head,
        body: bytes,
        upload: Upload | None,
        *,
        replayable: bool = True,
    ) -> None:
        self._lane, self._client, self._head = lane, client, head
        self._body, self._upload = body, upload
        self._replayable = replayable and upload is None
        self.identity = head.request_id or lane.new_identity()
        self._route: Route | None = None
        self._attempt: Attempt | None = None
        self._worker: WorkerConnection | None = None
        self._answer: AnswerHead | None = None  # that has begun to come in pieces
        self._begun_s = 0.0  # when its first byte went to the client; 0: not yet
        self._named: RenamedStream | None = None
        self._trace = lane.trace(head, self.identity)
        self._share: Share | None = None  # with equal requests, where answers are cached
        self._chunked = self._parked = self._stalled = False
        self._sent_s = 0.0

    def start(self) -> None:
        """Plan and send."""
        dispatcher, ask = self._lane.dispatcher, self._head.ask
        if not self._replayable:
            ask = replace(ask, replayable=False)
        elif dispatcher.poison.anyone and self._body:
            ask = replace(ask, body_hash=_digest(self._body))
        if self._body and (sequence := sequence_of(self._head, self._body)):
            ask = replace(ask, sequence=sequence)
        now_s = clock()
        route = dispatcher.plan(ask, now_s)
        if isinstance(route, Refusal):
            self._refuse(route)
            return
        self._route = route
        route.size_bytes = len(self._body)
        if route.cache_ttl_s and self._shared(route):
            return
        self._advance(route, now_s)

    def _shared(self, route: Route) -> bool:
        """Whether memory, or the answer to an equal request, is this one's answer."""
        cached = self._lane.slow.cached
        found = sharing.look(cached, route, self._head, self._body, self._landed)
        if isinstance(found, Hit):
            self._repeat(route, found.answer, "hit", found.age_s)
            return True
        self._share = found
        if found is None or not found.follows:
            return False
        self._client.set_due(inf)
        return True

    def _landed(self, answer: WorkerAnswer | None) -> None:
        """Called from within the leader's exchange: go on afterwards."""
        self._lane.loop.call_soon(self._go_on, answer)

    def _go_on(self, answer: WorkerAnswer | None) -> None:
        route, self._share = self._route, None
        if route is not None and answer is not None:
            self._repeat(route, answer, "coalesced", 0.0)
        elif route is not None:
            self._advance(route, clock())

    def _repeat(self, route: Route, answer: WorkerAnswer, how: str, age_s: float) -> None:
        self._finish(route, answer.status, clock())
        head = sharing.repeated(route, answer, how, age_s)
        self._client.respond(answers.own(head + self._client.lines(), self.identity, answer.body))

    def client_left(self) -> None:
        """Nobody listens any more: the slot is freed when the worker stops."""
        route, attempt, now_s = self._route, self._attempt, clock()
        if route is None:
            return
        if self._share is not None and self._share.needed:
            self._stay_for_others(attempt)
            return
        if self._parked:
            self._parked = False
            self._lane.dispatcher.abandon(route)
        elif attempt is not None:
            self._let_go(route, attempt, now_s)
            ending = self._ending(Outcome.CANCELLED, now_s)
            self._lane.dispatcher.settle(route, attempt, ending, now_s)
        if self._share is not None:
            self._share.end()
        self._lane.record(route, self.identity, self._trace, _LEFT)
        self._lane.dispatcher.finish(route, now_s)
        self._route = None

    def _stay_for_others(self, attempt: Attempt | None) -> None:
        self._client = Absent(self._lane.wheel, self)
        if attempt is None:
            self._lane.loop.call_soon(self._ask_again)
        else:
            self._client.set_due(attempt.started_s + attempt.timeout_s)

    def on_due(self, now_s: float) -> None:
        """The time is over for what is waited for now."""
        route, attempt = self._route, self._attempt
        if route is None:
            return
        if self._parked:
            self._ask_again()
        elif attempt is None:
            return
        elif self._begun_s:
            whose = Outcome.CANCELLED if self._stalled else Outcome.TIMEOUT
            self._cut(route, attempt, whose, now_s)
        elif self._worker is None:
            self._attempt = None
            self._lane.dispatcher.release(attempt)
            self._settle(route, attempt, Outcome.UNREACHABLE, now_s, "no connection in time")
        elif self._upload is not None and self._upload.waits_for_client:
            self.refuse_body(self._lane.late_body())
        else:
            self._let_go(route, attempt, now_s)
            self._settle(route, attempt, Outcome.TIMEOUT, now_s)

    def refuse_body(self, refusal: Refusal) -> None:
        """The body that is on its way is the client's fault."""
        route, attempt, now_s = self._route, self._attempt, clock()
        if route is None:
            return
        if self._begun_s and attempt is not None:
            self._cut(route, attempt, Outcome.CANCELLED, now_s)
            return
        if self._parked:
            self._parked = False
            self._lane.dispatcher.abandon(route)
        elif attempt is not None:
            self._let_go(route, attempt, now_s)
            ending = self._ending(Outcome.CANCELLED, now_s)
            self._lane.dispatcher.settle(route, attempt, ending, now_s)
        self._refuse(refusal)

    def pause(self) -> None:
        """The client does not keep up with the answer."""
        self._stalled = True
        if self._worker is not None:
            self._worker.pause()

    def resume(self) -> None:
        """It does again."""
        self._stalled = False
        if self._worker is not None:
            self._worker.resume()

    def pause_upload(self) -> None:
        """The worker does not keep up with the body."""
        if self._upload is not None:
            self._upload.pause()

    def resume_upload(self) -> None:
        """It does again."""
        if self._upload is not None:
            self._upload.resume()

    def held_bytes(self, answer: AnswerHead) -> int:
        """Hold what can still be retried, and what is renamed as a whole."""
        attempt, route = self._attempt, self._route
        if route is None or attempt is None or answer.status >= 400:
            return HELD_BYTES
        if route.ask.call is Call.STREAM:
            return 0
        return self._lane.max_body_bytes if attempt.loaded_as else HELD_BYTES

    def answered(self, answer: AnswerHead, body: bytes) -> None:
        """Judge a whole answer; pass it on or try again."""
        route, attempt, now_s = self._route, self._attempt, clock()
        if route is None or attempt is None:
            return
        self._worker = self._attempt = None
        if attempt.loaded_as:
            answer, body = renamed.answer(attempt, answer, body)
        outcome = Outcome.OK
        if answer.status >= 400:
            outcome = judge_http(answer.status, body[:HEAD_BYTES])
        ending = Ending(outcome=outcome, latency_s=now_s - self._sent_s)
        dispatcher = self._lane.dispatcher
        step = dispatcher.settle(route, attempt, ending, now_s)
        dispatcher.release(attempt)
        if step is not Step.FORWARD:
            self._after(route, step, now_s)
            return
        if self._share is not None:
            self._share.keep(route, answer, body)
        self._finish(route, answer.status, now_s)
        if outcome is Outcome.OK and self._lane.mirrors(route):
            self._lane.copy(route, attempt, self._head, self.identity, self._body, answer, body)
        lines = self._marks(route, attempt) + self._client.lines()
        self._client.respond(answers.whole(answer, body, lines))

    def opened(self, answer: AnswerHead) -> None:
        """Remember whose pieces come; the client's head leaves with the first of them."""
        self._answer = answer

    def piece(self, data: bytes) -> None:
        """Pass on."""
        route, attempt, answer = self._route, self._attempt, self._answer
        if route is None or attempt is None or answer is None:
            return
        if not self._begun_s:
            self._begin(route, attempt, answer)
        if self._named is not None:
            data = self._named.feed(data)
        self._pass_on(data)
        now_s = clock()
        self._lane.dispatcher.heard(attempt, now_s)
        self._client.set_due(clock() + _STALL_S)

    def ended(self) -> None:
        """Complete the client's answer."""
        route, attempt, answer, now_s = self._route, self._attempt, self._answer, clock()
        if route is None or attempt is None or answer is None:
            return
        if not self._begun_s:
            self.answered(answer, b"")
            return
        if self._worker is not None and not self._worker.transport.is_closing():
            self.resume()  # its last piece may have paused it, and the next request reads from it
        self._worker = self._attempt = None
        if self._named is not None:
            self._pass_on(self._named.end())
        outcome = judge_http(answer.status)
        until_s = self._begun_s if route.ask.call is Call.STREAM else now_s
        ending = Ending(outcome=outcome, latency_s=until_s - self._sent_s)
        self._lane.dispatcher.settle(route, attempt, ending, now_s)
        self._lane.dispatcher.release(attempt)
        self._finish(route, answer.status, now_s)
        if outcome is Outcome.OK and self._lane.mirrors(route):
            self._lane.slow.mirror.skip(route, attempt)
        if self._chunked:
            self._client.write(LAST)
        self._client.complete()

    def broken(self, detail: str) -> None:
        """Try elsewhere, unless the client has got a byte already."""
        route, attempt, now_s = self._route, self._attempt, clock()
        if route is None or attempt is None:
            return
        self._worker = None
        if self._begun_s:
            self._cut(route, attempt, Outcome.LOST, now_s, detail)
            return
        self._attempt = None
        self._lane.dispatcher.release(attempt)
        if not route.ask.body_hash and self._body:
            route.ask = replace(route.ask, body_hash=_digest(self._body))
        self._settle(route, attempt, Outcome.LOST, now_s, detail)

    def _advance(self, route: Route, now_s: float) -> None:
        found = self._lane.dispatcher.next_attempt(route, now_s)
        if isinstance(found, Attempt):
            self._send(route, found, now_s)
        elif isinstance(found, Wait):
            self._parked = True
            self._lane.dispatcher.park(route, self._wake)
            self._client.set_due(found.until_s)
        else:
            self._refuse(found)

    def _wake(self) -> None:
        """Called from within the dispatcher: ask it again afterwards."""
        self._lane.loop.call_soon(self._ask_again)

    def _ask_again(self) -> None:
        route = self._route
        if self._parked and route is not None:
            self._parked = False
            self._lane.dispatcher.unpark(route)
            self._advance(route, clock())

    def _send(self, route: Route, attempt: Attempt, now_s: float) -> None:
        self._attempt, self._sent_s = attempt, now_s
        if route.attempts == 1:
            self._lane.count_wait(route, now_s)
        self._client.set_due(now_s + attempt.timeout_s)
        place = self._lane.workers.place(attempt.address, attempt.http_port)
        worker = place.take()
        if worker is not None:
            self._write(worker, attempt)
            return
        place.connect(
            lambda made: self._connected(attempt, made),
            lambda detail: self._unreachable(attempt, detail),
        )

    def _connected(self, attempt: Attempt, worker: WorkerConnection) -> None:
        if self._attempt is not attempt:
            worker.keep()
            return
        self._sent_s = clock()
        self._write(worker, attempt)

    def _unreachable(self, attempt: Attempt, detail: str) -> None:
        route = self._route
        if self._attempt is attempt and route is not None:
            self._attempt = None
            self._lane.dispatcher.release(attempt)
            self._settle(route, attempt, Outcome.UNREACHABLE, clock(), detail)

    def _write(self, worker: WorkerConnection, attempt: Attempt) -> None:
        self._worker, head = worker, self._head
        target, block = head.target, head.block
        if attempt.loaded_as:
            target, block = renamed.request(attempt, head)
        upload = self._upload
        state = head.tracestate if self._trace.given else b""
        lines = b"%b %b HTTP/1.1\r\nHost: %b\r\n%bx-request-id: %b\r\ntraceparent: %b\r\n%b" % (
            head.method, target, worker.host, block, self.identity,
            self._trace.header.encode(), state,
        )  # fmt: skip
        if upload is not None:
            worker.ask(self, b"%b%b\r\n" % (lines, upload.framing), sending=True)
            self._client.expects()
            upload.attach(worker)
        elif head.method == b"GET":
            worker.ask(self, lines + b"\r\n")
        else:
            length = len(self._body)
            worker.ask(self, b"%bContent-Length: %d\r\n\r\n%b" % (lines, length, self._body))

    def _begin(self, route: Route, attempt: Attempt, answer: AnswerHead) -> None:
        """Send the client's head: from here on nothing is tried again."""
        route.answered = True
        self._begun_s = clock()
        if self._share is not None:
            self._share.end()  # what is larger than is held is not kept either
        if attempt.loaded_as:
            self._named = RenamedStream(Renamed(attempt.model, attempt.loaded_as))
        framing = b""
        if answer.length >= 0 and self._named is None:
            framing = b"Content-Length: %d\r\n" % answer.length
        elif self._head.http11:
            framing, self._chunked = answers.CHUNKED, True
        else:
            self._client.must_close()
        lines = self._marks(route, attempt) + self._client.lines()
        self._client.write(b"%b%b%b\r\n" % (answer.block, framing, lines))

    def _pass_on(self, data: bytes) -> None:
        if data:
            self._client.write(chunk(data) if self._chunked else data)

    def _cut(
        self, route: Route, attempt: Attempt, outcome: Outcome, now_s: float, detail: str = ""
    ) -> None:
        """Break an answer off that has begun."""
        worker, self._worker, self._attempt = self._worker, None, None
        if worker is not None:
            worker.close()
        ending = self._ending(outcome, now_s, detail)
        self._lane.dispatcher.settle(route, attempt, ending, now_s)
        self._lane.dispatcher.release(attempt)
        self._finish(route, self._answer.status if self._answer else 0, now_s)
        self._client.abort()

    def _settle(
        self, route: Route, attempt: Attempt, outcome: Outcome, now_s: float, detail: str = ""
    ) -> None:
        """Learn from an attempt without an answer, and go on."""
        self._attempt = None
        ending = self._ending(outcome, now_s, detail)
        self._after(route, self._lane.dispatcher.settle(route, attempt, ending, now_s), now_s)

    def _after(self, route: Route, step: Step | Refusal, now_s: float) -> None:
        if isinstance(step, Refusal):
            self._refuse(step)
            return
        self._answer = None
        self._lane.count_retry(route)
        self._advance(route, now_s)

    def _let_go(self, route: Route, attempt: Attempt, now_s: float) -> None:
        """Leave the worker alone with an attempt; it cannot be told to stop."""
        worker, self._worker, self._attempt = self._worker, None, None
        dispatcher = self._lane.dispatcher
        if worker is None or route.ask.call is Call.STREAM:
            if worker is not None:
                worker.close()
            dispatcher.release(attempt)
        elif worker.unsent():
            worker.close()
            p95_s = self._lane.p95_s(attempt, now_s)
            self._lane.loop.call_later(p95_s, dispatcher.release, attempt)
        else:
            self._lane.telemetry.abandoned.inc()
            worker.sink = Abandoned(dispatcher, attempt)
            worker.resume()
            worker.set_due(now_s + _ABANDONED_S)

    def _refuse(self, refusal: Refusal) -> None:
        route = self._route
        if route is not None:
            self._finish(route, refusal.http_status, clock(), refusal.reason.value)
        self._lane.refuse(self._client, refusal, self.identity, route)

    def _finish(self, route: Route, status: int, now_s: float, reason: str = "") -> None:
        self._route = None
        if self._share is not None:
            self._share.end()
        self._lane.dispatcher.finish(route, now_s)
        self._lane.count(route, status, now_s)
        self._lane.record(route, self.identity, self._trace, status, reason)

    def _marks(self, route: Route, attempt: Attempt) -> bytes:
        lines = b"%b%b\r\n%b" % (
            self._lane.marks(attempt, route.attempts), self.identity,
            answers.timing(route, clock() - self._sent_s if self._begun_s else 0.0, clock()),
        )  # fmt: skip
        if self._share is not None:
            lines += sharing.MISS
        if self._head.explain:
            lines += answers.explained(self._lane.dispatcher.explain(route, attempt))
        return lines

    def _ending(self, outcome: Outcome, now_s: float, detail: str = "") -> Ending:
        until_s = self._begun_s or now_s
        return Ending(outcome=outcome, latency_s=max(0.0, until_s - self._sent_s), detail=detail)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
