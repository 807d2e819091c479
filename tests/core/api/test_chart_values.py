import pytest

from tidegate_api import chartvalues

TEXT = """\
# How many.
# @schema {"minimum": 0}
replicas: 2
image:
  # Where it is.
  # It may be anywhere.
  repository: docker.io/x
# Taken whole.
# @schema {"additionalProperties": true}
resources:
  limits: {memory: 1Gi}
# Free.
labels: {}
"""


def test_comments_describe_values_and_add_keywords():
    found = chartvalues.values(TEXT)
    assert [(v.path, v.default, v.description, dict(v.keywords)) for v in found] == [
        ("replicas", 2, "How many.", {"minimum": 0}),
        ("image.repository", "docker.io/x", "Where it is. It may be anywhere.", {}),
        (
            "resources",
            {"limits": {"memory": "1Gi"}},
            "Taken whole.",
            {"additionalProperties": True},
        ),
        ("labels", {}, "Free.", {}),
    ]


def test_the_schema_is_strict_down_to_free_objects():
    schema = chartvalues.schema(chartvalues.values(TEXT), enabled={"type": "boolean"})
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"enabled", "replicas", "image", "resources", "labels"}
    assert schema["properties"]["replicas"] == {
        "description": "How many.",
        "type": "integer",
        "minimum": 0,
    }
    assert schema["properties"]["image"]["additionalProperties"] is False
    assert "additionalProperties" not in schema["properties"]["labels"]


def test_a_value_without_comment_is_refused_by_name():
    with pytest.raises(chartvalues.UndocumentedValueError, match=r"image\.tag"):
        chartvalues.values("image:\n  tag: ''\n")


def test_the_page_shows_path_default_and_meaning():
    page = chartvalues.page({"router.": chartvalues.values(TEXT)})
    assert "| `router.replicas` | `2` | How many. |" in page


def test_no_values_are_no_error():
    assert chartvalues.values("{}\n") == []
    assert chartvalues.values("# nothing\n") == []
