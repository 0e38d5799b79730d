"""A tree has the same bytes however its rows are read, wherever they are, and after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from far_executor import Far
from graph_fits import Stop
from tree_fits import blobs, cut, everything
from vwkit_numba import (
    VocabularyTree,
    passes,
    room,
    taking,
    tree_fitting,
    tree_passes,
)

import vwkit
from vwkit.jobs import Job, use_job


@pytest.mark.usefixtures("small_samples")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_threads_chunks_and_maps_give_the_same_bytes(
    tmp_path: Path, dtype: Any, weighted: bool
) -> None:
    rows = blobs(rows=10_000, dim=5).astype(dtype)
    weights = np.random.default_rng(1).exponential(size=len(rows)) if weighted else None
    if weights is not None:
        weights[::7] = 0
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")

    expected = fitted(rows, weights, Job(threads=1))
    for data, budgets in (
        (rows, {"threads": 3}),
        (mapped, {"threads": 2}),
        (cut(rows, 77), {"threads": 1, "memory": 1 << 18}),
        (cut(rows, 4096), {"threads": 2}),
    ):
        assert everything(fitted(data, weights, Job(**budgets))) == everything(expected)
    for threads in (1, 3):
        with use_job(Job(threads=threads)):
            assert np.array_equal(expected.predict(rows), expected.labels)
            stream = expected.predict(cut(rows, 333))
            assert np.array_equal(stream.toarray()[:, 0], expected.labels)


# On workers -------------------------------------------------------------------------------------


@pytest.fixture
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the rows into blocks of 700, and let two of them be a part that can be gone on behind."""
    monkeypatch.setattr(taking, "_LEAST_ROWS", 700)
    monkeypatch.setattr(tree_passes, "_STRETCH", 2)


def fitted(data: Any, weights: Any, job: Job, **params: Any) -> VocabularyTree:
    with use_job(job):
        return VocabularyTree(**{"branch": 4, "depth": 4, "beam": 2, **params}).fit(data, weights)


@pytest.mark.usefixtures("small_samples", "short_stretches")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(np.uint8, ".npy"), (np.uint8, ".bvecs"), (np.float32, ".fvecs"), (np.int32, ".ivecs")],
)
def test_workers_give_the_same_bytes(tmp_path: Path, dtype: Any, kind: str, weighted: bool) -> None:
    rows = blobs(dim=40).astype(dtype)
    weights = np.random.default_rng(1).exponential(size=len(rows)) if weighted else None
    if weights is not None:
        weights[::7] = 0
    expected = everything(fitted(rows, weights, Job(threads=1)))
    vwkit.write(tmp_path / f"rows{kind}", rows)
    far = Far()
    stored = vwkit.read(tmp_path / f"rows{kind}")
    assert everything(fitted(stored, weights, Job(executor=far))) == expected
    for other in (rows, cut(rows, 333)):
        again = Far(adds=False)
        assert everything(fitted(other, weights, Job(executor=again))) == expected
        assert again.row_bytes > far.row_bytes + 4 * rows.nbytes


@pytest.mark.usefixtures("small_samples")
def test_workers_read_rows_that_are_computed(tmp_path: Path) -> None:
    """No single row can be taken there: whole chunks are made, and the others left out."""
    np.save(tmp_path / "rows.npy", blobs())
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    lazy = vwkit.Stream.from_array(mapped).rechunk(257).map(lambda chunk: 255 - chunk)
    far = Far(dumps=cloudpickle.dumps)
    found = fitted(lazy, None, Job(executor=far))
    assert everything(found) == everything(fitted(255 - mapped, None, Job(threads=1)))


@pytest.mark.usefixtures("small_samples")
def test_rows_of_a_root_alone(tmp_path: Path) -> None:
    rows = np.full((900, 3), 7, np.uint8)
    found = fitted(rows, None, Job(executor=Far()))
    assert np.array_equal(found.centers, rows[:1])
    assert found.objective == [0]


def test_words_that_are_looked_up_there() -> None:
    rows = blobs()
    tree = fitted(rows, None, Job(threads=1))
    with use_job(Job(executor=Far())):
        assert np.array_equal(tree.predict(rows), tree.labels)


# After a kill -----------------------------------------------------------------------------------


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state after each part of a pass."""
    monkeypatch.setattr(tree_fitting, "_WORTH_KEEPING", 0.0)
    monkeypatch.setattr(room, "_AT_ONCE", 1000)
    monkeypatch.setattr(passes, "most_rows", lambda memory: 1000)


class Cut(Job):
    """A job that is cut off behind a checkpoint, and one that goes on from there."""

    def __init__(self, last: int = 0, kept: Any = None, *, far: bool = False) -> None:
        super().__init__(threads=1, executor=Far() if far else None)
        self.last, self.kept = last, kept

    def checkpoint(self, step: int, arrays: Any) -> None:
        if step == self.last:
            self.kept = step, {name: np.array(array) for name, array in arrays.items()}
            raise Stop

    def resume(self) -> Any:
        return self.kept


@pytest.mark.usefixtures("small_samples", "short_stretches", "every_step")
@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_goes_on_behind_every_checkpoint(tmp_path: Path, far: bool, weighted: bool) -> None:
    """Within splits, passes and means, and behind the last level."""
    rows = blobs(rows=2500, dim=3)
    weights = np.random.default_rng(1).integers(0, 3, len(rows)) * 1.0 if weighted else None
    vwkit.write(tmp_path / "rows.npy", rows)
    stored = vwkit.read(tmp_path / "rows.npy")
    expected = everything(fitted(rows, weights, Job(threads=1)))
    phases, last = set(), 0
    while True:
        last += 2
        job = Cut(last, far=far)
        try:
            assert everything(fitted(stored, weights, job)) == expected
        except Stop:
            phases.add(int(job.kept[1]["at"][1]))
            assert everything(fitted(stored, weights, Cut(0, job.kept, far=far))) == expected
            continue
        break
    assert phases == set(range(5))
    assert last > 40


@pytest.mark.usefixtures("small_samples", "short_stretches", "every_step")
def test_what_was_begun_here_goes_on_there() -> None:
    """Also in the middle of a pass over rows that only this process can read."""
    rows = blobs(rows=2500, dim=3)
    expected = everything(fitted(rows, None, Job(threads=1)))
    for last in range(1, 40, 5):
        job = Cut(last)
        with pytest.raises(Stop):
            fitted(rows, None, job)
        assert everything(fitted(cut(rows, 300), None, Cut(0, job.kept, far=True))) == expected


@pytest.mark.usefixtures("small_samples", "every_step")
@pytest.mark.parametrize("last", [3, 30, 60])
def test_a_checkpoint_of_something_else_is_left(last: int) -> None:
    """Whatever a checkpoint holds, no kernel reads beside its arrays."""
    rows = blobs(rows=2500, dim=3)
    expected = everything(fitted(rows, None, Job(threads=1)))
    job = Cut(last)
    with pytest.raises(Stop):
        fitted(rows, None, job)
    step, state = job.kept
    far_off = np.eye(6, dtype=np.int64)[:5] * 10**6
    wrong = {
        "at": [*(state["at"] + far_off), *(state["at"] - far_off), state["at"][1:]],
        "nodes": [state["nodes"] + 10**6, state["nodes"] - 10**6, state["nodes"][1:]],
        "first": [state["first"] + 1, state["first"][::-1].copy(), np.zeros(0, np.int64)],
        "centers": [state["centers"][1:], state["centers"].astype(np.float64)],
        "found": [np.zeros((7777, 3), np.float32), np.zeros((0, 4), np.float32)],
        "counts": [np.full(333, 1), np.full(len(state["counts"]) + 1, -1)],
        "sums": [np.zeros((9999, 3), np.int64)],
        "masses": [np.zeros((9999, 4), np.int64)],
    }
    for name, values in wrong.items():
        for number, value in enumerate(values):
            found = fitted(rows, None, Cut(0, (step, {**state, name: value})))
            assert everything(found) == expected, (name, number)


@pytest.mark.usefixtures("small_samples")
def test_progress_goes_up_to_all_rows_of_all_levels(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    rows = blobs()
    fitted(rows, None, Job(threads=1, progress=lambda *what: told.append((what[1], what[2]))))
    done = [one for one, _ in told]
    assert done == sorted(done)
    assert len(done) > 20
    assert told[-1] == (4 * len(rows), 4 * len(rows))
