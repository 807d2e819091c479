"""The commands on rollouts. Each gathers, lets core/ decide, patches, prints.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `status` has its own.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tidegate_api.names import Kind
from tidegate_api.quantity import duration_s
from tidegate_api.rollout import ModelRollout
from tidegate_api.template import JsonObject
from tidegate_cli import gather, output
from tidegate_cli.core import explain as explanations
from tidegate_cli.core import progress, tree, verbs
from tidegate_cli.core.documents import mapping, rfc3339, text
from tidegate_cli.core.progress import Health
from tidegate_cli.core.snapshot import read_revisions, read_rollout
from tidegate_cli.core.verbs import Change
from tidegate_cli.errors import InputError, NotFoundError, RefusedError, ServerError
from tidegate_cli.server import Access

if TYPE_CHECKING:
    from tidegate_cli.kube import Cluster

app = typer.Typer(rich_markup_mode=None)
set_app = typer.Typer(
    name="set", help="Change what a rollout asks for.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(set_app)
_POLL_S = 1.0
_PATIENCE_S = 60.0
_Seen = TypeVar("_Seen")

Name = Annotated[str, typer.Argument(help="Name of the ModelRollout.")]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Default: the kubeconfig context's.")
]
Context = Annotated[str, typer.Option(help="Context of the kubeconfig; default: the current.")]
Kubeconfig = Annotated[str, typer.Option(help="Default: KUBECONFIG, else ~/.kube/config.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on until interrupted.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Force = Annotated[
    bool, typer.Option("--force", help="Also where Argo CD or Flux keeps the object as Git says.")
]


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="Name of a ModelRollout, or of an InferencePool.")],
    *,
    watch: Watch = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Show a rollout as a tree: steps, analysis, revisions with their weights, workers.

    Without a terminal --watch prints a line for each change.
    Same data: kubectl get tgro,tgpool,controllerrevisions,deployments,pods -l tidegate.dev/pool
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    if not watch:
        output.print_tree(tree.draw(gather.look(cluster, name)))
        return
    output.follow(lambda: _patiently(lambda: gather.look(cluster, name)), _POLL_S)


def _patiently(look: Callable[[], _Seen]) -> _Seen:
    """Look again for a while when the API server does not answer: it may be restarting."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return look()
        except NotFoundError:
            raise
        except ServerError as error:
            if time.monotonic() >= deadline_s:
                raise
            print(f"trying again: {error}", file=sys.stderr)
            time.sleep(_POLL_S)


@app.command(name="list")
def list_rollouts(
    *,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")
    ] = False,
    as_json: Json = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """List rollouts with their phase, step and weight.

    Same data: kubectl get modelrollouts.tidegate.dev -o wide
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    found = cluster.own(Kind.MODEL_ROLLOUT, everywhere=everywhere)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    now_s = time.time()
    output.print_table(
        tree.LIST_COLUMNS, [tree.list_row(read_rollout(item), now_s) for item in found]
    )


@app.command()
def status(
    name: Name,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Wait for the end.")] = False,
    timeout: Annotated[
        str, typer.Option(help="With --watch: how long to wait, e.g. 90s or 1h. Default: for ever.")
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Say in one line how a rollout is, for scripts by the exit code.

    0: promoted as asked. 1: degraded (aborted, stalled, pinned, refused), or it cannot be read.
    2: --timeout was over before. 3: without --watch, not at its end yet: progressing or paused.
    kubectl wait --for=condition=Promoted modelrollouts.tidegate.dev/NAME waits too.
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    limit_s = _duration_s(timeout) if timeout else None
    deadline_s = time.monotonic() + limit_s if limit_s is not None else None
    before = ""
    while True:
        rollout = _patiently(lambda: _read(cluster, name)) if watch else _read(cluster, name)
        line, health = progress.summary(rollout), progress.judge(rollout)
        if line != before:
            print(line, flush=True)
        before = line
        if not watch or health is not Health.UNDER_WAY:
            raise typer.Exit(progress.EXIT_CODES[health])
        if deadline_s is not None and time.monotonic() >= deadline_s:
            print(f"error: not at its end after {timeout}", file=sys.stderr)
            raise typer.Exit(progress.EXIT_TIMEOUT)
        time.sleep(_POLL_S)


def _duration_s(value: str) -> float:
    try:
        return duration_s(value)
    except ValueError as error:
        raise InputError(f"--timeout: {error}") from error


@app.command()
def promote(
    name: Name,
    *,
    full: Annotated[bool, typer.Option("--full", help="Skip all steps that are left.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """End the present pause and go on with the next step.

    Same: kubectl annotate --overwrite tgro NAME tidegate.dev/promote=REVISION/STEP, or
    tidegate.dev/promote-full=REVISION; both from status.canaryRevision and currentStepIndex.
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    _change(cluster, name, verbs.promote(_read(cluster, name), _now(), full=full))


@app.command()
def abort(
    name: Name, *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Take all requests from the canary; it stays aborted until retry or another edit.

    Same: kubectl annotate --overwrite tgro NAME tidegate.dev/abort=REVISION
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    _change(cluster, name, verbs.abort(_read(cluster, name), _now()))


@app.command()
def retry(
    name: Name, *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Begin an aborted revision again at the first step; after undo, go back to what spec asks.

    Same: kubectl annotate --overwrite tgro NAME tidegate.dev/retry=REVISION
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    _change(cluster, name, verbs.retry(_read(cluster, name), _now()))


@app.command()
def undo(
    name: Name,
    *,
    to_revision: Annotated[
        str, typer.Option(help="Name or number of a kept revision; default: the one before.")
    ] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Make an older revision stable. The spec is left alone: the rollout is Pinned until retry.

    Same: kubectl annotate --overwrite tgro NAME tidegate.dev/undo=REVISION@2026-01-31T08:00:00Z
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    rollout = _read(cluster, name)
    selector = f"tidegate.dev/pool={rollout.spec.pool_ref.name}"
    kept = cluster.children("/apis/apps/v1", "controllerrevisions", selector)
    _change(cluster, name, verbs.undo(rollout, read_revisions(kept), to_revision, _now()))


@app.command()
def pause(
    name: Name, *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Hold steps and weight increases; analysis may still abort.

    Same: kubectl annotate --overwrite tgro NAME tidegate.dev/paused=true
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    _change(cluster, name, verbs.pause())


@app.command()
def resume(
    name: Name, *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Undo `pause`.

    Same: kubectl annotate tgro NAME tidegate.dev/paused-
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    rollout = _read(cluster, name)
    pool = gather.optional(cluster, Kind.INFERENCE_POOL, rollout.spec.pool_ref.name)
    marks = mapping(pool, "metadata", "annotations")
    paused = bool(mapping(pool, "spec").get("paused")) or marks.get("tidegate.dev/paused") == "true"
    _change(cluster, name, verbs.resume(rollout, pool_paused=paused))


@app.command()
def restart(
    name: Name, *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Replace the workers by new ones, no request lost.

    Same: kubectl annotate --overwrite tgro NAME tidegate.dev/restartedAt=2026-01-31T08:00:00Z
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    _change(cluster, name, verbs.restart(_now()))


@app.command()
def explain(
    name: Name, *, namespace: Namespace = "", context: Context = "", kubeconfig: Kubeconfig = ""
) -> None:
    """Say why a rollout stands still, and why its canary has the weight that it has."""
    cluster = _connect(Access(kubeconfig, context, namespace))
    snapshot = gather.look(cluster, name)
    if snapshot.rollout is None:
        raise RefusedError(f"{name} is a pool without a ModelRollout: it has no steps")
    for sentence in explanations.explain(snapshot, snapshot.rollout):
        print(sentence)


@set_app.command()
def model(
    name: Name,
    source: Annotated[str, typer.Argument(metavar="MODEL=URI", help="A model and its new files.")],
    *,
    sha256: Annotated[str, typer.Option(help="Of the files; see `tidegate digest`.")] = "",
    force: Force = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Ask for other files of a model: a new revision.

    Same: kubectl edit tgro NAME, spec.template.models[].source.uri
    """
    model_name, equals, uri = source.partition("=")
    if not (model_name and equals and uri):
        raise InputError(f"{source}: expected MODEL=URI, e.g. resnet50=pvc://models/resnet50/4")
    wanted = {"uri": uri} | ({"sha256": sha256} if sha256 else {})
    cluster = _connect(Access(kubeconfig, context, namespace))
    document = cluster.get(Kind.MODEL_ROLLOUT, name)
    _edit(cluster, name, document, verbs.set_model(document, model_name, wanted), force=force)


@set_app.command()
def image(
    name: Name,
    image: Annotated[str, typer.Argument(help="The worker image.")],
    *,
    force: Force = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Ask for another worker image: a new revision.

    Same: kubectl patch tgro NAME --type=merge -p '{"spec":{"template":{"image":"IMAGE"}}}'
    """
    cluster = _connect(Access(kubeconfig, context, namespace))
    document = cluster.get(Kind.MODEL_ROLLOUT, name)
    _edit(cluster, name, document, verbs.set_image(document, image), force=force)


def _connect(access: Access) -> "Cluster":
    from tidegate_cli.kube import connect  # noqa: PLC0415  # 0.5 s that help need not wait for

    return connect(access)


def _read(cluster: "Cluster", name: str) -> ModelRollout:
    return read_rollout(cluster.get(Kind.MODEL_ROLLOUT, name))


def _now() -> str:
    return rfc3339(time.time())


def _change(cluster: "Cluster", name: str, change: Change) -> None:
    cluster.patch(Kind.MODEL_ROLLOUT, name, change.patch)
    print(f"modelrollouts.tidegate.dev {cluster.namespace}/{name}: asked: {change.told}")


def _edit(
    cluster: "Cluster", name: str, document: JsonObject, change: Change, *, force: bool
) -> None:
    """Change spec, unless Git would take it back or the pool could not run it."""
    keeper = verbs.managed_by(document)
    if keeper and not force:
        raise RefusedError(
            f"modelrollouts.tidegate.dev {cluster.namespace}/{name} is kept by {keeper}, which"
            " would take the change back: edit it in Git, or give --force"
        )
    pool_name = text(document, "spec", "poolRef", "name")
    pool = gather.optional(cluster, Kind.INFERENCE_POOL, pool_name)
    verbs.refuse_broken(document, pool, change)
    _change(cluster, name, change)
