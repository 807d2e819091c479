"""Each verb as the merge patch that kubectl could send too, or why it would do nothing.

Annotations name their target and act once (docs/rollouts.md); `set` changes spec. Nothing here
writes status.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_api import names
from tidegate_api.merge import merge_template
from tidegate_api.rollout import ModelRollout
from tidegate_api.validation import InvalidRolloutError, parse_rollout, problems_of_merged
from tidegate_cli.core.documents import Json, full_name, mapping, records, text
from tidegate_cli.core.snapshot import Revision
from tidegate_cli.errors import RefusedError

_GITOPS_PREFIXES = {
    "argocd.argoproj.io/": "Argo CD",
    "kustomize.toolkit.fluxcd.io/": "Flux",
    "helm.toolkit.fluxcd.io/": "Flux",
}
_INSTANCE_LABEL = "app.kubernetes.io/instance"
_HELM_RELEASE = "meta.helm.sh/release-name"


@dataclass(frozen=True, slots=True)
class Change:
    """A merge patch of the rollout, and what to tell."""

    patch: Json
    told: str


def promote(rollout: ModelRollout, now_rfc3339: str, *, full: bool) -> Change:
    """End the present pause, or with `full` skip all steps that are left."""
    canary = _canary(rollout, "promote")
    if rollout.status.aborted_revision == canary:
        raise _refused(rollout, f"{canary} is aborted: retry it, or edit the template")
    handled = rollout.status.handled_verbs
    if full:
        value = _anew(canary, handled.promote_full, now_rfc3339)
        change = {names.ANNOTATION_PROMOTE_FULL: value}
        return _annotated(change, f"{canary} skips the steps that are left")
    done = rollout.status.current_step_index or 0
    change = {names.ANNOTATION_PROMOTE: _anew(f"{canary}/{done}", handled.promote, now_rfc3339)}
    return _annotated(change, f"{canary} goes on after step {done + 1}")


def _anew(value: str, handled: str | None, now_rfc3339: str) -> str:
    """Return a value that acts: the one that acted before is an edge that is over."""
    return f"{value}@{now_rfc3339}" if (handled or "").partition("@")[0] == value else value


def abort(rollout: ModelRollout, now_rfc3339: str) -> Change:
    """Take all weight from the canary, until retry or another edit."""
    canary = _canary(rollout, "abort")
    if rollout.status.aborted_revision == canary:
        raise _refused(rollout, f"{canary} is aborted already")
    value = _anew(canary, rollout.status.handled_verbs.abort, now_rfc3339)
    return _annotated({names.ANNOTATION_ABORT: value}, f"{canary} is aborted")


def retry(rollout: ModelRollout, now_rfc3339: str) -> Change:
    """Begin an aborted revision at its first step again."""
    aborted = rollout.status.aborted_revision
    if not aborted:
        raise _refused(rollout, "no revision is aborted, so there is nothing to retry")
    value = _anew(aborted, rollout.status.handled_verbs.retry, now_rfc3339)
    return _annotated({names.ANNOTATION_RETRY: value}, f"{aborted} begins again")


def undo(
    rollout: ModelRollout, revisions: Sequence[Revision], asked: str, now_rfc3339: str
) -> Change:
    """Make a kept revision stable again; `asked` is a name, a number, or empty: the previous."""
    stable = rollout.status.stable_revision
    if not asked and rollout.status.canary_revision:
        raise _refused(
            rollout,
            f"{rollout.status.canary_revision} is under way and {stable} is still stable: abort"
            " it, or name a revision with --to-revision",
        )
    target = _named(rollout, revisions, asked) if asked else _previous(rollout, revisions)
    if target.name == stable:
        raise _refused(rollout, f"{stable} is stable already")
    change = {names.ANNOTATION_UNDO: f"{target.name}@{now_rfc3339}"}
    return _annotated(change, f"{target.name} (number {target.number}) becomes stable again")


def _named(rollout: ModelRollout, revisions: Sequence[Revision], asked: str) -> Revision:
    for revision in revisions:
        if asked in {revision.name, str(revision.number)}:
            return revision
    kept = ", ".join(f"{one.name} (number {one.number})" for one in revisions)
    raise _refused(rollout, f"--to-revision {asked} is not kept; there are: {kept or 'none'}")


def _previous(rollout: ModelRollout, revisions: Sequence[Revision]) -> Revision:
    stable = rollout.status.stable_revision
    at = next((one.number for one in revisions if one.name == stable), None)
    older = [one for one in revisions if at is not None and one.number < at and not one.aborted]
    if not older:
        raise _refused(
            rollout, f"no revision before {stable or 'the first one'} is kept that was not aborted"
        )
    return older[-1]


def pause() -> Change:
    """Hold steps and weight increases; analysis may still abort."""
    change = {names.ANNOTATION_PAUSED: "true"}
    return _annotated(change, "paused: no step and no weight increase until resume")


def resume(rollout: ModelRollout, *, pool_paused: bool) -> Change:
    """Take the annotation away; refused where that alone would change nothing."""
    marked = rollout.metadata.annotations.get(names.ANNOTATION_PAUSED) == "true"
    if rollout.spec.paused:
        raise _refused(rollout, "spec.paused is true: set it to false where the object is kept")
    if marked:
        return _annotated({names.ANNOTATION_PAUSED: None}, "resumed")
    if pool_paused:
        raise _refused(rollout, "its pool is paused: resume the pool")
    if rollout.status.phase == "Paused":
        raise _refused(rollout, "it waits at a step, nobody paused it: promote it")
    raise _refused(rollout, "it is not paused")


def restart(now_rfc3339: str) -> Change:
    """Replace the workers by new ones of the same revision."""
    change = {names.ANNOTATION_RESTARTED_AT: now_rfc3339}
    return _annotated(change, "its workers are replaced")


def set_image(document: Json, image: str) -> Change:
    """Ask for another worker image."""
    return Change(
        {**_versioned(document), "spec": {"template": {"image": image}}}, f"image {image}"
    )


def set_model(document: Json, name: str, source: Mapping[str, object]) -> Change:
    """Ask for other files of one model. Its sha256 and version go unless given: they tell of
    the files that were there.
    """
    models = [
        copy.deepcopy(dict(model)) for model in records(document, "spec", "template", "models")
    ]
    mine = next((model for model in models if model.get("name") == name), None)
    if mine is None:
        mine = {"name": name}
        models.append(mine)
    kept = mapping(mine, "source").items()
    same = {key: value for key, value in kept if key not in {"uri", "sha256", "version"}}
    mine["source"] = {**same, **source}
    patch = {**_versioned(document), "spec": {"template": {"models": models}}}
    return Change(patch, f"model {name} from {source['uri']}")


def refuse_broken(document: Json, pool: Json | None, change: Change) -> None:
    """Raise RefusedError where the operator would answer the change with InvalidSpec."""
    template = {
        **mapping(document, "spec", "template"),
        **mapping(change.patch, "spec", "template"),
    }
    changed = {**document, "spec": {**mapping(document, "spec"), "template": template}}
    try:
        parse_rollout(changed)
    except InvalidRolloutError as error:
        raise RefusedError(str(error)) from None
    if pool is None:
        return
    merged, unknown = merge_template(mapping(pool, "spec", "template"), template)
    problems = unknown or problems_of_merged(pool, merged)
    if problems:
        meta = mapping(document, "metadata")
        plural = names.PLURALS[names.Kind.MODEL_ROLLOUT]
        name = full_name(plural, text(meta, "namespace"), text(meta, "name"))
        raise RefusedError(f"{name}: {'; '.join(map(str, problems))}")


def _versioned(document: Json) -> Json:
    """Lists are replaced whole, so a change in between must be refused."""
    version = text(document, "metadata", "resourceVersion")
    return {"metadata": {"resourceVersion": version}} if version else {}


def managed_by(document: Json) -> str:
    """Return what keeps this object as Git says ("Argo CD (label ...)"), or an empty text."""
    marks = [
        (kind, key)
        for kind in ("annotation", "label")
        for key in mapping(document, "metadata", f"{kind}s")
    ]
    for kind, key in marks:
        for prefix, tool in _GITOPS_PREFIXES.items():
            if key.startswith(prefix):
                return f"{tool} ({kind} {key})"
    # Helm's charts set this label by custom; without a release it is Argo CD's tracking label.
    released = _HELM_RELEASE in mapping(document, "metadata", "annotations")
    if ("label", _INSTANCE_LABEL) in marks and not released:
        return f"Argo CD (label {_INSTANCE_LABEL})"
    return ""


def _annotated(change: Mapping[str, str | None], told: str) -> Change:
    return Change({"metadata": {"annotations": dict(change)}}, told)


def _canary(rollout: ModelRollout, verb: str) -> str:
    canary = rollout.status.canary_revision
    if not canary:
        phase = rollout.status.phase or "unknown"
        raise _refused(rollout, f"there is no canary to {verb} (phase {phase})")
    return canary


def _refused(rollout: ModelRollout, why: str) -> RefusedError:
    meta = rollout.metadata
    plural = names.PLURALS[names.Kind.MODEL_ROLLOUT]
    return RefusedError(f"{full_name(plural, meta.namespace, meta.name)}: {why}")
