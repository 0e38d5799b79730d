"""The running work: chunks in order, on any threads, interruptible, with checkpoints that hold."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import vwkit
from vwkit import jobs
from vwkit.errors import CheckpointWarning
from vwkit.jobs import Job, ThreadedExecutor, job, use_job

ROWS = np.arange(100, dtype=np.float32)[:, None]


def total(chunk, *aligned, factor=1):
    time.sleep(0.002 * (int(chunk[0, 0]) % 3))  # later chunks may well be done first
    return int(chunk[0, 0]), float(chunk.sum()) * factor, [len(one) for one in aligned]


def blas_threads(chunk):
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def thread_name(chunk):
    time.sleep(0.01)
    return threading.current_thread().name


def fail(chunk):
    if chunk[0, 0] >= 30:
        raise ZeroDivisionError("in the kernel")
    return int(chunk[0, 0])


@pytest.fixture
def others():
    """Threads that are there before the work begins."""
    return set(threading.enumerate())


class TestMap:
    @pytest.mark.parametrize("threads", [1, 2, 5])
    def test_results_come_in_the_order_of_the_chunks(self, threads):
        found = list(Job(threads=threads).map(total, ROWS, {"factor": 2}, rows=7))
        assert [first for first, _, _ in found] == list(range(0, 100, 7))
        assert sum(value for _, value, _ in found) == 2 * ROWS.sum()

    @pytest.mark.parametrize("threads", [1, 3])
    def test_aligned_arrays_are_cut_like_the_rows(self, threads):
        aligned = {"a": np.zeros(100), "b": np.zeros((100, 2))}
        stream = vwkit.Stream(lambda: np.array_split(ROWS, [3, 3, 50]), dim=1, dtype=np.float32)
        found = list(Job(threads=threads).map(total, stream, aligned=aligned))
        assert [sizes for _, _, sizes in found] == [[3, 3], [47, 47], [50, 50]]

    def test_it_computes_on_as_many_threads_as_asked(self):
        names = set(Job(threads=3).map(thread_name, ROWS, rows=5))
        assert len(names) == 3
        assert set(Job(threads=1).map(thread_name, ROWS, rows=50)) == {"MainThread"}

    @pytest.mark.parametrize("threads", [1, 2])
    def test_blas_has_one_thread_for_each_of_ours(self, threads):
        before = blas_threads(ROWS)
        for found in Job(threads=threads).map(blas_threads, ROWS, rows=50):
            assert set(found) <= {1}
        assert blas_threads(ROWS) == before

    @pytest.mark.parametrize("threads", [1, 3])
    def test_chunks_are_read_little_ahead(self, threads):
        read = []

        def chunks():
            for start in range(100):
                read.append(start)
                yield ROWS[start : start + 1]

        stream = vwkit.Stream(chunks, dim=1, dtype=np.float32)
        for done, _ in enumerate(Job(threads=threads).map(total, stream)):
            assert len(read) <= done + threads + 2

    @pytest.mark.parametrize("threads", [1, 3])
    def test_an_error_comes_out_as_it_is_and_threads_end(self, threads, others):
        found = []
        with pytest.raises(ZeroDivisionError, match="in the kernel"):
            for value in Job(threads=threads).map(fail, ROWS, rows=10):
                found.append(value)  # noqa: PERF402 - what came before the error counts
        assert found == [0, 10, 20]
        assert set(threading.enumerate()) <= others

    @pytest.mark.parametrize("threads", [1, 3])
    def test_stopping_ends_it_at_the_next_chunk(self, threads, others):
        current = Job(threads=threads)
        found = []
        with pytest.raises(vwkit.Interrupted, match="--resume"):
            for value in current.map(total, ROWS, rows=1):
                found.append(value)
                current.stop.set()
        assert len(found) <= threads + 2
        assert set(threading.enumerate()) <= others

    def test_leaving_early_ends_the_threads(self, others):
        results = Job(threads=3).map(total, ROWS, rows=1)
        next(results)
        results.close()
        assert set(threading.enumerate()) <= others

    def test_another_executor_does_the_work(self):
        class Backwards:
            def map(self, kernel, chunks, arrays):
                results = [kernel(*chunk, **arrays) for chunk in reversed(list(chunks))]
                yield from reversed(results)

        found = list(Job(executor=Backwards()).map(total, ROWS, rows=30))
        assert [first for first, _, _ in found] == [0, 30, 60, 90]

    def test_progress_over_rows(self):
        told = []
        current = Job(threads=1, stage="words", progress=lambda *what: told.append(what))
        list(current.map(total, ROWS, rows=40, unit="rows"))
        assert told == [("words", done, 100, "rows", {}) for done in (40, 80, 100)]


class TestCurrent:
    def test_outside_a_run_it_is_silent_and_has_the_machine(self):
        current = job()
        assert current.threads == jobs.available_threads() >= 1
        assert 0 < current.memory <= jobs.available_memory()
        current.progress(1)
        current.checkpoint(1, {})
        assert current.resume() is None

    def test_use_job_nests(self):
        outer, inner = Job(), Job()
        with use_job(outer):
            with pytest.raises(KeyError), use_job(inner):
                assert job() is inner
                raise KeyError
            assert job() is outer
        assert job() is not outer

    def test_a_part_of_the_work(self, tmp_path):
        told = []
        outer = Job(
            threads=3,
            memory=12345,
            folder=tmp_path,
            stage="a",
            progress=lambda *what: told.append(what),
            resumable=False,
        )
        inner = outer.within("b")
        assert (inner.threads, inner.memory, inner.resumable) == (3, 12345, False)
        assert inner.folder == tmp_path / "b"
        inner.progress(1, 2)
        assert told[0][0] == "a.b"
        outer.stop.set()
        with pytest.raises(vwkit.Interrupted):
            inner.check()

    def test_a_featurizer_of_ours_sees_the_job_in_its_threads(self):
        @vwkit.backend("job-watcher")
        class Watcher(vwkit.Featurizer):
            """Remember the job."""

            dim = 1

            def _extract(self, images):
                seen.append(job())
                return [vwkit.Features(np.zeros((1, 1), np.float32)) for _ in images]

        seen: list[Job] = []
        current = Job(threads=2)
        with use_job(current):
            list(Watcher().extract([np.zeros((2, 2), np.uint8)] * 3))
        assert seen == [current] * 3


class TestCheckpoints:
    @pytest.fixture
    def current(self, tmp_path, monkeypatch) -> Job:
        monkeypatch.setattr(jobs, "_CHECKPOINT_SHARE", 0)
        return Job(folder=tmp_path / "kept")

    def test_the_last_two_are_kept_and_the_last_is_taken(self, current):
        for step in (1, 2, 3, 10):
            current.checkpoint(step, {"a": np.full(3, step), "b": np.array("text")})
        names = sorted(path.name for path in current.folder.iterdir())
        assert names == ["step-000000003.npz", "step-000000010.npz"]
        step, arrays = Job(folder=current.folder).resume()
        assert step == 10
        assert arrays["a"].tolist() == [10, 10, 10]
        assert str(arrays["b"]) == "text"

    def test_those_of_other_work_do_not_outlive_new_ones(self, current):
        for step in (80, 90):
            current.checkpoint(step, {"a": np.zeros(1)})
        assert current.resume()[0] == 90  # whoever asked sees that it is not of this work
        for step in (1, 2, 3):
            current.checkpoint(step, {"a": np.ones(1)})
            assert current.resume()[0] == step
        names = sorted(path.name for path in current.folder.iterdir())
        assert names == ["step-000000002.npz", "step-000000003.npz"]

    def test_they_cost_a_share_of_the_time(self, tmp_path):
        current = Job(folder=tmp_path)
        current.checkpoint(1, {"a": np.zeros(1000)})
        current.checkpoint(2, {"a": np.zeros(1000)})  # at once: not worth it
        assert Job(folder=tmp_path).resume()[0] == 1

    def test_any_damage_falls_back_to_the_one_before(self, current):
        first = {"a": np.arange(40.0), "b": np.arange(5)}
        second = {"a": np.arange(40.0) + 1, "b": np.arange(5) + 1}
        current.checkpoint(1, first)
        older = (current.folder / "step-000000001.npz").read_bytes()
        current.checkpoint(2, second)
        path = current.folder / "step-000000002.npz"
        whole = path.read_bytes()
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 0x41
            path.write_bytes(damaged)
            (current.folder / "step-000000001.npz").write_bytes(older)
            step, arrays = current.resume()
            expected = second if step == 2 else first
            assert arrays.keys() == expected.keys()
            for name, array in expected.items():
                assert np.array_equal(arrays[name], array), place
        for content in (b"", whole[:-1], whole[: len(whole) // 2], b"PK"):
            path.write_bytes(content)
            assert current.resume()[0] == 1
            assert not path.exists()
        (current.folder / "step-000000001.npz").write_bytes(b"nothing")
        assert current.resume() is None

    def test_no_pickle_is_opened(self, current):
        current.folder.mkdir()
        np.savez(current.folder / "step-000000001.npz", a=np.array([{}], object))
        assert current.resume() is None

    def test_a_failed_write_leaves_the_older_ones(self, current, monkeypatch):
        current.checkpoint(1, {"a": np.zeros(2)})

        def fail(*args):
            raise OSError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.warns(CheckpointWarning, match="no space"):
                current.checkpoint(2, {"a": np.zeros(2)})
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", fail)
            current._free_from = 0.0
            with pytest.warns(CheckpointWarning, match="no space"):
                current.checkpoint(3, {"a": np.zeros(2)})
        assert [path.name for path in current.folder.iterdir()] == ["step-000000001.npz"]

    def test_a_run_that_starts_anew_drops_older_ones(self, current):
        for step in (8, 9):
            current.checkpoint(step, {"a": np.zeros(1)})
        fresh = Job(folder=current.folder, resumable=False)
        assert fresh.resume() is None
        fresh.checkpoint(1, {"a": np.ones(1)})
        assert Job(folder=current.folder).resume()[0] == 1

    def test_forget(self, current):
        current.checkpoint(1, {"a": np.zeros(1)})
        (current.folder / "notes.txt").write_text("mine")
        current.forget()
        assert current.resume() is None
        assert (current.folder / "notes.txt").exists()


def test_the_executor_is_what_its_protocol_says():
    found = ThreadedExecutor(2).map(total, iter([(ROWS[:2],), (ROWS[2:],)]), {})
    assert [first for first, _, _ in found] == [0, 2]
