"""Instances of the local cluster stand side by side; their files say what operators rely on."""

import ipaddress
import itertools
import json
import tomllib
from pathlib import Path

import pytest

from tidegate_e2e.localcluster import certificates, configs
from tidegate_e2e.localcluster.components import components
from tidegate_e2e.localcluster.plan import INSTANCES, UnknownInstanceError, plan

BENCHMARK_RANGE = ipaddress.IPv4Network("198.18.0.0/15")  # RFC 2544: routed nowhere
PLANS = [plan(name) for name in INSTANCES]
DEMO = plan("demo")
PKI = DEMO.state / "pki"


def ranges(one):
    link = ipaddress.IPv4Network(f"{one.host_ip}/30", strict=False)
    return [link, ipaddress.IPv4Network(one.pod_cidr), ipaddress.IPv4Network(one.service_cidr)]


def command(name):
    return next(c.command for c in components(DEMO, Path("/bin"), PKI) if c.name == name)


def flags(name):
    pairs = (flag.removeprefix("--").partition("=") for flag in command(name)[1:])
    return {key: value for key, _, value in pairs}


def test_every_range_of_every_instance_is_apart_and_inside_the_benchmark_range():
    everything = [one for instance in PLANS for one in ranges(instance)]
    assert all(one.subnet_of(BENCHMARK_RANGE) for one in everything)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(everything, 2))


@pytest.mark.parametrize(
    "what",
    ["namespace", "node", "host_link", "node_link", "cgroup", "server", "kubeconfig", "socket"],
)
def test_instances_share_no_name(what):
    assert len({getattr(instance, what) for instance in PLANS}) == len(INSTANCES)


@pytest.mark.parametrize("instance", PLANS, ids=INSTANCES)
def test_host_and_node_share_a_link_and_the_api_service_is_the_first_service_address(instance):
    link = ipaddress.IPv4Network(f"{instance.host_ip}/30", strict=False)
    assert ipaddress.IPv4Address(instance.node_ip) in link
    assert instance.host_ip != instance.node_ip
    assert ipaddress.IPv4Network(instance.service_cidr)[1] == ipaddress.IPv4Address(
        instance.service_ip
    )


@pytest.mark.parametrize("instance", PLANS, ids=INSTANCES)
def test_names_fit_the_kernel(instance):
    longest_link, longest_socket = 15, 107
    assert len(instance.host_link) <= longest_link
    assert len(instance.node_link) <= longest_link
    assert len(f"{instance.socket}.ttrpc") <= longest_socket


def test_an_unknown_instance_is_refused_with_those_that_exist():
    with pytest.raises(UnknownInstanceError, match="demo, test"):
        plan("production")


@pytest.mark.parametrize("name", [DEMO.node_ip, DEMO.service_ip, "kubernetes.default.svc"])
def test_the_api_servers_certificate_names_each_way_to_reach_it(name):
    subject = next(s for s in certificates.subjects(DEMO) if s.file == "apiserver")
    assert name in subject.names


def test_the_kubelet_is_the_node_that_the_authorizer_knows():
    subject = next(s for s in certificates.subjects(DEMO) if s.file == "kubelet")
    assert (subject.user, subject.group) == (f"system:node:{DEMO.node}", "system:nodes")
    assert DEMO.node_ip in subject.names


def test_each_kubeconfig_has_its_certificate():
    files = {subject.file for subject in certificates.subjects(DEMO)}
    assert {"admin", "controller-manager", "scheduler", "proxy", "kubelet"} <= files


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        pytest.param("authorization-mode", "Node,RBAC", id="roles-are-enforced"),
        pytest.param("requestheader-client-ca-file", f"{PKI}/front-proxy-ca.crt", id="aggregated"),
        pytest.param("requestheader-allowed-names", "front-proxy-client", id="one-aggregator"),
        pytest.param("requestheader-username-headers", "X-Remote-User", id="user-header"),
        pytest.param("requestheader-group-headers", "X-Remote-Group", id="group-header"),
        pytest.param("requestheader-extra-headers-prefix", "X-Remote-Extra-", id="extra-header"),
        pytest.param("proxy-client-cert-file", f"{PKI}/front-proxy.crt", id="proxy-certificate"),
        pytest.param("proxy-client-key-file", f"{PKI}/front-proxy.key", id="proxy-key"),
        pytest.param("enable-aggregator-routing", "", id="aggregator-reaches-pods"),
        pytest.param("audit-policy-file", f"{DEMO.state}/audit-policy.json", id="audited"),
        pytest.param("audit-log-path", f"{DEMO.state}/logs/audit.log", id="audit-log"),
        pytest.param("service-cluster-ip-range", DEMO.service_cidr, id="services"),
        pytest.param("kubelet-preferred-address-types", "InternalIP", id="logs-and-exec"),
    ],
)
def test_the_api_server_is_started_with(flag, value):
    assert flags("kube-apiserver")[flag] == value


@pytest.mark.parametrize("name", ["kube-controller-manager", "kube-scheduler"])
def test_there_is_one_of_each_so_nobody_elects(name):
    assert flags(name)["leader-elect"] == "false"


def test_every_program_names_its_instance_so_that_its_process_can_be_told_from_others():
    for component in components(DEMO, Path("/bin"), PKI):
        assert any(str(DEMO.state) in word for word in component.command), component.name


def test_what_serves_starts_before_what_asks():
    names = [component.name for component in components(DEMO, Path("/bin"), PKI)]
    assert names.index("etcd") < names.index("kube-apiserver") < names.index("kubelet")
    assert names.index("containerd") < names.index("kubelet")


def test_containerd_keeps_everything_in_the_state_folder():
    document = tomllib.loads(configs.containerd(DEMO))
    cri = document["plugins"]["io.containerd.grpc.v1.cri"]
    runtime = cri["containerd"]["runtimes"]["runc"]
    folders = [document["root"], document["state"], document["grpc"]["address"]]
    folders += [cri["cni"]["conf_dir"], runtime["options"]["Root"]]
    assert all(Path(folder).is_relative_to(DEMO.state) for folder in folders)
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == configs.PAUSE_IMAGE


def test_the_kubelet_runs_on_either_cgroup_version_and_asks_who_calls():
    document = json.loads(configs.kubelet(DEMO, PKI))
    assert document["failCgroupV1"] is False
    assert document["cgroupRoot"] == f"/{DEMO.cgroup}"
    assert document["authentication"]["anonymous"] == {"enabled": False}
    assert document["authorization"] == {"mode": "Webhook"}
    assert document["tlsCertFile"] == f"{PKI}/kubelet.crt"
    assert document["containerRuntimeEndpoint"] == f"unix://{DEMO.socket}"


def test_pods_have_addresses_of_their_instance_and_keep_them_towards_services():
    plugin = json.loads(configs.network(DEMO))["plugins"][0]
    assert plugin["ipam"]["ranges"] == [[{"subnet": DEMO.pod_cidr}]]
    assert plugin["ipMasq"] is False


def test_a_kubeconfig_names_server_and_certificates():
    document = json.loads(configs.kubeconfig(DEMO, "admin", PKI))
    assert document["clusters"][0]["cluster"]["server"] == DEMO.server
    assert document["users"][0]["user"]["client-certificate"] == f"{PKI}/admin.crt"
    assert document["current-context"] == document["contexts"][0]["name"]


def test_the_audit_log_holds_no_bodies_so_no_secret():
    levels = {rule["level"] for rule in json.loads(configs.audit_policy())["rules"]}
    assert levels == {"None", "Metadata"}
