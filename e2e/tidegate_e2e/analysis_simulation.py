"""Rollouts in simulated time, judged by the operator's own analysis (tier S).

Routers count simulated attempts as real ones do; `assess` is called each second. Service times of
both revisions are a stratum's median x lognormal(sigma = ln 2). Strata differ by a factor of up to
5 and the canary meets them in other shares than stable. Scrapes are missed, routers restart.
"""

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tidegate_api.histogram import BUCKETS, upper_bound_s
from tidegate_api.routerstate import Attempts, RouterState, SeriesState, ShadowState
from tidegate_operator.core.observation import RouterMember
from tidegate_operator.core.rollout.analysis import AnalysisContext, assess
from tidegate_operator.core.rollout.model import AnalysisPlan, Assessment
from tidegate_operator.core.rollout.windows import AnalysisMemory

Kind = Literal["good", "slow", "erring", "wrong"]
INPUT = Path(__file__).parents[2] / "tests/bench/rollout-analysis.json"
_STABLE, _CANARY, _POOL = "stable00", "canary00", "pool-uid"
_STRATA = (("a", "small"), ("a", "large"), ("b", "small"), ("b", "large"))
_BEGIN_S = 1_800_000_000.0
_PATIENCE_S = 900  # a step that never gets its data ends the run
_P95_SIGMAS = 1.6449
_EDGES_S = np.array([upper_bound_s(bucket) for bucket in range(BUCKETS - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The file's settings; names as there."""

    steps: tuple[tuple[int, int], ...]
    rates: tuple[int, ...]
    bad_rates: tuple[int, ...]
    numbers: Mapping[str, float]
    max_p95_of_true_p95: tuple[float, float]
    failure_ratio: tuple[float, float]
    client_error_ratio: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one rollout ended."""

    kind: Kind
    seed: int
    rate: int
    end: Literal["promoted", "failed", "no data"]
    message: str = ""
    intervals: int = 0  # judged in the step that failed, the failing one included
    attempts: int = 0  # the canary's, when it failed
    judgements: int = 0


def load(path: Path = INPUT) -> tuple[Settings, tuple[int, ...]]:
    """Return the settings and the seeds."""
    document = json.loads(path.read_text())
    found = document["settings"]
    settings = Settings(
        steps=tuple((weight, length_s) for weight, length_s in found["steps"]),
        rates=tuple(found["requests_per_second"]),
        bad_rates=tuple(found["requests_per_second_bad"]),
        numbers={key: value for key, value in found.items() if isinstance(value, int | float)},
        max_p95_of_true_p95=tuple(found["max_p95_of_true_p95"]),
        failure_ratio=tuple(found["failure_ratio"]),
        client_error_ratio=tuple(found["client_error_ratio"]),
    )
    return settings, tuple(document["seeds"])


@dataclass(slots=True)
class _Counter:
    """Cumulative counts of one series, as a router keeps them."""

    attempts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, dtype=np.int64))
    latency: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BUCKETS, dtype=np.int64))


class _Router:
    """One router instance and its counts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.instance = f"{name}/0"
        self.series: dict[tuple[str, str, str], _Counter] = {}
        self.shadow = [0, 0]
        self.member = RouterMember(name=name, address="", seen_s=_BEGIN_S)

    def restart(self, now_s: float) -> None:
        """Begin with empty counts under another instance."""
        self.instance = f"{self.name}/{now_s}"
        self.series, self.shadow = {}, [0, 0]

    def scrape(self, now_s: float) -> None:
        """Show the operator the present counts."""
        shadow = ShadowState(
            namespace="n", pool="p", uid=_POOL, revision=_CANARY, model="a",
            compared=self.shadow[0], disagreed=self.shadow[1],
        )  # fmt: skip
        state = RouterState(
            instance=self.instance, synced=True, shadows=[shadow],
            series=[_series(key, counter) for key, counter in self.series.items()],
        )  # fmt: skip
        self.member = RouterMember(
            name=self.name, address="", seen_s=_BEGIN_S, scraped_s=now_s, state=state
        )


def _series(key: tuple[str, str, str], counter: _Counter) -> SeriesState:
    revision, model, accelerator = key
    ok, client, failed = (int(number) for number in counter.attempts)
    used = np.flatnonzero(counter.latency)
    return SeriesState(
        namespace="n", pool="p", uid=_POOL, revision=revision, model=model,
        accelerator=accelerator, attempts=Attempts(ok=ok, client=client, model_error=failed),
        attempt_latency=[(int(bucket), int(counter.latency[bucket])) for bucket in used],
    )  # fmt: skip


class Simulation:
    """One rollout of one kind of canary."""

    def __init__(self, kind: Kind, seed: int, settings: Settings) -> None:
        chosen = random.Random(f"{kind}/{seed}")  # noqa: S311 - repeatable, not secret
        self._kind, self._seed, self._settings = kind, seed, settings
        self._random = np.random.default_rng([seed, len(kind)])
        self.rate = chosen.choice(settings.rates if kind == "good" else settings.bad_rates)
        self._medians_s = [chosen.uniform(0.004, 0.02) * factor for factor in (1, 5, 2, 3)]
        self._shares = {name: self._random.dirichlet([4] * 4) for name in (_STABLE, _CANARY)}
        self._failing = chosen.uniform(*settings.failure_ratio)
        self._refused = chosen.uniform(*settings.client_error_ratio)
        self._routers = [_Router(f"r{i}") for i in range(int(settings.numbers["routers"]))]
        self._plan = self._make_plan(chosen)

    def _make_plan(self, chosen: random.Random) -> AnalysisPlan:
        numbers = self._settings.numbers
        slack = chosen.uniform(*self._settings.max_p95_of_true_p95)
        return AnalysisPlan(
            interval_s=numbers["interval_s"],
            min_requests=int(numbers["min_requests"]),
            initial_delay_s=numbers["initial_delay_s"],
            min_success_rate=numbers["min_success_rate"],
            max_p95_s=self._true_p95_s() * slack,
            max_p95_ratio=numbers["max_p95_ratio"],
            max_disagreement=numbers["max_disagreement"],
        )

    def _true_p95_s(self) -> float:
        """Of a good canary's mix of strata, by 100 000 draws."""
        strata = self._random.choice(4, size=100_000, p=self._shares[_CANARY])
        return float(np.quantile(self._draw_s(strata, 1.0), 0.95))

    def _draw_s(self, strata: NDArray[np.int64], factor: float) -> NDArray[np.float64]:
        medians_s = np.asarray(self._medians_s)[strata]
        noise = self._random.lognormal(0.0, math.log(2), size=strata.size)
        return np.asarray(medians_s * noise * factor, dtype=np.float64)

    def run(self) -> Result:
        """Go through the steps until one fails, waits too long, or the last passed."""
        memory, now_s, judgements = AnalysisMemory(), _BEGIN_S, 0
        for index, (weight, length_s) in enumerate(self._settings.steps):
            since_s, intervals = now_s, 0
            while True:
                now_s += 1
                self._tick(now_s, weight)
                context = self._context(now_s, index, since_s, weight)
                said, memory = assess(self._plan, context, memory)
                intervals, judgements = intervals + said.judged, judgements + said.judged
                if said.bad:
                    return self._failed(said, intervals, judgements)
                if now_s >= since_s + length_s and said.passed:
                    break
                if now_s >= since_s + _PATIENCE_S:
                    return self._result("no data", said.message, judgements=judgements)
        return self._result("promoted", judgements=judgements)

    def _failed(self, said: Assessment, intervals: int, judgements: int) -> Result:
        worst = max(check.requests for check in said.checks)
        return self._result(
            "failed", said.message, intervals=intervals, attempts=worst, judgements=judgements
        )

    def _result(
        self,
        end: Literal["promoted", "failed", "no data"],
        message: str = "",
        *,
        intervals: int = 0,
        attempts: int = 0,
        judgements: int = 0,
    ) -> Result:
        return Result(
            kind=self._kind, seed=self._seed, rate=self.rate, end=end, message=message,
            intervals=intervals, attempts=attempts, judgements=judgements,
        )  # fmt: skip

    def _context(self, now_s: float, index: int, since_s: float, weight: int) -> AnalysisContext:
        return AnalysisContext(
            now_s=now_s, pool_uid=_POOL, stable=_STABLE, canary=_CANARY, step_index=index,
            step_since_s=since_s, goal=weight, verified=weight,
            routers=tuple(router.member for router in self._routers),
        )  # fmt: skip

    def _tick(self, now_s: float, weight: int) -> None:
        """One second of traffic at each router, then its scrape."""
        numbers = self._settings.numbers
        for router in self._routers:
            if self._random.random() < numbers["router_restart_ratio"]:
                router.restart(now_s)
            total = int(self._random.poisson(self.rate / len(self._routers)))
            canary = int(self._random.binomial(total, weight / 100))
            self._serve(router, _CANARY, canary)
            self._serve(router, _STABLE, total - canary)
            self._mirror(router, total - canary)
            if self._random.random() >= numbers["missed_scrape_ratio"]:
                router.scrape(now_s)

    def _serve(self, router: _Router, revision: str, total: int) -> None:
        spoilt = revision == _CANARY
        numbers = self._settings.numbers
        factor = numbers["slow_factor"] if spoilt and self._kind == "slow" else 1.0
        erring = numbers["erring_ratio"] if spoilt and self._kind == "erring" else self._failing
        strata = self._random.choice(4, size=total, p=self._shares[revision])
        places = np.searchsorted(_EDGES_S, self._draw_s(strata, factor))
        fates = self._random.choice(
            3, size=total, p=[1 - self._refused - erring, self._refused, erring]
        )
        for number, (model, accelerator) in enumerate(_STRATA):
            mine = strata == number
            counter = router.series.setdefault((revision, model, accelerator), _Counter())
            counter.attempts += np.bincount(fates[mine], minlength=3)
            counter.latency += np.bincount(places[mine], minlength=BUCKETS)

    def _mirror(self, router: _Router, total: int) -> None:
        numbers = self._settings.numbers
        copies = int(self._random.binomial(total, numbers["mirror_percent"] / 100))
        wrong = numbers["wrong_ratio"] if self._kind == "wrong" else self._failing
        router.shadow[0] += copies
        router.shadow[1] += int(self._random.binomial(copies, wrong))
