"""Codes, codebooks and fits that the tests of PQk-means share."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import vwkit_pqkmeans_library as door
from hypothesis import strategies as st
from vwkit_pqkmeans import PQKMeans

import vwkit
from vwkit.errors import FewDistinctRows

SEEDS = st.integers(0, 2**16 - 1)


def quantizer(book: Any) -> Any:
    """A fitted pq with this codebook."""
    return PQKMeans.from_centers(np.zeros((1, len(book)), np.uint8), book).quantizer


def whole_book(seed: int, m: int, ks: int, width: int = 2, largest: int = 40) -> np.ndarray:
    """Small whole numbers: every sum is exact in float32, too, and there are many ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, largest, (m, ks, width)).astype(np.float32)


def float_book(seed: int, m: int, ks: int, width: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 20, (m, ks, width)).astype(np.float32)


def some_codes(seed: int, n: int, m: int, ks: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).integers(0, ks, (n, m), dtype=np.uint8)


def fit(codes, book, k, *, job=None, weights=None, **params):
    made = PQKMeans(k=k, **params)
    with warnings.catch_warnings(), vwkit.use_job(job or vwkit.Job(threads=1)):
        warnings.simplefilter("ignore", FewDistinctRows)
        return made.fit(codes, weights, quantizer=book if hasattr(book, "m") else quantizer(book))


def state(fitted: PQKMeans) -> tuple[bytes, ...]:
    objective = np.array(fitted.objective).tobytes()
    return fitted.centers.tobytes(), fitted.labels.tobytes(), objective


@contextlib.contextmanager
def handed_over(few: int, group: int = door.GROUP, rows: int | None = None) -> Iterator[None]:
    """Let tests with few rows go the ways of many: all rows in one call, several groups."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(door, "_FEW", few))
        stack.enter_context(mock.patch.object(door, "GROUP", group))
        if rows is not None:
            stack.enter_context(mock.patch.object(door, "rows_at_a_time", return_value=rows))
        yield
