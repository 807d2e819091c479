"""A pool with a simulated API server, kubelet, ReplicaSet controller and routers around `decide`.

Everything that crosses the API is passed through JSON, as in life. Time only moves in `tick`.
"""

import json
from dataclasses import dataclass, field, replace

import pytest

from tidegate_api.pool import InferencePool, OperatorClaim
from tidegate_api.routerstate import AppliedTable, EjectedWorker, RouterState
from tidegate_api.routetable import RouteTableSpec, assemble
from tidegate_api.state import ModelState, Phase, Traits, WorkerState
from tidegate_operator.core.decide import decide
from tidegate_operator.core.memory import PoolMemory
from tidegate_operator.core.observation import (
    ObservedDeployment,
    ObservedPod,
    ObservedRevision,
    OperatorSettings,
    Owned,
    PoolObservation,
    PublishedTable,
    RouterMember,
    Scrape,
)

UID = "pool-uid"
START_S = 1_700_000_000.0
SETTINGS = OperatorSettings(
    release=OperatorClaim(name="tidegate", namespace="tidegate-system"),
    worker_image="registry.example/worker:1",
    router_url="http://router.tidegate-system:8000",
)


def template(model="resnet50", uri="pvc://models/resnet50/1", **more):
    return {"models": [{"name": model, "source": {"uri": uri}, **more}]}


def accelerator(name="cpu", kind="CPU", **more):
    return {"name": name, "kind": kind, **more}


def raw_pool(**spec):
    return {
        "metadata": {
            "name": "vision",
            "namespace": "ml",
            "uid": UID,
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"template": template(), "accelerators": [accelerator()], **spec},
    }


@dataclass
class SimulatedPod:
    uid: str
    name: str
    labels: dict
    created_s: float
    cost: int = 0
    ready: bool = False
    terminating_s: float | None = None
    in_flight: int = 0
    silent: bool = False  # the agent does not answer the operator


@dataclass
class SimulatedRouter:
    name: str
    applied: RouteTableSpec | None = None
    reachable: bool = True
    ready: bool = True
    watches: bool = True
    scraped_s: float | None = None
    shown: RouteTableSpec | None = None  # what the operator's last scrape saw
    ejected: tuple[str, ...] = ()  # UIDs of workers


@dataclass
class World:
    """One pool's world. Knobs are attributes; `tick` moves time and decides once."""

    raw: dict = field(default_factory=raw_pool)
    now_s: float = START_S
    settings: OperatorSettings = SETTINGS
    start_s: float = 3.0  # from creation to Ready
    broken: set = field(default_factory=set)  # revisions whose workers never get Ready
    busy: dict = field(default_factory=dict)  # pod name -> requests in flight
    memory: PoolMemory = field(default_factory=PoolMemory)
    status: dict = field(default_factory=dict)
    deployments: dict = field(default_factory=dict)
    revisions: dict = field(default_factory=dict)
    others: dict = field(default_factory=dict)
    pods: dict = field(default_factory=dict)
    routers: list = field(default_factory=lambda: [SimulatedRouter("r1"), SimulatedRouter("r2")])
    published: PublishedTable | None = None
    parts: dict = field(default_factory=dict)
    acks: frozenset = frozenset()
    events: list = field(default_factory=list)
    decision: object = None
    lose_costs: bool = False  # deletion costs are not written
    extra: dict = field(default_factory=dict)  # fields of the observation to set as they are
    pod_facts: dict = field(default_factory=dict)  # fields to set on every pod that is not Ready
    serial: int = 0

    def edit(self, **spec):
        self.raw = {**self.raw, "spec": {**self.raw["spec"], **spec}}
        meta = self.raw["metadata"]
        self.raw["metadata"] = {**meta, "generation": meta["generation"] + 1}

    def observe(self):
        pool = InferencePool.model_validate({**self.raw, "status": self.status})
        spec = json.loads(json.dumps(self.raw["spec"]))
        seen = PoolObservation(
            now_s=self.now_s,
            pool=pool,
            template=spec["template"],
            accelerators=tuple(spec["accelerators"]),
            settings=self.settings,
            deployments=tuple(self._deployment(item) for item in self.deployments.values()),
            revisions=tuple(self._revision(item) for item in self.revisions.values()),
            others=tuple(self._owned(item) for item in self.others.values()),
            pods=tuple(self._pod(item) for item in self.pods.values()),
            scrapes={pod.uid: self._scrape(pod) for pod in self.pods.values() if pod.ready},
            routers=tuple(self._router(item) for item in self.routers if item.ready),
            published=self.published,
        )
        return replace(seen, **self.extra)

    def _owned(self, manifest):
        meta = manifest["metadata"]
        owner = meta.get("ownerReferences", [{}])[0]
        return Owned(
            kind=manifest["kind"],
            name=meta["name"],
            uid="uid-" + manifest["kind"] + meta["name"],
            controller_uid=owner.get("uid"),
            controller_kind=owner.get("kind", ""),
            controller_name=owner.get("name", ""),
            labels=meta.get("labels", {}),
        )

    def _deployment(self, manifest):
        name = manifest["metadata"]["name"]
        mine = [p for p in self.pods.values() if p.labels["tidegate.dev/worker-set"] == name]
        return ObservedDeployment(
            meta=self._owned(manifest),
            replicas=manifest["spec"]["replicas"],
            ready=sum(pod.ready for pod in mine),
            pod_template=manifest["spec"]["template"],
        )

    def _revision(self, manifest):
        return ObservedRevision(
            meta=self._owned(manifest),
            data=manifest["data"],
            number=manifest["revision"],
            created_at="2026-01-01T00:00:00Z",
        )

    def _pod(self, pod):
        seen = ObservedPod(
            uid=pod.uid,
            name=pod.name,
            worker_set=pod.labels["tidegate.dev/worker-set"],
            revision=pod.labels["tidegate.dev/revision"],
            accelerator=pod.labels["tidegate.dev/class"],
            ip="10.0.0.1",
            phase="Running",
            ready=pod.ready and pod.terminating_s is None,
            terminating=pod.terminating_s is not None,
            created_s=pod.created_s,
            deletion_cost=pod.cost,
        )
        return seen if pod.ready else replace(seen, **self.pod_facts)

    def _scrape(self, pod):
        state = WorkerState(
            uid=pod.uid,
            phase=Phase.READY,
            ready=True,
            models=[
                ModelState(
                    name="resnet50",
                    ready=True,
                    in_flight=self.busy.get(pod.name, 0),
                    p50_ms=5.0,
                    success_ratio=1.0,
                    traits=Traits(dynamic_batching=True, max_batch_size=8),
                )
            ],
        )
        if pod.silent:
            return Scrape(error="timeout")
        return Scrape(scraped_s=self.now_s, state=state)

    def _router(self, router):
        if router.reachable:
            router.scraped_s, router.shown = self.now_s, router.applied
        shown = router.shown
        tables = []
        if shown is not None:
            tables = [
                AppliedTable(
                    namespace="ml",
                    pool="vision",
                    uid=UID,
                    applied_sequence=shown.sequence,
                    age_s=0.0,
                )
            ]
        heard = router.scraped_s is not None
        ejected = [
            EjectedWorker(
                namespace="ml", pool="vision", uid=UID, worker=worker, revision="r", model=model
            )
            for worker in router.ejected
            for model in ("resnet50", "other")
        ]
        state = (
            RouterState(instance=router.name, synced=True, tables=tables, ejected=ejected)
            if heard
            else None
        )
        return RouterMember(
            name=router.name,
            address="10.1.0.1",
            scraped_s=router.scraped_s,
            state=state,
            error="" if router.reachable else "timeout",
            seen_s=START_S,
        )

    def tick(self, elapsed_s=1.0, *, forget=False, write_fails=False):
        self.now_s += elapsed_s
        if forget:
            self.memory = PoolMemory()
        decision = decide(self.observe(), self.memory)
        self.decision, self.memory = decision, decision.memory
        if not write_fails:
            self._write(decision)
        self.acks = decision.drain_acks
        self.events.extend(decision.events)
        self._controllers()
        self._routers_watch()
        return decision

    def run(self, seconds, **knobs):
        for _ in range(int(seconds)):
            self.tick(**knobs)
        return self.decision

    def _write(self, decision):
        if decision.table is not None:
            self._write_table(decision.table)
        for name, cost in self._costs(decision):
            next(pod for pod in self.pods.values() if pod.name == name).cost = cost
        for manifest in decision.applies:
            self._apply(json.loads(json.dumps(manifest.body)))
        for gone in decision.deletes:
            self._delete(gone)
        if decision.status is not None:
            self.status = json.loads(json.dumps(decision.status.to_wire()))

    def _costs(self, decision):
        return [] if self.lose_costs else list(decision.deletion_costs.items())

    def _write_table(self, plan):
        before = self.published.spec.sequence if self.published else 0
        assert plan.spec.sequence > before, "sequences must grow"
        parts = {p.name: RouteTableSpec.model_validate(p.body["spec"]) for p in plan.parts}
        index = RouteTableSpec.model_validate(json.loads(json.dumps(plan.index.body["spec"])))
        spec = assemble(index, parts)
        assert spec is not None
        self.published = PublishedTable(
            spec=spec, written_s=self.now_s, part_names=tuple(sorted(parts))
        )

    def _apply(self, body):
        name, kind = body["metadata"]["name"], body["kind"]
        if kind == "Deployment":
            old = self.deployments.get(name)
            assert old is None or old["spec"]["template"] == body["spec"]["template"], (
                "a worker set's template never changes"
            )
            self.deployments[name] = body
        elif kind == "ControllerRevision":
            old = self.revisions.get(name)
            assert old is None or old["data"] == body["data"], "its data is immutable"
            self.revisions[name] = body
        else:
            self.others[kind, name] = body

    def _delete(self, gone):
        assert gone.uid == "uid-" + gone.kind + gone.name
        if gone.kind == "Deployment":
            del self.deployments[gone.name]
        elif gone.kind == "ControllerRevision":
            del self.revisions[gone.name]
        else:
            del self.others[gone.kind, gone.name]

    def _controllers(self):
        for pod in list(self.pods.values()):
            if pod.terminating_s is not None:
                drained = pod.uid in self.acks or self.now_s - pod.terminating_s > 60
                if drained:
                    del self.pods[pod.uid]
                continue
            revision = pod.labels["tidegate.dev/revision"]
            if self.now_s - pod.created_s >= self.start_s and revision not in self.broken:
                pod.ready = True
        for name, manifest in self.deployments.items():
            self._replicate(name, manifest)
        for pod in self.pods.values():
            if pod.labels["tidegate.dev/worker-set"] not in self.deployments:
                pod.terminating_s = pod.terminating_s or self.now_s

    def _replicate(self, name, manifest):
        mine = [
            pod
            for pod in self.pods.values()
            if pod.labels["tidegate.dev/worker-set"] == name and pod.terminating_s is None
        ]
        wanted = manifest["spec"]["replicas"]
        for _ in range(wanted - len(mine)):
            self.serial += 1
            uid = f"pod-{self.serial:03d}"
            labels = manifest["spec"]["template"]["metadata"]["labels"]
            self.pods[uid] = SimulatedPod(uid, f"{name}-{self.serial:03d}", labels, self.now_s)
        mine.sort(key=lambda pod: (pod.ready, pod.cost, -pod.created_s))
        for pod in mine[: max(0, len(mine) - wanted)]:
            pod.terminating_s = self.now_s

    def _routers_watch(self):
        for router in self.routers:
            if router.watches and self.published is not None:
                router.applied = self.published.spec

    def condition(self, kind):
        found = [c for c in self.status.get("conditions", []) if c["type"] == kind]
        return (found[0]["status"], found[0]["reason"]) if found else None

    def message(self, kind):
        return next(c["message"] for c in self.status["conditions"] if c["type"] == kind)

    def weights(self):
        return {w.revision: w.weight for w in self.published.spec.weights}

    def serving(self):
        return next((w.revision for w in self.published.spec.weights if w.weight), None)

    def ready_of(self, revision):
        return sum(
            pod.ready and pod.terminating_s is None
            for pod in self.pods.values()
            if pod.labels["tidegate.dev/revision"] == revision
        )

    def listed(self):
        return {worker.name: worker for worker in self.published.spec.workers}

    def with_status(self, **status):
        self.status = {**self.status, **status}


@pytest.fixture(scope="session")
def world():
    """Returns the simulation's class, so that hypothesis may make many."""
    return World


@pytest.fixture(scope="session")
def make():
    """Returns the builders of raw objects."""

    class Make:
        pool = staticmethod(raw_pool)
        template = staticmethod(template)
        accelerator = staticmethod(accelerator)
        settings = SETTINGS
        router = SimulatedRouter
        replace = staticmethod(replace)

        @staticmethod
        def replace_class(item, bounds):
            return {**item, "replicas": bounds}

    return Make
