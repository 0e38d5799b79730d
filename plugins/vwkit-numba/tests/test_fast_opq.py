"""Product quantization after a rotation: that it is one, that it pays, that it is repeatable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vwkit_numba.pq_rotation import Turns, turned

import vwkit
from vwkit import Stream
from vwkit.errors import ArtifactError, DataError
from vwkit.reference import pq as reference


def _made(name: str = "fast-opq", **params: Any) -> Any:
    return vwkit.create("quantizer", name, **params)


def _mixed(rows: int, dim: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Rows whose dimensions depend on each other across slices, with few strong directions."""
    rng = np.random.default_rng(seed)
    spread = 30 * 0.6 ** np.arange(dim)
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(dim, dim)))[0]
    return np.asarray((rng.normal(size=(rows, dim)) * spread) @ turn + 5, np.float32)


def _error(quantizer: Any, rows: Any) -> float:
    decoded = quantizer.decode(quantizer.encode(rows))
    return float(((np.asarray(rows, np.float64) - decoded) ** 2).sum(axis=1).mean())


@settings(deadline=None)  # what is not yet compiled may take its time
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**31), st.booleans())
def test_turned_is_the_product(rows: int, dim: int, seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    x: Any = rng.integers(0, 256, (rows, dim)).astype(np.uint8)
    if not whole:
        x = rng.normal(size=(rows, dim)).astype(np.float32)
    matrix = rng.normal(size=(dim, dim)).astype(np.float32)
    found = turned(x, matrix, 2)
    assert np.allclose(found, x.astype(np.float64) @ matrix, rtol=1e-4, atol=1e-4 * 255)
    alone = np.concatenate([turned(x[i : i + 1], matrix, 1) for i in range(rows)])
    assert found.tobytes() == alone.tobytes()


def test_rotation_pays_where_dimensions_depend_on_each_other() -> None:
    rows, unseen = _mixed(4000, 16), _mixed(1000, 16, seed=1)
    plain = _made("fast-pq", m=4, ks=16).fit(rows)
    fitted = _made(m=4, ks=16).fit(rows)
    assert np.allclose(fitted.rotation @ fitted.rotation.T, np.eye(16), atol=1e-5)
    assert _error(fitted, unseen) < 0.7 * _error(plain, unseen)


def test_where_slices_are_right_already_nothing_is_lost() -> None:
    # Four groups of dimensions that know nothing of each other, each with 16 places: a random start
    # never finds them again.
    rng = np.random.default_rng(0)
    places = rng.normal(0, 50, (4, 16, 4))
    which = rng.integers(0, 16, (3000, 4))
    rows = np.concatenate([places[j, which[:, j]] for j in range(4)], axis=1)
    rows = np.asarray(rows + rng.normal(0, 1, rows.shape), np.float32)
    plain = _error(_made("fast-pq", m=4, ks=16).fit(rows), rows)
    assert _error(_made(m=4, ks=16).fit(rows), rows) < 1.1 * plain


def test_each_turn_leaves_a_rotation() -> None:
    rows = _mixed(600, 12)
    for turns in (1, 2, 7):
        matrix = Turns(rows, 3, 16, 0, vwkit.Job()).run(turns)
        assert np.allclose(matrix @ matrix.T, np.eye(12), atol=1e-5)


def test_codes_are_the_nearest_codewords_to_the_rotated_rows() -> None:
    rows = _mixed(900, 12)
    fitted = _made(m=3, ks=20, rotations=3).fit(rows)
    moved = rows.astype(np.float64) @ fitted.rotation.T.astype(np.float64)
    codes = np.asarray(fitted.encode(rows))

    def apart(of: Any) -> Any:
        return ((moved - reference.decode(of, fitted.codebook)) ** 2).sum(axis=1)

    best = apart(reference.encode(moved, fitted.codebook))
    assert (apart(codes) <= best * (1 + 1e-5) + 1e-6).all()
    decoded = reference.decode(codes, fitted.codebook) @ fitted.rotation
    assert np.allclose(fitted.decode(codes), decoded, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_same_bytes_for_any_threads_and_chunks(dtype: str) -> None:
    rows = np.clip(_mixed(6000, 8) + 100, 0, 255).astype(dtype)

    def chunks(step: int) -> Stream:
        return Stream(
            lambda: (rows[i : i + step] for i in range(0, len(rows), step)),
            dim=8,
            dtype=rows.dtype,
        )

    found = set()
    for threads in (1, 2, 5):
        with vwkit.use_job(vwkit.Job(threads=threads)):
            for data in (rows, np.asfortranarray(rows), chunks(1001)):
                fitted = _made(m=2, ks=16, rotations=3).fit(data)
                codes = fitted.encode(data)
                codes = codes.toarray() if isinstance(codes, Stream) else np.asarray(codes)
                found.add((fitted.rotation.tobytes(), fitted.codebook.tobytes(), codes.tobytes()))
    assert len(found) == 1


class _StopsError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3, 4])
def test_goes_on_from_a_checkpoint(tmp_path: Path, after: int) -> None:
    rows = _mixed(2000, 8)
    whole = _made(m=2, ks=16, rotations=4).fit(rows)

    class Cut(vwkit.Job):
        def checkpoint(self, step: int, arrays: Any) -> None:
            self._free_from = 0.0  # keep every one
            super().checkpoint(step, arrays)
            if step == after:
                raise _StopsError

    with vwkit.use_job(Cut(threads=2, folder=tmp_path, resumable=True)), pytest.raises(_StopsError):
        _made(m=2, ks=16, rotations=4).fit(rows)
    with vwkit.use_job(vwkit.Job(threads=1, folder=tmp_path, resumable=True)):
        again = _made(m=2, ks=16, rotations=4).fit(rows)
    assert again.rotation.tobytes() == whole.rotation.tobytes()
    assert again.codebook.tobytes() == whole.codebook.tobytes()


@pytest.mark.parametrize("exponent", [-100, -30, 0, 60, 110])
def test_odd_sizes_are_as_good(exponent: int) -> None:
    rows = _mixed(400, 8)
    plain = _error(_made(m=2, ks=8, rotations=3).fit(rows), rows)
    scaled = np.ldexp(rows, exponent).astype(np.float32)
    fitted = _made(m=2, ks=8, rotations=3).fit(scaled)
    decoded = fitted.decode(fitted.encode(scaled)).astype(np.float64)
    error = ((np.ldexp(decoded, -exponent) - rows) ** 2).sum(axis=1).mean()
    assert error < 1.01 * plain


def test_rows_that_cannot_be_rotated_are_refused() -> None:
    rows = _mixed(40, 8)
    rows[3, 2] = 2e38
    with pytest.raises(DataError, match="scale the vectors down"):
        _made(m=2, ks=8).fit(rows)


def test_one_direction_and_constant_rows() -> None:
    rows = np.ones((50, 4), np.float32)
    rows[:, 0] = np.arange(50)
    fitted = _made(m=2, ks=8, rotations=3).fit(rows)
    assert np.isfinite(fitted.rotation).all()
    assert _error(fitted, rows) < 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda turn: turn * 2,
        lambda turn: turn[:3],
        lambda turn: np.full_like(turn, np.nan),
        lambda turn: turn.astype(np.float64),
    ],
)
def test_a_damaged_rotation_is_refused(damage: Any) -> None:
    fitted = _made(m=2, ks=8, rotations=2).fit(_mixed(60, 4))
    state = fitted._state()
    state["rotation"] = damage(state["rotation"])
    other = _made(m=2, ks=8, rotations=2)
    other._dim = 4
    with pytest.raises(ArtifactError, match="orthonormal"):
        other._restore(state)
