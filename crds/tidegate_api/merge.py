"""A rollout's template merged over its pool's: what shall run (operator.md section 3). Pure.

Works on documents, not on models: the revision's hash covers what users wrote.
"""

from collections.abc import Iterator, Mapping

from tidegate_api.validation import Problem

_OF_THE_FILES = ("sha256", "version")


def merge_template(
    pool_template: Mapping[str, object], rollout_template: Mapping[str, object]
) -> tuple[dict[str, object], tuple[Problem, ...]]:
    """Return the merged template, and a problem for each model that the pool does not have.

    Models go by name, objects merge, scalars and other lists replace. No model is added or
    removed, and null counts as absent. A source with another uri does not keep sha256 and
    version: they tell of the files that were there.
    """
    own = list(_named(pool_template))
    changes = {name: model for _, name, model in _named(rollout_template)}
    models = [_merged_model(model, changes.get(name, {})) for _, name, model in own]
    rest = {key: value for key, value in rollout_template.items() if key != "models"}
    merged = _merged(pool_template, rest) | ({"models": models} if own else {})
    known = {name for _, name, _ in own}
    unknown = tuple(
        Problem(
            f"spec.template.models[{index}].name",
            f"the pool has no model {name}, only {', '.join(sorted(known)) or 'none'}: a rollout"
            " changes models and adds none; add it to the pool's template",
        )
        for index, name, _ in _named(rollout_template)
        if name not in known
    )
    return merged, unknown


def _named(template: Mapping[str, object]) -> Iterator[tuple[int, str, Mapping[str, object]]]:
    models = template.get("models")
    for index, model in enumerate(models if isinstance(models, list) else ()):
        if isinstance(model, Mapping) and isinstance(name := model.get("name"), str):
            yield index, name, model


def _merged_model(base: Mapping[str, object], change: Mapping[str, object]) -> dict[str, object]:
    before, after = base.get("source"), change.get("source")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        moved = after.get("uri") not in (None, before.get("uri"))
        dropped = _OF_THE_FILES if moved else ()
        kept = {key: value for key, value in before.items() if key not in dropped}
        base = {**base, "source": kept}
    return _merged(base, change)


def _merged(base: Mapping[str, object], change: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in change.items():
        before = base.get(key)
        if isinstance(value, Mapping):
            merged[key] = _merged(before if isinstance(before, Mapping) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged
