"""What a run counted, second by second, and who answered."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate_cli.core.loadtest.histogram import Histogram, merge
from tidegate_cli.core.loadtest.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Answered:
    """What one answer was, without its times. A client makes each value once and keeps it.

    `detail` says what an answer other than ok was: a status, a code, or the break's cause.
    """

    outcome: Outcome
    detail: str = ""
    revision: str = ""
    worker: str = ""


@dataclass(slots=True)
class Second:
    """The answers that ended in one second: latencies of the good ones, and all kinds."""

    latency: Histogram = field(default_factory=Histogram)
    answers: dict[Answered, int] = field(default_factory=dict)

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Count of each outcome."""
        counted: Counter[Outcome] = Counter()
        for answered, count in self.answers.items():
            counted[answered.outcome] += count
        return counted


@dataclass(slots=True)
class Tally:
    """Everything a run counted, from the end of its warm-up."""

    seconds: dict[int, Second] = field(default_factory=dict)
    refused: Histogram = field(default_factory=Histogram)  # latencies of refusals
    failed: Histogram = field(default_factory=Histogram)  # latencies of all others but the good
    late: Histogram = field(default_factory=Histogram)  # how late the generator itself sent

    def add(self, ended_s: float, latency_s: float, answered: Answered) -> None:
        """Count one answer that ended `ended_s` after the warm-up."""
        at = int(ended_s)
        second = self.seconds.get(at)
        if second is None:
            second = self.seconds[at] = Second()
        second.answers[answered] = second.answers.get(answered, 0) + 1
        if answered.outcome is Outcome.OK:
            second.latency.add(latency_s * 1e6)
        elif answered.outcome is Outcome.REFUSED:
            self.refused.add(latency_s * 1e6)
        else:
            self.failed.add(latency_s * 1e6)

    @property
    def latency(self) -> Histogram:
        """Latencies of all good answers."""
        return merge(second.latency for second in self.seconds.values())

    @property
    def outcomes(self) -> Counter[Outcome]:
        """Count of each outcome over the run."""
        total: Counter[Outcome] = Counter()
        for second in self.seconds.values():
            total.update(second.outcomes)
        return total

    @property
    def revisions(self) -> Counter[str]:
        """Answers of each revision that named itself."""
        return self._by(lambda answered: answered.revision)

    @property
    def workers(self) -> Counter[str]:
        """Answers of each worker that was named."""
        return self._by(lambda answered: answered.worker)

    @property
    def details(self) -> Counter[str]:
        """Answers other than ok, by what they were."""
        return self._by(lambda answered: answered.detail)

    @property
    def latest(self) -> Second:
        """The newest second that has ended."""
        return self.seconds.get(max(self.seconds, default=0) - 1, Second())

    def _by(self, name: Callable[[Answered], str]) -> Counter[str]:
        counted: Counter[str] = Counter()
        for second in self.seconds.values():
            for answered, count in second.answers.items():
                if key := name(answered):
                    counted[key] += count
        return counted
