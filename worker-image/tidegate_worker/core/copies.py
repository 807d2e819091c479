"""Which copies of models one Triton holds, and under which names. Pure.

A copy is a model of a revision. Triton has one config per name, so two revisions of a model need
two names: the main revision's copies carry the models' own names where these are free, others are
`<model>--<first 8 of revision>`. A copy keeps its name for as long as it is wanted: when what was
the second revision becomes the main one, nothing is loaded again.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tidegate_api.template import Model
from tidegate_api.workermodels import DesiredModel, WorkerModels, copy_name


@dataclass(frozen=True, slots=True)
class Copy:
    """One model of one revision, and its name in Triton."""

    revision: str
    loaded_as: str
    wanted: DesiredModel

    @property
    def model(self) -> Model:
        """The model as its config names it."""
        return self.wanted.model.model_copy(update={"name": self.loaded_as})


@dataclass(frozen=True, slots=True)
class Main:
    """What the worker's readiness is about: a revision and its copies' names in Triton."""

    revision: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do now towards a document; the next look follows when something has changed."""

    main: Main
    load: tuple[Copy, ...]
    unload: tuple[str, ...]


def first_copies(document: WorkerModels) -> tuple[Copy, ...]:
    """Return the main revision's copies of a worker that holds nothing yet."""
    return tuple(Copy(document.revision, item.model.name, item) for item in document.models)


def plan(
    document: WorkerModels,
    held: Sequence[Copy],
    main: Main,
    *,
    ready: Collection[str],
    leaving: Collection[str],
) -> Step:
    """Return the next step towards `document`.

    `held` is every copy that Triton holds or is given; `ready` and `leaving` are names in Triton,
    of copies that serve and of those that are being unloaded: their names are not free, and what
    needs one of them waits. What is missing is loaded first. What is no longer wanted goes at
    once, but for the copies that readiness is about: they stay until the new main revision serves.
    """
    staying = [copy for copy in held if copy.loaded_as not in leaving]
    kept = [_match(staying, revision, item) for revision, item in _wanted(document)]
    names = {copy.loaded_as for copy in kept if copy is not None}
    load = _missing(document, kept, {copy.loaded_as for copy in held})
    coming = frozenset(
        copy.loaded_as for copy in (*kept, *load) if copy and copy.revision == document.revision
    )
    serves = len(coming) == len(document.models) and coming <= set(ready)
    now = Main(document.revision, coming) if serves else main
    unwanted = (copy.loaded_as for copy in staying if copy.loaded_as not in names)
    return Step(
        main=now, load=load, unload=tuple(name for name in unwanted if name not in now.names)
    )


def _wanted(document: WorkerModels) -> Iterator[tuple[str, DesiredModel]]:
    """Yield every (revision, model), the main revision's first."""
    yield from ((document.revision, item) for item in document.models)
    second = document.alongside
    if second is not None and second.revision != document.revision:
        yield from ((second.revision, item) for item in second.models)


def _match(held: Iterable[Copy], revision: str, item: DesiredModel) -> Copy | None:
    """Return the copy that is this model of this revision; where its files lie may differ."""
    same = (c for c in held if c.revision == revision and c.wanted.model == item.model)
    return next(same, None)


def _missing(
    document: WorkerModels, kept: Sequence[Copy | None], taken: set[str]
) -> tuple[Copy, ...]:
    found = []
    for (revision, item), known in zip(_wanted(document), kept, strict=True):
        name = _free_name(item.model.name, revision, document.revision, taken)
        if known is None and name is not None:
            taken = taken | {name}
            found.append(Copy(revision, name, item))
    return tuple(found)


def _free_name(model: str, revision: str, main: str, taken: Collection[str]) -> str | None:
    """Return the name that a copy is loaded under, None while it is not free."""
    other = copy_name(model, revision)
    names = (model, other) if revision == main else (other,)
    return next((name for name in names if name not in taken), None)
