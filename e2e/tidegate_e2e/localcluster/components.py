"""The programs of the control plane and the node, with their command lines. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate_e2e.localcluster.plan import Plan


@dataclass(frozen=True, slots=True)
class Component:
    """A long-running program under a supervisor."""

    name: str
    command: Sequence[str]


def components(plan: Plan, binaries: Path, pki: Path) -> tuple[Component, ...]:
    """Return all programs in the order of their start."""
    return (
        Component("etcd", _etcd(plan, binaries)),
        Component("containerd", ["containerd", "--config", f"{plan.state}/containerd.toml"]),
        Component("kube-apiserver", _apiserver(plan, binaries, pki)),
        Component("kube-controller-manager", _controller_manager(plan, binaries, pki)),
        Component("kube-scheduler", _scheduler(plan, binaries)),
        Component("kube-proxy", _proxy(plan, binaries)),
        Component("kubelet", _kubelet(plan, binaries)),
    )


def _etcd(plan: Plan, binaries: Path) -> list[str]:
    return [
        f"{binaries}/etcd",
        f"--data-dir={plan.state}/etcd",
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    ]


def _apiserver(plan: Plan, binaries: Path, pki: Path) -> list[str]:
    return [
        f"{binaries}/kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={plan.node_ip}",
        "--bind-address=0.0.0.0",
        f"--service-cluster-ip-range={plan.service_cidr}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-account.key",
        f"--service-account-signing-key-file={pki}/service-account.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        "--enable-aggregator-routing",
        f"--audit-policy-file={plan.state}/audit-policy.json",
        f"--audit-log-path={plan.state}/logs/audit.log",
        "--audit-log-maxsize=50",
        "--audit-log-maxbackup=1",
    ]


def _controller_manager(plan: Plan, binaries: Path, pki: Path) -> list[str]:
    return [
        f"{binaries}/kube-controller-manager",
        f"--kubeconfig={plan.state}/controller-manager.kubeconfig",
        f"--service-account-private-key-file={pki}/service-account.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-cidr={plan.pod_cidr}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--kube-api-qps=100",
        "--kube-api-burst=200",
        "--concurrent-gc-syncs=20",
    ]


def _scheduler(plan: Plan, binaries: Path) -> list[str]:
    return [
        f"{binaries}/kube-scheduler",
        f"--kubeconfig={plan.state}/scheduler.kubeconfig",
        "--leader-elect=false",
    ]


def _proxy(plan: Plan, binaries: Path) -> list[str]:
    return [
        f"{binaries}/kube-proxy",
        f"--kubeconfig={plan.state}/proxy.kubeconfig",
        f"--hostname-override={plan.node}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={plan.pod_cidr}",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--iptables-min-sync-period=200ms",
    ]


def _kubelet(plan: Plan, binaries: Path) -> list[str]:
    return [
        f"{binaries}/kubelet",
        f"--config={plan.state}/kubelet.json",
        f"--kubeconfig={plan.state}/kubelet.kubeconfig",
        f"--root-dir={plan.state}/kubelet",
        f"--hostname-override={plan.node}",
        f"--node-ip={plan.node_ip}",
    ]
