"""`make demo-canary`: one good new version is promoted, three bad ones go back by themselves.

`python -m tidegate_e2e.demo_canary`. Live requests run all the time; what each of them got is in
the load generator's own log (.bench/demo-canary.log), from which the figures come.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tidegate_api.rollout import ModelRollout, ModelRolloutStatus
from tidegate_e2e import access, canarylog, images
from tidegate_e2e.canarylog import Trial
from tidegate_e2e.cluster import Cluster, choose
from tidegate_e2e.install import helm_values
from tidegate_e2e.localcluster.plan import INSTANCES
from tidegate_e2e.localcluster.progress import say, step
from tidegate_e2e.localcluster.system import ClusterError

ROOT = Path(__file__).parents[2]
SYSTEM, RELEASE = "tidegate-system", "tidegate"
NAMESPACE, NAME, MODEL = "tidegate-canary", "classifier", "magika"
ROLLOUT = f"modelrollouts.tidegate.dev/{NAME}"
_STORIES: Mapping[str, tuple[str, canarylog.Verdict]] = {
    "v2": ("the network quantised to 8 bits: good", "Promoted"),
    "v3": ("answers take 5 times as long: slow", "RolledBack"),
    "v4": ("every 10th call fails: erring", "RolledBack"),
    "v5": ("a truncated file: cannot load", "RolledBack"),
}
_MODELS = tuple(f"model-{MODEL}-{version}" for version in _STORIES)
_IMAGES = ("operator", "router", "worker", f"model-{MODEL}", *_MODELS)
_SETTLE_S = 240.0
_LOOK_S = 1.0  # kubectl costs a tenth of a second of a core
_WARM_S = 5.0  # of requests on stable before the first edit
_PIPE_COLUMNS = 160


@dataclass(frozen=True, slots=True)
class Shell:
    """Commands as a user types them, and what is shown while they work."""

    cluster: Cluster

    def run(self, *command: str) -> str:
        """Return a command's output; ClusterError with its words."""
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.cluster.environment()
        )
        if done.returncode:
            raise ClusterError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the demo's namespace."""
        return self.run("kubectl", "-n", NAMESPACE, *arguments)

    def status(self) -> ModelRolloutStatus:
        """Return the rollout's status, empty while it is of an older generation."""
        found = ModelRollout.model_validate_json(self.kubectl("get", ROLLOUT, "-o", "json"))
        fresh = found.status.observed_generation == found.metadata.generation
        return found.status if fresh else ModelRolloutStatus()

    @contextmanager
    def tree(self) -> Iterator[None]:
        """Show `tidegate get --watch` meanwhile: a live tree, or a line for each change."""
        command = [sys.executable, "-m", "tidegate_cli", "get", NAME, "-n", NAMESPACE, "--watch"]
        process = subprocess.Popen(command, env=self.cluster.environment())
        try:
            yield
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it as a user does, which leaves the terminal in order.

    What a shell started in the background ignores SIGINT, and so do its children.
    """
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(timeout=10)


def play(instance: str) -> None:
    """Bring everything up, roll out four versions under live requests, and tell what happened."""
    shell = Shell(choose(instance))
    _install(shell)
    log = ROOT / ".bench" / "demo-canary.log"
    log.parent.mkdir(exist_ok=True)
    with (
        access.reach(shell.cluster, SYSTEM, f"{RELEASE}-router") as router,
        requests_to(router, log),
    ):
        access.until(lambda: _has_answers(log), what=f"an answer in {log}")
        time.sleep(_WARM_S)
        trials = [_trial(shell, version) for version in _STORIES]
    events = canarylog.events_of(
        json.loads(
            shell.kubectl(
                "get", "events", "--field-selector",
                f"involvedObject.kind=ModelRollout,involvedObject.name={NAME}", "-o", "json",
            )
        )
    )  # fmt: skip
    result = canarylog.report(canarylog.requests_of(log.read_text()), trials, events)
    target = ROOT / ".bench" / "demo-canary.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    _show(result, trials)
    _check(result, trials)


def _install(shell: Shell) -> None:
    """Images, chart, and the demo's pool as if it had never been there."""
    images.build(_IMAGES)
    shell.cluster.load_images(_IMAGES)
    with step("install the chart (helm upgrade --install tidegate .)"):
        shell.run(
            "helm", "upgrade", "--install", RELEASE, str(ROOT), "-n", SYSTEM,
            "--create-namespace", "--wait", "--timeout", "180s", *helm_values(),
        )  # fmt: skip
    with step(f"apply examples/canary/ to a fresh namespace {NAMESPACE}"):
        shell.run(
            "kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"
        )
        shell.run("kubectl", "apply", "-f", f"{ROOT}/examples/canary/pool.yaml")
        shell.run("kubectl", "apply", "-f", f"{ROOT}/examples/canary/rollout.yaml")
        shell.kubectl("wait", "--for=condition=Promoted", ROLLOUT, "--timeout=180s")


@contextmanager
def requests_to(router: access.Endpoints, log: Path) -> Iterator[None]:
    """Send live requests from a process of its own meanwhile."""
    url = f"http://{router.http}/v2/models/{MODEL}/infer"
    command = [sys.executable, "-m", "tidegate_e2e.loadgen", "--url", url]
    command += ["--pool", f"{NAMESPACE}/{NAME}", "--log", str(log)]
    log.unlink(missing_ok=True)
    process = subprocess.Popen(command)
    try:
        yield
        if process.poll() is not None:
            raise ClusterError(f"the load generator ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _has_answers(log: Path) -> bool:
    return log.exists() and any(item.ok for item in canarylog.requests_of(log.read_text()))


def _trial(shell: Shell, version: str) -> Trial:
    """Edit the rollout and watch until it is settled."""
    story, _ = _STORIES[version]
    say(f"\n==> {version}: {story}")
    before = shell.status().asked_revision
    began_s = time.time()
    uri = f"oci://{images.REGISTRY}/model-magika-{version}:1#/magika"
    template = {"models": [{"name": MODEL, "source": {"uri": uri}}]}
    shell.kubectl(
        "patch", ROLLOUT, "--type=merge", "-p", json.dumps({"spec": {"template": template}})
    )
    seen: list[tuple[float, ModelRolloutStatus]] = []
    with shell.tree():
        while time.time() < began_s + _SETTLE_S:
            status = shell.status()
            if status.asked_revision not in {None, before}:
                seen.append((time.time(), status))
            if seen and canarylog.verdict(seen[-1][1]) != "Unsettled":
                break
            time.sleep(_LOOK_S)
    if not seen:
        raise ClusterError(f"{ROLLOUT}: the edit to {version} was not taken up: {shell.status()}")
    trial = Trial(version=version, began_s=began_s, seen=seen)
    say(f"==> {version}: {trial.verdict} after {seen[-1][0] - began_s:.0f} s: {trial.last.message}")
    return trial


def _show(result: Mapping[str, object], trials: Sequence[Trial]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    columns = ("version", "revision", "verdict", "reason", "highestWeight", "requests", "failed")
    table = Table(*columns, "weight 0 after its first bad interval", title="Rollouts")
    rows = result["rollouts"]
    for row, trial in zip(rows if isinstance(rows, list) else [], trials, strict=True):
        table.add_row(*(str(row[key]) for key in columns), _rollback_time(row, trial))
    console.print(table)
    totals = {key: value for key, value in result.items() if key != "rollouts"}
    say("demo-canary: " + " ".join(f"{key}={value}" for key, value in totals.items()))


def _rollback_time(row: Mapping[str, object], trial: Trial) -> str:
    bad, zero = canarylog.first_bad_window(trial), row["weightZeroAt"]
    if bad is None or bad.ended_at is None or not isinstance(zero, str):
        return "-"
    seconds = canarylog.parse_instant(zero) - canarylog.parse_instant(bad.ended_at)
    return f"{seconds:.1f} s"


def _check(result: Mapping[str, object], trials: Sequence[Trial]) -> None:
    """Raise ClusterError unless every version ended as it must and stable lost nothing."""
    wrong = [
        f"{trial.version} ended {trial.verdict}, expected {_STORIES[trial.version][1]}"
        for trial in trials
        if trial.verdict != _STORIES[trial.version][1]
    ]
    if result["failedOnStable"]:
        wrong.append(f"{result['failedOnStable']} requests failed on stable")
    if wrong:
        raise ClusterError("; ".join(wrong))


def main() -> int:
    """Play; 1 with the reason when something did not go as it must."""
    parser = argparse.ArgumentParser(prog="python -m tidegate_e2e.demo_canary")
    parser.add_argument("--instance", choices=INSTANCES, default="demo")
    try:
        play(parser.parse_args().instance)
    except (ClusterError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
