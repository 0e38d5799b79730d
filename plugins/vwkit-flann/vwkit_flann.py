"""FLANN's k-d trees and k-means tree, by the functions of pyflann."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray
from vwkit_flann_library import Part
from vwkit_flann_trees import load_tree, read_array, save_tree

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError
from vwkit.estimates import Estimate
from vwkit.exact_search import search_rows
from vwkit.jobs import job
from vwkit.metrics import normalised
from vwkit.stream import row_spans
from vwkit.types import Array

__all__ = ["Flann", "vwkit_backends"]

# Between two blocks the user is told how far it is and can interrupt.
_BLOCK = 4096
_CHECKS = 1024
# To FLANN, -1 is "all" too, but with several trees it prints that this makes no sense.
_ALL = 2**31 - 1
_BY_LIBRARY = -2  # as many as the library itself found best when it built
_VECTORS_FILE = "vectors.npy"
_TUNED_FILE = "tuned.npy"  # which of these autotuned chose, and its checks
_CHOICES = ("linear", "kdtree", "kmeans")
_LOOKED_AT = 1 << 22  # numbers of the vectors

_Branching = Annotated[int, annotated_types.Ge(2), annotated_types.Le(1_000_000)]
_Trees = Annotated[int, annotated_types.Ge(1), annotated_types.Le(1024)]
_OrAll = Annotated[int, annotated_types.Ge(-1), annotated_types.Le(_ALL)]


@vwkit.backend("flann")
class Flann(vwkit.Index):
    """FLANN: randomised k-d trees, a k-means tree, both, or what it finds best for the data.

    Muja and Lowe 2014, "Scalable nearest neighbor algorithms for high dimensional data". A search
    looks at about `checks` vectors. It keeps all vectors as float32, and 8 to 30 bytes more a
    vector for each tree.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> index = vwkit.create("index", "flann").build(np.eye(3, dtype=np.float32))
    >>> index.search([[1.0, 0.2, 0.1]], 2).ids.tolist()
    [[0, 1]]
    """

    library = "pyflann-ibeis"
    requires = ("pyflann_ibeis",)
    license = "BSD-3-Clause"
    choose = "to reproduce work that used FLANN, such as approximate k-means with k-d trees."
    metrics = frozenset({"l2", "cosine"})
    # The library's settings are global; one search uses all threads.
    thread_safe = False
    # FLANN's own file, which revision 1 saved, is not read.
    revision = 2
    late = frozenset({"checks"})

    algorithm: Literal["kdtree", "kmeans", "composite", "autotuned", "linear"] = vwkit.Field(
        default="kdtree", doc="What to build; ``composite`` is kdtree and kmeans together."
    )
    trees: _Trees = vwkit.Field(default=8, doc="Trees of kdtree and composite.")
    branching: _Branching = vwkit.Field(
        default=32, doc="Children of a node of kmeans and composite."
    )
    iterations: _OrAll = vwkit.Field(
        default=11,
        doc="Of each k-means of kmeans and composite; -1: until nothing changes.",
    )
    target_precision: vwkit.Fraction = vwkit.Field(
        default=0.9,
        doc="What autotuned aims at: the share of queries whose nearest neighbour is found.",
    )
    checks: _OrAll = vwkit.Field(
        default=_CHECKS,
        doc="Vectors looked at in a search, -1: all; autotuned takes 1024 for what it found best.",
    )
    threads: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Threads of a search; those of the running job by default."
    )
    seed: int = vwkit.Field(
        default=0,
        doc="Of the library's random numbers; it shuffles with others too, so builds differ.",
    )

    def __post_init__(self) -> None:
        for name in ("checks", "iterations"):
            if getattr(self, name) == 0:
                raise ParameterError(f"flann.{name}: 0 does nothing; give 1 or more, or -1")

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """True for ``linear``, which compares with every vector."""
        return self.algorithm == "linear"

    @property
    def deterministic(self) -> bool:
        """True for ``linear``; all trees depend on numbers from the operating system."""
        return self.algorithm == "linear"

    # Building

    def _build(self, vectors: Any) -> None:
        if len(vectors) > _ALL // 4:
            raise DataError(
                f"flann: takes up to {_ALL // 4:,} vectors; got {len(vectors):,}: take another "
                "index, such as faiss"
            )
        self._take(_fitting_rows(vectors) if self.metric == "cosine" else vectors)
        self._tuned = _BY_LIBRARY
        self._parts = [
            Part.built(self._vectors, {"algorithm": name, **self._build_params()})
            for name in self._algorithms()
        ]

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        # A node of each k-d tree takes some 40 bytes a row; the vectors stay where they are.
        trees = self.trees if self.algorithm == "kdtree" else None
        return Estimate(
            work=rows * math.log2(rows + 2) * (trees or 1),
            memory=None if trees is None else 40.0 * trees * rows,
        )

    def _take(self, vectors: Array) -> None:
        # The trees point into these.
        self._vectors: Array = vectors

    def _algorithms(self) -> tuple[str, ...]:
        """Return the trees to build: FLANN cannot save its own composite, which is these two."""
        return ("kdtree", "kmeans") if self.algorithm == "composite" else (self.algorithm,)

    def _build_params(self) -> dict[str, Any]:
        return {
            "trees": self.trees,
            "branching": self.branching,
            "iterations": self.iterations,
            "target_precision": self.target_precision,
            # It seeds with numbers above 0 only.
            "random_seed": self.seed % (1 << 30) + 1,
        }

    # Searching

    def _search(self, queries: Any, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        asked = _fitting_queries(queries) if self.metric == "cosine" else queries
        rows = np.empty((len(asked), k), np.int64)
        distances = np.empty((len(asked), k), np.float32)
        current = job()
        for start, stop in row_spans(len(asked), _BLOCK):
            current.check()
            rows[start:stop], distances[start:stop] = self._found(asked[start:stop], k)
        if self.metric == "cosine":
            # Of unit vectors, the squared distance is 2 - 2·cos.
            distances *= 0.5
            distances[~queries.any(axis=1)] = 1
        return rows, distances

    def _found(self, asked: Array, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        checks = _ALL if self.checks < 0 else self.checks
        if self.algorithm == "autotuned" and self.checks == _CHECKS:
            checks = self._tuned
        options = {"checks": checks, "cores": min(self.threads or job().threads, 1024)}
        answers = [part.search(asked, k, options) for part in self._parts]
        rows, distances = answers[0] if len(answers) == 1 else _merged(answers, k)
        short = np.flatnonzero(np.isinf(distances).any(axis=1))
        if len(short):
            rows[short], distances[short] = search_rows(asked[short], self._vectors, k, "l2")
        return rows, distances

    # Saving

    def _save(self, folder: Path) -> None:
        np.save(folder / _VECTORS_FILE, self._vectors, allow_pickle=False)
        for part in self._parts:
            tree, checks = part.trees(folder)
            if tree is not None:
                save_tree(folder, tree)
            if self.algorithm == "autotuned":
                chosen = "linear" if tree is None else tree.name
                tuned = self._tuned if checks is None else checks
                np.save(folder / _TUNED_FILE, np.array([_CHOICES.index(chosen), tuned]))

    def _load(self, folder: Path) -> None:
        dim = (self._dim or 0) + (self.metric == "cosine")
        vectors = read_array(folder / _VECTORS_FILE, (len(self), dim), "f4")
        _check_numbers(folder / _VECTORS_FILE, vectors)
        self._take(vectors)
        names = self._algorithms()
        if self.algorithm == "autotuned":
            path = folder / _TUNED_FILE
            chosen, checks = read_array(path, (2,), "i8").tolist()
            if not 0 <= chosen < len(_CHOICES) or not -1 <= checks <= _ALL:
                raise ArtifactError(f"{path}: holds {chosen}, {checks}; damaged, make it again")
            names, self._tuned = (_CHOICES[chosen],), _ALL if checks < 0 else checks
        self._parts = [
            Part.built(vectors, {"algorithm": name})
            if name == "linear"  # there is nothing in it but the vectors
            else Part.loaded(load_tree(folder, name, len(self), dim), vectors)
            for name in names
        ]


def _check_numbers(path: Path, vectors: Array) -> None:
    """Refuse NaN: the library sorts by distances, and runs away where they have no order."""
    for start, stop in row_spans(len(vectors), max(1, _LOOKED_AT // vectors.shape[1])):
        block = vectors[start:stop]
        with np.errstate(over="ignore", invalid="ignore"):
            fine = np.isfinite(block.sum()) or np.isfinite(block).all()
        if not fine:
            raise ArtifactError(f"{path}: holds NaN or infinity; damaged, make it again")


# Unit vectors, with one more dimension for zero vectors: 1 there puts them at the squared distance 2
# from every unit vector, and so at the cosine distance 1.


def _fitting_rows(vectors: Array) -> NDArray[np.float32]:
    wide = _fitting_queries(vectors)
    wide[~vectors.any(axis=1), -1] = 1
    return wide


def _fitting_queries(vectors: Array) -> NDArray[np.float32]:
    wide = np.zeros((len(vectors), vectors.shape[1] + 1), np.float32)
    for start, stop in row_spans(len(vectors), _BLOCK):
        wide[start:stop, :-1] = normalised(vectors[start:stop])
    return wide


def _merged(
    answers: list[tuple[NDArray[np.int64], NDArray[np.float32]]], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Put the answers of several trees together; what both found counts once."""
    rows = np.concatenate([found for found, _ in answers], axis=1)
    distances = np.concatenate([near for _, near in answers], axis=1)
    order = np.argsort(rows, axis=1, kind="stable")
    sorted_rows = np.take_along_axis(rows, order, axis=1)
    again = np.zeros(rows.shape, bool)
    repeats = sorted_rows[:, 1:] == sorted_rows[:, :-1]
    np.put_along_axis(again, order[:, 1:], repeats, axis=1)
    distances[again] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `flann`."""
    return [Flann]
