"""The OpenAPI documents: committed as generated, valid, true of a live router."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from tidegate_router import apidocument
from tidegate_router.core import path

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "docs" / "reference"


def test_the_committed_document_is_the_generated_one():
    assert (REFERENCE / "openapi.json").read_bytes() == apidocument.rendered()


@pytest.mark.parametrize("name", ["openapi.json", "oip.openapi.json"])
def test_a_document_is_valid_openapi(name):
    validate(json.loads((REFERENCE / name).read_text("utf-8")))


def test_every_path_that_is_answered_is_described_with_its_method():
    described = apidocument.document()["paths"]
    assert {one: next(iter(described[one])).upper() for one in path.API_METHODS} == path.API_METHODS


async def test_a_router_serves_the_document(router):
    answer, body = await router.ask("GET", "/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert body == apidocument.rendered()


@pytest.mark.timeout(120)  # schemathesis' own start takes seconds
@pytest.mark.parametrize("document", ["own", "oip"])
async def test_schemathesis_finds_nothing(document):
    program = await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "tests" / "bench" / "fuzz_apis.py", "--examples", "5",
        "--document", document, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told, _ = await program.communicate()
    assert program.returncode == 0, told.decode()
