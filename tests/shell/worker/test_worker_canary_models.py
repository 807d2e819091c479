"""The canary demo's models in a real tritonserver: what each of them does, and says of itself."""

import json
import statistics
import time

import aiohttp
import pytest

from tidegate_e2e import magika_versions

pytestmark = pytest.mark.timeout(120)  # the first use quantises the network

TENSORS = {
    "input": [{"name": "CONTENT", "data_type": "TYPE_STRING", "dims": [1]}],
    "output": [
        {"name": "LABEL", "data_type": "TYPE_STRING", "dims": [1]},
        {"name": "SCORE", "data_type": "TYPE_FP32", "dims": [1]},
    ],
}
PYTHON = 'def f(x):\n    """Return one more."""\n    return x + 1\n\n\nprint(f(1))\n' * 5


@pytest.fixture(scope="module")
def contexts():
    return magika_versions.contexts()


@pytest.fixture
def versions(contexts, conftest):
    def entry(version):
        path = str(contexts[version] / "magika")
        return conftest.entry(version, f"file://{path}", path=path, maxBatchSize=8, config=TENSORS)

    return entry


async def ask(agent, model):
    body = {"inputs": [{"name": "CONTENT", "shape": [1, 1], "datatype": "BYTES", "data": [PYTHON]}]}
    url = f"{agent.inference}/v2/models/{model}/infer"
    began_s = time.monotonic()
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        found = await answer.json(content_type=None)
        label = found["outputs"][0]["data"][0] if answer.status == 200 else found["error"]
        return answer.status, label, time.monotonic() - began_s


async def test_the_good_version_answers_and_the_truncated_one_cannot_load(start, versions):
    agent = start(versions("v2"), versions("v5"))
    state = await agent.until(
        lambda s: any(m.ready for m in s.models) and any(m.reason for m in s.models), limit_s=60
    )
    good, torn = state.models
    assert (good.name, good.ready) == ("v2", True)
    assert (torn.name, torn.reason) == ("v5", "ModelLoadFailed")
    assert (await ask(agent, "v2"))[:2] == (200, "python")


async def test_the_slow_version_takes_five_times_as_long_and_the_erring_one_fails_a_tenth(
    start, versions
):
    agent = start(versions("v2"), versions("v3"), versions("v4"))
    await agent.until(lambda s: s.ready, limit_s=60)
    took = {model: [(await ask(agent, model))[2] for _ in range(9)] for model in ("v2", "v3")}
    assert statistics.median(took["v3"]) > 2.5 * statistics.median(took["v2"])
    answers = [(await ask(agent, "v4"))[:2] for _ in range(50)]
    failed = [text for status, text in answers if status != 200]
    assert len(failed) == 5
    assert all("labelled fault: every 10th call fails" in text for text in failed)
    assert "labelled fault: answers take 5 times as long" in agent.log


def test_a_version_says_what_is_wrong_with_it(contexts):
    for version, folder in contexts.items():
        fault = folder / "magika" / "1" / "fault.json"
        assert fault.exists() == (version in {"v3", "v4"})
        if fault.exists():
            assert json.loads(fault.read_text())["label"]
    sizes = {v: (f / "magika" / "1" / "model.onnx").stat().st_size for v, f in contexts.items()}
    assert sizes["v3"] == sizes["v4"] == sizes["v2"]
    assert sizes["v5"] == sizes["v2"] // 2


def test_the_quantised_network_says_what_the_first_one_says(contexts, capsys):
    first = magika_versions.magika.context() / "magika" / "1"
    assert magika_versions.told_agreement(first, contexts["v2"] / "magika" / "1") >= 0.98
    assert "v2 agrees with v1" in capsys.readouterr().out
