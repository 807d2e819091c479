"""A pool with a ModelRollout in the simulated world: marks, traffic, kills between two writes."""

import json
from dataclasses import dataclass, field, replace

import pytest

from tidegate_api.histogram import bucket_of
from tidegate_api.meta import ObjectMeta
from tidegate_api.rollout import ModelRolloutStatus
from tidegate_api.routerstate import Attempts, SeriesState
from tidegate_api.state import ModelState, Traits
from tidegate_api.validation import InvalidRolloutError, parse_rollout
from tidegate_api.workermodels import WorkerModels, copy_name
from tidegate_operator.core.memory import PoolMemory
from tidegate_operator.core.observation import ObservedRollout
from tidegate_operator.core.rollout.persist import status_of

STEPS = [{"setWeight": 20}, {"pause": {"duration": "10s"}}, {"setWeight": 50}]
ANALYSIS = {
    "interval": "5s",
    "initialDelay": "0s",
    "minRequests": 50,
    "successRate": {"min": 0.99},
    "p95Latency": {"max": "200ms"},
}


class KilledError(Exception):
    """The process ended between two writes."""


@dataclass
class Steering:
    """What a world adds to one without rollouts."""

    rollouts: dict = field(default_factory=dict)  # name -> raw document
    statuses: dict = field(default_factory=dict)  # name -> status
    generations: dict = field(default_factory=dict)  # pod name -> annotation
    counts: dict = field(default_factory=dict)  # (router, revision) -> Attempts, histogram
    rate: float = 100.0  # requests a second, over all routers
    errors: dict = field(default_factory=dict)  # revision -> share of failed attempts
    slow: dict = field(default_factory=dict)  # revision -> seconds of every attempt
    loads: bool = True  # agents load what they are told beside their own
    notes: list = field(default_factory=list)
    history: list = field(default_factory=list)  # every published table's weights
    dies_at: int | None = None  # the write, counted over the whole run, before which it dies
    writes: int = 0

    def add_rollout(self, name="vision", **spec):
        self.rollouts[name] = {
            "metadata": {
                "name": name, "namespace": "ml", "uid": f"uid-{name}", "generation": 1,
                "creationTimestamp": f"2026-01-02T00:00:{len(self.rollouts):02d}Z",
                "annotations": {},
            },
            "spec": {"poolRef": {"name": "vision"}, **spec},
        }  # fmt: skip

    def edit_rollout(self, name="vision", **spec):
        raw = self.rollouts[name]
        meta = {**raw["metadata"], "generation": raw["metadata"]["generation"] + 1}
        self.rollouts[name] = {"metadata": meta, "spec": {**raw["spec"], **spec}}

    def annotate(self, key, value, name="vision"):
        self.rollouts[name]["metadata"]["annotations"][f"tidegate.dev/{key}"] = value

    def model(self, number, **more):
        """A template of the rollout that asks for another version of the model."""
        source = {"uri": f"https://models.example/resnet50/{number}"}
        return {"models": [{"name": "resnet50", "source": source, **more}]}

    @property
    def rollout(self):
        return ModelRolloutStatus.model_validate(self.statuses.get("vision", {}))

    def observe(self):
        seen = super().observe()
        found = tuple(self._observed(raw) for raw in self.rollouts.values())
        pods = tuple(
            replace(pod, models_generation=self.generations.get(pod.name, "")) for pod in seen.pods
        )
        return replace(seen, rollouts=found, pods=pods)

    def _observed(self, raw):
        raw = json.loads(json.dumps(raw))
        meta, template = ObjectMeta.model_validate(raw["metadata"]), raw["spec"].get("template")
        status = status_of(self.statuses.get(meta.name, {}))
        try:
            rollout, problem = parse_rollout(raw), ""
        except InvalidRolloutError as error:
            rollout, problem = None, str(error)
        return ObservedRollout(
            meta=meta, rollout=rollout, template=template or {}, status=status, problem=problem
        )

    def _owned(self, manifest):
        owned = super()._owned(manifest)
        return replace(owned, annotations=manifest["metadata"].get("annotations", {}))

    def _scrape(self, pod):
        scrape = super()._scrape(pod)
        name = f"{pod.labels['tidegate.dev/worker-set']}-models"
        told = self.others.get(("ConfigMap", name))
        if scrape.state is None or told is None:
            return scrape
        document = WorkerModels.model_validate_json(told["data"]["models.json"])
        return replace(scrape, state=self._loaded(scrape.state, document, pod))

    def _loaded(self, state, document, pod):
        plain = pod.labels["tidegate.dev/revision"]
        copies = [(document.revision, m.model.name) for m in document.models]
        if document.alongside and self.loads:
            second = document.alongside
            copies += [(second.revision, m.model.name) for m in second.models]
        models = [
            ModelState(
                name=name,
                revision=revision,
                loaded_as=None if revision == plain else copy_name(name, revision),
                ready=True,
                p50_ms=5.0,
                success_ratio=1.0,
                traits=Traits(dynamic_batching=True, max_batch_size=8),
            )
            for revision, name in copies
        ]
        return state.model_copy(
            update={
                "revision": document.revision,
                "models_generation": document.generation,
                "models": models,
            }
        )

    def _router(self, router):
        member = super()._router(router)
        if member.state is None:
            return member
        series = [
            SeriesState(
                namespace="ml", pool="vision", uid=self.raw["metadata"]["uid"],
                revision=revision, model="resnet50", accelerator="cpu",
                requests=sum(attempts.values()), attempts=Attempts(**attempts),
                attempt_latency=sorted(latency.items()),
            )
            for (name, revision), (attempts, latency) in self.counts.items()
            if name == router.name
        ]  # fmt: skip
        return replace(member, state=member.state.model_copy(update={"series": series}))

    def serve(self, seconds):
        """Let routers send requests by the weights that each of them has applied."""
        for router in self.routers:
            weights = router.applied.weights if router.applied else []
            for entry in weights:
                number = round(self.rate * seconds / len(self.routers) * entry.weight / 100)
                self._count(router.name, entry.revision, number)

    def _count(self, router, revision, number):
        attempts, latency = self.counts.setdefault((router, revision), ({}, {}))
        failed = round(number * self.errors.get(revision, 0.0))
        for outcome, more in (("ok", number - failed), ("model_error", failed)):
            attempts[outcome] = attempts.get(outcome, 0) + more
        bucket = bucket_of(self.slow.get(revision, 0.02))
        latency[bucket] = latency.get(bucket, 0) + number

    def tick(self, elapsed_s=1.0, **knobs):
        self.serve(elapsed_s)
        return super().tick(elapsed_s, **knobs)

    def _write(self, decision):
        """In the shell's order; a kill loses the rest and the memory."""
        try:
            for write in self._steps(decision):
                self.writes += 1
                self._survive()
                write()
        except KilledError:
            self.memory = PoolMemory()

    def _survive(self):
        if self.writes == self.dies_at:
            raise KilledError

    def _steps(self, decision):
        if decision.first is not None:
            yield lambda: self._put(decision.first)
        if decision.table is not None:
            yield lambda: self._publish(decision.table)
        for name, cost in self._costs(decision):
            yield lambda name=name, cost=cost: self._cost(name, cost)
        for manifest in decision.applies:
            if self._differs(manifest):
                yield lambda manifest=manifest: self._put(manifest)
        if decision.models_generations:
            yield lambda: self.generations.update(decision.models_generations)
        for gone in decision.deletes:
            yield lambda gone=gone: self._delete(gone)
        yield from self._told(decision)

    def _told(self, decision):
        if decision.status is not None:
            yield lambda: self.with_status(**decision.status.to_wire())
        for told in decision.rollouts:
            if self.statuses.get(told.name) != told.status.to_wire():
                yield lambda told=told: self._tell(told)
        if decision.last is not None:
            yield lambda: self._put(decision.last)

    def _differs(self, manifest):
        body = json.loads(json.dumps(manifest.body))
        kinds = {"Deployment": self.deployments, "ControllerRevision": self.revisions}
        kept = kinds.get(manifest.kind)
        known = (kept or {}).get(manifest.name) if kept is not None else None
        known = known or self.others.get((manifest.kind, manifest.name))
        return known != body

    def _put(self, manifest):
        self._apply(json.loads(json.dumps(manifest.body)))

    def _publish(self, plan):
        self._write_table(plan)
        self.history.append(self.shares())

    def _cost(self, name, cost):
        next(pod for pod in self.pods.values() if pod.name == name).cost = cost

    def _tell(self, told):
        self.statuses[told.name] = json.loads(json.dumps(told.status.to_wire()))
        self.notes.extend(told.notes)

    def shares(self):
        """Return the published weights above 0."""
        return {name: weight for name, weight in self.weights().items() if weight}

    def until(self, phase, limit_s=120):
        for _ in range(limit_s):
            self.tick()
            moving = self.rollout.canary_weight != self.rollout.verified_weight
            if self.rollout.phase == phase and not moving:
                return self.rollout
        raise AssertionError(f"not {phase}: {self.rollout}")

    def told(self, kind, name="vision"):
        status = ModelRolloutStatus.model_validate(self.statuses[name])
        found = [item for item in status.conditions if item.type == kind]
        return (found[0].status, found[0].reason) if found else None

    @property
    def reasons(self):
        return [note.reason.value for note in self.notes]

    @property
    def uids(self):
        return {uid for uid, pod in self.pods.items() if pod.terminating_s is None}


@pytest.fixture(scope="session")
def steered(world):
    """Returns the class of a world with rollouts."""

    @dataclass
    class Steered(Steering, world):
        """Steering goes first: its methods add to the world's."""

    return Steered


@pytest.fixture
def rolled(steered, make):
    """Returns a healthy pool of four workers with a rollout of three steps."""
    one = steered(raw=make.pool(replicas=4, drain={"timeout": "20s"}))
    one.add_rollout(steps=STEPS, analysis=ANALYSIS, scaleDownDelay="5s")
    one.until("Healthy")
    one.run(3)
    return one
