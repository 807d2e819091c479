"""The chart's values for images that were built here."""

from tidegate_e2e import images

_IMAGES = (
    ("operator.image", "operator"),
    ("router.image", "router"),
)


def helm_values() -> list[str]:
    """Return `--set` arguments that name the built images by content."""
    references = images.image_references()
    arguments: list[str] = []
    for key, name in _IMAGES:
        repository, _, tag = references[name].rpartition(":")
        arguments += ["--set", f"{key}.repository={repository}", "--set-string", f"{key}.tag={tag}"]
    arguments += ["--set-string", f"operator.workerImage={references['worker']}"]
    return arguments
