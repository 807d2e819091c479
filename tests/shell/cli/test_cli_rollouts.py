"""The commands on rollouts as a user runs them, against an API server over real HTTP."""

import json

import pytest

ROLLOUT = "/apis/tidegate.dev/v1alpha1/namespaces/ml/modelrollouts/canary"
POOL = "/apis/tidegate.dev/v1alpha1/namespaces/ml/inferencepools/vision"


def annotations(api):
    return api.objects[ROLLOUT]["metadata"].get("annotations")


def change_status(api, **status):
    before = api.objects[ROLLOUT]
    api.objects[ROLLOUT] = {**before, "status": {**before["status"], **status}}


async def test_get_draws_the_tree_of_a_rollout(kube):
    code, out, error = await kube("get", "canary")
    assert (code, error) == (0, "")
    assert out.splitlines()[0] == (
        "modelrollouts.tidegate.dev ml/canary: Paused, step 2/2 (pause until promote), canary 5 %"
    )
    assert "vision-cpu-1-x  Ready" in out


async def test_get_of_a_pool_finds_the_rollout_that_it_has(kube):
    assert await kube("get", "vision") == await kube("get", "canary")


async def test_get_of_what_does_not_exist_names_it(kube):
    code, out, error = await kube("get", "nothing")
    assert (code, out) == (1, "")
    assert error.startswith("error: modelrollouts.tidegate.dev ml/nothing not found")
    assert len(error.splitlines()) == 1


async def test_get_follows_changes_line_by_line_without_a_terminal(started, api):
    process = await started("get", "canary", "--watch")
    first = await process.stdout.readline()
    change_status(api, phase="Progressing", currentStepIndex=2)
    second = await process.stdout.readline()
    process.terminate()
    await process.communicate()
    assert first.startswith(b"Paused, step 2/2")
    assert second.startswith(b"Progressing, all 2 steps done")


async def test_the_process_tells_errors_in_one_line_and_its_exit_code(started):
    process = await started("get", "nothing")
    out, error = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert error.startswith(b"error: modelrollouts.tidegate.dev ml/nothing not found")
    assert len(error.splitlines()) == 1


async def test_list_reads_every_page_and_namespace(kube, api):
    api.page = 1
    elsewhere = json.loads(json.dumps(api.objects[ROLLOUT]))
    elsewhere["metadata"] |= {"namespace": "prod", "name": "other"}
    api.objects[ROLLOUT.replace("/ml/", "/prod/").replace("canary", "other")] = elsewhere
    code, out, _ = await kube("list", "-A")
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["ml", "canary", "vision", "Paused"],
        ["prod", "other", "vision", "Paused"],
    ]
    _, own, _ = await kube("list", "--json")
    assert [item["metadata"]["name"] for item in json.loads(own)] == ["canary"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Healthy", "canaryRevision": None}, 0),
        ({"phase": "Degraded", "message": "aborted"}, 1),
        ({}, 3),
    ],
)
async def test_status_tells_scripts_by_its_exit_code(kube, api, status, expected):
    change_status(api, **status)
    code, out, error = await kube("status", "canary")
    assert (code, error) == (expected, "")
    assert len(out.splitlines()) == 1


async def test_status_that_watches_ends_with_the_rollout(started, api):
    process = await started("status", "canary", "--watch", "--timeout", "15s")
    assert (await process.stdout.readline()).startswith(b"Paused")
    change_status(api, phase="Healthy", canaryRevision=None)
    rest, _ = await process.communicate()
    assert (process.returncode, rest.decode().splitlines()) == (0, [
        "Healthy, step 2/2 (pause until promote)"])  # fmt: skip


async def test_status_that_waits_too_long_is_exit_code_two(kube):
    code, out, error = await kube("status", "canary", "--watch", "--timeout", "10ms")
    assert code == 2
    assert out.startswith("Paused")
    assert error == "error: not at its end after 10ms\n"


async def test_status_that_watches_outlives_an_api_server_that_restarts(started, api):
    process = await started("status", "canary", "--watch", "--timeout", "15s")
    await process.stdout.readline()
    api.fault = lambda _method, _path: (503, "starting")
    said = await process.stderr.readline()
    change_status(api, phase="Degraded")
    api.fault = lambda _method, _path: None
    await process.communicate()
    assert said.startswith(b"trying again: ")
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("command", "status", "expected"),
    [
        (["promote", "canary"], {}, {"promote": "r2/1"}),
        (["promote", "canary", "--full"], {}, {"promote-full": "r2"}),
        (["abort", "canary"], {}, {"abort": "r2"}),
        (["retry", "canary"], {"abortedRevision": "r2"}, {"retry": "r2"}),
        (["pause", "canary"], {}, {"paused": "true"}),
    ],
)
async def test_a_verb_is_one_annotation(kube, api, command, status, expected):
    change_status(api, **status)
    code, out, error = await kube(*command)
    assert (code, error) == (0, "")
    assert out.startswith("modelrollouts.tidegate.dev ml/canary: asked: ")
    assert annotations(api) == {f"tidegate.dev/{key}": value for key, value in expected.items()}


async def test_resume_takes_the_annotation_away(kube, api):
    await kube("pause", "canary")
    code, _, error = await kube("resume", "canary")
    assert (code, error) == (0, "")
    assert annotations(api) == {}


async def test_undo_names_the_revision_before_and_the_instant(kube, api):
    change_status(api, canaryRevision=None, phase="Healthy")
    code, out, error = await kube("undo", "canary")
    assert (code, error) == (0, "")
    assert "r0 (number 1) becomes stable again" in out
    assert annotations(api)["tidegate.dev/undo"].startswith("r0@20")


async def test_restart_is_an_instant(kube, api):
    await kube("restart", "canary")
    assert annotations(api)["tidegate.dev/restartedAt"].startswith("20")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["retry", "canary"], "no revision is aborted"),
        (["resume", "canary"], "waits at a step, nobody paused it: promote it"),
        (["undo", "canary"], "r2 is under way"),
        (["undo", "canary", "--to-revision", "r7"], "--to-revision r7 is not kept"),
        (["abort", "nothing"], "modelrollouts.tidegate.dev ml/nothing not found"),
        (["set", "model", "canary", "zz=pvc://m/a/2"], "the pool has no model zz"),
        (["set", "model", "canary", "a"], "expected MODEL=URI"),
        (["status", "canary", "--watch", "--timeout", "soon"], "--timeout: "),
    ],
)
async def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(
    kube, api, command, why
):
    code, out, error = await kube(*command)
    assert (code, out) == (1, "")
    assert error.startswith("error: ")
    assert why in error
    assert len(error.splitlines()) == 1
    assert not [method for method, _ in api.seen if method != "GET"]


async def test_set_model_changes_its_source_alone(kube, api):
    code, out, error = await kube("set", "model", "canary", "a=pvc://m/a/2", "--sha256", "0" * 64)
    assert (code, error) == (0, "")
    assert "model a from pvc://m/a/2" in out
    assert api.objects[ROLLOUT]["spec"]["template"] == {
        "models": [{"name": "a", "source": {"uri": "pvc://m/a/2", "sha256": "0" * 64}}]
    }


async def test_set_refuses_what_git_keeps_unless_forced(kube, api):
    labels = {"kustomize.toolkit.fluxcd.io/name": "apps"}
    api.objects[ROLLOUT]["metadata"]["labels"] = labels
    code, _, error = await kube("set", "image", "canary", "worker:2")
    assert code == 1
    assert "is kept by Flux (label kustomize.toolkit.fluxcd.io/name)" in error
    assert "spec" not in api.objects[ROLLOUT] or "template" not in api.objects[ROLLOUT]["spec"]
    code, _, error = await kube("set", "image", "canary", "worker:2", "--force")
    assert (code, error) == (0, "")
    assert api.objects[ROLLOUT]["spec"]["template"] == {"image": "worker:2"}


async def test_set_model_over_somebody_else_s_edit_is_refused(kube, api):
    def edited(method, _path):
        if method == "PATCH":
            api.objects[ROLLOUT]["metadata"]["resourceVersion"] = "78"

    api.fault = edited
    code, _, error = await kube("set", "model", "canary", "a=pvc://m/a/2")
    assert code == 1
    assert "modelrollouts.tidegate.dev ml/canary was changed meanwhile, try again" in error


async def test_a_refusal_of_the_api_server_names_the_fields(kube, api):
    def refuse(method, _path):
        causes = [("spec.template.image", "too long"), ("spec.steps", "must not go down")]
        return (422, "invalid", causes) if method == "PATCH" else None

    api.fault = refuse
    _, _, error = await kube("set", "image", "canary", "worker:2")
    assert "spec.template.image: too long; spec.steps: must not go down" in error


async def test_a_missing_right_is_told_in_the_api_server_s_words(kube, api):
    api.fault = lambda _method, path: (403, "pods is forbidden") if "/pods" in path else None
    code, _, error = await kube("get", "canary")
    assert code == 1
    assert "pods is forbidden" in error


async def test_explain_says_what_ends_the_pause(kube):
    code, out, error = await kube("explain", "canary")
    assert (code, error) == (0, "")
    assert "PausedByStep: the step has no duration: `tidegate promote` ends it" in out


async def test_context_namespace_and_token_are_the_kubeconfig_s(kube, api):
    await kube("list")
    assert api.seen == [("GET", ROLLOUT.rpartition("/")[0])]
    assert api.authorization == ["Bearer secret-token"]
    await kube("list", "-n", "prod")
    assert "/namespaces/prod/" in api.seen[-1][1]


async def test_an_api_server_that_does_not_answer_is_named_at_once(started):
    process = await started("list", "--context", "there")
    _, error = await process.communicate()
    assert process.returncode == 1
    assert error.startswith(b"error: the API server http://127.0.0.1:1 cannot be reached")
    assert len(error.splitlines()) == 1, "the library would log its retries"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--context", "nowhere"], "nowhere"),
        (["--kubeconfig", "/no/such/file"], "give --kubeconfig or KUBECONFIG"),
    ],
)
async def test_a_kubeconfig_that_does_not_fit_is_told(kube, options, why):
    code, _, error = await kube("list", *options)
    assert code == 1
    assert error.startswith("error: kubeconfig: ")
    assert why in error
