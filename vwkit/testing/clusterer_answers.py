"""What the tests of a clusterer are made of: data of its kind, and a check of every fit."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import vwkit
from vwkit.clusterer import Clusterer
from vwkit.quantizer import Quantizer
from vwkit.reference import lloyd, pq, pqkmeans
from vwkit.reference.distances import METRICS, distances
from vwkit.testing.asking import Answer
from vwkit.testing.comparing import all_finite, same_form, same_numbers
from vwkit.testing.data import Rows, ascending, noise, numbers
from vwkit.testing.long_work import LongWork
from vwkit.testing.vector_suite import takes_floats
from vwkit.types import Array

__all__ = [
    "ClustererAnswers",
    "codes_objective",
    "grid_quantizer",
    "lloyd_objective",
    "quantizer",
    "wide_quantizer",
]

_M, _KS = 4, 16
# So much of a row's own distance may be lost to rounding in float64.
_EXACT = 1e-12


class ClustererAnswers(LongWork, suite=True):
    """Helpers of `ClustererTests`."""

    role = Clusterer

    label_agreement: ClassVar[float | None] = None
    objective_factor: ClassVar[float] = 1.2

    def _with_k(self, k: int, **changes: Any) -> Any:
        return self._make(**({"k": k} if self._offers("k") else {}), **changes)

    def _domain_is_codes(self) -> bool:
        return bool(self._make().consumes == "codes")

    def _fixed_k(self) -> bool:
        return bool(self._make().fixed_k and self._offers("k"))

    def _agreement(self, clusterer: Any) -> float:
        declared: float = clusterer.label_agreement
        return declared if self.label_agreement is None else self.label_agreement

    def _is_certain(self, clusterer: Any) -> bool:
        """Tell whether its labels must be those of float64 distances."""
        exact = clusterer.has_centers and clusterer.deterministic
        return bool(exact and self._agreement(clusterer) == 1 and self._metric(clusterer) == "l2")

    def _quantizer(self, dim: int = 8) -> Quantizer:
        return quantizer(dim, self._seed(0))

    def _as_domain(self, rows: Array) -> Array:
        """Return rows as the clusterer takes them: as they are, or as codes."""
        if not self._domain_is_codes():
            return rows if takes_floats(self._make()) else np.clip(np.abs(np.floor(rows)), 0, 255)
        codes: Array = self._quantizer(rows.shape[1]).encode(np.asarray(rows, np.float32))
        return codes

    def _rows(self, seed: int = 0, rows: int | None = None, dim: int | None = None) -> Array:
        if not self._domain_is_codes():
            return super()._rows(seed, rows, dim)
        width = _M * max(1, -(-(dim or self._dim()) // _M))
        return self._as_domain(self._numbers(seed, rows or self._count(), width))

    def _drawn(self, recipe: Rows) -> Array:
        drawn = recipe.make()
        columns = -(-drawn.shape[1] // self._step()) * self._step()
        if self._domain_is_codes():
            columns = 8
        times = -(-self._count(len(drawn)) // len(drawn)), -(-columns // drawn.shape[1])
        return self._as_domain(np.ascontiguousarray(np.tile(drawn, times)[:, :columns]))

    def _wide(self) -> int:
        return 8 if self._domain_is_codes() else self._dim(4)

    def _blobs(self, rows: int, groups: int = 10, seed: int = 1) -> NDArray[np.float32]:
        return self._mixture(seed, self._count(rows), self._wide(), groups)

    def _fit(self, backend: Any, data: Any) -> Any:
        if not self._domain_is_codes():
            return backend.fit(data)
        return backend.fit(data, quantizer=self._quantizer())

    def _fit_weighted(self, backend: Any, data: Any, weights: Any) -> Any:
        if not self._domain_is_codes():
            return backend.fit(data, weights)
        return backend.fit(data, weights, quantizer=self._quantizer())

    def _usable(self, fitted: Any) -> bool:
        return bool(fitted.supports_predict)

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        __tracebackhide__ = True
        assert len(first) == len(second), f"{len(second)} answers instead of {len(first)} {why}"
        for name, before, after in zip(
            ("labels", "centers", "objective", "predicted"), first, second, strict=False
        ):
            same_form(before, after, f"as {name} {why}")
            limit = 0.0
            if not exact and before.dtype.kind == "f":
                limit = 1e-4 * max(1.0, float(np.abs(before).max(initial=0)))
            elif not exact and np.count_nonzero(before != after) <= 0.05 * before.size:
                continue  # rounding may turn the label of a row between two centers
            same_numbers(before, after, limit, f"other {name} {why}")

    def _assert_same_rows(self, first: Answer, second: Answer, why: str) -> None:
        __tracebackhide__ = True
        for before, after in zip(first, second, strict=True):
            same_numbers(before, after, 0.0, f"other labels {why}")

    # The reference

    def _distinct(self, rows: Array) -> int:
        """Return the number of rows that differ, for cosine in direction; at least 1."""
        if not self._domain_is_codes() and self._metric(self._make()) == "cosine":
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            rows = np.round(rows[lengths[:, 0] > 0] / lengths[lengths[:, 0] > 0], 4) + 0.0
        return max(1, len(np.unique(rows, axis=0)))

    def _metric(self, clusterer: Any) -> str:
        metric = getattr(clusterer, "metric", "l2")
        return metric if metric in METRICS else "l2"

    def _table(self, clusterer: Any, data: Array, centers: Any) -> NDArray[np.float64]:
        """Return the distance of every row to every center, (n, k), by the reference."""
        if self._domain_is_codes():
            return pq.symmetric_distance(data, centers, clusterer.quantizer.codebook)
        return distances(np.asarray(data, np.float64), centers, self._metric(clusterer))

    def _slack(self, clusterer: Any, data: Array) -> NDArray[np.float64]:
        """Return how far float32 distances of each row may be off, (n, 1)."""
        if self._domain_is_codes():
            rows, book = clusterer.quantizer.decode(data), clusterer.quantizer.codebook
            most = float((book.astype(np.float64) ** 2).sum(axis=2).max(axis=1).sum())
        elif self._metric(clusterer) == "cosine":
            return np.full((len(data), 1), 2e-5)
        else:
            rows = np.asarray(data, np.float64)
            most = float((np.asarray(clusterer.centers, np.float64) ** 2).sum(axis=1).max())
        size = (rows.astype(np.float64) ** 2).sum(axis=1) + most
        slack: NDArray[np.float64] = 1e-5 * size[:, None]
        return slack

    def _nearest_share(
        self, clusterer: Any, data: Array, labels: Array, exact: bool = False
    ) -> float:
        """Return the share of rows whose label is that of a nearest center, ties aside."""
        table = self._table(clusterer, data, clusterer.centers)
        own = table[np.arange(len(data)), labels]
        best = table.min(axis=1, initial=np.inf)
        slack = self._slack(clusterer, data)[:, 0] * (_EXACT / 1e-5 if exact else 1)
        return float((own <= best + slack).mean())

    def _means(self, fitted: Any, rows: Array, weights: NDArray[np.float64] | None = None) -> Array:
        """Return the best centers for the labels that were found, by the reference."""
        labels, centers = fitted.labels, fitted.centers
        if self._domain_is_codes():
            return pqkmeans.update(rows, labels, centers, fitted.quantizer.codebook, weights)
        return lloyd.update(rows, labels, len(centers), weights, centers)

    # Checking a fit

    def _verify(self, fitted: Any, data: Array) -> None:
        __tracebackhide__ = True
        self._check_form(fitted, data)
        if fitted.has_centers and not (fitted.labels < 0).any():
            self._check_objective(fitted, data)

    def _check_form(self, fitted: Any, data: Array) -> None:
        __tracebackhide__ = True
        labels = fitted.labels
        same_form(np.empty(len(data), np.int32), labels, "as labels")
        lowest = 0 if self._fixed_k() else -1
        assert labels.min() >= lowest, f"label {labels.min()} is below {lowest}"
        if not fitted.has_centers:
            return
        centers = np.asarray(fitted.centers)
        wide = data.shape[1]
        assert centers.ndim == 2, f"centers are (k, d); got shape {centers.shape}"
        assert centers.shape[1] == wide, f"centers of {centers.shape[1]} columns for {wide}"
        if self._domain_is_codes():
            assert centers.dtype == data.dtype, f"centers of {centers.dtype} for {data.dtype} codes"
            ks = fitted.quantizer.codebook.shape[1]
            assert int(centers.max()) < ks, f"a center holds {centers.max()}; codes end at {ks - 1}"
        else:
            assert centers.dtype == np.float32, f"centers of {centers.dtype}, not float32"
            all_finite(centers, "centers")
        if self._fixed_k():
            assert len(centers) == fitted.k, f"{len(centers)} centers for k = {fitted.k}"
        assert labels.max() < len(centers), f"label {labels.max()} of {len(centers)} centers"
        assert len(fitted.objective) > 0, "objective holds one number per iteration, at least one"
        all_finite(np.asarray(fitted.objective, np.float64), "objective")

    def _check_objective(
        self,
        fitted: Any,
        data: Array,
        weights: NDArray[np.float64] | None = None,
        exact: bool = False,
    ) -> None:
        __tracebackhide__ = True
        table = self._table(fitted, data, fitted.centers)
        own = table[np.arange(len(data)), fitted.labels]
        true = float(np.average(own, weights=weights))
        limit = 1e-5 * true + (0 if exact else float(self._slack(fitted, data).mean()))
        found = float(fitted.objective[-1])
        assert abs(found - true) <= limit, (
            f"objective[-1] is {found:.7g}, but the mean distance of the rows to the centers of "
            f"their labels is {true:.7g}{_guess(found, true, table, weights)}"
        )

    def _judge_share(self, what: str, share: float, wanted: float) -> None:
        __tracebackhide__ = True
        said = " (`label_agreement`, 1 by default: an approximate clusterer declares less)"
        self._judge(what, share, at_least=wanted, said=said)

    def _need_centers(self) -> None:
        if not self._make().has_centers:
            pytest.skip("it has no centers")

    def _need_fixed_k(self) -> None:
        if not self._fixed_k():
            pytest.skip("its number of clusters is not fixed")


def _guess(
    found: float, true: float, table: NDArray[np.float64], weights: NDArray[np.float64] | None
) -> str:
    """Say what a wrong objective may be instead."""
    for value, text in (
        (np.sqrt(true), "its square root"),
        (true * len(table), "the sum, not the mean"),
        (np.average(table.min(axis=1), weights=weights), "that of the nearest centers"),
    ):
        if abs(found - value) <= 1e-3 * abs(value):
            return f" ({text} was given)"
    return ""


@functools.lru_cache(16)
def quantizer(dim: int, seed: int) -> Quantizer:
    """Return a fitted product quantizer that makes the codes of the tests."""
    made = vwkit.create("quantizer", "pq", m=_M, ks=_KS, seed=1)
    assert isinstance(made, Quantizer)
    spread = np.concatenate([numbers(seed, 400, dim), noise(seed + 1, 400, dim) * 50])
    return made.fit(spread)


@functools.cache
def grid_quantizer() -> Quantizer:
    """Return one whose codewords are pairs of 0…3: its distances are whole, and often tie."""
    made = vwkit.create("quantizer", "pq", m=_M, ks=_KS)
    assert isinstance(made, Quantizer)
    pairs = np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=2).reshape(-1, 2)
    return made.fit(np.tile(pairs, (2, _M)).astype(np.float32))


@functools.lru_cache(4)
def wide_quantizer(seed: int) -> Quantizer:
    """Return one with so many codewords that codes take two bytes."""
    made = vwkit.create("quantizer", "pq", m=2, ks=300, iterations=2)
    assert isinstance(made, Quantizer)
    return made.fit(noise(seed, 700, 4))


@functools.lru_cache(64)
def lloyd_objective(seed: int, rows: int, dim: int, floats: bool) -> float:
    """Return the objective of the reference k-means on sorted noise."""
    data = ascending(noise(seed, rows, dim) * 50)
    if not floats:
        data = np.clip(np.abs(np.floor(data)), 0, 255)
    start = lloyd.kmeans_plus_plus(data, 8, seed)
    return lloyd.lloyd(data, start, 12)[2][-1]


@functools.lru_cache(64)
def codes_objective(seed: int, rows: int, coded: Quantizer) -> float:
    """Return the objective of the reference k-means of codes on sorted noise."""
    codes = coded.encode(ascending(noise(seed, rows, 8) * 50))
    start = np.unique(codes, axis=0)
    start = start[np.random.default_rng(seed).permutation(len(start))[:8]]
    return pqkmeans.pqkmeans(codes, coded.codebook, start, 12)[2][-1]
