from dataclasses import replace

import pytest

from tidegate_cli.core import snapshot as snapshots
from tidegate_cli.core.snapshot import Worker
from tidegate_cli.core.tree import Tone, draw, headline, list_row


def lines(node, depth=0):
    yield f"{'  ' * depth}{node.text}"
    for child in node.children:
        yield from lines(child, depth + 1)


def find(node, text):
    """Return the first node whose line begins with `text`."""
    if node.text.startswith(text):
        return node
    return next((found for child in node.children if (found := find(child, text))), None)


def test_the_tree_goes_from_the_rollout_to_its_workers(snapshot):
    assert [*lines(draw(snapshot({"message": "5 % hold for 2m"})))] == [
        "modelrollouts.tidegate.dev ml/vision: Progressing, step 2/4 (pause 2m), canary 5 %",
        "  5 % hold for 2m",
        "  ETA at least 1m30s until step 4 waits for promote",
        "  inferencepools.tidegate.dev ml/vision: Ready, AsDesired, 2/2 workers",
        "    r2 (number 3, canary)  weight 5 %  image worker:1",
        "      model a pvc://m/a/2",
        "      s2  class cpu  0/1 ready",
        "        w3  CrashLoopBackOff, 2 restarts",
        "    r1 (number 2, stable)  weight 95 %  image worker:1",
        "      model a pvc://m/a/1",
        "      s1  class cpu  2/2 ready",
        "        w1  Ready",
        "        w2  Ready",
    ]


def test_a_weight_that_routers_have_not_acknowledged_says_so(snapshot):
    seen = replace(snapshot(), published={"r1": 50, "r2": 50})
    assert find(draw(seen), "r2").text.startswith(
        "r2 (number 3, canary)  weight 50 %, acknowledged 5 %"
    )


def test_without_a_table_the_pool_s_status_tells_the_weights(snapshot, pool):
    status = pool.status.model_copy(update={"weights": pool.status.verified_weights})
    seen = replace(snapshot(), published={}, pool=pool.model_copy(update={"status": status}))
    assert "weight 95 %  " in find(draw(seen), "r1").text


def test_an_aborted_revision_is_red_and_named_after_its_workers_are_gone(snapshot):
    seen = snapshot({"phase": "Degraded", "canaryRevision": None, "abortedRevision": "r2"})
    drawn = draw(replace(seen, sets=seen.sets[:1]))
    assert drawn.tone is Tone.BAD
    assert "aborted" in find(drawn, "r2").text
    assert find(drawn, "r2").tone is Tone.BAD


def test_a_gate_has_no_eta_but_says_what_it_waits_for(snapshot):
    assert find(draw(snapshot({"currentStepIndex": 3})), "waits for promote at step 4")


def test_a_kept_revision_that_nobody_runs_is_not_drawn(snapshot):
    assert find(draw(snapshot()), "r0") is None


def test_workers_of_a_revision_whose_record_is_gone_are_drawn(snapshot, revisions):
    seen = replace(snapshot(), revisions=revisions[:2])
    assert find(draw(seen), "r2 (canary)").children[0].text.startswith("s2")


def test_a_missing_pool_is_said_by_name(snapshot):
    drawn = draw(replace(snapshot(), pool=None))
    assert find(drawn, "inferencepools").text == "inferencepools.tidegate.dev vision: not found"


def test_a_pool_alone_is_its_own_root(snapshot):
    seen = replace(snapshot(), rollout=None)
    assert draw(seen).text == headline(seen)
    assert headline(seen).startswith("inferencepools.tidegate.dev ml/vision: Ready")


def test_analysis_and_surge_are_told_with_their_reasons(snapshot):
    analysis = {"verdict": "Inconclusive", "message": "12 of 100 requests"}
    surge = {"strategy": "InPlace", "message": "no node has a free GPU"}
    drawn = draw(snapshot({"analysis": analysis, "surge": surge}))
    assert find(drawn, "surge").text == "surge InPlace: no node has a free GPU"
    assert find(drawn, "analysis").tone is Tone.WAITING


def test_a_row_of_list(rollout, now_s):
    assert list_row(rollout({"message": "m"}), now_s) == (
        "ml", "vision", "vision", "Progressing", "1/4", "5 %", "r1", "r2", "1h", "m",
    )  # fmt: skip


def test_a_row_of_a_rollout_that_no_operator_saw(rollout, now_s):
    found = rollout(
        {"phase": None, "currentStepIndex": None, "canaryRevision": None, "stableRevision": None}
    )
    assert list_row(found, now_s)[3:8] == ("-", "-", "-", "-", "-")


def pod(**status):
    return {"metadata": {"name": "w"}, "status": status}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(pod(conditions=[{"type": "Ready", "status": "True"}]), "Ready", id="ready"),
        pytest.param(
            {"metadata": {"name": "w", "deletionTimestamp": "x"},
             "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            "Draining", id="leaving although Ready",
        ),
        pytest.param(
            pod(phase="Pending", conditions=[
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                 "message": "0/3 nodes have a GPU"}]),
            "Unschedulable: 0/3 nodes have a GPU", id="no node",
        ),
        pytest.param(
            pod(initContainerStatuses=[{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]),
            "ImagePullBackOff", id="an image that cannot be pulled",
        ),
        pytest.param(
            pod(containerStatuses=[
                {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 4}]),
            "CrashLoopBackOff, 4 restarts", id="a crash loop",
        ),
        pytest.param(pod(phase="Running"), "Not ready", id="running, not Ready"),
        pytest.param(pod(phase="Failed"), "Failed", id="failed"),
        pytest.param({}, "Pending", id="a document without anything"),
    ],
)  # fmt: skip
def test_what_a_worker_waits_for(document, expected):
    found = snapshots.read_worker(document)
    assert found == Worker(found.name, ready=expected == "Ready", state=expected)


def test_revisions_come_from_records_of_their_kind_alone_oldest_first():
    def record(name, number, schema, **meta):
        labels = {"tidegate.dev/revision": name}
        template = {"models": [{"name": "a", "source": {"uri": f"pvc://{name}"}}]}
        data = {"schema": schema, "image": "worker:1", "template": template}
        return {"metadata": {"labels": labels, **meta}, "data": data, "revision": number}

    aborted = {"annotations": {"tidegate.dev/aborted": "true"}}
    found = snapshots.read_revisions([
        record("r2", 2, "revision.v1", **aborted),
        record("set", 3, "worker-set.v1"),
        record("r1", 1, "revision.v1"),
    ])  # fmt: skip
    assert [(one.name, one.number, one.aborted) for one in found] == [
        ("r1", 1, False), ("r2", 2, True),
    ]  # fmt: skip
    assert found[0].models == {"a": "pvc://r1"}


def test_published_weights_of_no_table_are_none_at_all():
    assert snapshots.read_published(None) == {}
    weights = [{"revision": "r1", "weight": 100}]
    assert snapshots.read_published({"spec": {"weights": weights}}) == {"r1": 100}
