"""Indexes with one fault each: what happens around the answers."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import numpy as np

import vwkit
from tests.suite.faults import fault
from tests.suite.right_index import Cells, Plain
from vwkit.reference.distances import distances
from vwkit.testing import IndexTests

FAULTS = []
wrong = partial(fault, FAULTS, IndexTests)


# Adding and removing ---------------------------------------------------------------------------


@wrong("test_add", "nearest have|was returned")
class StaleAfterAdd(Plain):
    """Keeps the matrix that its first search made."""

    def _build(self, vectors):
        super()._build(vectors)
        self._matrix = None

    def _search(self, queries, k, **options):
        if self._matrix is None:
            self._matrix = self._vectors
        kept, self._vectors = self._vectors, self._matrix
        alive, self._alive = self._alive, self._alive[: len(self._matrix)]
        rows, found = super()._search(queries, k)
        self._vectors, self._alive = kept, alive
        return rows, found


@wrong("test_add", "nearest have|was returned")
class AddsInFront(Plain):
    """Numbers new rows before those held."""

    def _add(self, vectors):
        self._vectors = np.concatenate([vectors, self._vectors])
        self._alive = np.ones(len(self._vectors), bool)


@wrong("test_recall_after_adding", "recall@10 after adding")
class AddsForLater(Cells):
    """Does not look at what was added."""

    def _add(self, vectors):
        first = len(self._vectors) == 0
        super()._add(vectors)
        if not first:
            self._cell[-len(vectors) :] = -1


@wrong("test_remove", "removed")
class Renumbers(Plain):
    """Moves later rows up after removing."""

    def _remove(self, rows):
        self._vectors = np.delete(self._vectors, rows, axis=0)
        self._alive = np.ones(len(self._vectors), bool)


@wrong("test_remove", "removed|nearest have")
class NeverForgets(Plain):
    """Removes nothing."""

    def _remove(self, rows):
        pass


@wrong("test_remove", "removed|nearest have")
class HidesOnce(Plain):
    """Leaves removed rows out of the next search only."""

    def _search(self, queries, k, **options):
        found = super()._search(queries, k, **options)
        self._alive[:] = True
        return found


@wrong("test_remove", "removed|nearest have")
class RemovedComeBack(Plain):
    """Does not save which rows were removed."""

    def _state(self):
        return {"_vectors": self._vectors}

    def _restore(self, state):
        self._build(state["_vectors"])


@wrong("test_changes_in_any_order", "removed|nearest have")
class RevivesByAdding(Plain):
    """Makes its list of living rows anew whenever rows are added."""

    def _add(self, vectors):
        super()._add(vectors)
        self._alive = np.ones(len(self._vectors), bool)


@wrong("test_compact", "nearest have|was returned")
class CompactsToTheFirst(Plain):
    """Keeps as many rows as are left, but the first ones."""

    supports_compact = True

    def _compact(self, rows):
        self._vectors = self._vectors[: len(rows)]
        self._alive = np.ones(len(rows), bool)


@wrong("test_compact", "removed|nearest have|was returned")
class CompactsWithOldMarks(Plain):
    """Lets go of the vectors, but marks rows as removed by their old numbers."""

    supports_compact = True

    def _compact(self, rows):
        self._vectors = self._vectors[rows]
        self._alive = self._alive[: len(rows)]


@wrong("test_recall_after_removing", "recall@10 after removing")
class CutsBeforeRemoving(Cells):
    """Takes the k nearest, and drops those of them that were removed."""

    def _remove(self, rows):
        gone = self.__dict__.get("_gone", np.zeros(0, np.int64))
        self._gone = np.union1d(gone, rows)

    def _search(self, queries, k, **options):
        rows, found = super()._search(queries, k, **options)
        dead = np.isin(rows, self.__dict__.get("_gone", []))
        rows, found = np.where(dead, -1, rows), np.where(dead, np.inf, found)
        order = np.argsort(found, axis=1, kind="stable")
        return np.take_along_axis(rows, order, 1), np.take_along_axis(found, order, 1)


@wrong("test_filter", "nearest have")
class FiltersLate(Plain):
    """Cuts to k first, then drops what is not allowed."""

    def _search(self, queries, k, *, allowed=None):
        rows, found = super()._search(queries, k)
        if allowed is not None:
            bad = ~allowed[rows]
            rows[bad], found[bad] = -1, np.inf
            order = np.argsort(found, axis=1, kind="stable")
            rows, found = np.take_along_axis(rows, order, 1), np.take_along_axis(found, order, 1)
        return rows, found


@wrong("test_filter", "not allowed")
class FiltersNothing(Plain):
    """Takes the filter and forgets it."""

    def _search(self, queries, k, *, allowed=None):
        return super()._search(queries, k)


@wrong("test_recall_among_the_allowed", "recall@10 among the allowed")
class FiltersFew(Cells):
    """Looks at as many candidates as without a filter, and then filters: k of them."""

    def _search(self, queries, k, *, allowed=None):
        rows, found = super()._search(queries, k)
        if allowed is None:
            return rows, found
        drop = ~allowed[np.maximum(rows, 0)] | (rows < 0) | (np.arange(k) > k // 2)
        rows, found = np.where(drop, -1, rows), np.where(drop, np.inf, found)
        order = np.argsort(found, axis=1, kind="stable")
        return np.take_along_axis(rows, order, 1), np.take_along_axis(found, order, 1)


# The caller's arrays ---------------------------------------------------------------------------


@wrong("test_inputs_are_left_alone", "data were changed by fitting")
class NormalisesInPlace(Plain):
    """Normalises the caller's own array."""

    metrics = frozenset({"cosine"})

    def _build(self, vectors):
        with np.errstate(all="ignore"):
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        super()._build(vectors)


@wrong("test_distances_and_neighbours", "vectors were changed")
class NormalisesForCosine(Plain):
    """Normalises the caller's own array, in one metric only."""

    def _build(self, vectors):
        if self.metric == "cosine":
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
        super()._build(vectors)


@wrong("test_distances_and_neighbours", "changed the queries")
class ChangesQueries(Plain):
    """Subtracts the mean from the caller's queries."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        self._mean = vectors.mean(axis=0)
        super()._build(vectors - self._mean)

    def _search(self, queries, k, **options):
        queries -= self._mean
        return super()._search(queries, k, **options)


@wrong("test_read_only_arrays_are_accepted", "read-only|writ")
class WantsWritable(Plain):
    """Sets the caller's array to be written to."""

    def _build(self, vectors):
        vectors[0, 0] = vectors[0, 0]
        super()._build(vectors)


@wrong("test_memory_maps", "memory-mapped data were changed")
class SortsTheMap(Plain):
    """Centres a memory map where it lies, to save memory."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        if isinstance(vectors, np.memmap):
            vectors -= vectors.mean(axis=0)
        super()._build(vectors)


@wrong("test_add", "added vectors were changed")
class ChangesWhatIsAdded(Plain):
    """Moves the caller's added vectors."""

    def _add(self, vectors):
        super()._add(vectors)
        vectors -= 1


@wrong("test_remove", "changed by removing")
class RemovesInPlace(Plain):
    """Marks removed rows in the caller's own array."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        self._vectors = vectors
        self._alive = np.ones(len(vectors), bool)

    def _remove(self, rows):
        super()._remove(rows)
        self._vectors[rows] = 0


# Saving ----------------------------------------------------------------------------------------


@wrong("test_save_and_load", "after loading")
class ForgetsOnSaving(Plain):
    """Changes what it saves."""

    def _state(self):
        return {"_vectors": np.round(self._vectors), "_alive": self._alive}


@wrong("test_own_ids", "ids were lost by saving")
class LosesIds(Plain):
    """Leaves the core's own state out."""

    def _core_state(self):
        plain, arrays = super()._core_state()
        return plain, {name: array for name, array in arrays.items() if name != "ids"}


@wrong("test_save_and_load", "loaded with", params={"probes": 4})
class LosesAParameter(Cells):
    """Comes back with the default."""

    def _restore(self, state):
        super()._restore(state)
        self.probes = 8


@wrong("test_every_metric_is_saved", "was returned|nearest have")
class LosesTheMetric(Plain):
    """Loads everything as l2."""

    def _restore(self, state):
        super()._restore(state)
        self._lost = True

    def _table(self, queries):
        metric = "l2" if "_lost" in self.__dict__ else self.metric
        return distances(queries, self._vectors, metric)


@wrong("test_save_and_load", "pickle")
class Pickles(Plain):
    """Saves itself as a pickle."""

    def _save(self, folder):
        import pickle

        (Path(folder) / "index.pkl").write_bytes(pickle.dumps(self._vectors))

    def _load(self, folder):
        import pickle

        self._vectors = pickle.loads((Path(folder) / "index.pkl").read_bytes())
        self._alive = np.ones(len(self._vectors), bool)


@wrong("test_saved_files_are_reproducible", "differ")
class WritesTheTime(Plain):
    """Saves when it was saved."""

    def _state(self):
        return {**super()._state(), "_time": np.array(time.perf_counter_ns())}


@wrong("test_saved_folder_stands_alone", "No such file")
class KeepsThePath(Plain):
    """Saves where a memory map lies, not what is in it."""

    def _build(self, vectors):
        self._file = str(vectors.filename) if isinstance(vectors, np.memmap) else ""
        super()._build(vectors)

    def _state(self):
        state = {"alive": self._alive, "file": np.array(list(self._file.encode()), np.uint8)}
        return state if self._file else {**state, "vectors": self._vectors}

    def _restore(self, state):
        self._alive, self._file = state["alive"], bytes(state["file"]).decode()
        self._vectors = np.load(self._file) if self._file else state["vectors"]


_SHELF = {}


@wrong("test_another_process_can_load", "KeyError", mended=Plain)
class KeepsAGlobal(Plain):
    """Saves the number under which a global holds it."""

    def _state(self):
        _SHELF[id(self._vectors)] = self._vectors
        return {"key": np.array(id(self._vectors)), "alive": self._alive}

    def _restore(self, state):
        self._vectors, self._alive = _SHELF[int(state["key"])], state["alive"]


# Parameters and manners ------------------------------------------------------------------------


@wrong("test_late_parameters", "is set after the fit instead of before")
class LateInBuild(Cells):
    """A late parameter changes what is built."""

    def _build(self, vectors):
        rng = np.random.default_rng(self.seed)
        self._centers = vectors[rng.permutation(len(vectors))[: 2 * self.probes]].copy()
        self._vectors, self._cell = vectors[:0], np.zeros(0, np.int64)
        self._add(vectors)


@wrong("test_late_parameters_of_a_search", "changed the index")
class LateSticks(Cells):
    """A late parameter of one search stays."""

    def with_late(self, values):
        for name, value in values.items():
            setattr(self, name, value)
        return self


@wrong("test_parameters_round_trip", "made again as")
class ChangesItsParameters(Cells):
    """Doubles a parameter on construction."""

    def __post_init__(self):
        self.probes = self.probes * 2


@wrong("test_abilities_are_well_formed", "late names prbes")
class LateMisspelt(Cells):
    """Declares a late parameter that there is not."""

    late = frozenset({"prbes"})


@wrong("test_prints_nothing", "it printed")
class Talks(Plain):
    """Prints from native code."""

    def _build(self, vectors):
        os.write(1, b"building...\n")
        super()._build(vectors)


@wrong("test_unknown_parameter_is_refused", "DID NOT RAISE")
class TakesAnything(Plain):
    """Brings a constructor of its own."""


TakesAnything.__init__ = lambda self, **params: None


@wrong("test_wrong_k_is_refused", "k must be|DID NOT RAISE|unsupported|slice|indices")
class TakesAnyK(Plain):
    """Overrides the public method, and with it the checks."""

    def search(self, queries, k=10, *, allowed=None, **late):
        rows, found = self._search(np.asarray(queries, np.float32), min(int(k), len(self)))
        return vwkit.Matches(self._held_ids.of(rows), found)
