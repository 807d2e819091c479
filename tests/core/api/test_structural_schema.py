from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from tidegate_api.meta import ApiModel
from tidegate_api.structural import UnstructuralError, structural


class Inner(ApiModel):
    """What is inside."""

    size: int = Field(default=3, gt=0, lt=10)


class Outer(ApiModel):
    """A first line
    that goes on.
    """

    some_name: str = Field(max_length=5)
    kind: Literal["one"] = "one"
    optional: Inner | None = None
    nested: Inner = Field(default_factory=Inner, description="in other words")
    amounts: dict[str, Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=4)]]
    free: dict[str, object]
    listed: list[Inner] = Field(default_factory=list, max_length=2)


SCHEMA = structural(Outer, defaults=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "someName", {"type": "string", "maxLength": 5}, id="fields have their wire name"
        ),
        pytest.param(
            "kind", {"type": "string", "default": "one", "enum": ["one"]}, id="const is an enum"
        ),
        pytest.param(
            "amounts",
            {
                "type": "object",
                "additionalProperties": {
                    "x-kubernetes-int-or-string": True,
                    "minimum": 0,
                    "maxLength": 4,
                },
            },
            id="integer or string keeps the bounds of both",
        ),
        pytest.param(
            "free",
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            id="a free object keeps unknown fields",
        ),
    ],
)
def test_a_field(name, expected):
    assert SCHEMA["properties"][name] == expected


def test_exclusive_bounds_take_their_boolean_form():
    size = SCHEMA["properties"]["optional"]["properties"]["size"]
    assert (size["minimum"], size["exclusiveMinimum"]) == (0, True)
    assert (size["maximum"], size["exclusiveMaximum"]) == (10, True)


def test_an_optional_object_is_neither_required_nor_nullable_nor_defaulted():
    assert SCHEMA["required"] == ["someName", "amounts", "free"]
    assert set(SCHEMA["properties"]["optional"]) == {"description", "type", "properties"}


def test_a_nested_model_defaults_to_an_empty_object_so_that_its_defaults_apply():
    assert SCHEMA["properties"]["nested"]["default"] == {}


def test_a_list_gets_no_default():
    assert "default" not in SCHEMA["properties"]["listed"]


def test_the_description_of_a_field_goes_before_its_models():
    assert SCHEMA["properties"]["nested"]["description"] == "in other words"
    assert SCHEMA["properties"]["optional"]["description"] == "What is inside."


def test_a_description_is_a_paragraph():
    assert SCHEMA["description"] == "A first line that goes on."


def test_without_defaults_none_is_left():
    def defaults(schema):
        yield from ("default",) if "default" in schema else ()
        for part in schema.get("properties", {}).values():
            yield from defaults(part)

    assert list(defaults(SCHEMA)) != []
    assert list(defaults(structural(Outer, defaults=False))) == []


class Tupled(BaseModel):
    pair: tuple[int, int]


class United(BaseModel):
    either: int | bool


class Keyed(BaseModel):
    named: dict[Annotated[str, Field(max_length=3)], int]


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (Tupled, "Tupled.pair: keyword prefixItems"),
        (United, "United.either: a union other than integer or string"),
        (Keyed, "Keyed.named: keyword propertyNames"),
    ],
)
def test_what_has_no_structural_form_is_refused_by_name(model, complaint):
    with pytest.raises(UnstructuralError, match=complaint):
        structural(model, defaults=True)
