"""The vocabulary tree: k-means of k-means, as visual words at a million and more.

Each node's rows are split by k-means into at most `branch` children, level by level; the leaves are
the words, and a row finds its word by going down, `branch`·`depth` distances instead of one for each
word (Nistér and Stewénius 2006, "Scalable recognition with a vocabulary tree"; so too in DBoW2).
"""

from __future__ import annotations

from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.errors import ArtifactError, DataError
from vwkit.jobs import job
from vwkit.stream import Stream
from vwkit.types import Array
from vwkit_numba.compiling import compilation_told
from vwkit_numba.passes import Frame, Passes
from vwkit_numba.tree_nodes import Nodes, checked_first, parents
from vwkit_numba.tree_passes import taken_down

__all__ = ["VocabularyTree"]


@vwkit.backend("tree")
class VocabularyTree(vwkit.Clusterer):
    """Hierarchical k-means: at most ``branch ** depth`` words, the leaves of a tree.

    A word is found by going down from the root, each time to the nearest child. That is not always
    the nearest word; a `beam` of several nodes for each level comes nearer to it. `labels` are what
    `predict` gives. The same seed gives the same bytes for any number of threads and any chunk size.

    Attributes
    ----------
    centers : (k, d) float32
        Of the leaves, which are numbered from the root's level down.
    labels : (n,) int32
    objective : list of float
        Mean squared distance to the nodes of each level; the last is of `centers`.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.random.default_rng(0).integers(0, 255, (2000, 16)).astype(np.uint8)
    >>> words = vwkit.create("clusterer", "tree", branch=5, depth=2).fit(rows)
    >>> words.centers.shape, bool((words.predict(rows) == words.labels).all())
    ((25, 16), True)
    """

    library = "numba"
    requires = ("numba",)
    license = "BSD-2-Clause"
    choose = "vocabularies of 10⁴ to 10⁷ words whose look-up must cost microseconds."
    streams = True
    dtypes = ("uint8", "float32")
    supports_weights = True
    fixed_k = False
    deterministic = True
    # Labels are those of predict; it is the nearest word that not all rows come to.
    label_agreement = 0.4

    branch: Annotated[int, annotated_types.Ge(2), annotated_types.Le(1 << 10)] = vwkit.Field(
        default=10, doc="Children of a node; fewer where it holds fewer distinct rows."
    )
    depth: Annotated[int, annotated_types.Ge(1), annotated_types.Le(64)] = vwkit.Field(
        default=6, doc="Levels below the root."
    )
    iterations: vwkit.Positive = vwkit.Field(
        default=25, doc="At most this many updates of the centers of a node."
    )
    beam: Annotated[int, annotated_types.Ge(1), annotated_types.Le(1 << 10)] = vwkit.Field(
        default=1, doc="Nodes kept for each level when a word is looked for."
    )

    _first: NDArray[np.int64]
    _inside: NDArray[np.float32]
    _shift: NDArray[np.float32]
    _scale: float
    _ready: Nodes | None = None

    def _fit(self, data: Any, weights: NDArray[np.float64] | None) -> None:
        from vwkit_numba.tree_fitting import TreeFit

        stream = data if isinstance(data, Stream) else Stream.from_array(data)
        with compilation_told("clusterer tree"):
            TreeFit(self, stream, weights).run()

    def _predict(self, data: Any) -> NDArray[np.int32]:
        nodes = np.zeros(len(data), np.int32)
        if len(data) == 0:
            return nodes
        frame = Frame(self._shift, float(self._scale), False)
        tree = self._nodes(frame)
        passes = Passes(Stream.from_array(data), None, frame, job(), 0)
        try:
            for _ in taken_down(passes, tree, nodes, self.depth, self.beam):
                passes.job.check()
        finally:
            passes.close()
        return np.asarray(tree.words[nodes])

    def path(self, words: Any) -> NDArray[np.int32]:
        """Return the nodes from below the root down to each word, for the scoring of inner nodes.

        Parameters
        ----------
        words : (n,) int
            As `predict` gives them.

        Returns
        -------
        (n, levels) int32
            Node numbers in 1…N − 1, level by level; a word above the last level repeats its own.

        Raises
        ------
        NotFittedError, DataError
            A word is not one of 0…k − 1.
        """
        self._need_fitted()
        given = np.asarray(words)
        k = len(self.centers)
        if given.ndim != 1 or given.dtype.kind not in "iu":
            raise DataError(
                f"words: whole numbers of shape (n,) are needed; got {given.dtype} {given.shape}"
            )
        if len(given) and (given.min() < 0 or given.max() >= k):
            raise DataError(
                f"words: numbers of 0…{k - 1} are needed; got {given.min()}…{given.max()}"
            )
        above = parents(self._first)
        depth = np.zeros(len(above), np.int32)
        levels = 0
        start, stop = 1, int(self._first[1])
        while start < stop:
            levels += 1
            depth[start:stop] = levels
            start, stop = stop, int(self._first[stop])
        at = np.flatnonzero(np.diff(self._first) == 0)[given].astype(np.int32)
        found = np.empty((len(given), levels), np.int32)
        for level in range(levels, 0, -1):
            at = np.where(depth[at] > level, above[at], at)
            found[:, level - 1] = at
        return found

    def _nodes(self, frame: Frame) -> Nodes:
        if self._ready is None:
            leaf = np.diff(self._first) == 0
            inside = np.flatnonzero(~leaf)
            parts = [
                (np.flatnonzero(leaf), self.centers),
                (inside[inside > 0], self._inside),
            ]
            self._ready = Nodes.of(self._first, parts, frame)
        return self._ready

    def _state(self) -> dict[str, Array]:
        ready = self.__dict__.pop("_ready", None)  # made again from the rest
        try:
            return super()._state()
        finally:
            if ready is not None:
                self._ready = ready

    def _restore(self, state: dict[str, Array]) -> None:
        first = checked_first(state["_first"])
        leaves = int(np.count_nonzero(np.diff(first) == 0))
        dim = self._dim
        shapes = {
            "centers": (leaves, dim),
            "_inside": (max(0, len(first) - 2 - leaves), dim),
            "_shift": (dim,),
            "_scale": (),
        }
        for name, shape in shapes.items():
            if state[name].shape != shape or state[name].dtype.kind != "f":
                raise ArtifactError(
                    f"tree: {name.strip('_')} of shape {shape} are needed for {leaves} words; "
                    f"got {state[name].dtype} {state[name].shape}; damaged, make it again"
                )
            if not np.isfinite(state[name]).all():
                raise ArtifactError(f"tree: {name.strip('_')} hold NaN or infinity; damaged")
        labels = state["labels"]
        if labels.ndim != 1 or labels.dtype != np.int32:
            raise ArtifactError("tree: labels of shape (n,) and dtype int32 are needed; damaged")
        if len(labels) and (labels.min() < 0 or labels.max() >= leaves):
            raise ArtifactError(f"tree: labels beyond the {leaves} words; damaged, make it again")
        super()._restore({**state, "_first": first})
