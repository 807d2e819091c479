"""What every CRD must be, whatever its fields are."""

from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

from tidegate_api.pool import InferencePool
from tidegate_api.validation import parse_pool

ROOT = Path(__file__).parents[2]
CRDS = {path.stem: path for path in sorted((ROOT / "crds").glob("*.yaml"))}
POOL = "tidegate.dev_inferencepools"
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml")) + sorted(
    (ROOT / "e2e" / "manifests").rglob("*.yaml")
)


@pytest.fixture(params=CRDS, ids=str)
def crd(request):
    return yaml.safe_load(CRDS[request.param].read_text("utf-8"))


@pytest.fixture
def pool():
    return yaml.safe_load(CRDS[POOL].read_text("utf-8"))


def version(crd):
    (only,) = crd["spec"]["versions"]
    return only


def nodes(schema, path=""):
    """Yield (path, schema) of every schema below, skipping the API server's own fields."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        if path or name in {"spec", "status"}:
            yield from nodes(part, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")


def fields(crd):
    return list(nodes(version(crd)["schema"]["openAPIV3Schema"]))


def test_each_kind_has_its_crd():
    assert list(CRDS) == [POOL, "tidegate.dev_modelrollouts", "tidegate.dev_routetables"]


@pytest.mark.parametrize("name", CRDS)
def test_it_is_smaller_than_100_kb(name):
    assert CRDS[name].stat().st_size < 100_000


def test_every_field_has_a_type_or_is_an_integer_or_string(crd):
    untyped = [
        path
        for path, schema in fields(crd)
        if ("type" in schema) == bool(schema.get("x-kubernetes-int-or-string"))
    ]
    assert untyped == []


def test_every_string_list_and_map_is_bounded(crd):
    def unbounded(schema):
        kind = schema.get("type", "string")
        if kind == "array":
            return "maxItems" not in schema
        if kind == "object":
            return "additionalProperties" in schema and "maxProperties" not in schema
        return kind == "string" and not {"maxLength", "enum"} & set(schema)

    assert [path for path, schema in fields(crd) if unbounded(schema)] == []


def test_an_object_is_either_declared_or_free(crd):
    def neither(schema):
        return schema.get("type") == "object" and not {
            "properties",
            "additionalProperties",
            "x-kubernetes-preserve-unknown-fields",
        } & set(schema)

    assert [path for path, schema in fields(crd) if neither(schema)] == []


def test_no_keyword_that_a_structural_schema_refuses(crd):
    forbidden = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "title", "const", "nullable"}
    assert [path for path, schema in fields(crd) if forbidden & set(schema)] == []


def test_no_default_below_template_or_accelerators(pool):
    defaulted = {path for path, schema in fields(pool) if "default" in schema}
    assert ".spec.replicas" in defaulted
    below = (".spec.template", ".spec.accelerators", ".status.")
    assert {path for path in defaulted if path.startswith(below)} == set()


def test_a_new_object_is_one_that_the_operator_has_not_seen(crd):
    schema = dict(fields(crd)).get(".status")
    assert schema is None or schema["default"] == {"observedGeneration": 0}


def test_a_field_inside_an_optional_object_gets_its_default_when_the_object_is_absent(pool):
    by_path = dict(fields(pool))
    for path, schema in by_path.items():
        parent = path.rpartition(".")[0]
        if "default" in schema and parent not in {"", ".spec"}:
            assert by_path[parent]["default"] == {}, path


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (".spec.template.models", "name"),
        (".spec.accelerators", "name"),
        (".spec.accelerators[].models", "name"),
        (".spec.template.pod.volumes", "name"),
        (".status.conditions", "type"),
    ],
)
def test_a_list_of_named_things_is_a_map(pool, path, key):
    schema = dict(fields(pool))[path]
    assert schema["x-kubernetes-list-type"] == "map"
    assert schema["x-kubernetes-list-map-keys"] == [key]
    assert key in schema["items"]["required"]


def test_lists_of_a_route_table_are_atomic():
    crd = yaml.safe_load(CRDS["tidegate.dev_routetables"].read_text("utf-8"))
    kinds = {schema.get("x-kubernetes-list-type", "atomic") for _, schema in fields(crd)}
    assert kinds == {"atomic"}


def test_every_rule_between_fields_says_which_field(crd):
    for path, schema in fields(crd):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert rule["message"], path
            last = rule.get("fieldPath", path).rpartition(".")[2]
            assert any(word in rule["message"] for word in (last, "volume", "step", "config.")), (
                rule
            )


def test_the_scale_subresource_reads_and_writes_declared_integers(pool):
    scale = version(pool)["subresources"]["scale"]
    by_path = dict(fields(pool))
    assert by_path[scale["specReplicasPath"]]["type"] == "integer"
    assert by_path[scale["statusReplicasPath"]]["type"] == "integer"
    assert by_path[scale["labelSelectorPath"]]["type"] == "string"


def test_kubectl_knows_it_by_short_name_and_category(crd):
    names = crd["spec"]["names"]
    assert names["categories"] == ["tidegate"]
    assert names["shortNames"] == [
        {"InferencePool": "tgpool", "ModelRollout": "tgro", "RouteTable": "tgrt"}[names["kind"]],
    ]


def test_columns_of_a_pool(pool):
    columns = version(pool)["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    wide = [column["name"] for column in columns if column.get("priority")]
    assert shown == ["Ready", "Reason", "Desired", "Current", "Available", "Queue", "P95", "Age"]
    assert wide == ["Stable", "Cost/h"]
    plain = {column["jsonPath"] for column in columns if "[?" not in column["jsonPath"]}
    assert plain - {".metadata.creationTimestamp"} <= set(dict(fields(pool)))


def undeclared(model, document, path):
    """Yield paths of `document` that no field of the pydantic model takes."""
    by_alias = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in document.items():
        if key not in by_alias:
            yield f"{path}.{key}"
            continue
        for inner in models_in(by_alias[key].annotation):
            for index, entry in entries_of(by_alias[key].annotation, value):
                yield from undeclared(inner, entry, f"{path}.{key}[{index}]")


def entries_of(annotation, value):
    """A list's entries, a map's values (`dict[str, Model]`), or the one object itself."""
    if isinstance(value, list):
        return list(enumerate(value))
    is_map = any(str(part).startswith("dict[") for part in (annotation, *get_args(annotation)))
    return list(value.items()) if is_map else [(0, value)]


def models_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from models_in(argument)


def pools_of(path):
    documents = yaml.safe_load_all(path.read_text("utf-8"))
    return [document for document in documents if document and document["kind"] == "InferencePool"]


def test_there_are_examples():
    assert sum(len(pools_of(path)) for path in EXAMPLES) >= 2


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_valid_and_misspells_nothing(path):
    for document in pools_of(path):
        assert parse_pool(document).metadata.name
        spec_model = InferencePool.model_fields["spec"].annotation
        assert list(undeclared(spec_model, document["spec"], "spec")) == []


def test_a_misspelt_field_would_be_found():
    spec = {"template": {"models": [{"name": "a", "maxBatchsize": 4}]}, "replcas": 2}
    spec_model = InferencePool.model_fields["spec"].annotation
    found = list(undeclared(spec_model, spec, "spec"))
    assert found == ["spec.template[0].models[0].maxBatchsize", "spec.replcas"]
