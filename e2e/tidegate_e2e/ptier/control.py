"""etcd and the API server on ports of 127.0.0.1, in a folder that goes when they end."""

import json
from pathlib import Path

from tidegate_e2e.localcluster.certificates import write_all
from tidegate_e2e.localcluster.plan import Plan
from tidegate_e2e.ptier.processes import Program, free_ports


def make_plan(folder: Path) -> Plan:
    """Return a plan whose certificates are good for 127.0.0.1."""
    return Plan(
        instance="ptier",
        host_ip="127.0.0.1",
        node_ip="127.0.0.1",
        pod_cidr="127.64.0.0/10",
        service_cidr="10.77.0.0/24",
        service_ip="10.77.0.1",
        state=folder,
    )


class ControlPlane:
    """Two programs; `server` is the API server's URL."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        client, peer, secure = free_ports(3)
        self.folder = folder
        self.pki = write_all(make_plan(folder))
        self.server = f"https://127.0.0.1:{secure}"
        self.etcd = Program("etcd", _etcd(binaries, folder, client, peer), folder)
        self.apiserver = Program(
            "apiserver", _apiserver(binaries, self.pki, client, secure), folder
        )

    def start(self) -> None:
        """Start both; `Api.ready` tells when they answer."""
        self.etcd.start()
        self.apiserver.start()

    def stop(self) -> None:
        """End both."""
        self.apiserver.kill()
        self.etcd.kill()

    def kubeconfig(self, name: str, server: str = "") -> Path:
        """Write a kubeconfig: the administrator's, or one for a proxy that adds the certificate."""
        user = {"token": "none"} if server else _certificate(self.pki)
        cluster = {"server": server} if server else _cluster(self.server, self.pki)
        path = self.folder / f"{name}.kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "ptier",
            "clusters": [{"name": "ptier", "cluster": cluster}],
            "contexts": [{"name": "ptier", "context": {"cluster": "ptier", "user": "ptier"}}],
            "users": [{"name": "ptier", "user": user}],
        }
        path.write_text(json.dumps(document))
        return path


def _certificate(pki: Path) -> dict[str, str]:
    return {
        "client-certificate": str(pki / "admin.crt"),
        "client-key": str(pki / "admin.key"),
    }


def _cluster(server: str, pki: Path) -> dict[str, str]:
    return {"server": server, "certificate-authority": str(pki / "ca.crt")}


def _etcd(binaries: Path, folder: Path, client: int, peer: int) -> list[str]:
    return [
        f"{binaries}/etcd",
        f"--data-dir={folder}/etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--log-level=warn",
    ]


def _apiserver(binaries: Path, pki: Path, etcd: int, secure: int) -> list[str]:
    return [
        f"{binaries}/kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={secure}",
        "--advertise-address=198.18.77.1",  # shown to nobody: no endpoints are kept
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.77.0.0/24",
        "--authorization-mode=AlwaysAllow",
        "--disable-admission-plugins=ServiceAccount",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-account.key",
        f"--service-account-signing-key-file={pki}/service-account.key",
    ]
