"""POST /v1/completions: OpenAI's completions onto a text model, whole or as server-sent events."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import orjson
from aiohttp import web

from tidegate_router.adapters.upstream import WorkerAnswer
from tidegate_router.apis.common import error_of, in_openai_shape, model_of, plain_body
from tidegate_router.core import completions
from tidegate_router.core.completions import BadField, Generation, Writer
from tidegate_router.core.faults import Outcome
from tidegate_router.core.path import Parsed, Target
from tidegate_router.core.refusal import Refusal
from tidegate_router.relay import Relay, identity

if TYPE_CHECKING:  # the lane imports this package
    from tidegate_router.http_lane import HttpLane


@dataclass(slots=True, kw_only=True)
class _Whole(Relay):
    """Collects the answer to one prompt; until it is whole, another worker may begin anew."""

    live: ClassVar[bool] = False
    generation: Generation

    async def begin(self, response: web.StreamResponse) -> None:
        """Send nothing yet."""

    async def write(self, piece: bytes) -> bool:
        """Keep a piece."""
        self.generation.feed(piece)
        return not self.generation.finished

    async def complete(self) -> Outcome:
        """Leave an answer to the lane, good or bad."""
        self.generation.end()
        fault = self.generation.fault
        body = orjson.dumps({"error": fault}) if fault else b""
        self.answer = WorkerAnswer(500 if fault else 200, [], body, 0.0)
        return Outcome.MODEL_ERROR if fault else Outcome.OK


@dataclass(slots=True)
class _Stream:
    """One streamed answer: it outlives the relays that feed it, one per prompt and attempt."""

    writer: Writer
    response: web.StreamResponse | None = None
    done: list[Generation] = field(default_factory=list)

    async def begin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Send the head, once."""
        if self.response is None:
            response.headers["Content-Type"] = "text/event-stream"
            response.headers["Cache-Control"] = "no-store"
            self.response = response
            await response.prepare(request)

    async def send(self, event: bytes) -> None:
        """Send events."""
        if self.response is not None:
            await self.response.write(event)

    async def end(self, event: bytes) -> None:
        """Send the last events, unless the client left."""
        with contextlib.suppress(ConnectionError):
            await self.send(event)


@dataclass(slots=True, kw_only=True)
class _Piecewise(Relay):
    """Sends the answer to one prompt as it comes."""

    stream: _Stream
    index: int
    generation: Generation

    async def begin(self, response: web.StreamResponse) -> None:
        """Send the head of the whole stream, and the prompt if it is to be repeated."""
        await self.stream.begin(self.request, response)
        self.response = self.stream.response
        request = self.stream.writer.request
        if request.echo:
            text = completions.prompts(request)[self.index]
            await self.stream.send(self.stream.writer.chunk(self.index, text))

    async def write(self, piece: bytes) -> bool:
        """Translate a piece."""
        text = self.generation.feed(piece)
        if text:
            await self.stream.send(self.stream.writer.chunk(self.index, text))
        return not self.generation.finished

    def cut(self) -> None:
        """Leave the connection: an event says that the answer is not whole."""

    async def complete(self) -> Outcome:
        """End the answer to this prompt."""
        rest, stream = self.generation.end(), self.stream
        if self.generation.fault:
            return Outcome.MODEL_ERROR
        await stream.send(stream.writer.last(self.index, rest, self.generation))
        stream.done.append(self.generation)
        return Outcome.OK


async def complete(lane: "HttpLane", parsed: Parsed, request: web.Request) -> web.StreamResponse:
    """Answer one request."""
    body = await plain_body(lane, request)
    if isinstance(body, Refusal):
        return _refuse(lane, body)
    wanted = completions.parse(body)
    if isinstance(wanted, BadField):
        return _refuse(lane, completions.refused(wanted), wanted.field)
    model = model_of(lane, parsed, request, wanted.model)
    if isinstance(model, Refusal):
        return _refuse(lane, model, "model")
    meant = Parsed(
        target=Target.GENERATE_STREAM,
        upstream=f"/v2/models/{model}/generate_stream",
        model=model,
        pool=parsed.pool,
    )
    writer = Writer(wanted, model, identity(request), int(time.time()))
    answer = _streamed if wanted.stream else _whole
    return await answer(lane, meant, request, writer)


async def _whole(
    lane: "HttpLane", meant: Parsed, request: web.Request, writer: Writer
) -> web.StreamResponse:
    """Ask for all prompts at once; one that fails fails the request."""
    relays: dict[int, _Whole] = {}
    stops = completions.stops(writer.request)

    async def ask(index: int, prompt: str) -> web.StreamResponse:
        def relay(_: web.Request) -> Relay:
            relays[index] = _Whole(request=request, generation=Generation(stops=stops))
            return relays[index]

        body = completions.worker_body(writer.request, prompt)
        return await lane.send(meant, request, body, relay)

    asked = completions.prompts(writer.request)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(index, prompt)) for index, prompt in enumerate(asked)]
    answers = [task.result() for task in tasks]
    worst = max(answers, key=lambda answer: answer.status)
    if worst.status != 200 or not isinstance(worst, web.Response):
        return in_openai_shape(worst)
    worst.body = writer.whole([relays[index].generation for index in range(len(asked))])
    worst.headers["Content-Type"] = "application/json"
    return worst


async def _streamed(
    lane: "HttpLane", meant: Parsed, request: web.Request, writer: Writer
) -> web.StreamResponse:
    """Answer prompt by prompt; an error after the first byte is an event, with no [DONE]."""
    stream, stops = _Stream(writer), completions.stops(writer.request)
    for index, prompt in enumerate(completions.prompts(writer.request)):
        body = completions.worker_body(writer.request, prompt)
        made: list[_Piecewise] = []

        def relay(_: web.Request, number: int = index, made: list[_Piecewise] = made) -> Relay:
            fresh = Generation(stops=stops)
            made.append(_Piecewise(request=request, stream=stream, index=number, generation=fresh))
            return made[-1]

        answer = await lane.send(meant, request, body, relay)
        if stream.response is None:
            return in_openai_shape(answer)
        if len(stream.done) <= index:
            await _say_failed(stream, answer, made[-1].generation.fault if made else "")
            return stream.response
    await stream.end(writer.tail(stream.done))
    return stream.response or web.Response()


async def _say_failed(stream: _Stream, answer: web.StreamResponse, fault: str) -> None:
    """Say in the stream that it is not whole."""
    begun = answer is stream.response
    text = fault or ("the worker broke its answer off" if begun else error_of(answer))
    await stream.end(
        b"data: %b\n\n" % completions.error_json(500 if begun else answer.status, text)
    )


def _refuse(lane: "HttpLane", refusal: Refusal, param: str = "") -> web.StreamResponse:
    return in_openai_shape(lane.refuse(refusal), param)
