"""A step at 25 % whose routers' counts a test moves, and everything analysis said of it."""

from dataclasses import dataclass, field, replace

import pytest

from tidegate_api import histogram as tg1
from tidegate_api.routerstate import Attempts, RouterState, SeriesState, ShadowState
from tidegate_operator.core.observation import RouterMember
from tidegate_operator.core.rollout.analysis import AnalysisContext, assess
from tidegate_operator.core.rollout.model import AnalysisPlan
from tidegate_operator.core.rollout.windows import AnalysisMemory

T0 = 1_800_000_000.0
STABLE, CANARY = "stable", "canary"
FAST, SLOW = tg1.bucket_of(0.05), tg1.bucket_of(0.5)


@dataclass
class Router:
    """A router whose cumulative counts the test moves."""

    name: str = "r0"
    instance: str = "r0/1"
    seen_s: float = T0
    scheme: str = "tg1"
    series: dict = field(default_factory=dict)  # (revision, model, class) -> numbers
    shadow: tuple = (0, 0, 0)

    def add(self, revision, ok=0, failed=0, client=0, slow=0, model="m", accelerator="cpu"):
        before = self.series.get((revision, model, accelerator), (0, 0, 0, 0))
        new = (ok, failed, client, slow)
        both = zip(before, new, strict=True)
        self.series[revision, model, accelerator] = tuple(a + b for a, b in both)

    def member(self, now_s):
        return RouterMember(
            name=self.name, address="", seen_s=self.seen_s, scraped_s=now_s, state=self.state()
        )

    def state(self):
        compared, disagreed, failed = self.shadow
        return RouterState(
            instance=self.instance, synced=True, histogram_scheme=self.scheme,
            series=[self._series(key, numbers) for key, numbers in self.series.items()],
            shadows=[ShadowState(namespace="n", pool="p", uid="u", revision=CANARY, model="m",
                                 compared=compared, disagreed=disagreed, failed=failed)],
        )  # fmt: skip

    def _series(self, key, numbers):
        ok, failed, client, slow = numbers
        revision, model, accelerator = key
        return SeriesState(
            namespace="n", pool="p", uid="u", revision=revision, model=model,
            accelerator=accelerator,
            attempts=Attempts(ok=ok, client=client, model_error=failed, cancelled=99),
            attempt_latency=[(FAST, ok + failed - slow), (SLOW, slow), (999, 5)],
        )  # fmt: skip


class Run:
    """A step at 25 %, verified at T0, and everything `assess` said."""

    def __init__(self, *routers, **plan):
        self.routers = list(routers) or [Router()]
        self.plan = AnalysisPlan(**({"min_success_rate": 0.99, "initial_delay_s": 10.0} | plan))
        self.memory = AnalysisMemory()
        self.context = AnalysisContext(
            now_s=T0, pool_uid="u", stable=STABLE, canary=CANARY, step_index=1, step_since_s=T0,
            goal=25, verified=25,
        )  # fmt: skip
        self.said = []

    @property
    def router(self):
        return self.routers[0]

    def at(self, after_s, **changes):
        now_s = T0 + after_s
        members = tuple(router.member(now_s) for router in self.routers)
        self.context = replace(self.context, now_s=now_s, routers=members, **changes)
        said, self.memory = assess(self.plan, self.context, self.memory)
        self.said.append(said)
        return said

    def good(self, canary=200, stable=600):
        self.router.add(CANARY, ok=canary)
        self.router.add(STABLE, ok=stable)

    def to_open_window(self):
        self.at(0)
        assert not self.at(9.9).windows
        assert len(self.at(10).windows) == 1
        return self


@pytest.fixture(scope="session")
def new_run():
    return Run


@pytest.fixture(scope="session")
def new_router():
    return Router


@pytest.fixture
def run():
    return Run().to_open_window()
