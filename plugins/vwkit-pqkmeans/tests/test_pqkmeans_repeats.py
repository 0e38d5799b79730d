"""A fit of PQk-means ends in the same bytes however it is run, and leaves nothing else behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import vwkit_pqkmeans as plugin
from pqkmeans_fits import fit, float_book, handed_over, quantizer, some_codes, state
from threadpoolctl import threadpool_info
from vwkit_pqkmeans import PQKMeans

import vwkit
from vwkit import jobs
from vwkit.errors import FewDistinctRows, Interrupted


def global_state() -> list[int]:
    """NumPy's global generator, which nobody may touch."""
    return list(np.random.get_state()[1])  # noqa: NPY002


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
