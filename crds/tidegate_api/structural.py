"""Pydantic models as structural OpenAPI v3 schemas, the form that a CRD takes. Pure.

Whatever has no structural form (tuples, unions other than integer-or-string) is refused loudly:
a silent approximation would be an API that lies. Rules of the form:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Schema: TypeAlias = dict[str, object]

_DROPPED = {"title", "$defs", "additionalProperties", "properties", "items"}
_PASSED = {
    "default", "enum", "format", "maxItems", "maxLength", "maxProperties",
    "maximum", "minItems", "minLength", "minProperties", "minimum", "pattern", "required", "type",
    "uniqueItems",
}  # fmt: skip


def _paragraphs(text: str) -> str:
    """Return text with the line breaks inside its paragraphs removed, without backticks."""
    joined = (" ".join(part.split()) for part in text.replace("`", "").split("\n\n"))
    return "\n\n".join(joined)


_REWRITTEN: Mapping[str, Callable[[object], Schema]] = {
    "const": lambda value: {"enum": [value]},
    "exclusiveMinimum": lambda value: {"minimum": value, "exclusiveMinimum": True},
    "exclusiveMaximum": lambda value: {"maximum": value, "exclusiveMaximum": True},
    "description": lambda value: {"description": _paragraphs(str(value))},
}


class UnstructuralError(ValueError):
    """A schema that a CRD cannot hold; the message names the path."""


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, which leaves out `default: {}` of nested models: without it the
    defaults inside an absent object would never apply.
    """

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        result = super().default_schema(schema)
        factory = schema.get("default_factory")
        if isinstance(factory, type) and issubclass(factory, BaseModel):
            return {"allOf": [result], "default": {}}
        return result


def structural(model: type[BaseModel], *, defaults: bool) -> Schema:
    """Return the structural schema of `model`; without `defaults` none is declared."""
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    definitions = cast("Mapping[str, Schema]", raw.get("$defs", {}))
    return _Converter(definitions, defaults=defaults).convert(raw, model.__name__)


class _Converter:
    def __init__(self, definitions: Mapping[str, Schema], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, schema: Schema, path: str) -> Schema:
        flat = self._flatten(schema, path)
        result: Schema = {}
        for key, value in flat.items():
            result |= self._keyword(key, value, path)
        result |= self._object(flat, path)
        if not self._defaults or result.get("default", "") is None:
            result.pop("default", None)
        return _ordered(result)

    def _flatten(self, schema: Schema, path: str) -> Schema:
        """Merge $ref, single allOf and X-or-null into one schema; outer keywords win."""
        outer = {k: v for k, v in schema.items() if k not in {"$ref", "allOf", "anyOf", "oneOf"}}
        if "$ref" in schema:
            name = str(schema["$ref"]).rsplit("/", 1)[-1]
            return self._flatten(self._definitions[name], path) | outer
        if "oneOf" in schema:
            raise UnstructuralError(f"{path}: oneOf has no structural form")
        branches = cast("list[Schema]", schema.get("allOf", schema.get("anyOf")))
        if branches is None:
            return outer
        real = [branch for branch in branches if branch.get("type") != "null"]
        if len(real) == 1:
            return self._flatten(real[0], path) | outer
        return self._int_or_string(real, path) | outer

    def _int_or_string(self, branches: list[Schema], path: str) -> Schema:
        if {branch.get("type") for branch in branches} != {"integer", "string"}:
            raise UnstructuralError(f"{path}: a union other than integer or string")
        merged: Schema = {"x-kubernetes-int-or-string": True}
        for branch in branches:
            merged |= {key: value for key, value in branch.items() if key != "type"}
        return merged

    def _keyword(self, key: str, value: object, path: str) -> Schema:
        if key in _DROPPED:
            return {}
        if key in _REWRITTEN:
            return _REWRITTEN[key](value)
        if key in _PASSED or key.startswith("x-kubernetes-"):
            return {key: value}
        raise UnstructuralError(f"{path}: keyword {key} has no structural form")

    def _object(self, flat: Schema, path: str) -> Schema:
        result: Schema = {}
        if "properties" in flat:
            properties = cast("dict[str, Schema]", flat["properties"])
            result["properties"] = {
                name: self.convert(part, f"{path}.{name}") for name, part in properties.items()
            }
        if "items" in flat:
            result["items"] = self.convert(cast("Schema", flat["items"]), f"{path}[]")
        values = flat.get("additionalProperties")
        if values is True:
            result["x-kubernetes-preserve-unknown-fields"] = True
        elif isinstance(values, dict):
            result["additionalProperties"] = self.convert(values, f"{path}.*")
        return result


def _ordered(schema: Schema) -> Schema:
    """Return the schema with its description first and its parts last, for readers."""
    first, last = ("description", "type", "default", "enum"), ("properties", "items")
    middle = sorted(key for key in schema if key not in {*first, *last})
    return {key: schema[key] for key in (*first, *middle, *last) if key in schema}
