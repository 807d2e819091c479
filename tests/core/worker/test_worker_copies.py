"""Which copies one Triton holds: names, order of loading and unloading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.workermodels import WorkerModels
from tidegate_worker.core.copies import Copy, Main, first_copies, plan
from tidegate_worker.core.restarts import blames_second

OLD, NEW, NEXT = "11111111", "22222222", "33333333"


def entry(name, batch=1):
    source = {"uri": f"https://models/{name}"}
    return {"model": {"name": name, "source": source, "maxBatchSize": batch}}


def document(main, *models, alongside=None, **fields):
    text = {"revision": main, "models": [entry(*_pair(m)) for m in models or ("m",)], **fields}
    if alongside:
        revision, *names = alongside
        entries = [entry(*_pair(m)) for m in names or ("m",)]
        text["alongside"] = {"revision": revision, "models": entries}
    return WorkerModels.model_validate(text)


def _pair(model):
    return model if isinstance(model, tuple) else (model,)


def copy(revision, name, model="m", batch=1):
    wanted = document(revision, (model, batch)).models[0]
    return Copy(revision, name, wanted)


def main_of(*copies):
    return Main(copies[0].revision, frozenset(item.loaded_as for item in copies))


STABLE = copy(OLD, "m")
CANARY = copy(NEW, f"m--{NEW}")

# sentence, document, held, main, ready, leaving -> loaded as, unloaded, main revision
CASES = [
    ("what is held as asked stays", document(OLD), [STABLE], {"m"}, set(), [], [], OLD),
    ("a second revision is loaded under a name of its own", document(OLD, alongside=(NEW,)),
     [STABLE], {"m"}, set(), [f"m--{NEW}"], [], OLD),
    ("both held: nothing to do", document(OLD, alongside=(NEW,)), [STABLE, CANARY],
     {"m", f"m--{NEW}"}, set(), [], [], OLD),
    ("promoted: the old one goes and nothing is loaded", document(NEW), [STABLE, CANARY],
     {"m", f"m--{NEW}"}, set(), [], ["m"], NEW),
    ("promoted before it serves: the old one stays", document(NEW), [STABLE, CANARY],
     {"m"}, set(), [], [], OLD),
    ("rolled back: the second one goes", document(OLD), [STABLE, CANARY],
     {"m", f"m--{NEW}"}, set(), [], [f"m--{NEW}"], OLD),
    ("rolled back while the first is in trouble: the second one goes all the same",
     document(OLD), [STABLE, CANARY], set(), set(), [], [f"m--{NEW}"], OLD),
    ("another second revision: one comes, one goes", document(OLD, alongside=(NEXT,)),
     [STABLE, CANARY], {"m"}, set(), [f"m--{NEXT}"], [f"m--{NEW}"], OLD),
    ("a new main revision unannounced is loaded before the old one goes", document(NEW),
     [STABLE], {"m"}, set(), [f"m--{NEW}"], [], OLD),
    ("the third revision beside a promoted one", document(NEW, alongside=(NEXT,)), [CANARY],
     {f"m--{NEW}"}, set(), [f"m--{NEXT}"], [], NEW),
    ("a name that is being given up waits", document(OLD, alongside=(NEW,)), [STABLE, CANARY],
     {"m"}, {f"m--{NEW}"}, [], [], OLD),
    ("what leaves is not told to leave twice", document(OLD), [STABLE, CANARY],
     {"m"}, {f"m--{NEW}"}, [], [], OLD),
    ("back to the first one after a promotion", document(NEW, alongside=(OLD,)), [CANARY],
     {f"m--{NEW}"}, set(), [f"m--{OLD}"], [], NEW),
    ("beside itself is no second revision", document(OLD, alongside=(OLD,)), [STABLE],
     {"m"}, set(), [], [], OLD),
    ("an edit of batching alone is a copy like any other",
     document(OLD, alongside=(NEW, ("m", 8))), [STABLE], {"m"}, set(), [f"m--{NEW}"], [], OLD),
    ("other content under the same revision is loaded anew", document(OLD, ("m", 8)), [STABLE],
     {"m"}, set(), [f"m--{OLD}"], [], OLD),
]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "held", "ready", "leaving", "load", "unload", "serving"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_one_step(asked, held, ready, leaving, load, unload, serving):
    step = plan(asked, held, main_of(held[0]), ready=ready, leaving=leaving)
    assert [item.loaded_as for item in step.load] == load
    assert list(step.unload) == unload
    assert step.main.revision == serving


def test_a_fresh_worker_loads_its_main_revision_under_plain_names():
    found = first_copies(document(NEW, "a", "b", alongside=(NEXT, "a", "b")))
    assert [(item.revision, item.loaded_as) for item in found] == [(NEW, "a"), (NEW, "b")]


def test_readiness_moves_only_when_every_model_of_the_new_main_revision_serves():
    held = [copy(OLD, "a", "a"), copy(OLD, "b", "b")]
    held += [copy(NEW, f"a--{NEW}", "a"), copy(NEW, f"b--{NEW}", "b")]
    asked, main = document(NEW, "a", "b"), main_of(*held[:2])
    half = plan(asked, held, main, ready={"a", "b", f"a--{NEW}"}, leaving=set())
    assert (half.main, half.unload) == (main, ())
    whole = plan(asked, held, main, ready={f"a--{NEW}", f"b--{NEW}"}, leaving=set())
    assert whole.main == Main(NEW, frozenset({f"a--{NEW}", f"b--{NEW}"}))
    assert whole.unload == ("a", "b")


def test_a_config_carries_the_name_in_triton_and_the_source_its_own():
    assert CANARY.model.name == f"m--{NEW}"
    assert CANARY.wanted.model.name == "m"
    assert CANARY.model.source == CANARY.wanted.model.source


def test_where_files_lie_is_no_difference():
    moved = document(NEW)
    moved = moved.model_copy(
        update={"models": [moved.models[0].model_copy(update={"path": "/elsewhere"})]}
    )
    assert plan(moved, [CANARY], main_of(CANARY), ready=set(), leaving=set()).load == ()


REVISIONS = st.sampled_from([OLD, NEW, NEXT])
DOCUMENTS = st.builds(
    lambda main, second: document(main, "a", "b", alongside=second and (second, "a", "b")),
    REVISIONS,
    st.none() | REVISIONS,
)


@given(st.lists(DOCUMENTS, min_size=1, max_size=6), st.data())
def test_any_history_of_documents_ends_at_the_last_one_and_never_without_a_server(documents, data):
    held = {item.loaded_as: item for item in first_copies(documents[0])}
    main, ready = Main(documents[0].revision, frozenset(held)), set(held)
    for asked in [*documents, *[documents[-1]] * 8]:
        last = asked is documents[-1]
        step = plan(asked, list(held.values()), main, ready=ready, leaving=set())
        main = step.main
        names = [item.loaded_as for item in step.load]
        assert len({*names, *held}) == len(names) + len(held), "a name is one copy's"
        assert not set(step.unload) & main.names
        for name in step.unload:
            del held[name]
            ready.discard(name)
        held |= {item.loaded_as: item for item in step.load}
        ready |= {name for name in names if last or data.draw(st.booleans())}
        ready |= set(held) if last else set()
        assert main.names <= held.keys()
        assert main.names <= ready
    final = documents[-1]
    second = final.alongside.revision if final.alongside else final.revision
    wanted = {(r, m) for r in (final.revision, second) for m in "ab"}
    assert {(item.revision, item.wanted.model.name) for item in held.values()} == wanted
    assert main.revision == final.revision


BLAMED = [
    ("it was being loaded", [100.0], True, True),
    ("the first crash while it served", [100.0], False, False),
    ("the second within a minute", [60.0, 100.0], False, True),
    ("the first was long ago", [10.0, 100.0], False, False),
]


@pytest.mark.parametrize(
    ("crashes", "loading", "blamed"), [b[1:] for b in BLAMED], ids=[b[0] for b in BLAMED]
)
def test_a_second_revision_that_may_have_crashed_the_server_is_kept_out(crashes, loading, blamed):
    assert blames_second(crashes, 100.5, while_loading=loading) is blamed
