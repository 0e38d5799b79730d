"""Compiling takes a while: it is told, and only when it happens."""

from __future__ import annotations

import logging

import numba
import pytest
from vwkit_numba.compiling import compilation_told


def test_compiling_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    @numba.njit
    def inner(x: int) -> int:
        return x + 1

    @numba.njit
    def outer(x: int) -> int:
        return inner(x) * 2

    with caplog.at_level(logging.INFO, "vwkit"), compilation_told("clusterer some"):
        assert outer(1) == 4
        assert outer(2.5) == 7
    first, last = (record.getMessage() for record in caplog.records)
    assert first == "clusterer some: compiling its kernels, up to half a minute, once"
    assert last.startswith("clusterer some: compiled for ")
    caplog.clear()
    with caplog.at_level(logging.INFO, "vwkit"), compilation_told("clusterer some"):
        outer(3)
    assert not caplog.records


def test_errors_pass_through() -> None:
    with pytest.raises(ValueError, match="no"), compilation_told("x"):
        raise ValueError("no")
