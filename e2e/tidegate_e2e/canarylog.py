"""What became of each canary, from the load generator's log and the API's objects. Pure.

Times are epoch seconds inside and RFC 3339 in the report.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tidegate_api.names import RolloutCondition, RolloutEventReason
from tidegate_api.rollout import ModelRolloutStatus, WindowStatus

Verdict = Literal["Promoted", "RolledBack", "Unsettled"]


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the load generator's log."""

    at_s: float
    outcome: str
    revision: str

    @property
    def ok(self) -> bool:
        """Whether the client got what it asked for."""
        return self.outcome == "ok"


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the rollout."""

    at_s: float
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One edit of the rollout, and every status that was seen until it settled."""

    version: str
    began_s: float
    seen: Sequence[tuple[float, ModelRolloutStatus]]  # oldest first, at least one

    @property
    def last(self) -> ModelRolloutStatus:
        """The status that it settled on."""
        return self.seen[-1][1]

    @property
    def revision(self) -> str:
        """What the edit asked for."""
        return self.last.asked_revision or ""

    @property
    def verdict(self) -> Verdict:
        """How it ended."""
        return verdict(self.last)


def verdict(status: ModelRolloutStatus) -> Verdict:
    """Return how the revision that a status asks for ended, or that it has not."""
    asked = status.asked_revision
    if asked and status.stable_revision == asked and status.phase == "Healthy":
        return "Promoted"
    gone = status.canary_weight == 0 and status.verified_weight == 0
    return "RolledBack" if asked and status.aborted_revision == asked and gone else "Unsettled"


def requests_of(log: str) -> list[Request]:
    """Read the load generator's log; a last line that was cut off is left out."""
    lines = log.split("\n")[:-1]
    entries = (json.loads(line) for line in lines)
    return [Request(entry["at"], entry["outcome"], entry["revision"]) for entry in entries]


def events_of(listed: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Event]:
    """Read a list of Events (core/v1), oldest first."""
    found = [
        Event(_event_s(item), item.get("reason", ""), item.get("message", ""))
        for item in listed["items"]
    ]
    return sorted(found, key=lambda event: event.at_s)


def _event_s(item: Mapping[str, str]) -> float:
    for key in ("eventTime", "firstTimestamp", "lastTimestamp"):
        if item.get(key):
            return parse_instant(item[key])
    return 0.0


def parse_instant(text: str) -> float:
    """Return the epoch seconds of an RFC 3339 instant."""
    return datetime.fromisoformat(text).timestamp()


def instant(at_s: float | None) -> str | None:
    """Return RFC 3339 with milliseconds, UTC."""
    if at_s is None:
        return None
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def first_bad_window(trial: Trial) -> WindowStatus | None:
    """Return the first window of this edit that failed, of all that any status showed."""
    windows = {
        window.started_at: window
        for _, status in trial.seen
        for window in status.analysis.windows
        if window.verdict == "Fail" and parse_instant(window.started_at) >= trial.began_s
    }
    return min(windows.values(), key=lambda window: parse_instant(window.started_at), default=None)


def weight_zero_s(trial: Trial, events: Iterable[Event]) -> float | None:
    """Return when every live router sent nothing more to the canary, None if it never got any.

    The operator's event says so; an event that was dropped is replaced by the first status that
    shows it.
    """
    weighted = [at_s for at_s, status in trial.seen if status.verified_weight > 0]
    if trial.verdict != "RolledBack" or not weighted:
        return None
    told = (
        event.at_s
        for event in events
        if event.reason == RolloutEventReason.TRAFFIC_WEIGHT_VERIFIED
        and event.at_s >= weighted[0]
        and event.message.endswith(f"sends 0 % to {trial.revision}")
    )
    shown = (at_s for at_s, status in trial.seen if at_s > weighted[-1])
    return next(told, None) or next(shown, None)


def rollout_row(
    trial: Trial, requests: Iterable[Request], events: Iterable[Event]
) -> dict[str, object]:
    """Return one entry of rollouts[]."""
    mine = [item for item in requests if item.revision == trial.revision]
    bad = first_bad_window(trial)
    return {
        "version": trial.version,
        "revision": trial.revision,
        "verdict": trial.verdict,
        "reason": _reason(trial.last),
        "firstBadInterval": bad and {"startedAt": bad.started_at, "endedAt": bad.ended_at},
        "weightZeroAt": instant(weight_zero_s(trial, events)),
        "highestWeight": max(status.verified_weight for _, status in trial.seen),
        "requests": len(mine),
        "failed": sum(1 for item in mine if not item.ok),
        "lastAnswerAt": instant(max((item.at_s for item in mine), default=None)),
    }


def _reason(status: ModelRolloutStatus) -> str:
    kind = RolloutCondition.PROMOTED if verdict(status) == "Promoted" else RolloutCondition.DEGRADED
    return next((item.reason for item in status.conditions if item.type == kind), "")


def report(
    requests: Sequence[Request], trials: Sequence[Trial], events: Sequence[Event]
) -> dict[str, object]:
    """Return what .bench/demo-canary.json holds.

    A failed request is the canary's only where the answer names a revision that was rolled back
    and it came during that edit; every other one, also one without a revision, is stable's.
    """
    failed = [item for item in requests if not item.ok]
    return {
        "tier": "K",
        "requests": len(requests),
        "failed": len(failed),
        "failedOnStable": sum(1 for item in failed if not _of_canary(item, trials)),
        "rollouts": [rollout_row(trial, requests, events) for trial in trials],
    }


def _of_canary(item: Request, trials: Iterable[Trial]) -> bool:
    return any(
        trial.verdict == "RolledBack"
        and item.revision == trial.revision
        and item.at_s >= trial.began_s
        for trial in trials
    )
