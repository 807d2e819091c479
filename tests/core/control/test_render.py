"""What a worker set's objects look like; the API server's own checks are in e2e."""

import json

import pytest

from tidegate_api.workermodels import WorkerModels


def rendered(world, pool, **knobs):
    one = world(raw=pool, **knobs)
    one.tick()
    return one


def pod_spec(one):
    manifest = next(iter(one.deployments.values()))
    return manifest["spec"]["template"]["spec"]


def worker(one):
    return pod_spec(one)["containers"][0]


def environment(one):
    return {item["name"]: item for item in worker(one)["env"]}


def models_of(one):
    data = next(body for (kind, _), body in one.others.items() if kind == "ConfigMap")["data"]
    return WorkerModels.model_validate(json.loads(data["models.json"]))


@pytest.fixture
def every_source(world, make):
    """Returns a set with one model of each kind of source."""
    uris = {
        "image": "oci://registry.example/m:1#/models/magika",
        "root": "oci://registry.example/m:1",
        "claim": "pvc://weights/resnet50/3",
        "same-claim": "pvc://weights/other",
        "file": "configmap://small/model.py",
        "baked": "file:///opt/models/x",
        "fetched": "s3://bucket/key",
    }
    models = [{"name": name, "source": {"uri": uri}} for name, uri in uris.items()]
    models[-1]["source"]["credentials"] = {"secretName": "s3-keys"}
    return rendered(world, make.pool(template={"models": models}))


def test_each_source_has_its_path(every_source):
    paths = {item.model.name: item.path for item in models_of(every_source).models}
    assert paths == {
        "image": "/mnt/sources/0/magika",
        "root": "/mnt/sources/1/model",
        "claim": "/mnt/sources/2/resnet50/3",
        "same-claim": "/mnt/sources/2/other",
        "file": "/mnt/sources/3/model.py",
        "baked": "/opt/models/x",
        "fetched": None,
    }
    assert models_of(every_source).models[-1].credentials_path == "/mnt/credentials/s3-keys"


def test_images_are_copied_by_busybox_from_the_worker_image(every_source):
    tools, copy, _ = pod_spec(every_source)["initContainers"]
    assert tools["image"] == worker(every_source)["image"]
    assert copy["image"] == "registry.example/m:1"
    assert copy["command"] == [
        "/mnt/tools/busybox", "cp", "-rL", "/models/magika", "/mnt/sources/0/",
    ]  # fmt: skip
    assert copy["imagePullPolicy"] == "IfNotPresent"


def test_mounted_sources_are_read_only_and_mounted_once(every_source):
    volumes = {item["name"]: item for item in pod_spec(every_source)["volumes"]}
    claims = [item for item in volumes.values() if "persistentVolumeClaim" in item]
    assert [item["persistentVolumeClaim"]["claimName"] for item in claims] == ["weights"]
    for mount in worker(every_source)["volumeMounts"]:
        if mount["mountPath"].startswith(("/mnt/sources", "/mnt/credentials")):
            assert mount["readOnly"]


def test_every_mount_has_its_volume(every_source):
    spec = pod_spec(every_source)
    volumes = {item["name"] for item in spec["volumes"]}
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert len(volumes) == len(spec["volumes"])


def test_pods_are_restricted(every_source):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/ "restricted"."""
    spec = pod_spec(every_source)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for container in [*spec["initContainers"], *spec["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert "add" not in context["capabilities"]
    for volume in spec["volumes"]:
        assert not {"hostPath", "nfs"} & volume.keys()


def test_a_pool_without_image_sources_has_no_init_container(world, make):
    assert "initContainers" not in pod_spec(rendered(world, make.pool()))


def test_writable_places_and_shared_memory(world, make):
    pool = make.pool(template={**make.template(), "pod": {"shmSize": "1Gi"}})
    one = rendered(world, pool)
    paths = {item["name"]: item["mountPath"] for item in worker(one)["volumeMounts"]}
    assert paths["tidegate-state"] == "/var/lib/tidegate"
    assert paths["tidegate-models"] == "/etc/tidegate/models"
    assert {"tidegate-tmp", "tidegate-shm"} <= paths.keys()
    memory = next(v for v in pod_spec(one)["volumes"] if v["name"] == "tidegate-shm")
    assert memory["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}


def test_the_grace_period_outlasts_the_drain(world, make):
    one = rendered(world, make.pool(drain={"timeout": "2m"}))
    assert pod_spec(one)["terminationGracePeriodSeconds"] == 160
    assert environment(one)["TIDEGATE_DRAIN_TIMEOUT"]["value"] == "120"


def test_a_class_requests_what_it_names_and_limits_all_but_cpu(world, make):
    pod = {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}}
    classes = [make.accelerator(kind="GPU", resources={"nvidia.com/gpu": 1, "cpu": "2"})]
    one = rendered(world, make.pool(template={**make.template(), "pod": pod}, accelerators=classes))
    assert worker(one)["resources"] == {
        "requests": {"cpu": "2", "memory": "1Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"},
    }


def test_a_class_adds_its_node_selector(world, make):
    pod = {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}]}
    classes = [make.accelerator(nodeSelector={"gpu": "a10g"})]
    one = rendered(world, make.pool(template={**make.template(), "pod": pod}, accelerators=classes))
    assert pod_spec(one)["nodeSelector"] == {"disk": "ssd", "gpu": "a10g"}
    assert pod_spec(one)["tolerations"] == [{"operator": "Exists"}]


def test_a_class_overrides_its_models(world, make):
    template = make.template(maxBatchSize=32, instances=[{"kind": "GPU", "count": 2}])
    override = {"name": "resnet50", "instances": [{"count": 1}]}
    one = rendered(
        world, make.pool(template=template, accelerators=[make.accelerator(models=[override])])
    )
    model = models_of(one).models[0].model
    assert model.max_batch_size == 32
    assert [(group.kind, group.count) for group in model.instances] == [(None, 1)]


def test_users_env_never_replaces_ours_and_no_name_comes_twice(world, make):
    mine = [{"name": "TIDEGATE_CLASS", "value": "x"}, {"name": "OMP_NUM_THREADS", "value": "1"}]
    one = rendered(world, make.pool(template={**make.template(), "pod": {"env": mine}}))
    assert environment(one)["TIDEGATE_CLASS"]["value"] == "cpu"
    assert environment(one)["OMP_NUM_THREADS"]["value"] == "1"
    assert len(environment(one)) == len(worker(one)["env"])


def test_users_labels_never_replace_those_that_select(world, make):
    labels = {"tidegate.dev/pool": "x", "team": "vision"}
    one = rendered(world, make.pool(template={**make.template(), "pod": {"labels": labels}}))
    manifest = next(iter(one.deployments.values()))
    got = manifest["spec"]["template"]["metadata"]["labels"]
    assert got["tidegate.dev/pool"] == "vision"
    assert got["team"] == "vision"
    selector = manifest["spec"]["selector"]["matchLabels"]
    assert selector.items() <= got.items()


def test_user_volumes_are_mounted(world, make):
    volume = {"name": "cache", "mountPath": "/cache", "readOnly": True, "emptyDir": {}}
    one = rendered(world, make.pool(template={**make.template(), "pod": {"volumes": [volume]}}))
    assert {"name": "cache", "emptyDir": {}} in pod_spec(one)["volumes"]
    mount = {"name": "cache", "mountPath": "/cache", "readOnly": True}
    assert mount in worker(one)["volumeMounts"]


def test_simulated_devices_are_asked_for_by_annotation(world, make):
    pool = make.pool()
    pool["metadata"]["annotations"] = {"tidegate.dev/simulated-devices": "2:24Gi"}
    one = rendered(world, pool)
    assert environment(one)["TIDEGATE_SIMULATED_DEVICES"]["value"] == "2:24Gi"


def test_probes_ask_the_agent(world, make):
    probes = worker(rendered(world, make.pool()))
    assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert probes["readinessProbe"]["periodSeconds"] == 1
    for name in ("livenessProbe", "startupProbe"):
        assert probes[name]["httpGet"] == {"path": "/healthz", "port": 9091, "scheme": "HTTP"}


def test_owner_references_collect_everything_and_block_nothing(world, make):
    one = rendered(world, make.pool())
    bodies = [*one.deployments.values(), *one.revisions.values(), *one.others.values()]
    for body in (*bodies, one.decision.table.index.body):
        (owner,) = body["metadata"]["ownerReferences"]
        assert owner["uid"] == "pool-uid"
        assert owner["controller"] is True
        assert owner["blockOwnerDeletion"] is False
        assert body["metadata"]["namespace"] == "ml"
        assert body["metadata"]["labels"]["tidegate.dev/pool"] == "vision"


def test_the_pool_has_a_budget_that_never_blocks_a_drain_of_one_worker(world, make):
    spec = rendered(world, make.pool()).others["PodDisruptionBudget", "vision"]["spec"]
    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_only_routers_infer_and_only_operators_ask_the_agent(world, make):
    spec = rendered(world, make.pool()).others["NetworkPolicy", "vision"]["spec"]
    allowed = {
        rule["from"][0]["podSelector"]["matchExpressions"][0]["key"]: [
            port["port"] for port in rule["ports"]
        ]
        for rule in spec["ingress"]
    }
    assert allowed == {"tidegate.dev/router": [8000, 8001], "tidegate.dev/operator": [9091]}


def test_a_switched_off_policy_is_removed(world, make):
    one = rendered(world, make.pool())
    one.settings = make.replace(one.settings, network_policy=False)
    one.tick()
    assert ("NetworkPolicy", "vision") not in one.others


def test_the_service_is_headless_and_lists_only_ready_addresses(world, make):
    one = rendered(world, make.pool())
    (service,) = [body for (kind, _), body in one.others.items() if kind == "Service"]
    assert service["spec"]["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in service["spec"]
    labels = next(iter(one.deployments.values()))["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_names_fit_kubernetes(world, make):
    pool = make.pool(accelerators=[make.accelerator(name="a" * 15)])
    pool["metadata"]["name"] = "p" * 36
    one = rendered(world, pool)
    for name in one.deployments:
        assert len(name) <= 61
    labels = next(iter(one.deployments.values()))["spec"]["template"]["metadata"]["labels"]
    assert all(len(value) <= 63 for value in labels.values())
