"""What clients of the text APIs send and get: the models that the OpenAPI document is made from.

The shapes are OpenAI's completions (https://platform.openai.com/docs/api-reference/completions).
A field that would change an answer's meaning and cannot be honoured is refused by name; so is every
field that is not listed here.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MODEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+=@,-]{0,99}$"
MAX_PROMPTS = 32
MAX_STOPS = 4
_MAX_INTEGER = 2**31 - 1


def _whole(value: object) -> object:
    """Take 16.0 for 16, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_One = Annotated[int, Field(ge=1, le=1), BeforeValidator(_whole)]
_Tokens = Annotated[int, Field(ge=1, le=_MAX_INTEGER), BeforeValidator(_whole)]
_Seed = Annotated[int, Field(ge=-(2**31), le=_MAX_INTEGER), BeforeValidator(_whole)]
_Zero = Annotated[float, Field(ge=0, le=0)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
FinishReason = Literal["stop", "length", "content_filter"]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class StreamOptions(_Request):
    """Options of a streamed answer."""

    include_usage: bool = Field(
        default=False, description="send one more chunk, with token counts and no choices"
    )


class CompletionRequest(_Request):
    """Text to go on from. What is absent is left to the model's own default."""

    model: str | None = Field(
        default=None,
        pattern=MODEL_PATTERN,
        description="absent: header x-tidegate-model, else the only text model",
    )
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)] = Field(
        description="one text, or several that are answered independently; tokens are refused"
    )
    max_tokens: _Tokens | None = Field(default=None, description="default 16")
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: _Seed | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = Field(
        default=None, description="the answer ends before the first of these; kept by the router"
    )
    stream: bool | None = Field(default=None, description="answer with server-sent events")
    stream_options: StreamOptions | None = Field(default=None, description="nothing without stream")
    echo: bool | None = Field(default=None, description="put the prompt in front of the answer")
    user: str | None = Field(default=None, max_length=256, description="not used")
    n: _One | None = Field(default=None, description="more is refused")
    best_of: _One | None = Field(default=None, description="more is refused")
    logprobs: None = Field(default=None, description="refused")
    suffix: None = Field(default=None, description="refused")
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = Field(
        default=None, description="refused unless empty"
    )
    frequency_penalty: _Zero | None = Field(default=None, description="refused unless 0")
    presence_penalty: _Zero | None = Field(default=None, description="refused unless 0")


class Choice(_Answer):
    """The answer to one prompt, or a piece of it."""

    index: int = Field(ge=0, description="number of the prompt")
    text: str
    logprobs: None = None
    finish_reason: FinishReason | None = Field(
        default=None, description="null in a chunk that is not the last"
    )


class Usage(_Answer):
    """Token counts, as the model itself states them."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)


class Completion(_Answer):
    """A whole answer, or one chunk of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int = Field(ge=0, description="Unix time, seconds")
    model: str
    choices: list[Choice]
    usage: Usage | None = Field(
        default=None, description="null where the model states no token counts"
    )


class ApiError(_Answer):
    """What went wrong, in OpenAI's words."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None = Field(default=None, description="the field at fault")
    code: str | None = Field(
        default=None, description="x-tidegate-dropped-reason where the router itself refused"
    )


class ErrorAnswer(_Answer):
    """An error of the OpenAI paths."""

    error: ApiError


class ModelCard(_Answer):
    """A model that completions may name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, ge=0, description="when its pool was made, Unix time, seconds")
    owned_by: str = Field(description="namespace/name of its pool")


class ModelList(_Answer):
    """Every text model that requests without a pool's name reach."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class GenerateRequest(BaseModel):
    """Triton's generate request; other members are the model's own inputs and parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str | None = Field(
        default=None,
        pattern=MODEL_PATTERN,
        description="absent: header x-tidegate-model, else the only text model",
    )
    text_input: str | None = Field(default=None, description="what most text models call theirs")
    parameters: dict[str, str | int | float | bool] | None = None


class GenerateAnswer(BaseModel):
    """Triton's generate answer; other members are the model's own outputs."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model_name: str | None = None
    model_version: str | None = None
    text_output: str | list[str] | None = None


class PlainError(_Answer):
    """An error of every other path, as Triton words them."""

    error: str
