"""A second revision in stable's workers: when it is possible, and what the agents are told.

The models document of a worker set names its main revision and, while a canary is tried in
place, the canary alongside. Promotion makes the canary the main one: the set hosts it from then
on, which its Deployment's annotation keeps. Source: operator.md section 7.
"""

from collections.abc import Sequence

from tidegate_api.template import Model, WorkerTemplate
from tidegate_api.workermodels import SecondRevision, WorkerModels
from tidegate_operator.core.identity import stable_hash
from tidegate_operator.core.revisions import KeptRevision
from tidegate_operator.core.sources import REMOTE_SCHEMES, plan_sources, split_uri

_GENERATIONS = 2**31


def obstacle(before: KeptRevision, after: KeptRevision) -> str:
    """Return the field that rules out running `after` inside the workers of `before`, or ""."""
    if before.stored.image != after.stored.image:
        return "spec.template.image differs: a running worker keeps its image"
    if before.stored.template.get("pod") != after.stored.template.get("pod"):
        return "spec.template.pod differs: a running worker keeps its pod"
    old, new = _models(before), _models(after)
    if plan_sources(old).mounts != plan_sources(new).mounts:
        return f"{_moved(old, new)}: a running pod mounts nothing new; use https, s3 or gs"
    return _of_models(old, new)


def _models(revision: KeptRevision) -> list[Model]:
    return WorkerTemplate.model_validate(revision.stored.template).models


def _moved(old: Sequence[Model], new: Sequence[Model]) -> str:
    before = {model.name: model.source.uri for model in old}
    moved = (
        model
        for model in new
        if model.source.uri != before.get(model.name)
        and split_uri(model.source.uri)[0] not in REMOTE_SCHEMES
    )
    first = next(moved, None)
    name = first.name if first is not None else new[0].name
    return f"spec.template.models[name={name}].source.uri"


def _of_models(old: Sequence[Model], new: Sequence[Model]) -> str:
    mounted = {model.source.credentials for model in old}
    for model in new:
        field = f"spec.template.models[name={model.name}]"
        if model.source.credentials not in mounted:
            return f"{field}.source.credentials: a running pod mounts no new Secret"
        if "ensemble_scheduling" in (model.config or {}):
            return f"{field}.config.ensemble_scheduling: its parts are called by their own names"
    return ""


def document(
    stored: WorkerModels, main: WorkerModels | None, second: WorkerModels | None
) -> WorkerModels:
    """Return what a set's agents shall serve. `stored`: what the set was made for.

    `generation` is made from the content, so an agent that reports it has acted on just this.
    """
    if main is None and second is None:
        return stored
    chosen = main if main is not None else stored
    alongside = SecondRevision(revision=second.revision, models=second.models) if second else None
    whole = chosen.model_copy(update={"alongside": alongside, "generation": 0})
    digest = int(stable_hash(whole.to_wire()), 16) % (_GENERATIONS - 2)
    return whole.model_copy(update={"generation": digest + 2})
