"""Configuration files of the instance as text. Pure."""

import json
from pathlib import Path

from tidegate_e2e.localcluster.plan import Plan

PAUSE_IMAGE = "docker.io/tidegate/pause:1"


def kubeconfig(plan: Plan, user: str, pki: Path) -> str:
    """Return a kubeconfig (JSON is YAML) for one of the certificates of `pki`."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": plan.node,
            "clusters": [
                {
                    "name": plan.node,
                    "cluster": {
                        "server": plan.server,
                        "certificate-authority": str(pki / "ca.crt"),
                    },
                }
            ],
            "contexts": [{"name": plan.node, "context": {"cluster": plan.node, "user": user}}],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate": str(pki / f"{user}.crt"),
                        "client-key": str(pki / f"{user}.key"),
                    },
                }
            ],
        },
        indent=1,
    )


def containerd(plan: Plan) -> str:
    """Return containerd's configuration.

    `restrict_oom_score_adj`: without CAP_SYS_RESOURCE every sandbox fails otherwise.
    """
    state = plan.state
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{plan.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/containerd/opt"
[{cri}]
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  netns_mounts_under_state_dir = true
  [{cri}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
  [{cri}.containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{cri}.containerd.runtimes.runc.options]
        Root = "{state}/runc"
"""


def network(plan: Plan) -> str:
    """Return the CNI configuration: one bridge, addresses from the pod range, no masquerade."""
    return json.dumps(
        {
            "cniVersion": "0.4.0",
            "name": plan.node,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(plan.state / "addresses"),
                        "ranges": [[{"subnet": plan.pod_cidr}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        },
        indent=1,
    )


def kubelet(plan: Plan, pki: Path) -> str:
    """Return the KubeletConfiguration: cgroup v1 or v2, no eviction by this machine's disk."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / "kubelet.crt"),
            "tlsPrivateKeyFile": str(pki / "kubelet.key"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{plan.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{plan.socket}",
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%"},
            "resolvConf": "",
            "volumePluginDir": str(plan.state / "kubelet" / "volume-plugins"),
            "podLogsDir": str(plan.state / "logs" / "pods"),
            "serializeImagePulls": False,
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
            "maxPods": 200,
        },
        indent=1,
    )


def audit_policy() -> str:
    """Return an audit policy: who did what to what, without bodies, watches left out."""
    return json.dumps(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "None", "verbs": ["watch"]},
                {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
                {"level": "Metadata"},
            ],
        }
    )
