"""One pool and its rollout in a namespace of their own: make, edit, wait, describe the end."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_e2e.ptier import api as paths
from tidegate_e2e.ptier.api import Json
from tidegate_e2e.ptier.environment import MODEL, Environment, wait

STEPS: Sequence[Json] = (
    {"setWeight": 20},
    {"pause": {"duration": "2s"}},
    {"setWeight": 50},
    {"pause": {"duration": "2s"}},
)
ANALYSIS: Json = {
    "interval": "1s",
    "initialDelay": "0s",
    "minRequests": 10,
    "successRate": {"min": 0.95},
}
_FIELD = {"datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
BODY = json.dumps({"inputs": [{"name": "INPUT", **_FIELD}]})
EXPECTED = [1.0, 2.0]
_TENSOR = {"data_type": "TYPE_FP32", "dims": [-1]}


@dataclass(slots=True)
class Pool:
    """Pool and rollout `knobs` of one namespace."""

    env: Environment
    namespace: str

    @property
    def headers(self) -> dict[str, str]:
        """Return what names the pool in a request."""
        return {"x-tidegate-pool": f"{self.namespace}/{MODEL}"}

    @property
    def rollout_path(self) -> str:
        """Return the rollout's path."""
        return f"{paths.ROLLOUTS.format(self.namespace)}/{MODEL}"

    @property
    def pool_path(self) -> str:
        """Return the pool's path."""
        return f"{paths.POOLS.format(self.namespace)}/{MODEL}"

    async def forget(self) -> None:
        """Delete the workers, as the garbage collector would once the pool is gone."""
        for deployment in await self.env.api.items(paths.DEPLOYMENTS.format(self.namespace)):
            name = deployment["metadata"]["name"]
            path = f"{paths.DEPLOYMENTS.format(self.namespace)}/{name}"
            await self.env.api.request("DELETE", path)

    async def make(self, **spec: object) -> None:
        """Create both and return once the first revision serves. `spec` is of the rollout."""
        request = self.env.api.request
        await request("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        await request("POST", paths.POOLS.format(self.namespace), _pool())
        await request("POST", paths.ROLLOUTS.format(self.namespace), _rollout(spec))
        await self.settled("Healthy", "")

    async def edit(self, **env: object) -> str:
        """Change the template's environment; return the revision asked for before."""
        before = str((await self.status())["askedRevision"])
        pairs = [{"name": name, "value": str(value)} for name, value in env.items()]
        await self.patch({"spec": {"template": {"pod": {"env": pairs}}}})
        return before

    async def patch(self, body: Json) -> None:
        """Merge into the rollout."""
        await self.env.api.request("PATCH", self.rollout_path, body)

    async def annotate(self, verb: str, value: str) -> None:
        """Say a verb."""
        await self.patch({"metadata": {"annotations": {f"tidegate.dev/{verb}": value}}})

    async def status(self) -> Json:
        """Return the rollout's status."""
        found = await self.env.api.get(self.rollout_path)
        status: Json = found.get("status", {})
        return status

    async def settled(self, phase: str, before: str, limit_s: float = 90) -> Json:
        """Return the status once a revision other than `before` has reached its end."""

        async def look() -> Json | None:
            found = await self.env.api.get(self.rollout_path)
            seen: Json = found.get("status", {})
            fresh = seen.get("observedGeneration") == found["metadata"]["generation"]
            moved = seen.get("askedRevision") not in {before, None}
            still = seen.get("verifiedWeight", 0) == 0
            return seen if fresh and moved and still and seen.get("phase") == phase else None

        try:
            return await wait(look, f"phase {phase} of {self.namespace}", limit_s)
        except TimeoutError as error:
            seen = {k: v for k, v in (await self.status()).items() if k != "analysis"}
            raise TimeoutError(f"{error}: {json.dumps(seen)}") from error

    async def cleaned(self, limit_s: float = 60) -> Json:
        """Return the end state once only one revision has workers."""

        async def look() -> Json | None:
            end = await self.end_state()
            replicas: Mapping[str, int] = end["replicas"]
            one = sum(count > 0 for count in replicas.values()) == 1
            pods = await self.env.api.items(paths.PODS.format(self.namespace))
            return end if one and len(pods) == sum(replicas.values()) else None

        return await wait(look, f"one revision left in {self.namespace}", limit_s)

    async def end_state(self) -> Json:
        """Return what must be the same however the way was; revisions told by their part."""
        status = await self.status()
        get, space = self.env.api.items, self.namespace
        table = await self.env.api.get(f"{paths.TABLES.format(space)}/{MODEL}")
        parts = {status.get("abortedRevision"): "aborted", None: "none"}
        parts[status.get("stableRevision")] = "stable"
        deployments = await get(paths.DEPLOYMENTS.format(space))
        return {
            "phase": status.get("phase"),
            "step": status.get("currentStepIndex"),
            "verifiedWeight": status.get("verifiedWeight", 0),
            "asked": parts.get(status.get("askedRevision"), "other"),
            "canary": parts.get(status.get("canaryRevision"), "other"),
            "weights": {
                parts.get(item["revision"], "other"): item["weight"]
                for item in table["spec"]["weights"]
                if item["weight"]
            },
            "replicas": {
                parts.get(d["metadata"]["labels"]["tidegate.dev/revision"], "other"): d["spec"][
                    "replicas"
                ]
                for d in deployments
                if d["spec"]["replicas"]
            },
        }


def _pool() -> Json:
    model = {
        "name": MODEL,
        "source": {"uri": "configmap://knobs-model"},
        "backend": "python",
        "maxBatchSize": 8,
        "instances": [{"count": 8}],
        "config": {
            "input": [{"name": "INPUT", **_TENSOR}],
            "output": [{"name": "OUTPUT", **_TENSOR}],
        },
    }
    kind = {"name": "cpu", "kind": "CPU", "resources": {"cpu": "50m", "memory": "64Mi"}}
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": MODEL},
        "spec": {
            "template": {"models": [model], "pod": {"env": [{"name": "VERSION", "value": "1"}]}},
            "accelerators": [kind],
            "replicas": 2,
            "drain": {"timeout": "10s"},
        },
    }


def _rollout(spec: Mapping[str, object]) -> Json:
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {"name": MODEL},
        "spec": {
            "poolRef": {"name": MODEL},
            "steps": list(STEPS),
            "analysis": ANALYSIS,
            "scaleDownDelay": "1s",
            "progressDeadline": "60s",
            **spec,
        },
    }
