"""What a pipeline sees of a rollout: helm --wait, kubectl get -w, on the real cluster (tier K)."""

import json
import subprocess
from pathlib import Path

import pytest

from tidegate_e2e.access import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[1]
ROLLOUT = "modelrollouts.tidegate.dev/knobs"
MANIFEST = ROOT / "e2e/manifests/rollout.yaml"


@pytest.fixture
def user(release, namespace):
    """A namespace of somebody who uses the installed release."""
    return release.into(namespace.namespace)


@pytest.fixture
def chart(tmp_path) -> Path:
    """A user's chart: pool, model and rollout, whose environment is a value.

    Analysis is left out: it waits for requests, and nobody sends any here.
    """
    head, _, analysis = MANIFEST.read_text().partition("  analysis:\n")
    assert analysis
    rollout = f"{head}  template: {{pod: {{env: {{{{ .Values.env | toJson }}}}}}}}\n"
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/all.yaml").write_text(f"{rollout}  progressDeadline: 60s\n")
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: vision\nversion: 1.0.0\n")
    (tmp_path / "values.yaml").write_text(json.dumps({"env": [{"name": "VERSION", "value": "1"}]}))
    return tmp_path


def upgrade(shell, chart: Path, *, check: bool = True, **env: str):
    """Run `helm upgrade --wait` with other values, as a pipeline would."""
    pairs = json.dumps([{"name": name, "value": value} for name, value in env.items()])
    return shell.helm(
        "upgrade", "--install", "vision", str(chart), "-n", shell.namespace, "--wait",
        "--timeout", "120s", "--set-json", f"env={pairs}", check=check,
    )  # fmt: skip


def status(shell) -> dict:
    return shell.get(ROLLOUT)["status"]


def test_helm_wait_ends_with_the_promotion_or_with_the_abort_and_rollback_heals(user, chart):
    upgrade(user, chart, VERSION="1")
    first = status(user)
    assert first["phase"] == "Healthy"
    upgrade(user, chart, VERSION="2")
    second = status(user)
    assert (second["phase"], second["canaryWeight"]) == ("Healthy", 0)
    assert second["stableRevision"] == second["askedRevision"] != first["stableRevision"]
    failed = upgrade(user, chart, check=False, VERSION="3", BROKEN="1")
    aborted = status(user)
    assert failed.returncode != 0
    assert aborted["phase"] == "Degraded", failed.stderr
    assert aborted["stableRevision"] == second["stableRevision"]
    user.helm("rollback", "vision", "2", "-n", user.namespace, "--wait")
    healed = status(user)
    assert (healed["phase"], healed["stableRevision"]) == ("Healthy", second["stableRevision"])


def test_an_object_that_nobody_has_seen_is_in_progress_for_kstatus(user):
    """Without a status kstatus would call it Current, and a wait would end before it began."""
    shown = 'jsonpath={.kind} {.status}{"\\n"}'
    made = user.kubectl("create", "-f", str(MANIFEST), "-o", shown).stdout.splitlines()
    for kind in ("InferencePool", "ModelRollout"):
        assert f'{kind} {{"observedGeneration":0}}' in made


def test_kubectl_get_watch_shows_a_rollout_going_its_steps(user, chart, tmp_path):
    upgrade(user, chart, VERSION="1")
    lines = tmp_path / "watched"
    command = ["kubectl", "-n", user.namespace, "get", "tgro", "-w", "--no-headers"]
    with lines.open("w") as output:
        watching = subprocess.Popen(
            command, stdout=output, env=user.cluster.environment(), cwd=ROOT
        )
        try:
            until(lambda: "Healthy" in lines.read_text(), what="the first line")
            upgrade(user, chart, VERSION="2")
            until(lambda: _phases(lines)[-1:] == ["Healthy"], what="the last line")
        finally:
            watching.terminate()
            watching.wait(10)
    phases = _phases(lines)
    assert phases[0] == phases[-1] == "Healthy"
    assert "Progressing" in phases
    assert any({"20", "Progressing"} <= set(line.split()) for line in lines.read_text().split("\n"))


def _phases(lines: Path) -> list[str]:
    """Return what the Phase column says, line by line; a line may lack other columns."""
    words = {"Healthy", "Progressing", "Paused", "Degraded"}
    found = [words & set(line.split()) for line in lines.read_text().splitlines()]
    return [phase.pop() for phase in found if phase]
