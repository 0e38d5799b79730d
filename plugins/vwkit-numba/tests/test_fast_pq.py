from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from vwkit import Stream
from vwkit.errors import ArtifactError, DataError, FewDistinctRows, ParameterError
from vwkit.reference import pq as reference


def _descriptors(rows: int, dim: int, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    centers = rng.gamma(0.6, 40, (40, dim))
    found = centers[rng.integers(0, 40, rows)] + rng.normal(0, 15, (rows, dim))
    return np.clip(found, 0, 255).astype(np.uint8)


def _made(**params: Any) -> Any:
    return vwkit.create("quantizer", "fast-pq", **params)


def _distances(rows: Any, book: Any, codes: Any) -> Any:
    apart = np.asarray(rows, np.float64) - reference.decode(codes, book)
    return (apart**2).reshape(len(rows), len(book), -1).sum(axis=2)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("dim", "m", "ks"), [(1, 1, 3), (10, 2, 7), (128, 4, 256), (51, 3, 300)])
def test_codes_are_the_reference_s(dim: int, m: int, ks: int, dtype: str) -> None:
    rows = _descriptors(2500, dim).astype(dtype)
    if dtype == "float32":
        rows += np.random.default_rng(1).normal(0, 1, rows.shape).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDistinctRows)
        fitted = _made(m=m, ks=ks).fit(rows)
    codes = np.asarray(fitted.encode(rows))
    assert codes.dtype == (np.uint8 if ks <= 256 else np.uint16)
    wanted = reference.encode(rows, fitted.codebook)
    own = _distances(rows, fitted.codebook, codes)
    best = _distances(rows, fitted.codebook, wanted)
    # Another code only where float64 itself cannot tell which is nearer.
    assert (own <= best * (1 + 1e-12)).all()
    assert (codes == wanted).mean() > 0.999


@settings(deadline=None)  # what is not yet compiled may take its time
@given(
    seed=st.integers(0, 2**31),
    exponent=st.integers(-140, 120),
    offset=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
    heavy=st.booleans(),
)
def test_codes_of_odd_floats(seed: int, exponent: int, offset: float, heavy: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_cauchy((90, 6)) if heavy else rng.normal(0, 1, (90, 6))
    with np.errstate(over="ignore", under="ignore"):
        rows = np.clip((rows + offset) * 2.0**exponent, -3e38, 3e38).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDistinctRows)
        fitted = _made(m=2, ks=9).fit(rows)
    assert np.isfinite(fitted.codebook).all()
    other = np.concatenate([rows, rows[:5] * np.float32(0.5), -rows[:5]])
    own = _distances(other, fitted.codebook, np.asarray(fitted.encode(other)))
    best = _distances(other, fitted.codebook, reference.encode(other, fitted.codebook))
    assert (own <= best * (1 + 1e-12)).all()


@settings(deadline=None)  # what is not yet compiled may take its time
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_codes_of_ties(seed: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 4, (80, 2 * dim)).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDistinctRows)
        fitted = _made(m=2, ks=6).fit(rows)
    # Codewords on a coarse grid, some of them twice: rows lie half-way between.
    fitted.codebook = rng.integers(0, 3, (2, 6, dim)).astype(np.float32) * 2 - 1
    for given_rows in (rows, rows.astype(np.float32)):
        codes = np.asarray(fitted.encode(given_rows))
        assert np.array_equal(codes, reference.encode(rows, fitted.codebook))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_same_bytes_for_any_threads_and_chunks(dtype: str) -> None:
    rows = _descriptors(30_000, 24).astype(dtype)

    def chunks(step: int) -> Stream:
        return Stream(
            lambda: (rows[i : i + step] for i in range(0, len(rows), step)),
            dim=24,
            dtype=rows.dtype,
        )

    books, codes = [], []
    for threads in (1, 2, 5):
        with vwkit.use_job(vwkit.Job(threads=threads)):
            for data in (rows, np.asfortranarray(rows), chunks(7001), chunks(999)):
                # 64·16 rows and twice that and so on: several parts.
                fitted = _made(m=3, ks=16, train_rows=25_000).fit(data)
                found = fitted.encode(data)
                books.append(fitted.codebook.tobytes())
                codes.append(
                    (np.concatenate(list(found)) if isinstance(found, Stream) else found).tobytes()
                )
    assert len(set(books)) == 1
    assert len(set(codes)) == 1


def test_training_is_as_good_as_plain_k_means() -> None:
    rows, others = _descriptors(12_000, 32), _descriptors(4_000, 32)[::-1]
    ours = _made(m=4, ks=32).fit(rows)
    theirs = vwkit.create("quantizer", "pq", m=4, ks=32).fit(rows)
    ratio = reference.distortion(others, ours.codebook) / reference.distortion(
        others, theirs.codebook
    )
    assert ratio < 1.01


def test_bytes_too_coarse_for_the_codewords() -> None:
    # One number is far apart and the others are not: rounded to bytes, their codewords are equal.
    rng = np.random.default_rng(0)
    rows = rng.integers(100, 104, (6000, 4)).astype(np.uint8)
    rows[:, 0] = rng.choice([0, 255], 6000)
    fitted = _made(m=1, ks=32).fit(rows)
    theirs = vwkit.create("quantizer", "pq", m=1, ks=32).fit(rows)
    ours, plain = (reference.distortion(rows, one.codebook) for one in (fitted, theirs))
    assert ours < 1.05 * plain


def test_no_codeword_is_wasted() -> None:
    # Nearly all rows are equal, so that a start drawn from some of them misses the others.
    rows = np.zeros((20_000, 2), np.uint8)
    rows[::1999] = np.random.default_rng(0).integers(1, 255, (11, 2))
    distinct = len(np.unique(rows, axis=0))
    fitted = _made(m=1, ks=distinct, train_rows=len(rows)).fit(rows)
    assert np.array_equal(fitted.decode(fitted.encode(rows)), rows)


def test_fewer_distinct_rows_than_codewords() -> None:
    rows = np.repeat(np.array([[0, 5], [9, 5], [200, 5]], np.uint8), 20, axis=0)
    with pytest.warns(FewDistinctRows, match="1 distinct"):
        fitted = _made(m=2, ks=8).fit(rows)
    assert np.array_equal(fitted.decode(fitted.encode(rows)), rows)
    assert np.isfinite(fitted.codebook).all()
    # What is left over comes last, as copies of the last one that is used.
    assert np.asarray(fitted.encode(rows)).max(axis=0).tolist() == [2, 0]
    assert (fitted.codebook[:, 3:] == fitted.codebook[:, 2:3]).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_constant_data(dtype: str) -> None:
    rows = np.full((50, 4), 7, dtype)
    with pytest.warns(FewDistinctRows):
        fitted = _made(m=2, ks=4).fit(rows)
    assert (fitted.codebook == 7).all()
    assert not np.asarray(fitted.encode(rows)).any()


def test_training_rows_are_drawn_from_all() -> None:
    rows = np.sort(_descriptors(20_000, 8), axis=0)
    few = _made(m=2, ks=16, train_rows=2000).fit(rows)
    every = _made(m=2, ks=16, train_rows=20_000).fit(rows)
    ratio = reference.distortion(rows, few.codebook) / reference.distortion(rows, every.codebook)
    assert ratio < 1.2


def test_another_seed_is_another_start() -> None:
    rows = _descriptors(3000, 8)
    first, second = (_made(m=2, ks=16, seed=seed).fit(rows).codebook for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_saved_and_loaded(tmp_path: Path) -> None:
    rows = _descriptors(600, 12)
    fitted = _made(m=3, ks=20).fit(rows)
    codes = fitted.encode(rows)
    fitted.save(tmp_path / "pq")
    loaded = vwkit.load(tmp_path / "pq")
    assert loaded.codebook.tobytes() == fitted.codebook.tobytes()
    assert loaded.encode(rows).tobytes() == codes.tobytes()
    assert loaded.identity == fitted.identity


def test_a_wrong_saved_codebook_is_refused() -> None:
    fitted = _made(m=3, ks=20).fit(_descriptors(600, 12))
    for book in (fitted.codebook[:, :19], fitted.codebook * np.float32(np.nan)):
        with pytest.raises(ArtifactError, match="damaged"):
            fitted._restore({"codebook": book})


def test_wrong_parameters_and_data() -> None:
    rows = _descriptors(100, 12)
    with pytest.raises(ParameterError, match="does not divide the 12 dimensions"):
        _made(m=5, ks=4).fit(rows)
    with pytest.raises(DataError, match="at least 101 rows"):
        _made(m=3, ks=101).fit(rows)
    with pytest.raises(ParameterError):
        _made(m=3, ks=65_537)
    with pytest.raises(ParameterError):
        _made(m=3, ks=1)
    bad = rows.astype(np.float32)
    bad[3, 2] = np.nan
    with pytest.raises(DataError):
        _made(m=3, ks=4).fit(bad)


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [1, 6, 12])
def test_goes_on_from_a_checkpoint(tmp_path: Path, after: int) -> None:
    rows = _descriptors(9000, 8)
    whole = _made(m=2, ks=16).fit(rows)

    class Cut(vwkit.Job):
        def checkpoint(self, step: int, arrays: Any) -> None:
            self._free_from = 0.0  # keep every one
            super().checkpoint(step, arrays)
            if step == after:
                raise _Stopped

    with vwkit.use_job(Cut(threads=2, folder=tmp_path, resumable=True)), pytest.raises(_Stopped):
        _made(m=2, ks=16).fit(rows)
    with vwkit.use_job(vwkit.Job(threads=1, folder=tmp_path, resumable=True)):
        again = _made(m=2, ks=16).fit(rows)
    assert again.codebook.tobytes() == whole.codebook.tobytes()


@pytest.mark.parametrize("kind", ["pairs", "bytes"])
@pytest.mark.parametrize("feature", ["+avx512vnni", "+avx512bw", "+avx2", ""])
def test_every_processor_computes_the_same(kind: str, feature: str) -> None:
    import numba
    from numba import types
    from numba.core.codegen import get_host_cpu_features
    from numba.extending import intrinsic
    from vwkit_numba import pq_lanes

    if feature and feature not in get_host_cpu_features().split(","):
        pytest.skip(f"this processor has no {feature[1:]}")
    pairs = kind == "pairs"
    choose = pq_lanes._dot_pairs if pairs else pq_lanes._dot_bytes
    codegen = pq_lanes._search(lambda _: choose(feature), runner_up=pairs)

    @intrinsic  # type: ignore[untyped-decorator, unused-ignore]
    def search(
        typingctx: Any, rows: Any, steps: Any, words: Any, start: Any, count: Any, out: Any
    ) -> Any:
        return types.void(rows, types.int64, words, start, types.int64, out), codegen

    @numba.njit
    def run(rows: Any, steps: int, words: Any, start: Any, out: Any) -> None:
        search(rows, steps, words, start, len(start), out)

    rng = np.random.default_rng(0)
    steps, count, each = 5, 24, 2 if pairs else 4
    left: Any = rng.integers(-5000, 5000, (32, steps, each)).astype(np.int16)
    right: Any = rng.integers(-5000, 5000, (count, steps, each)).astype(np.int16)
    if not pairs:
        left = rng.integers(0, 256, (32, steps, each)).astype(np.uint8)
        right = rng.integers(-127, 128, (count, steps, each)).astype(np.int8)
    start = rng.integers(-1000, 1000, count).astype(np.int32)
    start[7] = start[3]
    right[7] = right[3]
    rows = np.ascontiguousarray(left.view(np.int32)[:, :, 0].T)
    out = np.empty(96, np.int32)
    run(rows, steps, right.view(np.int32)[:, :, 0].copy(), start, out)
    scores = start + np.einsum("its,cts->ic", left.astype(np.int64), right.astype(np.int64))
    assert np.array_equal(out[:32], scores.min(axis=1))
    assert np.array_equal(out[64:], scores.argmin(axis=1))
    if pairs:
        assert np.array_equal(out[32:64], np.sort(scores, axis=1)[:, 1])
