"""A real cluster with the chart installed, and the commands a user would type."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tidegate_e2e import access
from tidegate_e2e.cluster import Cluster, choose
from tidegate_e2e.install import helm_values

ROOT = Path(__file__).parents[1]
SYSTEM_NAMESPACE = "tidegate-system"
POOL = "inferencepools.tidegate.dev/echo"
Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Shell:
    """Runs programs of the chosen cluster and shows what they said when they fail."""

    cluster: Cluster
    namespace: str = "default"

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> Result:
        result = subprocess.run(
            command,
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            timeout=300,
            cwd=ROOT,
            env=self.cluster.environment(),
        )
        if check:
            assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
        return result

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> Result:
        return self.run("kubectl", "-n", self.namespace, *arguments, stdin=stdin, check=check)

    def helm(self, *arguments: str, check: bool = True) -> Result:
        return self.run("helm", *arguments, check=check)

    def get(self, *arguments: str) -> dict:
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def into(self, namespace: str) -> "Shell":
        return Shell(self.cluster, namespace)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return choose("test")


@pytest.fixture(scope="session")
def shell(cluster: Cluster) -> Shell:
    return Shell(cluster)


@pytest.fixture(scope="session")
def release(shell: Shell) -> Shell:
    """Installs the chart once; `helm --wait` returns when every pod of it is Ready."""
    shell.helm(
        "upgrade", "--install", "tidegate", str(ROOT), "-n", SYSTEM_NAMESPACE,
        "--create-namespace", "--wait", "--timeout", "180s", *helm_values(),
    )  # fmt: skip
    return shell.into(SYSTEM_NAMESPACE)


@pytest.fixture
def namespace(shell: Shell) -> Iterator[Shell]:
    """A namespace under the restricted Pod Security Standard; gone after the test."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    shell.kubectl("create", "namespace", name)
    shell.kubectl("label", "ns", name, "pod-security.kubernetes.io/enforce=restricted")
    yield shell.into(name)
    shell.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def echo(release: Shell, namespace: Shell) -> Shell:
    """Pool `echo` with two Ready workers in a namespace of its own."""
    pool = release.into(namespace.namespace)
    pool.kubectl("apply", "-f", "e2e/manifests/echo.yaml")
    pool.kubectl("wait", "--for=condition=Ready", POOL, "--timeout=120s")
    return pool


@pytest.fixture(scope="session")
def standing(release: Shell) -> Iterator[Shell]:
    """Pool `echo` for tests that only ask it: one for all of them."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    pool = release.into(name)
    pool.kubectl("create", "namespace", name)
    pool.kubectl("apply", "-f", "e2e/manifests/echo.yaml")
    pool.kubectl("wait", "--for=condition=Ready", POOL, "--timeout=120s")
    yield pool
    pool.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def router(release: Shell) -> Iterator[access.Endpoints]:
    with access.reach(release.cluster, SYSTEM_NAMESPACE, "tidegate-router") as endpoints:
        yield endpoints
