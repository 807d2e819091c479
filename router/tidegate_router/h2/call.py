"""One RPC of a client: gathered, decided on by the dispatcher, relayed.

A message up to the pool's retry.maxBodyBytes is read whole and may be sent again. A larger one is
read until its model's name is known, then goes on as it comes: memory is bounded by the windows.
A stream is kept, up to KEPT_BYTES, until its first answer: until then it may move.

Everything happens within callbacks of connections and of one timer: no task, no future.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from tidegate_api.names import DroppedReason
from tidegate_router.core import protowire
from tidegate_router.core.faults import Outcome, judge_grpc
from tidegate_router.core.h2 import messages, status
from tidegate_router.core.h2.frames import Code
from tidegate_router.core.h2.heads import ClientHead
from tidegate_router.core.h2.hpack import literal
from tidegate_router.core.h2.link import Stream
from tidegate_router.core.h2.messages import PREFIX_BYTES, MessageError, unpack_prefix
from tidegate_router.core.path import pool_name
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Call, Ending, Route, Step, Wait
from tidegate_router.h2.attempt import Try
from tidegate_router.h2.respond import error_trailers, send_answer, send_no_grpc, send_trailers
from tidegate_router.lane import clock

if TYPE_CHECKING:
    from tidegate_router.h2.lane import GrpcLane
    from tidegate_router.h2.methods import Method

KEPT_BYTES = 1024 * 1024
HEAD_BYTES = protowire.SCAN_BYTES + 512  # a name that begins within SCAN_BYTES is in it
_COMMIT_BYTES = 256 * 1024  # of an answer: beyond it the client is told who answers
_GATHER_S = 60.0
_ROUNDING_S = 0.02  # between a client's deadline and the worker's
_UNKNOWN_LENGTH = 1 << 40


class Rpc(Stream):
    """The client's stream of one RPC."""

    __slots__ = ("_committed", "_done", "_held", "_held_bytes", "_keeping", "_left_bytes", "_parked",
                 "_parts", "_parts_bytes", "_prepaid_bytes", "_size_bytes", "_started_s", "client",
                 "ended_there", "identity", "lane", "method", "route", "tick", "trying")  # fmt: skip

    def __init__(self, lane: GrpcLane, client: ClientHead, method: Method) -> None:
        super().__init__()
        self.lane, self.client, self.method = lane, client, method
        self.identity = client.identity or lane.next_identity()
        self._started_s = clock()
        self.route: Route | None = None
        self.trying: Try | None = None
        self.tick = 0
        self.ended_there = False  # the client has sent everything
        self._held: list[bytes] = []
        self._held_bytes = self._prepaid_bytes = 0  # prepaid: credited, but not with a worker yet
        self._size_bytes = -1  # of the first message, with its prefix
        self._left_bytes = -1  # of a message that goes on as it comes
        self._keeping = True
        self._parked = self._committed = self._done = False
        self._parts: list[bytes] = []  # of the answer
        self._parts_bytes = 0

    def begin(self, *, end: bool) -> None:
        """Refuse what needs no message to be refused."""
        if end or not self.client.usable or self.method.refusal is not None:
            self._begin_oddly(end=end)

    def _begin_oddly(self, *, end: bool) -> None:
        client = self.client
        if client.malformed or (end and client.content_bytes):
            self._reset(Code.PROTOCOL_ERROR)
        elif not client.content_type.startswith(b"application/grpc"):
            self._close()
            send_no_grpc(self)
        elif client.unusable:
            self.refuse(Refusal(DroppedReason.BAD_REQUEST, client.unusable))
        elif self.method.refusal is not None:
            self.refuse(self.method.refusal)
        elif end:
            self.ended_there = True
            self._gather(b"", end=True)

    def on_data(self, data: bytes, *, end: bool) -> None:
        """Take a piece of the client's messages."""
        self.ended_there = end
        if self._done or (self.client.content_bytes is not None and self._miscounts(data, end=end)):
            return
        if self.route is not None:
            self._relay(data, end=end)
        elif end and not self._held and self.method.unary:
            self._take_message(data)
        else:
            self._gather(data, end=end)

    def _miscounts(self, data: bytes, *, end: bool) -> bool:
        """Reset a request that is not as long as its content-length said (RFC 9113 8.1.1)."""
        came_bytes, said_bytes = self._held_bytes + len(data), self.client.content_bytes or 0
        if came_bytes > said_bytes or (end and came_bytes < said_bytes):
            self._reset(Code.PROTOCOL_ERROR)
            return True
        return False

    def _gather(self, data: bytes, *, end: bool) -> None:
        """Wait until the message is there, or enough of it to know where it goes."""
        if data:
            self._held.append(data)
            self._held_bytes += len(data)
            self.credit(len(data))
        if not self.tick and not end:
            limit_s = _GATHER_S if self.client.timeout_s is None else self.client.timeout_s
            self.lane.wheel.put(self, self._started_s + limit_s)
        if end and self.method.unary:
            self._take_message(b"".join(self._held))
            return
        if self._size_bytes < 0 and not self._measure(end=end):
            return
        if self.method.unary and self._held_bytes > self._size_bytes:
            self._bad("a unary call has one message, of the length that its prefix says")
            return
        if self._held_bytes >= min(self._size_bytes, HEAD_BYTES + PREFIX_BYTES):
            self._take_beginning()
        elif end:
            self._bad("the stream ends inside its first message")

    def _measure(self, *, end: bool) -> bool:
        """Read the first message's size; False: not yet, or it is over."""
        if self._held_bytes < PREFIX_BYTES:
            if end and not self._held_bytes:
                self.succeed(b"", None)
            elif end:
                self._bad("the stream ends inside its first message")
            return False
        start = self._held[0]
        if len(start) < PREFIX_BYTES:
            start = b"".join(self._held)
        self._size_bytes = unpack_prefix(start)[1] + PREFIX_BYTES
        if self._size_bytes - PREFIX_BYTES > self.lane.settings.max_body_bytes:
            self._too_large()
            return False
        return True

    def _take_beginning(self) -> None:
        """A stream, or the beginning of a unary message: the latter may be small enough to keep."""
        data = b"".join(self._held)
        if self.method.unary:
            if self._size_bytes <= HEAD_BYTES + PREFIX_BYTES:
                return
            if self._left_bytes == 0:
                return  # it is read whole
        flag = data[0]
        begun = data[PREFIX_BYTES : self._size_bytes]
        ask = self._ask(begun, flag, self._size_bytes - PREFIX_BYTES - len(begun))
        if isinstance(ask, Refusal):
            self.refuse(ask)
            return
        if self.method.unary:
            if self._size_bytes <= self.lane.kept_bytes(ask):
                self._left_bytes = 0
                return
            ask = replace(ask, replayable=False, body_hash="")
            self._left_bytes = self._size_bytes - self._held_bytes
            self._keeping = False
        self._held = [data]
        self._prepaid_bytes = self._held_bytes
        self._plan(ask)

    def _take_message(self, data: bytes) -> None:
        """A whole unary message came."""
        if len(data) < PREFIX_BYTES:
            self._bad("there is no message")
            return
        flag, size_bytes = unpack_prefix(data)
        if size_bytes > self.lane.settings.max_body_bytes:
            self._too_large()
            return
        if size_bytes != len(data) - PREFIX_BYTES:
            self._bad("a unary call has one message, of the length that its prefix says")
            return
        if self.method.local is not None:
            self._answer_here(data, flag)
            return
        ask = self._ask(data[PREFIX_BYTES:], flag, 0)
        if isinstance(ask, Refusal):
            self.refuse(ask)
            return
        self._held = [data]
        self._plan(ask)

    def _answer_here(self, data: bytes, flag: int) -> None:
        local = self.method.local
        try:
            plain, _ = messages.head_of(
                data[PREFIX_BYTES:], self.client.encoding, compressed=bool(flag)
            )
        except MessageError as error:
            self._bad(str(error))
            return
        found = local(plain, self.client) if local is not None else b""
        if isinstance(found, Refusal):
            self.refuse(found)
        else:
            self.succeed(messages.wrap(found), None)

    def _ask(self, begun: bytes, flag: int, following_bytes: int) -> Ask | Refusal:
        """Read what a message is about; `begun` is all of it, or its beginning."""
        client, method = self.client, self.method
        hashed = method.call is Call.INFER and not following_bytes
        try:
            if flag:
                plain, whole = messages.head_of(begun, client.encoding, compressed=True)
                following_bytes = 0 if whole else _UNKNOWN_LENGTH
            else:
                plain = begun
            named = protowire.scan(plain, following_bytes)
            sequence = protowire.sequence(plain) if method.call is not Call.INQUIRY else ""
        except (protowire.WireError, MessageError) as error:
            return Refusal(DroppedReason.BAD_REQUEST, f"the message is no request: {error}")
        model = named.model or client.model
        if not model:
            text = "the message names no model (field 1, or metadata x-tidegate-model)"
            return Refusal(DroppedReason.BAD_REQUEST, text)
        if client.pool and isinstance(refused := pool_name(client.pool), Refusal):
            return refused
        return Ask(
            model=model,
            version=named.version,
            pool=client.pool,
            call=method.call,
            timeout_s=client.timeout_s,
            body_hash=hashlib.blake2b(begun, digest_size=16).hexdigest() if hashed else "",
            given=client.given,
            sequence=sequence,
        )

    def _plan(self, ask: Ask) -> None:
        now_s = clock()
        route = self.lane.dispatcher.plan(ask, now_s)
        if isinstance(route, Refusal):
            self.refuse(route)
            return
        self.route = route
        if self._keeping and self.method.unary and len(self._held[0]) > route.retry.max_body_bytes:
            route.ask = replace(ask, replayable=False)
        self._next(route, now_s)

    def _next(self, route: Route, now_s: float) -> None:
        """Try a worker, wait for one, or end."""
        lane = self.lane
        first = route.attempts == 0
        found = lane.dispatcher.next_attempt(route, now_s)
        if isinstance(found, Wait):
            self._parked = True
            lane.wheel.put(self, found.until_s)
            lane.dispatcher.park(route, self._woken)
            return
        if first:
            lane.count_wait(route, now_s - self._started_s)
        if isinstance(found, Refusal):
            self.refuse(found)
            return
        trying = self.trying = Try(self, found, now_s)
        lane.wheel.put(self, now_s + found.timeout_s)
        lane.workers.to(found).begin(trying)

    def _woken(self) -> None:
        """Called from within a call to the dispatcher: ask again after it."""
        self.lane.loop.call_soon(self._unpark)

    def _unpark(self) -> None:
        route = self.route
        if not self._parked or route is None:
            return
        self._parked = False
        self.lane.wheel.drop(self)
        self.lane.dispatcher.unpark(route)
        self._next(route, clock())

    def ready(self, trying: Try) -> None:
        """Send what is there of the request."""
        attempt = trying.attempt
        renamed = bool(attempt.loaded_as)
        block = self.lane.request_block(self, trying, renamed=renamed)
        held = self._held
        if renamed:
            limit_bytes = self.lane.settings.max_body_bytes
            trying.rename(self.method.path, self.client.encoding, limit_bytes)
        elif self.ended_there and len(held) == 1 and trying.start_whole(block, held[0]):
            return
        trying.start(block)
        if self._keeping:
            self._prepaid_bytes = self._held_bytes
        else:
            self._held = []
        self._send(trying, b"".join(held), end=self.ended_there)

    def _send(self, trying: Try, data: bytes, *, end: bool) -> None:
        try:
            trying.send(data, end=end)
        except MessageError as error:
            self._abandon(trying, Outcome.CLIENT)
            self._bad(str(error))

    def _relay(self, data: bytes, *, end: bool) -> None:
        """Send on what comes after the decision."""
        if self._done:
            return
        if self.method.unary and not self._fits(len(data), end=end):
            return
        self._held_bytes += len(data)
        trying = self.trying
        sending = trying is not None and trying.sent
        if self._keeping and self._held_bytes > KEPT_BYTES:
            self._keeping = False
            if sending:
                self._held = []
        elif self._keeping:
            self._prepaid_bytes += len(data)
            self.credit(len(data))
        if self._keeping or not sending:
            self._held.append(data)
        if trying is not None and sending:
            self._send(trying, data, end=end)

    def _fits(self, size_bytes: int, *, end: bool) -> bool:
        """Hold a client to the length that it gave."""
        self._left_bytes -= size_bytes
        if self._left_bytes >= 0 and (self._left_bytes == 0 or not end):
            return True
        if self.trying is not None:
            self._abandon(self.trying, Outcome.CLIENT)
        self._bad("a unary call has one message, of the length that its prefix says")
        return False

    def forwarded(self, size_bytes: int) -> None:
        """Credit what left, unless that was done when it came."""
        prepaid = self._prepaid_bytes
        if prepaid >= size_bytes:
            self._prepaid_bytes = prepaid - size_bytes
            return
        self._prepaid_bytes = 0
        self.credit(size_bytes - prepaid)

    def answer(self, trying: Try, data: bytes) -> None:
        """Take some of the answer: kept while it may be thrown away for another worker's."""
        link = self.link
        if self._committed and link is not None:
            link.send_data(self, data, None)
            return
        self._parts.append(data)
        self._parts_bytes += len(data)
        if self.method.unary:
            if self._parts_bytes > _COMMIT_BYTES:
                self._commit(trying)
            else:
                trying.credit(len(data))
        elif self._first_is_answer(trying):
            self._commit(trying)

    def _first_is_answer(self, trying: Try) -> bool:
        """Whether a stream's first answer is one: not when it says that nothing ran."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if len(data) < PREFIX_BYTES:
            return False
        flag, size_bytes = unpack_prefix(data)
        if flag or size_bytes > protowire.MAX_ERROR_BYTES:
            return True
        if len(data) < PREFIX_BYTES + size_bytes:
            return False
        text = protowire.stream_error(data[PREFIX_BYTES : PREFIX_BYTES + size_bytes])
        if text and judge_grpc("UNKNOWN", text) is Outcome.NEVER_RAN:
            trying.give_up()
            self.ended(trying, Outcome.NEVER_RAN, "unknown model")
            return False
        return True

    def _commit(self, trying: Try) -> None:
        """Tell the client who answers: from now on nothing moves."""
        route, link, head = self.route, self.link, trying.head
        if route is None or link is None or head is None:
            return
        route.answered = self._committed = True
        self._keeping, self._held = False, []
        if not self.method.unary:
            trying.first_s = clock()
            self.lane.wheel.drop(self)
            if self.client.timeout_s is not None:
                self.lane.wheel.put(self, self._started_s + self.client.timeout_s)
        link.send_head(self, head.block + self.lane.marks(self, trying.attempt), end=False)
        parts, self._parts = self._parts, []
        unpaid_bytes = self._parts_bytes if not self.method.unary else len(parts[-1])
        self._parts_bytes -= unpaid_bytes
        link.send_data(self, b"".join(parts), None)

    def on_sent(self, size_bytes: int) -> None:
        """Credit what the client got, unless that was done when it came."""
        paid_bytes = min(self._parts_bytes, size_bytes)
        self._parts_bytes -= paid_bytes
        if self.trying is not None and size_bytes > paid_bytes:
            self.trying.credit(size_bytes - paid_bytes)

    def ended(self, trying: Try, outcome: Outcome, detail: str) -> None:
        """A worker is through with it, well or not."""
        route = self.route
        if route is None or self._done:
            return
        now_s = clock()
        step = self._settle(route, trying, outcome, detail, now_s)
        if step is Step.FORWARD:
            self._pass_on(route, trying, outcome, now_s)
        elif step is Step.RETRY:
            if not self._keeping and trying.sent:
                self.refuse(Refusal(DroppedReason.RETRIES_EXHAUSTED, route.last_fault, 1.0))
                return
            self._parts, self._parts_bytes = [], 0
            self.lane.count_retry(route)
            self._next(route, now_s)
        elif isinstance(step, Refusal):
            self.refuse(step)

    def _settle(
        self, route: Route, trying: Try, outcome: Outcome, detail: str, now_s: float
    ) -> Step | Refusal:
        lane = self.lane
        if self.tick:
            lane.wheel.drop(self)
        self.trying = None
        lane.dispatcher.release(trying.attempt)
        latency_s = (trying.first_s or now_s) - trying.started_s
        ending = Ending(outcome=outcome, latency_s=latency_s, detail=detail)
        return lane.dispatcher.settle(route, trying.attempt, ending, now_s)

    def _pass_on(self, route: Route, trying: Try, outcome: Outcome, now_s: float) -> None:
        """Give the client what the worker answered."""
        lane, attempt, trailers = self.lane, trying.attempt, trying.trailers
        code, text = trying.verdict()
        marks = lane.marks(self, attempt)
        visible = trailers.visible if trailers is not None and trying.head is not None else b""
        if code:
            if trying.renamed is not None:
                text = text.replace(attempt.loaded_as, attempt.model)
            if trying.head is None and trailers is not None:
                visible = lane.without_type(trailers)
            tail = error_trailers(code, text.encode()) + visible + marks
        else:
            tail = lane.ok_trailer + visible + marks
        self._finish(route, status.name_of(code), now_s)
        if self._committed or trying.head is None:
            send_trailers(self, tail, begun=self._committed)
            return
        parts = self._parts
        message = parts[0] if len(parts) == 1 else b"".join(parts)
        send_answer(self, trying.head.block, message, tail)
        if outcome is Outcome.OK and self.method.call is Call.INFER and self._held:
            lane.offer_copy(self, route, attempt, self._held[0], message)

    def succeed(self, message: bytes, tail: bytes | None) -> None:
        """Answer well, by the router itself."""
        self._close()
        send_answer(self, self.lane.own_head, message, tail or self.lane.own_trailers(self))

    def _finish(self, route: Route, code: str, now_s: float) -> None:
        """Count a routed request's end, once."""
        self._close()
        self.lane.dispatcher.finish(route, now_s)
        self.lane.count(route, code, now_s)

    def _close(self) -> None:
        self._done = True
        if self.tick:
            self.lane.wheel.drop(self)

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal of the router's own."""
        if self._done:
            return
        self.lane.count_refusal(refusal)
        revision = ""
        if self.route is not None:
            revision = self.route.revision
            self._finish(self.route, refusal.grpc_code, clock())
        else:
            self._close()
        tail = self.lane.refusal_trailers(self, refusal, revision)
        send_trailers(self, tail, begun=self._committed)

    def _bad(self, text: str) -> None:
        self.refuse(Refusal(DroppedReason.BAD_REQUEST, text))

    def _too_large(self) -> None:
        limit_bytes = self.lane.settings.max_body_bytes
        self.refuse(Refusal(DroppedReason.TOO_LARGE, f"a message beyond {limit_bytes} bytes"))

    def _reset(self, code: Code) -> None:
        link = self.link
        self._leave()
        if link is not None:
            link.drop(self, code)

    def _abandon(self, trying: Try, outcome: Outcome) -> None:
        """Stop a worker whose answer nobody waits for."""
        if self.route is not None:
            trying.give_up()
            self._settle(self.route, trying, outcome, outcome.value, clock())

    def _leave(self) -> None:
        """End without an answer."""
        route = self.route
        if self._done or route is None:
            self._close()
            return
        if self._parked:
            self._parked = False
            self.lane.dispatcher.abandon(route)
        trying = self.trying
        if trying is not None:
            late_s = trying.started_s + trying.attempt.timeout_s - _ROUNDING_S
            late = trying.first_s is None and clock() >= late_s
            self._abandon(trying, Outcome.TIMEOUT if late else Outcome.CANCELLED)
        self._finish(route, "CANCELLED", clock())

    def on_reset(self, code: int) -> bool:
        """The client left. It is no abuse once its own deadline is over."""
        del code
        timeout_s = self.client.timeout_s
        self._leave()
        return timeout_s is None or clock() < self._started_s + timeout_s - _ROUNDING_S

    def on_due(self) -> None:
        """A time is over: to gather, to wait, to answer."""
        if self._parked:
            self._unpark()
            return
        trying = self.trying
        if trying is None:
            self.refuse(Refusal(DroppedReason.DEADLINE, "the request did not come in time"))
            return
        self.lane.workers.suspect(trying)
        trying.give_up()
        self.ended(trying, Outcome.TIMEOUT, Outcome.TIMEOUT.value)
