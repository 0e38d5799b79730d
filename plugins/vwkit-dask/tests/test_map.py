"""One map on real processes: order, sums, errors, stopping, and workers that die."""

from __future__ import annotations

import contextlib
import operator
import os
import platform
import signal
import sys
import threading
import time
import warnings

import cloudpickle
import numpy as np
import pytest

import vwkit
from vwkit import kernels
from vwkit.jobs import Job, job

# The workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = np.arange(6000, dtype=np.float32).reshape(-1, 2)


@pytest.fixture
def base() -> Job:
    return Job(threads=2, memory=1 << 28)


@pytest.fixture
def work(scheduler, base):
    """A job whose chunks are computed by two processes."""
    executor = vwkit.create("executor", "dask", scheduler=scheduler, workers=2, patience=120.0)
    with executor.ready(base):
        yield base.using(executor)


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


def total(chunk, *aligned, factor=1):
    return int(chunk[0, 0]), float(chunk.sum()) * factor, [int(one[0]) for one in aligned]


def whole(chunk, *aligned):
    return int(chunk.sum())


def where(chunk):
    from threadpoolctl import threadpool_info

    blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    return os.getpid(), job().threads, job().memory, job().distributed, blas


def refused(chunk):
    if chunk[0, 0] >= 1000:
        raise vwkit.errors.ParameterError.of("k", "is too much for this worker")
    return int(chunk[0, 0])


def warned(chunk):
    warnings.warn("few rows", vwkit.errors.FewDistinctRows, stacklevel=1)
    return len(chunk)


def held(chunk, *, until):
    while not os.path.exists(until):
        time.sleep(0.05)


def killed_once(chunk, *, marker):
    with contextlib.suppress(FileExistsError):
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        os.kill(os.getpid(), signal.SIGKILL)
    return int(chunk.sum())


def without_a_module(chunk):
    import module_that_nobody_has

    return module_that_nobody_has


def data(kind, mapped):
    if kind == "file":
        return mapped
    if kind == "memory":
        return ROWS
    cuts = np.array_split(ROWS, [7, 7, 1000])
    return vwkit.Stream(lambda: iter(cuts), dim=2, dtype=np.float32)


class TestResults:
    @pytest.mark.parametrize("kind", ["file", "memory", "chunks"])
    @pytest.mark.parametrize("rows", [2999, 100])
    def test_are_those_of_threads_in_their_order(self, work, mapped, kind, rows):
        aligned = {"a": np.arange(3000), "b": np.arange(6000).reshape(-1, 2)[:, 0]}
        asked = {"aligned": aligned, "rows": rows, "unit": "rows"}
        found = list(work.map(total, data(kind, mapped), {"factor": 2}, **asked))
        assert found == list(Job(threads=1).map(total, data(kind, mapped), {"factor": 2}, **asked))

    def test_of_a_lazy_stream_are_computed_there(self, work, mapped):
        middle = vwkit.create("transform", "pca", dim=1).fit(ROWS)
        stream = middle.transform(vwkit.Stream.from_array(mapped))
        found = list(work.map(where, stream, rows=500))
        assert os.getpid() not in {pid for pid, *_ in found}
        same = list(work.map(total, stream, rows=500))
        assert same == list(Job().map(total, stream, rows=500))

    @pytest.mark.parametrize("rows", [3000, 100, 7])
    def test_sums_come_together_on_the_workers(self, work, mapped, rows):
        found = list(work.map(whole, mapped, rows=rows, combine=operator.add))
        assert found == [int(ROWS.sum())]

    @pytest.mark.parametrize("rows", [3000, 130])
    def test_labels_come_in_order_and_sums_once(self, work, mapped, rows):
        arrays = {"centers": ROWS[::300].copy(), "scale": 20}
        parts = work.map(
            kernels.assign_and_accumulate,
            mapped,
            arrays,
            rows=rows,
            combine=kernels.merge,
            split=kernels.split,
        )
        *rowwise, last = list(parts)
        (true,) = Job().map(kernels.assign_and_accumulate, mapped, arrays, rows=3000)
        labels = np.concatenate([part.labels for part in rowwise])
        assert labels.tobytes() == true.labels.tobytes()
        assert not len(last.labels)
        for name in ("used", "sums", "counts"):
            assert getattr(last, name).tobytes() == getattr(true, name).tobytes()

    def test_independent_tasks(self, work):
        tasks = ((ROWS[i : i + 10], "anything", i) for i in range(0, 100, 10))
        found = list(work.each(lambda rows, text, i, *, by: (len(text), i * by), tasks, {"by": 3}))
        assert found == [(8, 3 * i) for i in range(0, 100, 10)]

    def test_a_task_has_one_thread_and_its_share_of_memory(self, work, mapped):
        found = list(work.map(where, mapped, rows=100))
        pids, threads, memory, distributed, blas = zip(*found, strict=True)
        assert len(set(pids)) <= 2
        assert os.getpid() not in pids
        assert set(threads) == {1}
        assert min(memory) >= 1 << 20
        assert set(distributed) == {False}
        assert set().union(*blas) <= {1}

    def test_nothing_to_do(self, work, mapped):
        assert list(work.map(whole, mapped[:0], rows=10)) == []
        assert list(work.map(whole, mapped[:0], rows=10, combine=operator.add)) == []

    def test_progress(self, work, mapped):
        told = []
        work._progress = lambda *what: told.append(what[1])
        list(work.map(whole, mapped, rows=100, unit="rows", combine=operator.add))
        assert told == sorted(told)
        assert told[-1] == 3000
        assert len(told) > 4


class TestErrors:
    @pytest.mark.parametrize("combine", [None, operator.add])
    @pytest.mark.parametrize("kind", ["file", "memory"])
    def test_come_out_as_they_are(self, work, mapped, kind, combine):
        with pytest.raises(vwkit.errors.ParameterError, match=r"^k: is too much") as caught:
            list(work.map(refused, data(kind, mapped), rows=100, combine=combine))
        assert caught.value.exit_status == 2
        assert caught.value.problems[0].path == ("k",)

    def test_warnings_come_along(self, work, mapped):
        with pytest.warns(vwkit.errors.FewDistinctRows, match="few rows"):
            assert sum(work.map(warned, mapped, rows=1000)) == 3000

    def test_a_module_that_a_worker_lacks(self, work, mapped):
        with pytest.raises(vwkit.errors.RunError, match="no module module_that_nobody_has"):
            list(work.map(without_a_module, mapped))

    @pytest.mark.parametrize("other", [ROWS[:10], ROWS + 1])
    def test_a_file_that_another_took_the_place_of(self, work, tmp_path, mapped, other):
        stream = vwkit.Stream.from_array(mapped)
        np.save(tmp_path / "other.npy", other)
        (tmp_path / "other.npy").replace(tmp_path / "rows.npy")
        with pytest.raises(vwkit.errors.DataError, match="is not the file any more"):
            list(work.map(whole, stream, rows=100))
        # Only this process has the rows now.
        assert sum(work.map(whole, mapped, rows=100)) == int(ROWS.sum())

    @pytest.mark.parametrize("combine", [None, operator.add])
    def test_stopping_does_not_wait_for_the_kernel(self, work, base, mapped, tmp_path, combine):
        until = tmp_path / "go on"
        threading.Timer(0.3, base.stop.set).start()
        with pytest.raises(vwkit.errors.Interrupted, match="--resume"):
            list(work.map(held, mapped, {"until": str(until)}, rows=2000, combine=combine))
        base.stop.clear()
        until.touch()

    def test_leaving_early(self, work, mapped):
        found = work.map(whole, mapped, rows=10)
        next(found)
        found.close()
        assert sum(work.map(whole, mapped, rows=10)) == int(ROWS.sum())


class TestWorkersThatDie:
    @pytest.mark.parametrize("kind", ["file", "memory"])
    @pytest.mark.parametrize("combine", [None, operator.add])
    def test_the_result_is_the_same(self, work, mapped, tmp_path, kind, combine):
        arrays = {"marker": str(tmp_path / "killed")}
        found = list(work.map(killed_once, data(kind, mapped), arrays, rows=100, combine=combine))
        assert (tmp_path / "killed").exists()
        true = list(Job().map(whole, ROWS, rows=100))
        assert found == ([sum(true)] if combine and kind == "file" else true)

    def test_also_after_results_are_there(self, work, cluster, mapped):
        found = work.map(whole, mapped, rows=100)
        first = next(found)
        for nanny in cluster.workers.values():  # all of them, with all that they hold
            os.kill(nanny.process.pid, signal.SIGKILL)
        assert first + sum(found) == int(ROWS.sum())


def new_pages(chunk):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(1 << 19)  # 1,024 pages, given back again
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does with freed memory")
def test_workers_of_a_local_cluster_keep_freed_memory(base):
    executor = vwkit.create("executor", "dask", workers=1, patience=120.0)
    with executor.ready(base):
        work = base.using(executor)
        found = list(work.map(new_pages, ROWS, rows=len(ROWS)))
    assert found[0] < 10 * 1024
