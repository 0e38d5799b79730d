"""An index of many indexes: each of consecutive rows, built one by one, searched together."""

from __future__ import annotations

import copy
import itertools
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import is_artifact, open_artifact
from vwkit.base import Field, Nested, backend, create, packed_files
from vwkit.builtin.shard_rows import (
    SHARE,
    build_elsewhere,
    bytes_of,
    fitting_rows,
    name_of,
    parts,
    tasks,
    unbuilt,
    whole,
)
from vwkit.builtin.shard_search import merged, search_shard
from vwkit.builtin.shelf import Shard, Shelf, unpacked_folder
from vwkit.data import as_data, dim_of, rows_of
from vwkit.errors import ArtifactError, DataError, ParameterError, RunError
from vwkit.estimates import Estimate
from vwkit.index import Index
from vwkit.jobs import Job, ThreadedExecutor, job, use_job
from vwkit.metrics import METRICS
from vwkit.stream import Stream, chunk_rows
from vwkit.types import Array, Positive

__all__ = ["Sharded"]

# Where a job has a folder, a shard that took so many seconds is kept there for a resumed one.
_WORTH_KEEPING = 1.0
_CHILD = "shard_"


class _LateOfNested:
    """The late parameters of the nested index; of the class, which has none yet, none."""

    def __get__(self, made: Sharded | None, owner: type[Any]) -> frozenset[str]:
        nested = None if made is None else vars(made).get("index")
        return frozenset() if nested is None else nested.late


def _of_nested(name: str) -> Any:
    """Return an ability that is the nested index's."""
    return property(lambda made: getattr(made.nested, name), doc=f"`{name}` of the nested index.")


@backend("sharded")
class Sharded(Index):
    """An index in parts, for one that memory does not hold while it is built or searched.

    Rows are cut into consecutive shards, and each becomes an index of its own, of the kind that
    `index` says. One after the other is built and saved. A search asks all of them and merges what
    they answer: distances are those of the nested index, and an exact one stays exact.

    Saved shards are opened when they are first searched. Backends that map their files (`exact`,
    `faiss`, `annoy`, `usearch`) then take hardly any memory; of others, as many stay open as half of
    the job's memory holds, and the rest is read anew for each search: give it many queries at once.

    Late parameters of the nested index (`ef`, `nprobe`, …) are this one's too: set them on it, or give
    them to a search.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> index = vwkit.create("index", "sharded", index={"use": "exact"}, shards=2)
    >>> index.build(np.eye(4, dtype=np.float32)).search([[0.0, 0.1, 1.0, 0.2]], 2).ids.tolist()
    [[2, 3]]
    """

    choose = (
        "an index larger than memory, or one that grows for years; around any other index, whose "
        "abilities it has."
    )
    metrics = frozenset(METRICS)
    streams = True
    late = _LateOfNested()
    late_through = frozenset({"index"})

    index: Nested[Index] | None = Field(
        default=None, doc="What each shard is: ``{use: …}``; `exact` by default."
    )
    shards: Positive | None = Field(
        default=None,
        doc="How many to build; by default as many as the job's memory asks for.",
    )
    rows_per_shard: Positive | None = Field(
        default=None, doc="Rows of a shard at most, in place of their number."
    )

    @classmethod
    def _adapt_fields(cls, annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
        annotations["metric"] = Literal[tuple(sorted(cls.metrics))] | None
        defaults["metric"] = Field(default=None, doc="That of `index` by default.")

    def __post_init__(self) -> None:
        if self.shards is not None and self.rows_per_shard is not None:
            raise ParameterError.of("rows_per_shard", "give it or shards, not both")
        nested: Any = create("index", "exact") if self.index is None else self.index
        if nested._fitted:
            raise ParameterError.of(
                "index",
                "it is built already, and every shard is built anew; give {use: "
                f"{nested.name}, …}}",
            )
        metric: Any = self.metric  # not given, it is none
        if metric is None:
            self.metric = nested.metric
        elif metric != nested.metric:
            nested = self._with_metric(nested)
        self.index = nested

    def _with_metric(self, nested: Index) -> Index:
        """Give a nested index the metric that is asked for here."""
        default = type(nested).parameters()["metric"].default
        if default is not None and nested.metric != default:
            raise ParameterError.of(
                "metric", f"{self.metric} here, and {nested.metric} in index; give it once"
            )
        params = {name: getattr(nested, one.attribute) for name, one in nested.parameters().items()}
        try:
            return type(nested)(**{**params, "metric": self.metric})
        except ParameterError as error:
            raise ParameterError.of("metric", f"{nested.name} does not offer it: {error}") from None

    # Abilities: those of the nested index

    @property
    def nested(self) -> Index:
        """What every shard is one of; never built itself."""
        if self.index is None:  # pragma: no cover - __post_init__ has made one
            raise ParameterError.of("index", "it is missing")
        return self.index

    exact = _of_nested("exact")
    supports_add = _of_nested("supports_add")
    supports_remove = _of_nested("supports_remove")
    frees_removed = _of_nested("frees_removed")
    supports_compact = _of_nested("supports_compact")
    supports_filter = _of_nested("supports_filter")
    supports_sparse = _of_nested("supports_sparse")
    thread_safe = _of_nested("thread_safe")
    memory_mapped = _of_nested("memory_mapped")
    distance_error = _of_nested("distance_error")
    dtypes = _of_nested("dtypes")
    deterministic = _of_nested("deterministic")

    # Late parameters: those of the nested index

    def __getattr__(self, name: str) -> Any:
        nested = vars(self).get("index")
        if nested is not None and name in nested.late:
            return getattr(nested, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        nested = vars(self).get("index")
        if nested is not None and name in nested.late:
            vars(self)["index"] = _with_late(nested, {name: value})
            return
        super().__setattr__(name, value)

    def with_late(self, values: Mapping[str, Any]) -> Sharded:
        """Return a shallow copy with other late parameters; shards are shared."""
        wrong = sorted(set(values) - self.late)
        if wrong or not values:
            return super().with_late(values)  # which refuses it
        other = copy.copy(self)
        vars(other)["index"] = _with_late(self.nested, values)
        return other

    # Building

    def _prepare(self, vectors: Any, what: str, dim: int | None = None, empty: bool = False) -> Any:
        # As a Stream, data that must be converted are so shard by shard.
        data = as_data(vectors, what)
        if what == "vectors" and isinstance(data, np.ndarray):
            # Chunks of 8 MiB once they are converted, not before.
            data = Stream.from_array(data).rechunk(chunk_rows(4 * data.shape[1]))
        return super()._prepare(data, what, dim=dim, empty=empty)

    def _build(self, vectors: Any) -> None:
        rows = rows_of(vectors)
        number, full = self._cut(vectors, rows)
        starts = [rows * i // number for i in range(number + 1)]
        shelf = Shelf(self.nested, dim_of(vectors), [])
        self._made_all(shelf, vectors, starts)
        old = vars(self).get("_shelf")
        if old is not None:
            old.discard()
        self._shelf = shelf
        self._starts = np.array(starts, np.int64)
        self._full = full
        self._fingerprint = f"built {secrets.token_hex(16)}"

    def _cut(self, vectors: Any, rows: int) -> tuple[int, int]:
        """Return how many shards to make of so many rows, and how many rows a full one has.

        The latter is 0 where memory decides, anew each time.
        """
        if self.shards is not None:
            number = min(self.shards, rows)
            return number, -(-rows // number)
        if self.rows_per_shard is not None:
            return -(-rows // self.rows_per_shard), self.rows_per_shard
        return -(-rows // fitting_rows(vectors, rows)), 0

    def _made_all(self, shelf: Shelf, vectors: Any, starts: list[int]) -> None:
        """Build the shards of the rows between `starts`, one after the other."""
        current = job()
        if current.distributed:
            self._made_elsewhere(shelf, vectors, starts)
            return
        for number, rows in enumerate(parts(vectors, starts)):
            shelf.settle(shelf.shards, room=2 * bytes_of(rows))
            shelf.shards.append(self._built(shelf, number, rows))
            del rows
            current.progress(starts[number + 1], starts[-1], "vectors")

    def _built(self, shelf: Shelf, number: int, rows: Any) -> Shard:
        """Build one shard; where the job keeps what is done, take it from there, or put it there."""
        current, count, folder = job(), rows_of(rows), None
        if current.folder is not None:
            folder = current.folder / name_of(self.nested, rows)
            shelf.own.append(folder)
            if current.resumable and whole(folder):
                return Shard(count, folder=folder)
        begun = time.monotonic()
        with use_job(current.within(f"{_CHILD}{number:05d}")):
            shard = Shard(count, index=unbuilt(self.nested).build(rows))
        if folder is not None and time.monotonic() - begun >= _WORTH_KEEPING:
            shelf.spill(shard, folder)
        return shard

    def _made_elsewhere(self, shelf: Shelf, vectors: Any, starts: list[int]) -> None:
        """Build the shards in other processes, which leave their files in the job's folder."""
        current = job()
        place = current.folder or shelf.new_folder()
        shared = {
            "nested": self.nested,
            "place": str(place),
            "budgets": {"threads": current.threads, "memory": current.memory},
            "resumable": current.resumable,
        }
        done = current.each(build_elsewhere, tasks(vectors, starts), shared)
        for number, name in enumerate(done):
            folder = place / name
            if not is_artifact(folder):
                raise RunError(
                    f"{place}: a worker wrote a shard there, and it cannot be seen from here; name a "
                    "run folder (--out) that all machines share"
                )
            shelf.own.append(folder)
            shelf.shards.append(Shard(starts[number + 1] - starts[number], folder=folder))
            current.progress(starts[number + 1], starts[-1], "vectors")

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate | None:
        if self.shards is None and self.rows_per_shard is None:
            number = -(-rows // max(1, job().memory // (SHARE * dim * itemsize)))
        else:
            number = self._cut(None, rows)[0]
        each = -(-rows // number)
        one = self.nested._estimate(each, dim, itemsize)
        if one is None:
            return None
        gathered = float(each * dim * itemsize)
        memory, budget = one.memory, job().memory / 2
        if memory is not None:
            memory = gathered + min(number * memory, memory + budget)
        return replace(
            one,
            work=number * one.total(),
            each_pass=0,
            passes=0,
            memory=memory,
            disk=None if one.disk is None else number * one.disk,
        )

    # Changing

    def _add(self, vectors: Any) -> None:
        """Fill the last shard, then begin new ones; nothing is changed before all of it is done."""
        rows, shelf = rows_of(vectors), self._shelf
        full = self._full or fitting_rows(vectors, rows)
        shards, starts = list(shelf.shards), self._starts.tolist()
        inside = starts[-1] - starts[-2]
        room = min(rows, max(0, full - inside)) if shards[-1] is not None else 0
        cuts = [0, room] if room else [0]
        number = -(-(rows - room) // full)
        cuts += [room + (rows - room) * (i + 1) // number for i in range(number)]
        alone = len(cuts) == 2
        for place, part in enumerate(parts(vectors, cuts)):
            count = rows_of(part)
            shelf.settle(shards, room=2 * bytes_of(part))
            if room and place == 0:
                shards[-1] = self._grown(shards[-1], part, alone)
                starts[-1] += count
                continue
            try:
                shards.append(self._built(shelf, len(shards), part))
                starts.append(starts[-1] + count)
            except DataError:
                # Too few to learn from, for an index that learns: they stay with the last.
                if shards[-1] is None:
                    raise
                shards[-1] = self._grown(shards[-1], part, alone)
                starts[-1] += count
        self._exchanged(shards, starts)

    def _grown(self, shard: Shard | None, part: Any, alone: bool) -> Shard:
        if shard is None:  # pragma: no cover - nobody grows what was removed
            raise DataError("a shard without rows cannot grow")
        if not alone and shard.folder is None:
            self._shelf.spill(shard)  # so that an error further on leaves it as it was
        changed = self._shelf.fresh(shard)
        if changed.index is not None:
            changed.index.add(part)
        changed.rows += rows_of(part)
        return changed

    def _remove(self, rows: NDArray[np.int64]) -> None:
        shelf, shards = self._shelf, list(self._shelf.shards)
        cuts = np.searchsorted(rows, self._starts)
        touched = [(i, shard) for i, shard in shelf if cuts[i] < cuts[i + 1]]
        # Those in memory last: what fails, fails before anything that is in use is changed.
        for i, shard in sorted(touched, key=lambda one: one[1].folder is None):
            job().check()
            gone = rows[cuts[i] : cuts[i + 1]] - self._starts[i]
            changed = shelf.fresh(shard)
            if changed.index is not None and len(gone) < len(changed.index):
                changed.index.remove(gone)
                shards[i] = changed
            else:
                shards[i] = None
            shelf.settle(shards)
        self._exchanged(shards, self._starts.tolist())

    @property
    def dead(self) -> int:
        """How many removed vectors still take room: none of a shard that holds nothing else."""
        gone = super().dead
        if not gone:
            return 0
        held = sum(shard.rows for _, shard in self._shelf)
        return held - len(self)

    def _compacted(self, rows: NDArray[np.int64], vectors: Any) -> None:
        """Make those shards anew that hold removed rows; the others stay as they are."""
        shelf, cuts = self._shelf, np.searchsorted(rows, self._starts)
        living = list(shelf)
        places = [int(cuts[i]) for i, _ in living] + [int(cuts[-1])]
        given = itertools.repeat(None) if vectors is None else parts(vectors, places)
        shards: list[Shard | None] = []
        for (i, shard), part in zip(living, given, strict=False):
            count = int(cuts[i + 1] - cuts[i])
            if count < shard.rows:
                if shard.folder is None:
                    shelf.spill(shard)  # so that an error further on leaves it as it was
                changed = shelf.fresh(shard)
                with use_job(job().within(_child(i))):
                    if changed.index is not None:
                        changed.index.compact(part)
                        changed.index._number_by_rows()
                changed.rows, shard = count, changed
            shards.append(shard)
            shelf.settle(shards)
            job().progress(int(cuts[i + 1]), len(rows), "vectors")
        self._exchanged(shards, places)

    def _exchanged(self, shards: list[Shard | None], starts: list[int]) -> None:
        self._shelf.exchange(shards)
        self._shelf.settle(shards)
        self._starts = np.array(starts, np.int64)
        self._fingerprint = f"changed {secrets.token_hex(16)}"

    # Searching

    def _search(
        self, queries: Any, k: int, *, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        shelf, starts, nested = self._shelf, self._starts, self.nested
        asked: list[tuple[Shard, int, NDArray[np.int64] | None]] = []
        # Those that are open first: each one opened may cost another its place.
        for i, shard in sorted(shelf, key=lambda one: not shelf.is_open(one[1])):
            inside = None
            if allowed is not None:
                inside = np.flatnonzero(allowed[starts[i] : starts[i + 1]])
                if not len(inside):
                    continue
            asked.append((shard, int(starts[i]), inside))
        current, threads = job(), 1
        if nested.thread_safe:
            threads = min(current.threads, max(1, len(asked)))
        # In this process, whatever the job's executor: the shards are here.
        within = Job(threads=current.threads // threads, memory=current.memory, stop=current.stop)
        shared = {"shelf": shelf, "like": nested, "queries": queries, "k": k, "within": within}
        answers: Iterator[tuple[Array, Array]] = (search_shard(*one, **shared) for one in asked)
        if threads > 1:
            answers = ThreadedExecutor(threads).map(search_shard, asked, shared)
        best: tuple[Array, Array] | None = None
        for found in answers:
            current.check()
            best = found if best is None else merged(best, found, k)
        if best is None:
            empty = (queries.shape[0], 0)
            return np.empty(empty, np.int64), np.empty(empty, np.float32)
        return best

    # Saving

    def _state(self) -> dict[str, Array]:
        return {"starts": self._starts, "full": np.array(self._full, np.int64)}

    def _restore(self, state: dict[str, Array]) -> None:
        known = vars(self)
        names = [name for name in known if name.startswith(f"_{_CHILD}")]
        found = {name: known.pop(name) for name in names}
        starts, full = np.asarray(state.get("starts")), np.asarray(state.get("full"))
        if not (
            starts.dtype == full.dtype == np.int64
            and starts.ndim == 1
            and len(starts) > 1
            and full.ndim == 0
            and full >= 0
            and starts[0] == 0
            and starts[-1] == self._held_ids.total
            and (np.diff(starts) > 0).all()
            and set(found) <= {_child(i, "_") for i in range(len(starts) - 1)}
        ):
            raise ArtifactError("its shards do not fit its rows; damaged, make it again")
        shards: list[Shard | None] = [None] * (len(starts) - 1)
        for i in range(len(shards)):
            folder = found.get(_child(i, "_"))
            if folder is not None:
                shards[i] = Shard(int(starts[i + 1] - starts[i]), folder=folder)
        self._shelf = Shelf(self.nested, self._dim or 0, shards)
        self._starts, self._full = starts, int(full)

    def _children(self) -> dict[str, Any]:
        # The nested index itself is a pattern: its parameters say all.
        if not self._fitted:
            return {}
        return {_child(number): shard for number, shard in self._shelf}

    @classmethod
    def _open_child(cls, name: str, folder: Path) -> Any:
        return folder if name.startswith(_CHILD) else super()._open_child(name, folder)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._fitted:
            return super().__reduce__()
        return _unpacked, (type(self), packed_files(self.save))


def _child(number: int, before: str = "") -> str:
    return f"{before}{_CHILD}{number:05d}"


def _unpacked(cls: type[Sharded], files: Mapping[str, bytes]) -> Sharded:
    holder = unpacked_folder(files)
    artifact = open_artifact(holder / "saved")
    made = cls._open(artifact)
    made._shelf.keep(holder)
    made._fingerprint = artifact.fingerprint
    return made


def _with_late(nested: Index, values: Mapping[str, Any]) -> Index:
    other = copy.copy(nested)
    for name, value in values.items():
        checked = nested._checked(name, value)
        if isinstance(other, Sharded):
            setattr(other, name, checked)
        else:
            vars(other)[name] = checked
    return other
