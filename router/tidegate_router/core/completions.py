"""OpenAI's completions onto a text model behind Triton's generate_stream extension.

A text model takes `text_input` and gives `text_output`. Asked for them, NVIDIA's vLLM and
TensorRT-LLM backends also give `finish_reason`, `num_input_tokens` and `num_output_tokens`; other
models ignore the asking. Stop texts are cut here, so they work with every model.
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_generate.html
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from tidegate_api.names import DroppedReason
from tidegate_router.core.openai import (
    ApiError,
    Choice,
    Completion,
    CompletionRequest,
    ErrorAnswer,
    FinishReason,
    Usage,
)
from tidegate_router.core.refusal import Refusal

DONE = b"data: [DONE]\n\n"
_DEFAULT_TOKENS = 16
_MAX_EVENT_BYTES = 1024 * 1024
_MAX_CHARACTERS = 4 * 1024 * 1024  # of one answer: some hundred thousand tokens
_ASKED_FOR = {
    "exclude_input_in_output": True,
    "return_finish_reason": True,
    "return_num_input_tokens": True,
    "return_num_output_tokens": True,
}
_FINISHES: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
}


@dataclass(frozen=True, slots=True)
class BadField:
    """A request that is refused, and the field at fault ("" for the whole body)."""

    field: str
    message: str


def parse(body: bytes) -> CompletionRequest | BadField:
    """Return the request in a body; no text of the client's is repeated in what is refused."""
    try:
        return CompletionRequest.model_validate_json(body)
    except ValidationError as error:
        return _bad_field(error)


def _bad_field(error: ValidationError) -> BadField:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "json_invalid":
        return BadField("", "the body is not JSON")
    if first["type"] == "extra_forbidden":
        shown = name if name.isidentifier() and len(name) <= 64 else "a field"
        return BadField(shown, f"{shown}: this field is not supported")
    return BadField(name, f"{name or 'body'}: {first['msg']}")


def prompts(request: CompletionRequest) -> list[str]:
    """Return the prompts, each of which is one generation."""
    return [request.prompt] if isinstance(request.prompt, str) else list(request.prompt)


def stops(request: CompletionRequest) -> tuple[str, ...]:
    """Return the texts that end an answer."""
    given = request.stop
    return (given,) if isinstance(given, str) else tuple(given or ())


def worker_body(request: CompletionRequest, prompt: str) -> bytes:
    """Return the JSON of generate_stream: only what the client gave, and max_tokens."""
    parameters: dict[str, object] = {
        "max_tokens": request.max_tokens or _DEFAULT_TOKENS,
        "stream": True,
        **_ASKED_FOR,
    }
    for name in ("temperature", "top_p", "seed"):
        if (value := getattr(request, name)) is not None:
            parameters[name] = value
    document = {"text_input": prompt, "parameters": parameters}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(slots=True)
class Events:
    """Server-sent events out of a byte stream, whatever its pieces.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """

    _rest: bytes = b""
    _data: list[bytes] = field(default_factory=list)

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of every event that is whole; ValueError for one that is too large."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) + sum(map(len, self._data)) > _MAX_EVENT_BYTES:
            raise ValueError("an event is too large")
        return [data for line in lines if (data := self._line(line.rstrip(b"\r"))) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            data, self._data = b"\n".join(self._data), []
            return data or None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return None


@dataclass(slots=True, kw_only=True)
class Generation:
    """The answer to one prompt on its way from a worker.

    `fault` holds what the worker said when it failed in the middle; `finished` says that nothing
    more is wanted of it.
    """

    stops: Sequence[str] = ()
    fault: str = ""
    finished: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish: FinishReason | None = None
    _events: Events = field(default_factory=Events)
    _out: list[str] = field(default_factory=list)
    _characters: int = 0
    _held: str = ""  # may be the beginning of a stop text

    @property
    def text(self) -> str:
        """What went out so far."""
        return "".join(self._out)

    def feed(self, piece: bytes) -> str:
        """Take bytes of the worker's stream; return the text that may go out now."""
        try:
            events = self._events.feed(piece)
        except ValueError as error:
            self.fault, self.finished = str(error), True
            return ""
        return "".join([self._event(event) for event in events if not self.finished])

    def end(self) -> str:
        """Return what was held back, once the worker's stream is complete."""
        self.finished, rest, self._held = True, self._held, ""
        self._out.append(rest)
        return rest

    def _event(self, data: bytes) -> str:
        told = _told(data)
        if told is None or "error" in told:
            words = told["error"] if told else "an event is no JSON object"
            self.fault, self.finished = str(words), True
            return ""
        self._count(told)
        reason = told.get("finish_reason")
        if isinstance(reason, str) and reason in _FINISHES:
            self.finish = _FINISHES[reason]
        return self._pass(_text(told.get("text_output")))

    def _count(self, told: dict[str, object]) -> None:
        asked, given = told.get("num_input_tokens"), told.get("num_output_tokens")
        if isinstance(asked, int):
            self.prompt_tokens = asked
        if isinstance(given, int):  # of this event alone
            self.completion_tokens = (self.completion_tokens or 0) + given

    def _pass(self, new: str) -> str:
        waiting = self._held + new
        # The stop that ends first, so that the pieces' bounds do not matter.
        cuts = [(at + len(stop), at) for stop in self.stops if (at := waiting.find(stop)) >= 0]
        if cuts:
            self.finished, self.finish, self._held = True, "stop", ""
            ready = waiting[: min(cuts)[1]]
        else:
            kept = _beginning_of(self.stops, waiting)
            ready, self._held = waiting[: len(waiting) - kept], waiting[len(waiting) - kept :]
        self._out.append(ready)
        self._characters += len(ready)
        if self._characters > _MAX_CHARACTERS:
            self.fault, self.finished = "the answer is too long", True
        return ready


def _told(data: bytes) -> dict[str, object] | None:
    try:
        told = json.loads(data.decode("utf-8", "replace"))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _text(value: object) -> str:
    """Return a text output: a string, or the elements of a tensor with more than one."""
    if isinstance(value, list):
        return "".join(map(str, value))
    return value if isinstance(value, str) else ""


def _beginning_of(stops: Iterable[str], text: str) -> int:
    """Return how many last characters of `text` may turn out to begin a stop text."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest


def finish_reason(request: CompletionRequest, done: Generation) -> FinishReason:
    """Return why an answer ended: as the model said, by its count, else that it simply ended."""
    limit = request.max_tokens or _DEFAULT_TOKENS
    if done.finish is None and (done.completion_tokens or 0) >= limit:
        return "length"
    return done.finish or "stop"


def usage(done: Sequence[Generation]) -> Usage | None:
    """Return the token counts of all prompts; None unless the model stated every one."""
    asked, given = 0, 0
    for one in done:
        if one.prompt_tokens is None or one.completion_tokens is None:
            return None
        asked, given = asked + one.prompt_tokens, given + one.completion_tokens
    return Usage(prompt_tokens=asked, completion_tokens=given, total_tokens=asked + given)


@dataclass(frozen=True, slots=True)
class Writer:
    """Renders one request's answer. `created_s` is Unix time."""

    request: CompletionRequest
    model: str
    identity: str
    created_s: int

    def whole(self, done: Sequence[Generation]) -> bytes:
        """Return the JSON of a complete answer."""
        asked = prompts(self.request)
        choices = [
            Choice(
                index=index,
                text=(asked[index] if self.request.echo else "") + one.text,
                finish_reason=finish_reason(self.request, one),
            )
            for index, one in enumerate(done)
        ]
        return self._completion(choices, usage(done)).model_dump_json().encode()

    def chunk(self, index: int, text: str) -> bytes:
        """Return the event of a piece of text."""
        return self._event([Choice(index=index, text=text)])

    def last(self, index: int, text: str, done: Generation) -> bytes:
        """Return the event that ends the answer to one prompt."""
        reason = finish_reason(self.request, done)
        return self._event([Choice(index=index, text=text, finish_reason=reason)])

    def tail(self, done: Sequence[Generation]) -> bytes:
        """Return what ends a stream: the counts if they were asked for, and the mark."""
        options = self.request.stream_options
        wanted = options is not None and options.include_usage
        return (self._event([], usage(done)) if wanted else b"") + DONE

    def _event(self, choices: list[Choice], counts: Usage | None = None) -> bytes:
        return b"data: %b\n\n" % self._completion(choices, counts).model_dump_json().encode()

    def _completion(self, choices: list[Choice], counts: Usage | None) -> Completion:
        return Completion(
            id=f"cmpl-{self.identity}",
            created=self.created_s,
            model=self.model,
            choices=choices,
            usage=counts,
        )


def refused(bad: BadField) -> Refusal:
    """Return a refused field as the router's own refusal."""
    return Refusal(DroppedReason.BAD_REQUEST, bad.message)


def error_json(status: int, message: str, reason: str = "", param: str = "") -> bytes:
    """Return an error in OpenAI's shape; `reason` is x-tidegate-dropped-reason's value."""
    error = ApiError(
        message=message,
        type=(
            "rate_limit_error"
            if status == 429
            else "invalid_request_error"
            if status < 500
            else "server_error"
        ),
        param=param or None,
        code=reason or None,
    )
    return ErrorAnswer(error=error).model_dump_json().encode()


def error_text(body: bytes) -> str:
    """Return the message in an error's body, of Triton or of this router: {"error": text}.

    Triton sends the error of a stream's first answer as an event.
    """
    told = _told(body.strip().removeprefix(b"data:"))
    found = told.get("error") if told else None
    return found if isinstance(found, str) else "the model failed"
