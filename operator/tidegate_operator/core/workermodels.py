"""The models document of a worker set: template, the class's overrides, resolved paths."""

from tidegate_api.pool import AcceleratorClass
from tidegate_api.template import ClassModel, Model, WorkerTemplate
from tidegate_api.workermodels import DesiredModel, WorkerModels
from tidegate_operator.core.sources import credentials_path, plan_sources


def effective_models(template: WorkerTemplate, accelerator: AcceleratorClass) -> list[Model]:
    """Return the template's models with this class's overrides; a field set there replaces."""
    overrides = {item.name: item for item in accelerator.models or []}
    return [_overridden(model, overrides.get(model.name)) for model in template.models]


def _overridden(model: Model, override: ClassModel | None) -> Model:
    if override is None:
        return model
    fields = {name: getattr(override, name) for name in override.model_fields_set}
    return model.model_copy(update={name: v for name, v in fields.items() if v is not None})


def worker_models(
    revision: str, template: WorkerTemplate, accelerator: AcceleratorClass
) -> WorkerModels:
    """Return what the agents of this set shall serve."""
    models = effective_models(template, accelerator)
    paths = plan_sources(models).paths
    desired = [
        DesiredModel(model=model, path=path, credentials_path=credentials_path(model))
        for model, path in zip(models, paths, strict=True)
    ]
    return WorkerModels(revision=revision, kind=accelerator.kind, models=desired)
