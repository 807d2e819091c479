"""What the router itself answers instead of a worker: one table for HTTP and gRPC."""

from dataclasses import dataclass

from tidegate_api.names import DroppedReason


@dataclass(frozen=True, slots=True)
class Answer:
    """How a reason is said: an HTTP status and the name of a gRPC status code."""

    http_status: int
    grpc_code: str


ANSWERS: dict[DroppedReason, Answer] = {
    DroppedReason.NO_WORKERS: Answer(503, "UNAVAILABLE"),
    DroppedReason.SATURATED: Answer(429, "RESOURCE_EXHAUSTED"),
    DroppedReason.SCORES_STALE: Answer(503, "UNAVAILABLE"),
    DroppedReason.DEADLINE: Answer(504, "DEADLINE_EXCEEDED"),
    DroppedReason.UNKNOWN_MODEL: Answer(404, "NOT_FOUND"),
    DroppedReason.UNKNOWN_POOL: Answer(404, "NOT_FOUND"),
    DroppedReason.NOT_ALLOWED: Answer(403, "UNIMPLEMENTED"),
    DroppedReason.BAD_REQUEST: Answer(400, "INVALID_ARGUMENT"),
    DroppedReason.TOO_LARGE: Answer(413, "RESOURCE_EXHAUSTED"),
    DroppedReason.RETRIES_EXHAUSTED: Answer(503, "UNAVAILABLE"),
    DroppedReason.SUSPECTED_POISON: Answer(503, "ABORTED"),
    DroppedReason.SHUTTING_DOWN: Answer(503, "UNAVAILABLE"),
    DroppedReason.CLIENT_GONE: Answer(499, "CANCELLED"),
    DroppedReason.INTERNAL: Answer(500, "INTERNAL"),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal: the header's reason, a text for people, and when trying again may help."""

    reason: DroppedReason
    message: str
    retry_after_s: float | None = None
    http_override: int = 0  # a status that says more than the reason's, e.g. 404, 405
    grpc_override: str = ""  # likewise
    revision: str = ""  # the drawn one, where a request is refused after the draw without a route
    allow: str = "GET, POST"  # with 405: the methods that the path takes

    @property
    def http_status(self) -> int:
        """Status of the HTTP answer."""
        return self.http_override or ANSWERS[self.reason].http_status

    @property
    def grpc_code(self) -> str:
        """Name of the gRPC status code, as in grpc.StatusCode."""
        return self.grpc_override or ANSWERS[self.reason].grpc_code
