"""The clusterer `agglomerative`: hierarchical clustering, cut where the user likes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import annotated_types
import numpy as np
import pydantic
from numpy.typing import NDArray

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError
from vwkit.estimates import Estimate
from vwkit.jobs import job, one_blas_thread
from vwkit.types import Array
from vwkit_scipy.bounded import bounded
from vwkit_scipy.cut import by_count, by_height, check_tree, numbered
from vwkit_scipy.in_memory import in_memory

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Agglomerative"]

_log = logging.getLogger("vwkit.scipy")

_CUTS = ("similarity", "height", "clusters")
_OF_MEANS = ("ward", "centroid", "median")
# SciPy holds the distances of all pairs twice, and a flag for each.
_TABLE_BYTES = 8.5
# A quarter of the memory for a table of the groups that are left.
_TABLE_PART = 32
_FEW_GROUPS, _MOST_GROUPS = 2048, 16_384
# With more rows lists are quicker where a group tells all by its mean, or single links count; with
# many more they are about as quick for the others, in a small part of the memory.
_FEW_ROWS, _MANY_ROWS = 3000, 10_000
_QUICK = ("single", "ward")
_OF_COSINES = ("single", "average", "weighted")

_Height = Annotated[float, annotated_types.Ge(0)]


@vwkit.backend("agglomerative")
class Agglomerative(vwkit.Clusterer):
    """Hierarchical clustering: the nearest two groups are joined until one is left, then cut.

    It is cut at the height (1 − `similarity`)·D, D being the largest distance between two rows:
    0 puts everything together, 1 only what is equal. Where to cut may be changed after the fit, and
    then only the cut is done again.

    Attributes
    ----------
    tree : (n − 1, 4) float64
        A linkage as SciPy has it: the two that are joined, the height, the number of rows.
    labels : (n,) int32
        The largest cluster is 0; of equal ones, the one with the first row. −1 is in no cluster.
    diameter : float
        D.

    Notes
    -----
    It has no centers, so `objective` is empty, and it cannot label new rows.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> rows = np.array([[0.0], [1.0], [10.0], [11.0], [12.0], [50.0]])
    >>> made = vwkit.create("clusterer", "agglomerative", similarity=0.9).fit(rows)
    >>> made.labels.tolist()
    [1, 1, 0, 0, 0, -1]
    >>> made.similarity = 0.5
    >>> made.labels.tolist()
    [0, 0, 0, 0, 0, -1]
    """

    library = "scipy"
    requires = ("scipy",)
    license = "BSD-3-Clause"
    choose = "groups of any number and size among up to some hundred thousand fingerprints."
    dtypes = ("float32", "float64", "uint8")
    supports_predict = False
    has_centers = False
    fixed_k = False
    hierarchical = True
    deterministic = True
    late = frozenset({*_CUTS, "scale", "min_size"})

    linkage: Literal["average", "single", "complete", "weighted", "ward", "centroid", "median"] = (
        vwkit.Field(default="average", doc="How far two groups are apart, as SciPy names it.")
    )
    distance: Literal["euclidean", "cosine"] = vwkit.Field(
        default="euclidean", doc="How far two rows are apart; euclidean is not squared."
    )
    method: Literal["auto", "table", "lists"] = vwkit.Field(
        default="auto",
        doc="Both give the same tree: a table of all distances, or lists of the nearest, which need "
        "little memory; auto takes what is quicker and fits.",
    )
    similarity: vwkit.Fraction | None = vwkit.Field(
        default=0.5,
        doc="Cut at (1 − similarity)·D: 0 is one cluster, 1 only what is equal.",
    )
    height: _Height | None = vwkit.Field(default=None, doc="Cut there; instead of similarity.")
    clusters: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Cut so that at most so many groups are left; instead of similarity."
    )
    scale: Literal["diameter", "root"] = vwkit.Field(
        default="diameter", doc="D: the largest distance of two rows, or the height of the tree."
    )
    min_size: vwkit.Positive = vwkit.Field(
        default=2, doc="Smaller groups are no clusters: their label is −1."
    )

    _cuts: dict[tuple[Any, ...], NDArray[np.int32]] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_cut(cls, given: Any) -> Any:
        """Leave the default of similarity away where another cut is asked for."""
        params = dict(given.kwargs or {})
        if "similarity" not in params and any(params.get(name) is not None for name in _CUTS):
            params["similarity"] = None
        return type(given)(given.args, params)

    def __post_init__(self) -> None:
        asked = [name for name in _CUTS if getattr(self, name) is not None]
        if len(asked) != 1:
            many = f"{' and '.join(asked)} both say" if asked else "nothing says"
            raise ParameterError.of(
                asked[-1] if asked else "similarity",
                f"{many} where to cut; give one of {', '.join(_CUTS)}",
            )
        if self.linkage in _OF_MEANS and self.distance != "euclidean":
            raise ParameterError.of(
                "distance",
                f"{self.linkage} is about means and needs euclidean; for directions put the "
                "transform l2-norm before it, or take linkage average",
            )

    # Fitting

    def _fit(self, data: Array, weights: NDArray[np.float64] | None) -> None:
        self._cuts = None
        taken = self._method(*data.shape)
        if taken == "table":
            self.tree, self.diameter = in_memory(data, self.linkage, self.distance)
        else:
            fit = max(2, math.isqrt(job().memory // _TABLE_PART))
            groups = min(_MOST_GROUPS, fit, max(_FEW_GROUPS, len(data) // 4))
            with one_blas_thread():
                self.tree, self.diameter = bounded(data, self.linkage, self.distance, groups)
        self.objective = []

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate:
        budget = job().memory
        table = _TABLE_BYTES * rows**2 + 24 * rows * dim
        fits = table <= budget and (self.method == "table" or rows <= self._table_rows)
        taken = self.method == "table" or (self.method == "auto" and fits)
        lists = min(budget, _TABLE_PART * _MOST_GROUPS**2) / 2 + rows * (24.0 * dim + 200)
        return Estimate(
            work=float(rows) ** 2 * (dim + 40),
            memory=table if taken else min(table, lists),
            least=table if self.method == "table" else 40.0 * rows,
            disk=44.0 * rows,
        )

    @property
    def _table_rows(self) -> float:
        """With more rows lists are taken, though a table may fit."""
        if self.linkage in (_OF_COSINES if self.distance == "cosine" else _QUICK):
            return _FEW_ROWS
        return math.inf if self.linkage in ("centroid", "median") else _MANY_ROWS

    def _method(self, rows: int, dim: int) -> str:
        """Say how the tree is made, and note it."""
        needed = _TABLE_BYTES * rows**2 + 24 * rows * dim
        fits = needed <= job().memory
        if self.method == "table" and not fits:
            raise DataError(
                f"agglomerative: a table of the distances of {rows:,} rows needs "
                f"{needed / 1e9:,.1f} GB and {job().memory / 1e9:,.1f} GB may be used; "
                "take method lists, which makes the same tree in less, or allow more memory"
            )
        taken = self.method
        if taken == "auto":
            taken = "table" if fits and rows <= self._table_rows else "lists"
        _log.info(
            "agglomerative: %s linkage of %s rows by %s",
            self.linkage,
            f"{rows:,}",
            "a table of all distances" if taken == "table" else "lists of nearest groups",
        )
        return taken

    # Cutting

    def __setattr__(self, name: str, value: Any) -> None:
        if not (self._fitted and name in _CUTS and value is not None):
            super().__setattr__(name, value)
            return
        before = {other: getattr(self, other) for other in _CUTS}
        vars(self).update(dict.fromkeys(_CUTS))  # the new one replaces the old one
        try:
            super().__setattr__(name, value)
        except BaseException:
            vars(self).update(before)
            raise

    def with_late(self, values: Mapping[str, Any]) -> Self:
        """Return a shallow copy with other late parameters; the tree is shared.

        Raises
        ------
        ParameterError
            A parameter is not late, or two of them say where to cut.
        """
        asked = [name for name in _CUTS if values.get(name) is not None]
        if len(asked) > 1:
            raise ParameterError(f"{' and '.join(asked)} both say where to cut; give one of them")
        return super().with_late(values)

    @property
    def cut_height(self) -> float | None:
        """Where the tree is cut; None if a number of clusters is asked for."""
        self._need_tree()
        if self.similarity is None:
            return self.height
        top = float(self.tree[:, 2].max(initial=0.0))
        return (1 - self.similarity) * (top if self.scale == "root" else self.diameter)

    @property
    def labels(self) -> NDArray[np.int32]:  # type: ignore[override]
        """The cluster of each row, (n,) int32; −1 in none."""
        self._need_tree()
        key = tuple(getattr(self, name) for name in sorted(self.late))
        if self._cuts is None or key not in self._cuts:
            height = self.cut_height
            groups = (
                by_count(self.tree, self.clusters or 1)
                if height is None
                else by_height(self.tree, height)
            )
            labels = numbered(groups, self.min_size)
            labels.flags.writeable = False
            self._cuts = {key: labels}
        return self._cuts[key]

    def _need_tree(self) -> None:
        if "tree" not in vars(self):  # the core looks at the labels before it says fitted
            self._need_fitted()

    # Saving

    def _state(self) -> dict[str, Array]:
        return {
            "tree": self.tree,
            "diameter": np.array(self.diameter),
            "rows": np.array(len(self.tree) + 1),
        }

    def _restore(self, state: dict[str, Array]) -> None:
        missing = [name for name in ("tree", "rows", "diameter") if name not in state]
        if missing:
            raise ArtifactError(f"the saved tree is damaged: it has no {missing[0]}; make it again")
        rows, diameter = state["rows"], state["diameter"]
        fine = rows.shape == () and rows.dtype == np.int64 and rows >= 1
        if not fine or diameter.shape != () or not np.isfinite(diameter) or diameter < 0:
            raise ArtifactError("the saved tree is damaged: rows or diameter; make it again")
        self.tree = check_tree(state["tree"], int(rows))
        self.diameter = float(diameter)
        self.objective = []
