"""The commands that need no cluster, as a user runs them."""

import pytest

POOL = """
apiVersion: tidegate.dev/v1alpha1
kind: InferencePool
metadata: {name: vision, namespace: ml}
spec:
  template: {models: [{name: a, source: {uri: pvc://m/a/1}}]}
  accelerators: [{name: cpu, kind: CPU}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
"""
ROLLOUT = """
apiVersion: tidegate.dev/v1alpha1
kind: ModelRollout
metadata: {name: vision, namespace: ml}
spec:
  poolRef: {name: vision}
  template: {models: [{name: MODEL, source: {uri: pvc://m/a/2}}]}
  steps: [{setWeight: 5}, {pause: {duration: 30s}}]
  analysis: {successRate: {min: 0.99}}
"""


@pytest.fixture
def folder(tmp_path):
    """Return `folder(**files)`: a folder that holds them."""

    def make(**files):
        path = tmp_path / "manifests"
        path.mkdir()
        for name, content in files.items():
            (path / f"{name}.yaml").write_text(content, "utf-8")
        return path

    return make


async def test_lint_of_a_folder_judges_pools_and_rollouts_together(kube, folder):
    path = folder(pool=POOL, rollout=ROLLOUT.replace("MODEL", "a"))
    assert await kube("lint", str(path)) == (
        0, "", "2 objects: 0 errors, 0 warnings, 1 of other kinds left alone\n",
    )  # fmt: skip


async def test_lint_fails_with_a_line_for_each_error(kube, folder):
    path = folder(pool=POOL, rollout=ROLLOUT.replace("MODEL", "b"))
    code, out, error = await kube("lint", str(path))
    assert code == 1
    assert out.startswith(f"{path}/rollout.yaml: error: modelrollouts.tidegate.dev ml/vision: ")
    assert "spec.template.models[0].name: the pool has no model b" in out
    assert error.startswith("2 objects: 1 errors")


async def test_lint_reads_standard_input_and_warns_of_short_steps(kube):
    stdin = (POOL + "---" + ROLLOUT.replace("MODEL", "a")).encode()
    code, out, _ = await kube("lint", "-", "--rate", "10", stdin=stdin)
    assert code == 0
    assert "-, document 3: warning: " in out
    assert "(StepTooShortForTraffic)" in out
    code, _, _ = await kube("lint", "-", "--rate", "10", "--strict", stdin=stdin)
    assert code == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"a: [", "no YAML"), (b"- a\n- b\n", "expected an object with apiVersion and kind")],
)
async def test_lint_of_what_is_no_manifest_is_an_error(kube, content, why):
    code, _, error = await kube("lint", "-", stdin=content)
    assert code == 1
    assert why in error
    assert len(error.splitlines()) == 1


async def test_lint_of_a_missing_file_names_it(kube):
    code, _, error = await kube("lint", "/no/such/file.yaml")
    assert code == 1
    assert "/no/such/file.yaml" in error


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_prints_the_shell_s_script(kube, shell):
    code, out, _ = await kube("completion", shell)
    assert code == 0
    assert "_TIDEGATE_COMPLETE" in out


TRACE = """
- {at: 0s, rate: 200, stable: {p95: 80ms}, canary: {p95: 85ms}}
- {at: 50s, canary: {errors: 0.2}}
"""


async def test_simulate_tells_what_would_happen_and_ends_by_its_exit_code(kube, folder):
    path = folder(rollout=ROLLOUT.replace("MODEL", "a"), trace=TRACE)
    code, out, error = await kube(
        "simulate", f"{path}/rollout.yaml", "--trace", f"{path}/trace.yaml", "--start", "10s"
    )
    assert (code, error) == (1, "")
    assert "AnalysisRunFailed" in out
    assert out.splitlines()[-1].startswith("RolledBack after ")


@pytest.mark.parametrize(
    ("rollout", "trace", "why"),
    [
        (POOL, TRACE, "expected one ModelRollout, found 0"),
        (ROLLOUT.replace("MODEL", "a").replace("5}", "101}"), TRACE, "spec.steps[0].setWeight"),
        (ROLLOUT.replace("MODEL", "a"), "- {at: 0s}", "a rate above 0"),
        (ROLLOUT.replace("MODEL", "a"), "a: [", "no YAML"),
    ],
)
async def test_simulate_of_what_it_cannot_read_is_an_error(kube, folder, rollout, trace, why):
    path = folder(rollout=rollout, trace=trace)
    code, _, error = await kube("simulate", f"{path}/rollout.yaml", "--trace", f"{path}/trace.yaml")
    assert code == 1
    assert why in error
    assert len(error.splitlines()) == 1
