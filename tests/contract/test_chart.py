"""The chart as Helm renders it: once per file in ci/, and by its defaults."""

import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tidegate_api import names
from tidegate_e2e import helm
from tidegate_operator import settings as operator_settings
from tidegate_router import settings as router_settings

ROOT = Path(__file__).parents[2]
VARIANTS = [None, *sorted((ROOT / "ci").glob("*-values.yaml"))]
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


@pytest.fixture(scope="session")
def run_helm():
    binary = helm.ensure()

    def run(*arguments):
        return subprocess.run(
            [binary, *arguments], text=True, capture_output=True, check=False, cwd=ROOT
        )

    return run


@pytest.fixture(scope="session")
def render(run_helm):
    def rendered(*arguments):
        result = run_helm("template", "tg", str(ROOT), "--namespace", "system", *arguments)
        assert result.returncode == 0, result.stderr
        return [document for document in yaml.safe_load_all(result.stdout) if document]

    return rendered


def files(variant):
    return [] if variant is None else ["--values", str(variant)]


@pytest.fixture(scope="session", params=VARIANTS, ids=lambda v: v.stem if v else "defaults")
def objects(request, render):
    return render(*files(request.param))


@pytest.fixture(scope="session")
def defaults(render):
    return render()


def of_kind(objects, *kinds):
    return [entry for entry in objects if entry["kind"] in kinds]


def named(objects, kind, name):
    (only,) = [entry for entry in of_kind(objects, kind) if entry["metadata"]["name"] == name]
    return only


def pod_specs(objects):
    return [entry["spec"]["template"]["spec"] for entry in of_kind(objects, "Deployment")]


def containers(objects):
    return [container for pod in pod_specs(objects) for container in pod["containers"]]


def rules(objects):
    return [rule for entry in of_kind(objects, "Role", "ClusterRole") for rule in entry["rules"]]


def environment(container):
    return {entry["name"]: entry.get("value") for entry in container["env"]}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.stem if v else "defaults")
def test_helm_lint_is_content(run_helm, variant):
    result = run_helm("lint", "--strict", str(ROOT), *files(variant))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("part", ["crds", "operator", "router"])
def test_a_part_lints_alone(run_helm, part):
    result = run_helm("lint", "--strict", str(ROOT / "charts" / part))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("router.replcas=3", "additional properties 'replcas' not allowed"),
        ("operater.replicas=3", "additional properties 'operater' not allowed"),
        ("router.replicas=many", "got string, want integer"),
        ("router.bareModelNames=Newest", "value must be one of"),
        ("operator.image.digest=latest", "does not match pattern"),
        ("operator.watchNamespaces={UPPER}", "does not match pattern"),
    ],
)
def test_a_wrong_value_is_refused(run_helm, setting, complaint):
    result = run_helm("template", "tg", str(ROOT), "--set", setting)
    assert result.returncode != 0
    assert complaint in result.stderr


def test_each_crd_is_rendered_exactly_once(defaults):
    found = sorted(entry["metadata"]["name"] for entry in of_kind(defaults, *CLUSTER_WIDE))
    crds = [name for name in found if name.endswith(f".{names.GROUP}")]
    assert crds == [
        "inferencepools.tidegate.dev",
        "modelrollouts.tidegate.dev",
        "routetables.tidegate.dev",
    ]


def test_the_rendered_crd_is_the_committed_one_and_outlives_the_release(defaults):
    for plural in names.PLURALS.values():
        path = ROOT / "crds" / f"{names.GROUP}_{plural}.yaml"
        crd = named(defaults, "CustomResourceDefinition", f"{plural}.{names.GROUP}")
        assert crd == yaml.safe_load(path.read_text("utf-8"))
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_no_crd_with_crds_disabled(render):
    assert of_kind(render("--set", "crds.enabled=false"), "CustomResourceDefinition") == []


def test_the_package_holds_the_chart_and_nothing_else(run_helm, tmp_path):
    result = run_helm("package", str(ROOT), "--destination", str(tmp_path))
    assert result.returncode == 0, result.stderr
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        listing = archive.getnames()
    top = {"/".join(path.split("/")[1:2]) for path in listing}
    assert top <= {
        ".helmignore", "Chart.yaml", "LICENSE", "README.md", "charts", "templates",
        "values.schema.json", "values.yaml",
    }  # fmt: skip
    assert package.stat().st_size < 100_000


def test_pods_meet_the_restricted_pod_security_standard(objects):
    for pod in pod_specs(objects):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == 65532
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert {key for volume in pod["volumes"] for key in volume} <= {
            "name",
            "emptyDir",
            "secret",
        }
    for container in containers(objects):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_every_container_is_probed_and_sized(objects):
    for container in containers(objects):
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["resources"]


def test_no_wildcard_and_no_secret_in_any_permission(objects):
    for rule in rules(objects):
        for part in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule[part], rule
        assert not any(resource.startswith("secrets") for resource in rule["resources"]), rule


def test_only_people_may_write_pools(objects):
    for entry in of_kind(objects, "Role", "ClusterRole"):
        labels = entry["metadata"]["labels"]
        if any("aggregate-to-edit" in label for label in labels):
            continue
        for rule in entry["rules"]:
            if {"inferencepools", "inferencepools/scale", "modelrollouts"} & set(rule["resources"]):
                assert set(rule["verbs"]) <= {"get", "list", "watch"}, rule


def test_routers_only_read(objects):
    written = [
        verb
        for entry in of_kind(objects, "Role", "ClusterRole")
        if entry["metadata"]["labels"][names.LABEL_COMPONENT] == "router"
        for rule in entry["rules"]
        for verb in rule["verbs"]
        if verb not in {"get", "list", "watch"}
    ]
    assert written == []


def test_each_permission_says_why():
    for template in sorted((ROOT / "charts").glob("*/templates/*")):
        lines = template.read_text("utf-8").splitlines()
        for index, line in enumerate(lines):
            if line.strip().startswith("- apiGroups:"):
                above = lines[index - 1].strip()
                assert above.startswith("# "), f"{template.name}:{index + 1}"


def test_with_named_namespaces_nothing_is_cluster_wide(render):
    rendered = render(*files(ROOT / "ci" / "namespaced-values.yaml"))
    assert of_kind(rendered, *CLUSTER_WIDE) == []
    for component in ("operator", "router"):
        watched = {
            entry["metadata"]["namespace"]
            for entry in of_kind(rendered, "Role")
            if entry["metadata"]["labels"][names.LABEL_COMPONENT] == component
        }
        assert watched == {"system", "team-a", "team-b"}
        container = named(rendered, "Deployment", f"tg-{component}")["spec"]["template"]["spec"]
        assert "team-a,team-b" in environment(container["containers"][0]).values()


def test_without_named_namespaces_the_permissions_are_the_same_cluster_wide(render, defaults):
    namespaced = render(*files(ROOT / "ci" / "namespaced-values.yaml"))
    for component in ("operator", "router"):
        role = named(defaults, "ClusterRole", f"system-tg-{component}")
        roles = [
            entry
            for entry in of_kind(namespaced, "Role")
            if entry["metadata"]["name"] == f"system-tg-{component}"
        ]
        assert [entry["rules"] for entry in roles] == [role["rules"]] * 2


def test_every_binding_names_an_existing_role_and_account(objects):
    roles = {
        (entry["kind"], entry["metadata"].get("namespace"), entry["metadata"]["name"])
        for entry in of_kind(objects, "Role", "ClusterRole")
    }
    accounts = {entry["metadata"]["name"] for entry in of_kind(objects, "ServiceAccount")}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        reference = binding["roleRef"]
        namespace = binding["metadata"].get("namespace")
        assert (reference["kind"], namespace, reference["name"]) in roles
        (subject,) = binding["subjects"]
        assert subject["name"] in accounts
        assert subject["namespace"] == "system"


def test_services_and_budgets_select_the_pods_of_one_program(objects):
    templates = [entry["spec"]["template"] for entry in of_kind(objects, "Deployment")]
    for entry in of_kind(objects, "Service", "PodDisruptionBudget"):
        selector = entry["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        matched = [t for t in templates if wanted <= t["metadata"]["labels"].items()]
        assert len(matched) == 1, entry["metadata"]["name"]
        ports = {
            p["name"]: p["containerPort"] for p in matched[0]["spec"]["containers"][0]["ports"]
        }
        for port in entry["spec"].get("ports", ()):
            assert ports[port["targetPort"]] == port["port"]


def test_a_budget_never_blocks_a_node_drain(objects):
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_ports_are_those_of_the_contract(defaults):
    service = named(defaults, "Service", "tg-router")["spec"]
    ports = {port["name"]: (port["port"], port["appProtocol"]) for port in service["ports"]}
    assert ports == {
        "http": (names.PORT_ROUTER_HTTP, "http"),
        "grpc": (names.PORT_ROUTER_GRPC, "kubernetes.io/h2c"),
    }
    admin = named(defaults, "Service", "tg-router-admin")["spec"]
    assert admin["clusterIP"] == "None"
    assert [port["port"] for port in admin["ports"]] == [names.PORT_ROUTER_ADMIN]
    metrics = named(defaults, "Service", "tg-operator")["spec"]
    assert [port["port"] for port in metrics["ports"]] == [names.PORT_OPERATOR]


def test_pods_carry_the_labels_that_workers_network_policies_let_in(objects):
    for entry in of_kind(objects, "Deployment"):
        labels = entry["spec"]["template"]["metadata"]["labels"]
        component = labels[names.LABEL_COMPONENT]
        label = {"operator": names.LABEL_OPERATOR, "router": names.LABEL_ROUTER}[component]
        assert label in labels


def test_each_program_reads_every_variable_that_the_chart_sets(defaults):
    for component, module in (("operator", operator_settings), ("router", router_settings)):
        pod = named(defaults, "Deployment", f"tg-{component}")["spec"]["template"]["spec"]
        flags = {flag.upper().replace("-", "_") for flag, *_ in module._FLAGS}
        assert set(environment(pod["containers"][0])) <= {f"TIDEGATE_{flag}" for flag in flags}


def test_the_operator_understands_the_charts_defaults(defaults):
    settings = operator_settings.read([], plain_environment(defaults, "tg-operator"))
    assert settings.router_service == "system/tg-router"
    assert settings.router_url == "http://tg-router.system.svc:8000"
    assert settings.worker_image == "docker.io/tidegate/worker:0.1.0-gpu"
    assert settings.watch_namespaces == ()
    assert settings.network_policy is True


def test_the_router_understands_the_charts_values(render):
    rendered = render(*files(ROOT / "ci" / "full-values.yaml"))
    settings = router_settings.read([], plain_environment(rendered, "tg-router"))
    assert settings.operator_namespace == "elsewhere"
    assert settings.bare_model_names is False
    assert settings.drain_s == 30
    assert settings.max_body_bytes == 1 << 30
    assert settings.log_level == "warning"
    pod = named(rendered, "Deployment", "tg-router")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert str(settings.snapshot_file.parent) in mounts


def plain_environment(objects, name):
    pod = named(objects, "Deployment", name)["spec"]["template"]["spec"]
    variables = environment(pod["containers"][0])
    return {variable: value for variable, value in variables.items() if value is not None}


def test_the_leases_are_those_that_the_operator_writes_and_routers_read(defaults):
    written = [
        set(rule["resourceNames"])
        for rule in named(defaults, "Role", "tg-operator")["rules"]
        if "resourceNames" in rule
    ]
    assert written == [{names.LEADER_LEASE, names.ROUTES_LEASE}]
    (read,) = named(defaults, "Role", "tg-router")["rules"]
    assert read["resourceNames"] == [names.ROUTES_LEASE]


def test_a_digest_goes_before_the_tag(render):
    rendered = render(*files(ROOT / "ci" / "full-values.yaml"))
    images = {c["name"]: c["image"] for c in containers(rendered)}
    assert images["operator"] == f"docker.io/example/operator@sha256:{'0' * 64}"
    assert images["router"] == "docker.io/tidegate/router:edge"


def test_what_can_be_set_arrives(render):
    rendered = render(*files(ROOT / "ci" / "full-values.yaml"))
    for pod in pod_specs(rendered):
        assert pod["priorityClassName"] == "system-cluster-critical"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert {"nodeSelector", "tolerations", "affinity"} <= set(pod)
    for entry in of_kind(rendered, "Deployment"):
        metadata = entry["spec"]["template"]["metadata"]
        assert metadata["labels"]["team"] == "platform"
        assert metadata["annotations"] == {"example.com/scrape": "true"}
    router = environment(containers(of_kind(rendered, "Deployment"))[1])
    assert router["TIDEGATE_MAX_BODY_BYTES"] == "1073741824"
    assert named(rendered, "Service", "tg-router")["spec"]["type"] == "LoadBalancer"


def test_the_key_of_notifications_is_a_mounted_file_and_no_right_to_read_secrets(render):
    rendered = render(*files(ROOT / "ci" / "full-values.yaml"))
    pod = named(rendered, "Deployment", "tg-operator")["spec"]["template"]["spec"]
    found = environment(pod["containers"][0])
    (volume,) = (item for item in pod["volumes"] if "secret" in item)
    (mount,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == volume["name"])
    assert volume["secret"] == {
        "secretName": "hook",
        "defaultMode": 0o440,
        "items": [{"key": "hmac.key", "path": "key"}],
    }
    assert mount["readOnly"] is True
    assert found["TIDEGATE_NOTIFICATIONS_KEY_FILE"] == f"{mount['mountPath']}/key"
    assert found["TIDEGATE_NOTIFICATIONS_URL"] == "https://hooks.example/tidegate"


def test_without_a_key_no_secret_is_mounted(defaults):
    pod = named(defaults, "Deployment", "tg-operator")["spec"]["template"]["spec"]
    assert [item for item in pod["volumes"] if "secret" in item] == []
    assert environment(pod["containers"][0])["TIDEGATE_NOTIFICATIONS_KEY_FILE"] == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "ports are open"),
        ([], "kubectl apply -f examples/"),
        (["router.replicas=1"], "WARNING: one router"),
        (["operator.workerImage=docker.io/tidegate/worker:1-cpu"], "for demos only"),
        (["operator.watchNamespaces={a}"], "Only these namespaces are reconciled: a"),
        (["operator.watchNamespaces={a}"], "router.namespaces differ"),
        (["router.service.type=LoadBalancer"], "It is a LoadBalancer now"),
        (["operator.enabled=false"], "no operator"),
    ],
)
def test_the_notes_say_what_matters(run_helm, settings, said):
    arguments = [part for setting in settings for part in ("--set", setting)]
    result = run_helm("install", "tg", str(ROOT), "--dry-run=client", *arguments)
    assert result.returncode == 0, result.stderr
    assert said in result.stdout.partition("NOTES:")[2]


def test_the_operator_sees_the_endpoints_of_the_routers_it_waits_for(render):
    rendered = render(*files(ROOT / "ci" / "full-values.yaml"))
    role = named(rendered, "Role", "tg-operator-routers")
    assert role["metadata"]["namespace"] == "edge"
    settings = operator_settings.read([], plain_environment(rendered, "tg-operator"))
    assert settings.router_service == "edge/router"
