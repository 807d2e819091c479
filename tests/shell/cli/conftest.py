"""An API server that keeps objects, merges patches and refuses on purpose."""

import asyncio
import copy
import os
import subprocess
import sys

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from tidegate_cli.app import app
from tidegate_cli.errors import CommandError

OWN = "/apis/tidegate.dev/v1alpha1/namespaces/ml"
APPS = "/apis/apps/v1/namespaces/ml"
CORE = "/api/v1/namespaces/ml"
OFFLINE = {"lint", "completion", "simulate"}


class Api:
    """`objects` by path; `status(path)` may answer another status; `seen` are all requests."""

    def __init__(self):
        self.objects = {}
        self.seen = []
        self.fault = lambda _method, _path: None
        self.page = 500
        self.url = ""
        self.authorization = []

    async def handle(self, request):
        self.seen.append((request.method, request.path))
        self.authorization.append(request.headers.get("Authorization"))
        fault = self.fault(request.method, request.path)
        if fault is not None:
            return _failure(*fault)
        if request.method == "GET" and request.path not in self.objects:
            return self._list(request)
        if request.path not in self.objects:
            return _failure(404, f'"{request.path}" not found')
        if request.method == "PATCH":
            return self._patch(request.path, request.content_type, await request.json())
        return web.json_response(self.objects[request.path])

    def _patch(self, path, content_type, patch):
        assert content_type == "application/merge-patch+json"
        before = self.objects[path]
        version = patch.get("metadata", {}).get("resourceVersion")
        if version not in {None, before["metadata"]["resourceVersion"]}:
            return _failure(409, "the object has been modified")
        self.objects[path] = merged(before, patch)
        return web.json_response(self.objects[path])

    def _list(self, request):
        namespace, plural = request.path.rpartition("/")[::2]
        everywhere = "/namespaces/" not in namespace
        found = [
            item
            for path, item in self.objects.items()
            if path.startswith(namespace)
            and path.split("/")[-2] == plural
            and (everywhere or path.rpartition("/")[0] == request.path)
            and selected(item, request.query.get("labelSelector", ""))
        ]
        if not found and plural not in KINDS:
            return _failure(404, f'{plural} "{request.path}" not found')
        start = int(request.query.get("continue", "0"))
        end = start + min(self.page, int(request.query["limit"]))
        meta = {"continue": str(end)} if end < len(found) else {}
        return web.json_response({"metadata": meta, "items": found[start:end]})


KINDS = {"modelrollouts", "inferencepools", "controllerrevisions", "deployments", "pods"}


def selected(item, selector):
    name, _, value = selector.partition("=")
    return not selector or item["metadata"].get("labels", {}).get(name) == value


def merged(old, patch):
    """RFC 7396."""
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = result.get(key)
            result[key] = merged(before if isinstance(before, dict) else {}, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _failure(status, message, causes=()):
    details = {"causes": [{"field": field, "message": text} for field, text in causes]}
    body = {"kind": "Status", "code": status, "message": message, "details": details}
    return web.json_response(body, status=status)


@pytest.fixture
async def api():
    """A pool with two revisions and its rollout, waiting at the gate of its last step."""
    made = Api()
    served = web.Application()
    served.router.add_route("*", "/{path:.*}", made.handle)
    async with TestServer(served) as server:
        made.url = str(server.make_url("/")).rstrip("/")
        made.objects = objects()
        yield made


def objects():
    labels = {"tidegate.dev/pool": "vision"}
    template = {"models": [{"name": "a", "source": {"uri": "pvc://m/a/1"}}]}
    pool = {
        "metadata": {"name": "vision", "namespace": "ml"},
        "spec": {"template": template, "accelerators": [{"name": "cpu", "kind": "CPU"}]},
        "status": {"stableRevision": "r1", "rollout": {
            "name": "canary", "uid": "u", "templateHash": "h"}},
    }  # fmt: skip
    rollout = {
        "metadata": {
            "name": "canary", "namespace": "ml", "generation": 3, "resourceVersion": "77",
        },
        "spec": {"poolRef": {"name": "vision"}, "steps": [{"setWeight": 5}, {"pause": {}}]},
        "status": {
            "observedGeneration": 3, "phase": "Paused", "currentStepIndex": 1,
            "stableRevision": "r1", "canaryRevision": "r2", "canaryWeight": 5,
            "verifiedWeight": 5,
            "pauseConditions": [{"reason": "PausedByStep", "startTime": "2026-01-01T00:00:00Z"}],
        },
    }  # fmt: skip
    found = {f"{OWN}/inferencepools/vision": pool, f"{OWN}/modelrollouts/canary": rollout}
    for number in (0, 1, 2):
        named = {**labels, "tidegate.dev/revision": f"r{number}"}
        found[f"{APPS}/controllerrevisions/vision-r{number}"] = {
            "metadata": {"name": f"vision-r{number}", "labels": named},
            "data": {"schema": "revision.v1", "image": "worker:1", "template": template},
            "revision": number + 1,
        }
    of_set = {**labels, "tidegate.dev/revision": "r1", "tidegate.dev/class": "cpu"}
    found[f"{APPS}/deployments/vision-cpu-1"] = {
        "metadata": {"name": "vision-cpu-1", "labels": of_set}, "spec": {"replicas": 1},
    }  # fmt: skip
    found[f"{CORE}/pods/vision-cpu-1-x"] = {
        "metadata": {
            "name": "vision-cpu-1-x",
            "labels": {**labels, "tidegate.dev/worker-set": "vision-cpu-1"},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    return found


@pytest.fixture
def kubeconfig(api, tmp_path):
    """A file with two contexts: `here` in namespace ml, `there` without one, at nobody's port."""
    path = tmp_path / "kubeconfig"
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [
            {"name": "c", "cluster": {"server": api.url}},
            {"name": "d", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "u", "user": {"token": "secret-token"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "ml"}},
            {"name": "there", "context": {"cluster": "d", "user": "u"}},
        ],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document), "utf-8")
    return path


async def start(*arguments, environment):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate_cli", *arguments,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment,
    )  # fmt: skip


@pytest.fixture
def environment(kubeconfig, tmp_path):
    """Nothing of the machine's own but what finds Python and the sources."""
    kept = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    return {**kept, "KUBECONFIG": str(kubeconfig), "HOME": str(tmp_path)}


@pytest.fixture
def kube(kubeconfig):
    """Return `kube(*arguments)`: exit code, standard output and standard error of `tidegate`.

    In a thread of this process: starting Python anew takes seconds. `started` is the real thing.
    """

    async def run(*arguments, stdin=b""):
        sited = arguments if arguments[0] in OFFLINE else (*arguments, *_config(arguments))
        result = await asyncio.to_thread(CliRunner().invoke, app, sited, input=stdin)
        error = result.stderr
        if isinstance(result.exception, CommandError):
            error += f"error: {result.exception}\n"
        elif result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, error

    def _config(arguments):
        given = "--kubeconfig" in arguments
        return () if given else ("--kubeconfig", str(kubeconfig))

    return run


@pytest.fixture
def started(environment):
    """Return `started(*arguments)`: the running process."""

    async def run(*arguments):
        return await start(*arguments, environment=environment)

    return run
