import pytest

from tidegate_cli.core import verbs
from tidegate_cli.core.verbs import managed_by
from tidegate_cli.errors import RefusedError

NOW = "2026-01-01T00:00:00Z"


def annotation(change):
    (found,) = change.patch["metadata"]["annotations"].items()
    return found


def call(verb, found):
    verbs_by_name = {
        "promote": lambda: verbs.promote(found, NOW, full=False),
        "promote-full": lambda: verbs.promote(found, NOW, full=True),
        "abort": lambda: verbs.abort(found, NOW),
        "retry": lambda: verbs.retry(found, NOW),
    }
    return verbs_by_name[verb]()


@pytest.mark.parametrize(
    ("verb", "field", "value", "status"),
    [
        ("promote", "promote", "r2/1", {}),
        ("promote-full", "promoteFull", "r2", {}),
        ("abort", "abort", "r2", {}),
        ("retry", "retry", "r2", {"abortedRevision": "r2"}),
    ],
)
def test_a_verb_that_acted_once_acts_again_by_its_instant(rollout, verb, field, value, status):
    def asked(handled):
        found = rollout({**status, "handledVerbs": {field: handled}})
        return annotation(call(verb, found))[1]

    assert asked("other") == value
    assert asked(value) == f"{value}@{NOW}"
    assert asked(f"{value}@2025-12-31T00:00:00Z") == f"{value}@{NOW}"


def test_promote_names_the_canary_and_its_step(rollout):
    change = verbs.promote(rollout(), NOW, full=False)
    assert annotation(change) == ("tidegate.dev/promote", "r2/1")
    assert change.told == "r2 goes on after step 2"


def test_promote_full_names_the_canary(rollout):
    change = verbs.promote(rollout(), NOW, full=True)
    assert annotation(change) == ("tidegate.dev/promote-full", "r2")


def test_abort_names_the_canary(rollout):
    assert annotation(verbs.abort(rollout(), NOW)) == ("tidegate.dev/abort", "r2")


def test_retry_names_the_aborted_revision(rollout):
    found = rollout({"canaryRevision": None, "abortedRevision": "r2"})
    assert annotation(verbs.retry(found, NOW)) == ("tidegate.dev/retry", "r2")


def test_pause_and_resume_are_one_annotation(rollout):
    assert annotation(verbs.pause()) == ("tidegate.dev/paused", "true")
    paused = rollout(annotations={"tidegate.dev/paused": "true"})
    assert annotation(verbs.resume(paused, pool_paused=False)) == ("tidegate.dev/paused", None)


def test_restart_is_an_instant():
    assert annotation(verbs.restart(NOW)) == ("tidegate.dev/restartedAt", NOW)


@pytest.mark.parametrize(
    ("asked", "target"),
    [("", "r0"), ("r0", "r0"), ("1", "r0"), ("3", "r2"), ("r2", "r2")],
)
def test_undo_goes_to_the_one_before_stable_or_to_the_one_named(rollout, revisions, asked, target):
    change = verbs.undo(rollout({"canaryRevision": None}), revisions, asked, NOW)
    assert annotation(change) == ("tidegate.dev/undo", f"{target}@{NOW}")


def test_undo_passes_over_revisions_that_were_aborted(rollout):
    bad = verbs.Revision(name="rx", number=1, aborted=True)
    stable = verbs.Revision(name="r1", number=2)
    with pytest.raises(RefusedError, match="no revision before r1"):
        verbs.undo(rollout({"canaryRevision": None}), [bad, stable], "", NOW)


@pytest.mark.parametrize(
    ("verb", "status", "why"),
    [
        ("promote", {"canaryRevision": None}, "there is no canary to promote"),
        ("promote", {"abortedRevision": "r2"}, "r2 is aborted: retry it"),
        ("abort", {"canaryRevision": None}, "there is no canary to abort"),
        ("abort", {"abortedRevision": "r2"}, "r2 is aborted already"),
        ("retry", {}, "no revision is aborted"),
    ],
)
def test_a_verb_that_would_do_nothing_is_refused_with_the_object_s_name(rollout, verb, status, why):
    found = rollout(status)
    with pytest.raises(RefusedError) as caught:
        call(verb, found)
    assert str(caught.value).startswith("modelrollouts.tidegate.dev ml/vision: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("status", "asked", "why"),
    [
        ({}, "", "r2 is under way and r1 is still stable: abort it"),
        ({"canaryRevision": None}, "r1", "r1 is stable already"),
        ({"canaryRevision": None}, "r9", "not kept; there are: r0 (number 1), r1 (number 2)"),
        ({"canaryRevision": None, "stableRevision": "r0"}, "", "no revision before r0"),
        ({"canaryRevision": None, "stableRevision": None}, "", "no revision before the first"),
    ],
)
def test_an_undo_that_leads_nowhere_is_refused(rollout, revisions, status, asked, why):
    with pytest.raises(RefusedError) as caught:
        verbs.undo(rollout(status), revisions, asked, NOW)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("status", "spec", "pool_paused", "why"),
    [
        ({}, {"paused": True}, False, "spec.paused is true: set it to false"),
        ({}, {}, True, "its pool is paused"),
        ({"phase": "Paused"}, {}, False, "waits at a step, nobody paused it: promote it"),
        ({}, {}, False, "it is not paused"),
    ],
)
def test_a_resume_that_would_change_nothing_says_what_holds_it(
    rollout, status, spec, pool_paused, why
):
    with pytest.raises(RefusedError) as caught:
        verbs.resume(rollout(status, **spec), pool_paused=pool_paused)
    assert why in str(caught.value)


def test_set_image_is_a_merge_patch_of_one_field(document):
    change = verbs.set_image(document(), "worker:2")
    assert change.patch["spec"] == {"template": {"image": "worker:2"}}


def test_set_model_replaces_the_files_and_keeps_all_other_fields(document):
    source = {"uri": "s3://a/1", "sha256": "0" * 64, "credentials": {"secretName": "s"}}
    models = [{"name": "b"}, {"name": "a", "maxBatchSize": 4, "source": source}]
    given = document(template={"models": models})
    change = verbs.set_model(given, "a", {"uri": "s3://a/2"})
    assert change.patch["spec"]["template"]["models"] == [
        {"name": "b"},
        {"name": "a", "maxBatchSize": 4,
         "source": {"uri": "s3://a/2", "credentials": {"secretName": "s"}}},
    ]  # fmt: skip
    assert change.patch["metadata"] == {"resourceVersion": "77"}, "a list is replaced whole"
    assert models[1]["source"]["uri"] == "s3://a/1", "the document given is not changed"


def test_set_model_adds_an_entry_for_a_model_that_had_none(document):
    change = verbs.set_model(document(), "a", {"uri": "pvc://m/a/2", "sha256": "1" * 64})
    entry = {"name": "a", "source": {"uri": "pvc://m/a/2", "sha256": "1" * 64}}
    assert change.patch["spec"]["template"]["models"] == [entry]


@pytest.mark.parametrize(
    ("model", "uri", "why"),
    [
        ("a", "pvc://m/a/2", None),
        ("zz", "pvc://m/a/2", "the pool has no model zz, only a"),
        ("a", "ftp://nowhere", "spec.template.models[0].source.uri"),
    ],
)
def test_a_change_that_the_operator_would_call_invalid_is_refused(
    document, pool_json, model, uri, why
):
    change = verbs.set_model(document(), model, {"uri": uri})
    if why is None:
        verbs.refuse_broken(document(), pool_json(), change)
        return
    with pytest.raises(RefusedError) as caught:
        verbs.refuse_broken(document(), pool_json(), change)
    assert why in str(caught.value)


def test_without_its_pool_a_change_is_judged_alone(document):
    verbs.refuse_broken(document(), None, verbs.set_model(document(), "zz", {"uri": "pvc://m/a"}))


@pytest.mark.parametrize(
    ("labels", "annotations", "keeper"),
    [
        ({}, {}, ""),
        ({"app.kubernetes.io/name": "x"}, {"kubectl.kubernetes.io/x": "y"}, ""),
        ({"app.kubernetes.io/instance": "prod"}, {}, "Argo CD (label app.kubernetes.io/instance)"),
        ({"app.kubernetes.io/instance": "prod"}, {"meta.helm.sh/release-name": "prod"}, ""),
        ({}, {"argocd.argoproj.io/tracking-id": "x"},
         "Argo CD (annotation argocd.argoproj.io/tracking-id)"),
        ({"argocd.argoproj.io/instance": "x"}, {},
         "Argo CD (label argocd.argoproj.io/instance)"),
        ({"kustomize.toolkit.fluxcd.io/name": "x"}, {},
         "Flux (label kustomize.toolkit.fluxcd.io/name)"),
        ({"helm.toolkit.fluxcd.io/name": "x", "app.kubernetes.io/instance": "y"},
         {"meta.helm.sh/release-name": "y"}, "Flux (label helm.toolkit.fluxcd.io/name)"),
    ],
)  # fmt: skip
def test_who_keeps_an_object_as_git_says(labels, annotations, keeper):
    assert managed_by({"metadata": {"labels": labels, "annotations": annotations}}) == keeper


@pytest.mark.parametrize("document", [{}, {"metadata": None}, {"metadata": {"labels": None}}])
def test_an_object_without_marks_is_kept_by_nobody(document):
    assert managed_by(document) == ""
