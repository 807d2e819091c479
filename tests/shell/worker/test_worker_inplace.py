"""Two revisions in one real tritonserver: loaded, asked, promoted, rolled back, kept apart."""

import asyncio
import json
import os

import pytest

NEW = "22222222"
BROKEN = """
class TritonPythonModel:
    def initialize(self, _):
        raise ValueError("torn")
"""
DEADLY = """
import os, signal

class TritonPythonModel:
    def initialize(self, _):
        parent = os.getppid()
        with open(f"/proc/{parent}/comm") as name:
            assert name.read().startswith("tritonserver")
        os.kill(parent, signal.SIGKILL)
"""


class Mounted:
    """The models document as the kubelet mounts it: replaced whole."""

    def __init__(self, agent):
        self.agent = agent
        self.generation = 1

    def publish(self, revision, *models, alongside=None, kind="CPU"):
        self.generation += 1
        document = {
            "schema": "worker-models.v1",
            "generation": self.generation,
            "revision": revision,
            "kind": kind,
            "models": list(models),
        }
        if alongside:
            document["alongside"] = {"revision": alongside[0], "models": list(alongside[1:])}
        file = self.agent.folder / "models.json"
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        fresh.replace(file)

    async def until(self, holds, **limits):
        """Wait for a state that acts on the newest document."""
        wanted = self.generation
        return await self.agent.until(
            lambda s: s.models_generation == wanted and holds(s), **limits
        )


def copies(state):
    return {model.loaded_as or model.name: model for model in state.models}


@pytest.fixture
def source(tmp_path, conftest):
    def make(folder, offset=0.0, text=None, **fields):
        """A model `echo` whose answers are its input plus an offset."""
        shifted = f'Tensor("Y", values + {offset})'
        code = text or conftest.MODEL.replace('Tensor("Y", values)', shifted)
        made = conftest.python_model(tmp_path, folder, code, **fields)
        return {**made, "model": {**made["model"], "name": "echo"}}

    return make


async def answer(agent, name, value=0.0):
    status, body = await agent.ask(name, value)
    return status, body["outputs"][0]["data"][0] if status == 200 else body["error"]


async def test_a_second_revision_is_loaded_promoted_without_a_reload_and_the_first_one_goes(
    start, source
):
    first, second = source("one"), source("two", 5.0)
    agent = start(first)
    await agent.until(lambda s: s.ready)
    mounted = Mounted(agent)
    mounted.publish("r1", first, alongside=(NEW, second))
    both = await mounted.until(lambda s: len(s.models) == 2 and all(m.ready for m in s.models))
    assert both.ready
    assert both.revision == "r1"
    found = copies(both)
    assert set(found) == {"echo", f"echo--{NEW}"}
    assert (found["echo"].loaded_as, found["echo"].revision) == (None, "r1")
    assert (found[f"echo--{NEW}"].name, found[f"echo--{NEW}"].revision) == ("echo", NEW)
    assert await answer(agent, "echo") == (200, 0.0)
    assert await answer(agent, f"echo--{NEW}") == (200, 5.0)
    loads = agent.log.count('"msg": "loaded"')

    mounted.publish(NEW, second)
    alone = await mounted.until(lambda s: len(s.models) == 1)
    assert (alone.ready, alone.revision) == (True, NEW)
    assert set(copies(alone)) == {f"echo--{NEW}"}
    assert agent.log.count('"msg": "loaded"') == loads, "nothing was loaded again"
    assert (await answer(agent, "echo"))[0] != 200
    assert await answer(agent, f"echo--{NEW}") == (200, 5.0)
    assert (await agent.get("/readyz"))[0] == 200
    await agent.until(lambda _: not (agent.folder / "state/repository/echo").exists())


async def test_no_request_of_the_first_revision_fails_while_the_second_comes_and_goes(
    start, source
):
    first, second = source("one"), source("two", 5.0)
    agent = start(first)
    await agent.until(lambda s: s.ready)
    stop, seen = asyncio.Event(), []

    async def ask():
        while not stop.is_set():
            seen.append(await answer(agent, "echo", 0.002))

    asking = [asyncio.create_task(ask()) for _ in range(2)]
    mounted = Mounted(agent)
    mounted.publish("r1", first, alongside=(NEW, second))
    await mounted.until(lambda s: len(s.models) == 2 and all(m.ready for m in s.models))
    mounted.publish("r1", first)
    gone = await mounted.until(lambda s: len(s.models) == 1)
    stop.set()
    await asyncio.gather(*asking)
    assert gone.ready
    assert len(seen) > 20
    assert {status for status, _ in seen} == {200}


async def test_a_second_revision_that_cannot_load_says_why_and_harms_nobody(start, source):
    first, torn = source("one"), source("torn", text=BROKEN)
    agent = start(first)
    await agent.until(lambda s: s.ready)
    mounted = Mounted(agent)
    mounted.publish("r1", first, alongside=(NEW, torn))
    state = await mounted.until(lambda s: any(m.reason for m in s.models))
    assert state.ready
    failed = copies(state)[f"echo--{NEW}"]
    assert (failed.ready, failed.reason) == (False, "ModelLoadFailed")
    assert "torn" in failed.message
    assert await answer(agent, "echo") == (200, 0.0)
    mounted.publish("r1", first)
    left = await mounted.until(lambda s: len(s.models) == 1)
    assert left.ready


async def test_work_of_a_revision_that_goes_is_finished(start, source):
    first, second = source("one"), source("two", 5.0)
    agent = start(first)
    await agent.until(lambda s: s.ready)
    mounted = Mounted(agent)
    mounted.publish("r1", first, alongside=(NEW, second))
    await mounted.until(lambda s: len(s.models) == 2 and all(m.ready for m in s.models))
    running = asyncio.create_task(answer(agent, f"echo--{NEW}", 3.0))
    mounted.publish("r1", first)
    leaving = await mounted.until(lambda s: any("unloaded" in m.message for m in s.models))
    assert leaving.ready
    assert not copies(leaving)[f"echo--{NEW}"].ready
    await mounted.until(lambda s: len(s.models) == 1)
    assert await running == (200, 8.0)


async def test_a_change_of_batching_alone_is_a_second_copy_of_the_same_files(start, source):
    first = source("one")
    agent = start(first)
    await agent.until(lambda s: s.ready)
    changed = {
        **first,
        "model": {**first["model"], "instances": [{"count": 2}], "dynamicBatching": {}},
    }
    mounted = Mounted(agent)
    mounted.publish("r1", first, alongside=(NEW, changed))
    state = await mounted.until(lambda s: len(s.models) == 2 and all(m.ready for m in s.models))
    found = copies(state)
    one, other = found["echo"].traits, found[f"echo--{NEW}"].traits
    assert (one.instances, one.dynamic_batching) == (1, False)
    assert (other.instances, other.dynamic_batching) == (2, True)


async def test_a_server_that_dies_comes_back_with_both_revisions(start, source):
    first, second = source("one"), source("two", 5.0)
    agent = start(first)
    await agent.until(lambda s: s.ready)
    mounted = Mounted(agent)
    mounted.publish("r1", first, alongside=(NEW, second))
    await mounted.until(lambda s: len(s.models) == 2 and all(m.ready for m in s.models))
    os.kill(agent.server_pid(), 9)
    await agent.until(lambda s: not s.ready)
    after = await agent.until(lambda s: s.ready and all(m.ready for m in s.models))
    assert set(copies(after)) == {"echo", f"echo--{NEW}"}


async def test_a_second_revision_that_kills_the_server_is_kept_out(start, source):
    """Its stub kills tritonserver while it loads, as a native backend's fault would."""
    first = source("one")
    deadly = source("deadly", text=DEADLY)
    agent = start(first)
    await agent.until(lambda s: s.ready)
    mounted = Mounted(agent)
    mounted.publish("r1", first, alongside=(NEW, deadly))
    state = await mounted.until(lambda s: s.ready and any(m.reason for m in s.models))
    kept_out = copies(state)[f"echo--{NEW}"]
    assert kept_out.reason == "ServerCrashed"
    assert "SIGKILL" in kept_out.message
    assert state.server.restarts == 1
    assert await answer(agent, "echo") == (200, 0.0)


async def test_a_damaged_document_changes_nothing_and_is_told_once(start, source):
    first = source("one")
    agent = start(first)
    await agent.until(lambda s: s.ready)
    (agent.folder / "models.json").write_text('{"revision": 7}')
    await agent.until(lambda _: "the models stay as they are" in agent.log)
    assert (await agent.state()).models_generation == 1
    mounted = Mounted(agent)
    mounted.publish("r1", first)
    state = await mounted.until(lambda s: s.ready)
    assert set(copies(state)) == {"echo"}
    assert agent.log.count("the models stay as they are") == 1


async def test_a_restarted_agent_loads_what_was_promoted_under_plain_names(start, source):
    first, second = source("one"), source("two", 5.0)
    agent = start(first)
    await agent.until(lambda s: s.ready)
    mounted = Mounted(agent)
    mounted.publish("r1", first, alongside=(NEW, second))
    await mounted.until(lambda s: len(s.models) == 2 and all(m.ready for m in s.models))
    agent.stop()
    agent.models, agent.revision = [second], NEW
    agent.start()
    state = await agent.until(lambda s: s.ready and s.revision == NEW)
    assert set(copies(state)) == {"echo"}
    assert await answer(agent, "echo") == (200, 5.0)
    assert not (agent.folder / f"state/repository/echo--{NEW}").exists()
