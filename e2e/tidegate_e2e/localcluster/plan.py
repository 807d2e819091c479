"""Names, addresses and folders of one instance, all derived from its name. Pure."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

INSTANCES = ("demo", "test", "scratch")  # scratch: for breaking the cluster itself
_LINKS = ipaddress.IPv4Network("198.18.255.0/24")  # one /30 an instance: host and node
_PODS = ipaddress.IPv4Network("198.18.64.0/18")  # one /20 an instance
_SERVICES = ipaddress.IPv4Network("198.19.0.0/16")  # one /24 an instance


class UnknownInstanceError(ValueError):
    """The instance has no place in the address plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where everything of an instance is."""

    instance: str
    host_ip: str
    node_ip: str
    pod_cidr: str
    service_cidr: str
    service_ip: str  # of Service default/kubernetes
    state: Path

    @property
    def namespace(self) -> str:
        """Return the network namespace's name."""
        return f"tidegate-{self.instance}"

    @property
    def namespace_file(self) -> Path:
        """Return where the network namespace is mounted."""
        return Path("/var/run/netns") / self.namespace

    @property
    def node(self) -> str:
        """Return the Kubernetes node's name."""
        return f"tidegate-{self.instance}"

    @property
    def host_link(self) -> str:
        """Return the host's end of the veth pair (at most 15 characters)."""
        return f"tg-{self.instance}-h"

    @property
    def node_link(self) -> str:
        """Return the node's end of the veth pair."""
        return f"tg-{self.instance}-n"

    @property
    def cgroup(self) -> str:
        """Return the cgroup below which the kubelet keeps all pods."""
        return f"tidegate-{self.instance}"

    @property
    def server(self) -> str:
        """Return the API server's URL."""
        return f"https://{self.node_ip}:6443"

    @property
    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig."""
        return self.state / "admin.kubeconfig"

    @property
    def socket(self) -> Path:
        """Return containerd's socket."""
        return self.state / "containerd.sock"


def plan(instance: str, root: Path = Path("/var/lib/tidegate")) -> Plan:
    """Return the plan of an instance; UnknownInstanceError lists those that exist."""
    if instance not in INSTANCES:
        known = ", ".join(INSTANCES)
        raise UnknownInstanceError(f'instance "{instance}" is unknown: expected one of {known}')
    index = INSTANCES.index(instance)
    link = list(_LINKS.subnets(new_prefix=30))[index]
    services = list(_SERVICES.subnets(new_prefix=24))[index]
    return Plan(
        instance=instance,
        host_ip=str(link[1]),
        node_ip=str(link[2]),
        pod_cidr=str(list(_PODS.subnets(new_prefix=20))[index]),
        service_cidr=str(services),
        service_ip=str(services[1]),
        state=root / instance,
    )
