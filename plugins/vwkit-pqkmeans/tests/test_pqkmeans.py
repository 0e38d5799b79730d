"""PQk-means: equal to the reference and to the bare library, repeatable, resumable, and safe."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import _pqkmeans
import numpy as np
import pytest
import vwkit_pqkmeans as plugin
import vwkit_pqkmeans_library as door
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info
from vwkit_pqkmeans import PQKMeans

import vwkit
from vwkit import jobs
from vwkit.errors import (
    ArtifactError,
    DataError,
    FewDistinctRows,
    Interrupted,
    ParameterError,
    PluginError,
    ShapeError,
    SpecError,
    UnsupportedError,
)
from vwkit.reference import pq as pq_reference
from vwkit.reference import pqkmeans as reference

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


def global_state() -> list[int]:
    """NumPy's global generator, which nobody may touch."""
    return list(np.random.get_state()[1])  # noqa: NPY002


@contextlib.contextmanager
def handed_over(few: int, group: int = door.GROUP, rows: int | None = None) -> Iterator[None]:
    """Let tests with few rows go the ways of many: all rows in one call, several groups."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(door, "_FEW", few))
        stack.enter_context(mock.patch.object(door, "GROUP", group))
        if rows is not None:
            stack.enter_context(mock.patch.object(door, "rows_at_a_time", return_value=rows))
        yield


def plain_rounds(codes, book, centers, iterations):
    """The reference, or None where a cluster lost its last row on the way."""
    for _ in range(iterations + 1):
        labels = reference.assign(codes, centers, book)
        if np.bincount(labels, minlength=len(centers)).min() == 0:
            return None
        centers = reference.update(codes, labels, centers, book)
    return True


class TestAgainstTheReference:
    @settings(max_examples=100, deadline=None)
    @given(
        seed=SEEDS,
        n=st.integers(1, 60),
        m=st.integers(1, 4),
        ks=st.sampled_from([2, 3, 16, 256]),
        few=st.sampled_from([0, 1024]),
        group=st.sampled_from([2, door.GROUP]),
        rows=st.sampled_from([7, None]),
        iterations=st.integers(1, 6),
        data=st.data(),
    )
    def test_the_same_rounds(self, seed, n, m, ks, few, group, rows, iterations, data):
        book, codes = whole_book(seed, m, ks), some_codes(seed, n, m, ks)
        k = data.draw(st.integers(1, min(n, 6)))
        start = codes[np.random.default_rng(seed).permutation(n)[:k]]
        if plain_rounds(codes, book, start, iterations) is None:
            return  # which center moves where differs by design; see below
        with handed_over(few, group, rows):
            found = fit(codes, book, k, init=start, iterations=iterations, tolerance=0.0)
        centers, labels, objective = reference.pqkmeans(codes, book, start, iterations)
        assert found.centers.tolist() == centers.tolist()
        assert found.centers.dtype == np.uint8
        assert found.labels.tolist() == labels.tolist()
        assert found.labels.dtype == np.int32
        # The reference adds one that is equal when nothing changes any more.
        assert found.objective == pytest.approx(objective[: len(found.objective)])
        assert found.objective[-1] == pytest.approx(objective[-1])

    @settings(max_examples=150, deadline=None)
    @given(
        seed=SEEDS,
        n=st.integers(1, 70),
        m=st.integers(1, 4),
        ks=st.sampled_from([2, 5, 256]),
        kind=st.sampled_from(["floats", "whole", "equal words", "far apart", "tiny", "huge"]),
        few=st.sampled_from([0, 1024]),
        group=st.sampled_from([3, door.GROUP]),
        weighted=st.booleans(),
        params=st.fixed_dictionaries(
            {
                "init": st.sampled_from(["k-means++", "random"]),
                "iterations": st.sampled_from([1, 2, 25]),
                "tolerance": st.sampled_from([0.0, 1e-4, 0.5]),
                "seed": SEEDS,
            }
        ),
        data=st.data(),
    )
    def test_what_every_result_keeps(
        self, seed, n, m, ks, kind, few, group, weighted, params, data
    ):
        book = whole_book(seed, m, ks) if kind == "whole" else float_book(seed, m, ks)
        if kind == "equal words":
            book[:, ks // 2 :] = book[:, :1]
        elif (
            kind == "far apart"
        ):  # groups whose insides are lost in float32, were they not subtracted
            book[:, ::2] += 1e6
        elif kind in ("tiny", "huge"):
            book *= np.float32(1e-30 if kind == "tiny" else 1e30)
        codes = some_codes(seed, n, m, ks)
        rng = np.random.default_rng(seed)
        weights = rng.exponential(1, n) * (rng.random(n) < 0.8) if weighted else None
        if weighted and not weights.any():
            weights[0] = 1
        k = data.draw(st.integers(1, n))
        with handed_over(few, group):
            found = fit(codes, book, k, weights=weights, **params)
            assert found.predict(codes).tolist() == found.labels.tolist()
            other = some_codes(seed + 1, 9, m, ks)
            alone = [int(found.predict(other[i : i + 1])[0]) for i in range(len(other))]
            assert found.predict(other).tolist() == alone
        table = pq_reference.symmetric_distance(codes, found.centers, book)
        own = table[np.arange(n), found.labels]
        spread = float(table.max())
        assert (own <= table.min(axis=1) * (1 + 1e-5) + 1e-12 * spread).all()
        true = reference.objective(codes, found.centers, found.labels, book, weights)
        assert found.objective[-1] == pytest.approx(true, rel=1e-9, abs=1e-30 * spread)
        for before, now in itertools.pairwise(found.objective):
            assert now <= before * (1 + 1e-5) + 1e-12 * spread
        # No cluster is empty that need not be; surplus centers repeat the last one in use.
        there = codes if weights is None else codes[weights > 0]
        decoded = pq_reference.decode(there, book)
        full = min(k, len(np.unique(decoded, axis=0)))
        counts = np.bincount(found.labels, weights, minlength=k)
        assert (counts[:full] > 0).all()
        assert (counts[full:] == 0).all()
        assert (found.centers[full:] == found.centers[full - 1]).all()
        # Each center was the best there is for its rows, before the last assignment at the latest.
        if params["tolerance"] == 0 and params["iterations"] == 25 and weights is None:
            moved = reference.update(codes, found.labels, found.centers, book)
            best = reference.objective(codes, moved, found.labels, book)
            assert found.objective[-1] <= best * (1 + 1e-5) + 1e-12 * spread

    @pytest.mark.parametrize("seed", range(5))
    def test_centers_that_are_as_good_in_all_but_rounding(self, seed):
        """What a product of matrices leaves open is decided as by the reference."""
        rng = np.random.default_rng(seed)
        half = rng.normal(0, 9, (3, 32, 2)).astype(np.float32)
        library = door.Library(np.concatenate([half, -half], axis=1))
        votes = rng.integers(0, 9, (400, 3, 32)) * rng.integers(0, 2, (400, 3, 32))
        votes = np.concatenate([votes, votes], axis=2)  # so c and c + 32 are equally good
        wanted = (library.tables * votes[:, :, None]).sum(axis=3).argmin(axis=2)
        found = door.medoids(votes.reshape(400, -1), tables=library.tables)
        assert found.tolist() == wanted.tolist()
        sums = np.einsum("ijk,jkl->ijl", votes.astype(float), library.tables)
        assert (sums.argmin(axis=2) != wanted).any()  # or this would test nothing

    def test_a_weight_counts_like_repeats(self):
        book, codes = whole_book(3, 3, 16), some_codes(3, 200, 3, 16)
        times = np.random.default_rng(0).integers(1, 5, len(codes))
        params = {"init": codes[:8], "iterations": 8, "tolerance": 0.0}
        one = fit(codes, book, 8, weights=times * 0.25, **params)
        many = fit(np.repeat(codes, times, axis=0), book, 8, **params)
        assert one.centers.tolist() == many.centers.tolist()
        assert np.repeat(one.labels, times).tolist() == many.labels.tolist()
        assert one.objective == pytest.approx(many.objective)

    def test_k_of_all_distinct_codes(self):
        book = float_book(1, 2, 16)
        codes = np.unique(some_codes(1, 90, 2, 16), axis=0)
        found = fit(codes, book, len(codes), init="random")
        assert sorted(found.labels.tolist()) == list(range(len(codes)))
        assert found.objective[-1] == 0

    def test_it_is_about_as_good_as_the_reference(self):
        book, codes = float_book(5, 4, 16), some_codes(5, 1500, 4, 16)
        found = [fit(codes, book, 12, seed=seed).objective[-1] for seed in range(3)]
        rng = np.random.default_rng(5)
        starts = [codes[rng.permutation(len(codes))[:12]] for _ in range(3)]
        best = [
            reference.pqkmeans(codes, book, start, 25, tolerance=1e-4)[2][-1] for start in starts
        ]
        assert sum(found) <= 1.03 * sum(best)


class TestAgainstTheBareLibrary:
    @pytest.mark.parametrize("seed", range(4))
    def test_from_the_same_start_it_ends_the_same(self, seed):
        book, codes = whole_book(seed, 4, 64), some_codes(seed, 3000, 4, 64)
        begin = _pqkmeans.PQKMeans(book, 20, 0, False)
        begin.fit(codes.reshape(-1))
        start = np.array(begin.cluster_centers_, np.uint8)
        bare = _pqkmeans.PQKMeans(book, 20, 7, False)
        bare.fit(codes.reshape(-1))
        # Its seventh iteration only assigns.
        found = fit(codes, book, 20, init=start, iterations=6, tolerance=0.0)
        assert found.centers.tolist() == bare.cluster_centers_
        assert found.labels.tolist() == bare.labels_

    @pytest.mark.parametrize("scale", [1, 1e-25, 1e25])
    @pytest.mark.parametrize("n", [50, 2000])
    def test_predict_is_that_of_the_library(self, n, scale):
        book, codes = float_book(7, 8, 256), some_codes(7, n, 8, 256)
        engine = _pqkmeans.PQKMeans(book, 300, 1, False)
        engine.set_cluster_centers(some_codes(8, 300, 8, 256).tolist())
        found = PQKMeans.from_centers(engine.cluster_centers_, book * np.float32(scale))
        assert found.predict(codes).tolist() == [engine.predict_one(code) for code in codes]

    def test_more_centers_than_one_call_takes(self):
        book, codes = float_book(9, 4, 256), some_codes(9, 3000, 4, 256)
        found = PQKMeans.from_centers(some_codes(10, 5000, 4, 256), book)
        table = pq_reference.symmetric_distance(codes, found.centers, book)
        assert found.predict(codes).tolist() == table.argmin(axis=1).tolist()

    def test_a_version_that_begins_in_another_way_is_noticed(self):
        book, codes = float_book(2, 2, 16), some_codes(2, 1500, 2, 16)
        seats = np.arange(5), np.arange(5, 1505)
        with (
            mock.patch.object(door, "_seats", return_value=seats),
            pytest.raises(PluginError, match="begins in another way"),
        ):
            fit(codes, book, 5, init=codes[:5])

    def test_without_the_library(self):
        found = PQKMeans.from_centers([[0], [1]], [[[0], [1]]])
        with (
            mock.patch.object(importlib, "import_module", side_effect=ImportError("no such file")),
            pytest.raises(PluginError, match="pip install pqkmeans .*CMake.* graph-pqkmeans"),
        ):
            found.predict([[1]])


class TestAlways:
    def test_nothing_is_printed_and_nothing_global_is_changed(self, capfd):
        book, codes = float_book(2, 4, 256), some_codes(2, 2000, 4, 256)
        before = global_state(), threadpool_info()
        found = fit(codes, book, 9, job=vwkit.Job(threads=2))
        found.predict(codes[:5])
        assert capfd.readouterr() == ("", "")
        now = {one["filepath"]: one["num_threads"] for one in threadpool_info()}
        assert global_state() == before[0]
        assert {one["filepath"]: one["num_threads"] for one in before[1]}.items() <= now.items()

    def test_seeds_threads_and_chunks(self):
        book, codes = quantizer(float_book(4, 4, 32)), some_codes(4, 3000, 4, 32)
        for init in ("k-means++", "random"):
            one = fit(codes, book, 15, init=init, seed=5)
            assert state(fit(codes, book, 15, init=init, seed=5)) == state(one)
            assert state(fit(codes, book, 15, init=init, seed=6)) != state(one)
            assert state(
                fit(codes, book, 15, init=init, seed=5, job=vwkit.Job(threads=3))
            ) == state(one)
            with handed_over(1024, rows=999):
                assert state(fit(codes, book, 15, init=init, seed=5)) == state(one)
            small = vwkit.Job(threads=2, memory=60 << 20)
            with mock.patch.object(plugin.fitting, "_clusters_at_a_time", return_value=4):
                assert state(fit(codes, book, 15, init=init, seed=5, job=small)) == state(one)

        def chunks():
            yield from (codes[i : i + 700] for i in range(0, 3000, 700))

        stream = vwkit.Stream(chunks, dim=4, dtype=np.uint8)
        one = fit(codes, book, 15, seed=5)
        assert state(fit(stream, book, 15, seed=5)) == state(one)
        with mock.patch.object(plugin.fitting, "_MAPPED_LABELS", 0):
            mapped = fit(stream, book, 15, seed=5)
        assert isinstance(mapped.labels, np.memmap)
        assert state(mapped) == state(one)

    def test_wider_integers_are_taken(self):
        book, codes = quantizer(float_book(4, 4, 32)), some_codes(4, 300, 4, 32)
        one = fit(codes, book, 5)
        for dtype in (np.uint16, np.int64):
            other = fit(codes.astype(dtype), book, 5)
            assert state(other) == state(one)
            assert other.centers.dtype == np.uint8
            assert other.predict(codes.astype(dtype)).tolist() == one.labels.tolist()

    def test_progress_tells_rows_and_objective(self):
        seen: list[Any] = []
        job = vwkit.Job(threads=1, progress=lambda *told: seen.append(told))
        with handed_over(1024, rows=400):
            found = fit(some_codes(1, 1000, 3, 16), float_book(1, 3, 16), 6, job=job, iterations=3)
        rows = [(done, total, values) for _, done, total, unit, values in seen if unit == "rows"]
        assert {total for _, total, _ in rows} == {4000}
        assert [done for done, _, _ in rows] == sorted(done for done, _, _ in rows)
        shown = {values["objective"] for _, _, values in rows if "objective" in values}
        assert shown == set(found.objective[: len(shown)])
        assert {"centers", "rows"} == {unit for _, _, _, unit, _ in seen}

    def test_one_code_and_one_cluster(self):
        found = fit(np.array([[3, 1]], np.uint8), float_book(1, 2, 4), 1)
        assert found.centers.tolist() == [[3, 1]]
        assert found.predict(np.zeros((0, 2), np.uint8)).shape == (0,)

    def test_constant_codes(self):
        with pytest.warns(FewDistinctRows, match="1 distinct rows for k = 4"):
            found = PQKMeans(k=4).fit(
                np.full((50, 3), 7, np.uint8), quantizer=quantizer(float_book(1, 3, 9))
            )
        assert found.centers.tolist() == [[7, 7, 7]] * 4
        assert set(found.labels.tolist()) == {0}
        assert found.objective == [0.0]

    def test_codes_that_stand_for_the_same_are_not_distinct(self):
        book = np.array([[[0], [0], [5], [5]]], np.float32)
        with pytest.warns(FewDistinctRows, match="2 distinct rows for k = 3"):
            PQKMeans(k=3).fit(np.array([[0], [1], [2], [3]] * 3), quantizer=quantizer(book))
        # Two empty clusters do not go to the same place.
        book = np.array([[[0], [10], [10], [5]]], np.float32)
        codes = np.array([[0]] * 50 + [[1], [2], [3]], np.uint8)
        found = fit(codes, book, 3, init=np.zeros((3, 1), np.uint8), iterations=1, tolerance=0.0)
        assert found.centers.tolist() == [[0], [1], [3]]
        assert len(found.objective) == 2

    def test_codewords_that_float32_cannot_tell_apart(self):
        book = np.array([[[0], [1e-25], [1]]], np.float32)
        codes = np.array([[0], [1], [2]] * 3, np.uint8)
        with pytest.warns(FewDistinctRows, match="2 distinct rows for k = 3"):
            found = PQKMeans(k=3).fit(codes, quantizer=quantizer(book))
        assert len(found.objective) <= 3  # it is known at once, not after a thousand tries
        assert found.objective[-1] == 0


class TestResume:
    def test_an_interrupted_fit_ends_in_the_same_bytes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(jobs, "_CHECKPOINT_SHARE", 0)
        book, codes = quantizer(float_book(6, 4, 64)), some_codes(6, 2500, 4, 64)
        params: dict[str, Any] = {"init": "random", "iterations": 5, "tolerance": 0.0}

        def run(folder: Path | None, stop_at: int | None) -> tuple[PQKMeans, int]:
            told = 0

            def progress(*step: Any) -> None:
                nonlocal told
                told += "resumed" not in step[-1]
                if told == stop_at:
                    job.stop.set()

            job = vwkit.Job(threads=1, folder=folder, progress=progress)
            with handed_over(1024, rows=500):
                return fit(codes, book, 30, job=job, **params), told

        whole, steps = run(None, None)
        assert len(whole.objective) == 6
        assert steps == 30
        for stop_at in (3, 8, 17, 23, 29):
            folder = tmp_path / str(stop_at)
            with pytest.raises(Interrupted):
                run(folder, stop_at)
            again, left = run(folder, None)
            assert state(again) == state(whole)
            assert left == steps - stop_at // 5 * 5  # finished rounds are not repeated

    def test_a_foreign_checkpoint_is_not_taken_up(self, tmp_path):
        book, codes = quantizer(float_book(6, 4, 64)), some_codes(6, 300, 4, 64)
        whole = fit(codes, book, 5)
        for arrays in (
            {"centers": np.full((5, 4), 200, np.uint8), "objective": np.ones(1)},
            {"centers": np.zeros((5, 3), np.uint8), "objective": np.ones(1)},
            {"centers": np.zeros((5, 4)), "objective": np.ones(1)},
            {"centers": np.zeros((5, 4), np.uint8)},
        ):
            job = vwkit.Job(folder=tmp_path)
            job.checkpoint(2, arrays)
            assert state(fit(codes, book, 5, job=vwkit.Job(folder=tmp_path))) == state(whole)


class TestSaving:
    def test_the_notebooks_two_questions(self, tmp_path):
        """How to save it without pickle, and how to get it back from its centers."""
        book, codes = float_book(1, 4, 16), some_codes(1, 500, 4, 16)
        engine = _pqkmeans.PQKMeans(book.astype(float), 6, 5, False)
        engine.fit(codes.reshape(-1))
        with pytest.raises(TypeError, match="cannot pickle"):
            engine.__reduce_ex__(2)
        clusterer = PQKMeans.from_centers(engine.cluster_centers_, book.astype(float))
        clusterer.save(tmp_path / "words")
        loaded = vwkit.load(tmp_path / "words")
        assert loaded.predict(codes).tolist() == engine.labels_
        assert loaded.centers.tolist() == engine.cluster_centers_
        assert (loaded.k, loaded.objective, loaded.labels.shape) == (6, [], (0,))
        vectors = loaded.quantizer.decode(codes)
        words = vwkit.create("quantizer", "vocabulary", clusterer=loaded).encode(vectors)
        assert words[:, 0].tolist() == engine.labels_
        # A quantizer that is there is taken as it is, and kept.
        other = PQKMeans.from_centers(engine.cluster_centers_, loaded.quantizer)
        assert other.quantizer is loaded.quantizer
        assert state(other.fit(codes, quantizer=loaded.quantizer)) == state(fit(codes, book, 6))

    def test_a_fit_is_saved_whole(self, tmp_path):
        book, codes = float_book(1, 4, 16), some_codes(1, 500, 4, 16)
        found = fit(codes, book, 6, init=codes[:6])
        found.save(tmp_path / "a")
        loaded = vwkit.load(tmp_path / "a")
        assert state(loaded) == state(found)
        assert loaded.predict(codes).tolist() == found.labels.tolist()
        assert loaded.quantizer.identity == found.quantizer.identity
        assert np.array_equal(loaded.init, codes[:6])

    @pytest.mark.parametrize(
        ("name", "array", "said"),
        [
            ("centers", np.full((6, 4), 16, np.uint8), "row 0 holds a code outside 0…15"),
            ("centers", np.full((6, 4), -1, np.int64), "outside"),
            ("centers", np.zeros((6, 3), np.uint8), r"\(n, 4\)"),
            ("centers", np.zeros((5, 4), np.uint8), "k = 6"),
            ("centers", np.zeros((6, 4)), "whole numbers"),
            ("centers", np.zeros((0, 4), np.uint8), "k = 6"),
            ("labels", np.zeros((5, 2), np.int32), "labels"),
            ("labels", np.zeros(5), "labels"),
            ("objective", np.zeros((2, 2)), "labels"),
        ],
    )
    def test_a_false_artifact_is_refused(self, tmp_path, name, array, said):
        found = fit(some_codes(1, 50, 4, 16), float_book(1, 4, 16), 6)
        held = {**found._state(), name: array}
        with mock.patch.object(PQKMeans, "_state", return_value=held):
            found.save(tmp_path / "a")
        with pytest.raises(ArtifactError, match=said):
            vwkit.load(tmp_path / "a")

    @pytest.mark.parametrize(
        ("book", "said"),
        [
            (np.zeros((4, 300, 2), np.float32), r"float32 of shape \(4, 300, 2\)"),
            (np.zeros((4, 16), np.float32), r"float32 of shape \(4, 16\)"),
            (np.zeros((4, 16, 2)), r"float64 of shape \(4, 16, 2\)"),
            (np.zeros((4, 0, 2), np.float32), r"float32 of shape \(4, 0, 2\)"),
            (np.zeros((3, 16, 2), np.float32), r"float32 of shape \(3, 16, 2\)"),
            (np.zeros((4, 2, 2), np.float32), r"float32 of shape \(4, 2, 2\)"),
            (np.full((4, 16, 2), np.nan, np.float32), None),
        ],
    )
    def test_a_false_quantizer_beside_it_is_refused(self, tmp_path, book, said):
        found = fit(some_codes(1, 50, 4, 16), float_book(1, 4, 16), 6)
        found.quantizer.codebook = book
        found.save(tmp_path / "a")
        needed = r"where float32 of shape \(m, ks, d/m\) = \(4, 16, 2\) are needed"
        what = f"codebook are {said}, {needed}" if said else "codebook hold NaN"
        file = rf"{tmp_path}/a/quantizer-\w+/codebook-\w+\.npy"
        with pytest.raises(ArtifactError, match=f"^{file}: its {what}"):
            vwkit.load(tmp_path / "a")

    def test_a_missing_quantizer_is_told(self, tmp_path):
        found = fit(some_codes(1, 50, 4, 16), float_book(1, 4, 16), 6)
        with mock.patch.object(PQKMeans, "_children", return_value={}):
            found.save(tmp_path / "a")
        with pytest.raises(ArtifactError, match="quantizer"):
            vwkit.load(tmp_path / "a")


class TestRefusals:
    def test_codes_outside_the_codebook(self):
        book, codes = quantizer(float_book(1, 3, 16)), some_codes(1, 900, 3, 16)
        codes[777, 1] = 16
        with pytest.raises(DataError, match=r"row 777 holds a code outside 0…15"):
            fit(codes, book, 4, init=codes[:4])
        with pytest.raises(DataError, match="outside 0…15"):
            fit(codes, book, 4)
        found = fit(codes[:700], book, 4)
        with pytest.raises(DataError, match="row 777"):
            found.predict(codes)
        with pytest.raises(ShapeError, match="3"):
            found.predict(codes[:, :2])
        with pytest.raises(ShapeError, match=r"\(n, 3\)"):
            fit(codes[:, :2], book, 4)

    def test_codes_of_two_bytes(self):
        wide = vwkit.create("quantizer", "pq", m=1, ks=300, iterations=1)
        wide.fit(np.arange(600, dtype=np.float32).reshape(300, 2))
        codes = wide.encode(np.arange(600, dtype=np.float32).reshape(300, 2))
        with pytest.raises(UnsupportedError, match="ks = 300.* ks: 256, or take graph-pqkmeans"):
            PQKMeans(k=4).fit(codes, quantizer=wide)

    def test_an_additive_quantizer(self):
        book = quantizer(float_book(1, 3, 16))
        with mock.patch.object(type(book), "structure", "additive"):
            with pytest.raises(UnsupportedError, match="product quantizer"):
                PQKMeans(k=4).fit(some_codes(1, 9, 3, 16), quantizer=book)
            with pytest.raises(UnsupportedError, match="product quantizer"):
                PQKMeans.from_centers([[0, 0, 0]], book)

    @pytest.mark.parametrize(
        ("centers", "book", "said"),
        [
            ([[0, 1]], [[[0], [9]]], r"\(n, 1\)"),
            ([[2]], [[[0], [9]]], "outside 0…1"),
            ([[0.5]], [[[0], [9]]], "whole numbers"),
            ([], [[[0], [9]]], r"\(n, 1\)"),
            (np.zeros((0, 1), int), [[[0], [9]]], "at least one"),
            ([[0], [0, 1]], [[[0], [9]]], "cannot be read"),
            ([[0]], [[0, 9]], r"\(m, ks, d/m\)"),
            ([[0]], [[["a"], ["b"]]], "numbers"),
            ([[0]], [[[0], [np.inf]]], "infinity"),
            ([[0]], [[[0], [1e300]]], "infinity"),
            ([[0]], [[[0], [1, 2]]], "cannot be read"),
            (None, [[[0], [9]]], r"\(n, 1\)"),
        ],
    )
    def test_centers_and_codebooks_that_do_not_fit(self, centers, book, said):
        with pytest.raises(DataError, match=said):
            PQKMeans.from_centers(centers, book)

    def test_given_centers_that_do_not_fit(self, tmp_path):
        book, codes = quantizer(float_book(1, 3, 16)), some_codes(1, 90, 3, 16)
        np.save(tmp_path / "start.npy", codes[:4])
        one = fit(codes, book, 4, init=codes[:4])
        assert state(fit(codes, book, 4, init=tmp_path / "start.npy")) == state(one)
        assert state(fit(codes, book, 4, init=codes[:4].tolist())) == state(one)
        for init, said in (
            (codes[:5], r"\(4, 3\) are needed; got \(5, 3\)"),
            (codes[:4, :2], r"\(n, 3\)"),
            (np.full((4, 3), 16), "outside 0…15"),
            (codes[:4] / 2, "whole numbers"),
            (tmp_path / "nowhere.npy", "nowhere.npy is not a readable"),
        ):
            with pytest.raises(DataError, match=said):
                fit(codes, book, 4, init=init)
        (tmp_path / "bad.npy").write_bytes(b"\x80\x04K\x01.")
        with pytest.raises(DataError, match="bad.npy is not a readable"):
            fit(codes, book, 4, init=tmp_path / "bad.npy")
        with pytest.raises(DataError, match="init: kmeans is not a readable"):
            fit(codes, book, 4, init="kmeans")
        with pytest.raises(ParameterError, match="init"):
            PQKMeans(k=4, init=7)

    def test_more_clusters_than_codes(self):
        with pytest.raises(DataError, match="k = 4 clusters need at least 4 rows; got 3"):
            fit(some_codes(1, 3, 2, 16), float_book(1, 2, 16), 4)


class TestMemory:
    def test_too_much_is_refused_before_it_starts(self):
        book, codes = quantizer(float_book(1, 3, 16)), some_codes(1, 90, 3, 16)
        told: list[Any] = []
        small = vwkit.Job(memory=1 << 20, progress=lambda *values: told.append(values))
        with pytest.raises(
            DataError, match=r"90 codes of 3 bytes in 4 clusters need \d+ MiB .* may use 1: take"
        ):
            fit(codes, book, 4, job=small)
        with (
            mock.patch.object(plugin, "_free_memory", return_value=2 << 20),
            pytest.raises(DataError, match=r"need \d+ MiB of memory, and 2 are free"),
        ):
            fit(codes, book, 4)
        assert not told
        assert plugin._free_memory() > 1 << 20

    def test_it_grows_with_labels_centers_and_nothing_else(self):
        with vwkit.use_job(vwkit.Job(memory=1 << 30)):
            need = plugin.memory_need(10**6, 4, 1000)
            assert plugin.memory_need(2 * 10**6, 4, 1000) - need < 60 * 10**6
            many = plugin.memory_need(10**8, 4, 1000)
            assert plugin.memory_need(10**8 + 10**6, 4, 1000) - many == 4 * 10**6
            # Above 1 GiB labels lie in a file.
            assert plugin.memory_need(10**9, 4, 1000) < many
            assert PQKMeans(k=1000)._memory_need(10**6, 4) == need

    @pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted otherwise elsewhere")
    def test_it_is_not_more_than_said(self):
        code = """
import json, resource, numpy as np, vwkit, vwkit_pqkmeans as plugin
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
codes = np.random.default_rng(0).integers(0, 256, (500_000, 4), dtype=np.uint8)
book = np.random.default_rng(1).normal(size=(4, 256, 2)).astype(np.float32)
pq = plugin.PQKMeans.from_centers(codes[:1], book).quantizer
plugin.PQKMeans(k=2, iterations=1).fit(codes[:9000], quantizer=pq)
before = peak()
plugin.PQKMeans(k=40, iterations=1).fit(codes, quantizer=pq)
print(json.dumps([peak() - before, plugin.memory_need(500_000, 4, 40)]))
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
        )
        used, said = json.loads(done.stdout)
        assert used < said < 100 << 20


def test_a_spec_makes_a_vocabulary_of_code_centers(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.integers(0, 256, (900, 16)).astype(np.uint8)
    vwkit.write(tmp_path / "some.bvecs", vectors)
    spec = {
        "vwkit": 1,
        "seed": 7,
        "vectors": {"path": str(tmp_path / "some.bvecs")},
        "quantizer": {"use": "pq", "m": 4, "ks": 64},
        "clusterer": {"use": "pqkmeans", "k": 50, "iterations": 4},
        "output": [
            {"write": "vocabulary", "path": str(tmp_path / "vocabulary")},
            {"write": "words", "path": str(tmp_path / "words")},
        ],
    }
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    words = vwkit.load(tmp_path / "vocabulary").encode(vectors)
    assert words[:, 0].tolist() == run.clusterer.labels.tolist()
    assert np.load(tmp_path / "words/words.npy").tolist() == run.clusterer.labels.tolist()
    # The same from Python, with the spec's seeds.
    pq = vwkit.create("quantizer", "pq", m=4, ks=64, seed=vwkit.derive_seed(7, "quantizer"))
    codes = pq.fit(vectors).encode(vectors)
    again = PQKMeans(k=50, iterations=4, seed=vwkit.derive_seed(7, "clusterer"))
    assert state(again.fit(codes, quantizer=pq)) == state(run.clusterer)


class TestSpecs:
    def text(self, quantizer):
        return (
            "vwkit: 1\nvectors: {path: x.npy}\n"
            f"quantizer: {{{quantizer}}}\nclusterer: {{use: pqkmeans, k: 4}}\n"
        )

    def test_wide_codes_are_refused_before_data_are_read(self, tmp_path):
        np.save(tmp_path / "x.npy", np.zeros((400, 4), np.uint8))
        path = tmp_path / "s.yaml"
        path.write_text(self.text("use: pq, m: 2, ks: 300"))
        with pytest.raises(SpecError) as caught:
            vwkit.Pipeline.from_file(path)
        assert "3:28: quantizer.ks: pqkmeans takes codes of one byte" in str(caught.value)
        path.write_text(self.text("use: pq, m: 2, ks: 256"))
        vwkit.Pipeline.from_file(path)

    def test_memory_is_told(self, caplog):
        caplog.set_level("INFO", "vwkit")
        rows = np.arange(600, dtype=np.float32).reshape(300, 2)
        pq = vwkit.create("quantizer", "pq", m=1, ks=16, iterations=1).fit(rows)
        PQKMeans(k=4).fit(pq.encode(rows), quantizer=pq)
        assert "pqkmeans: 300 codes of 1 bytes in 4 clusters need up to" in caplog.text
