"""A fit of graph k-means that is cut off within a pass goes on there, to the same bytes."""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from far_executor import Far
from graph_fits import Stop, blobs, everything
from vwkit_numba import keeping, passes, predicting, taking
from vwkit_numba.marks import Doing, Phase

import vwkit
from vwkit import jobs
from vwkit.checkpoints import found_checkpoints
from vwkit.errors import FewDistinctRows
from vwkit.jobs import Job, use_job
from vwkit.testing.data import cut

BLOCK = 200
MEMORY = 1 << 14  # so little that what is known of rows lies in files


@pytest.fixture(autouse=True)
def every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state behind every block, and make blocks small."""
    monkeypatch.setattr(jobs, "_CHECKPOINT_SHARE", 0)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # the machine goes on
    monkeypatch.setattr(keeping, "_WORTH_KEEPING", 0.0)
    monkeypatch.setattr(passes, "most_rows", lambda memory: BLOCK)
    monkeypatch.setattr(passes, "_LEAST_ROWS", BLOCK)
    monkeypatch.setattr(predicting, "_ROWS", BLOCK)
    monkeypatch.setattr(taking, "_LEAST_ROWS", BLOCK)


class Counted(Job):
    """A job that counts all checkpoints, of its parts as well, and stops behind one.

    Only that one and the one before it are written; or all, or none.
    """

    def __init__(
        self, folder: Path | None, last: int | None = None, *, every: bool = False, **params: Any
    ) -> None:
        super().__init__(**{"threads": 1, "memory": MEMORY, "folder": folder, **params})
        self.last, self.every = last, every
        self.seen: list[tuple[Phase, Doing, int]] = []

    def checkpoint(self, step: int, arrays: Any) -> None:
        if "far_keys" not in arrays:
            return  # of another backend
        phase, doing, row = (int(one) for one in arrays["at"][:3])
        self.seen.append((Phase(phase), Doing(doing), row))
        if self.every or (self.last is not None and len(self.seen) >= self.last - 1):
            super().checkpoint(step, arrays)
        if len(self.seen) == self.last:
            raise Stop

    def within(self, stage: str, folder: Path | None = None) -> Job:
        part = super().within(stage, folder)
        part.__class__ = type(self)
        part.__dict__.update(last=self.last, seen=self.seen, every=self.every)
        return part


@functools.cache
def rows_of(kind: str, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return rows, weights and a quantizer."""
    if kind == "few":
        return np.repeat(blobs(75, 4, 20, seed), 8, axis=0), None, None
    if kind == "twice":
        return np.repeat(blobs(400, 4, 20, seed), 2, axis=0), None, None
    rows = blobs(600, 8, 20, seed)
    if kind == "weighted":
        weights = np.random.default_rng(seed).exponential(size=len(rows))
        weights[::7] = 0
        return rows.astype(np.float32), weights, None
    if kind == "codes":
        quantizer: Any = vwkit.create("quantizer", "pq", m=4, ks=16, iterations=2).fit(rows)
        return quantizer.encode(rows), None, quantizer
    return rows, None, None


STARTS = blobs(60, 8, 20, 5).astype(np.float32)
PASSES = {Doing.ASSIGN, Doing.ADD, Doing.NOTHING}
START = {Doing.SPLIT, Doing.FIRST, Doing.MEANS, Doing.SECOND}
# Name, kind of rows, parameters, and what is cut off at least.
CASES: dict[str, tuple[str, dict[str, Any], set[Any]]] = {
    "plain": ("plain", {"k": 60, "iterations": 4}, PASSES | START),
    "weighted": ("weighted", {"k": 60, "iterations": 3, "relocate": 0.4}, PASSES | START),
    "spherical": ("plain", {"k": 50, "iterations": 3, "spherical": True}, PASSES | START),
    "given": ("plain", {"k": 60, "iterations": 3, "init": STARTS}, PASSES | {Doing.WALK}),
    "still": (
        "plain",
        {"k": 60, "iterations": 14, "tolerance": 0.0, "relocate": 0.0, "neighbours": 4},
        PASSES,
    ),
    "exact": ("plain", {"k": 60, "iterations": 2, "finish": "exact"}, {Doing.COMPARE}),
    "one": ("plain", {"k": 1, "iterations": 2}, PASSES),
    "repaired": (
        "few",
        {"k": 74, "iterations": 3, "neighbours": 4, "relocate": 0.0, "finish": "exact"},
        {Phase.REPAIR, Phase.FILL, Phase.EXACT, Doing.COMPARE},
    ),
    "too few": ("few", {"k": 90, "iterations": 3}, {Phase.REPAIR}),
    "folded": ("twice", {"k": 30, "iterations": 3, "fold": True}, PASSES),
    "codes": ("codes", {"k": 50, "iterations": 3, "finish": "exact"}, PASSES | START),
}


def fitted(case: str, job: Job, seed: int = 0, rows: Any = None, **more: Any) -> list[bytes]:
    """Return all that a fit of a case leaves behind."""
    kind, params, _ = CASES[case]
    data, weights, quantizer = rows_of(kind, seed)
    name, given = (
        ("graph-kmeans", {}) if quantizer is None else ("graph-pqkmeans", {"quantizer": quantizer})
    )
    model: Any = vwkit.create("clusterer", name, **{**params, "seed": seed, **more})
    with use_job(job), warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDistinctRows)
        model.fit(data if rows is None else rows, weights, **given)
    if quantizer is not None:
        model._shift = np.zeros(0, np.float32)
    return [*everything(model), str(model.corrected).encode()]


def stops(case: str, folder: Path, **more: Any) -> Iterator[Path]:
    """Cut a fit off behind each of its checkpoints; yield the folders that are left."""
    for last in itertools.count(1):
        part = folder / str(last)
        try:
            fitted(case, Counted(part, last), **more)
        except Stop:
            yield part
        else:
            return


@pytest.mark.parametrize("case", CASES)
def test_behind_every_block_the_same_bytes(case: str, tmp_path: Path) -> None:
    expected = fitted(case, Job(threads=1))
    whole = Counted(tmp_path / "whole")
    assert fitted(case, whole) == expected
    seen = {doing for _, doing, _ in whole.seen} | {phase for phase, _, _ in whole.seen}
    assert seen >= CASES[case][2]
    count = 0
    for part in stops(case, tmp_path):
        count += 1
        again = Counted(part)
        assert fitted(case, again) == expected, whole.seen[count - 1]
        # It went on where it was, and nothing was done again.
        assert again.seen == whole.seen[count:]
    assert count == len(whole.seen) > 8


@pytest.mark.parametrize("case", ["plain", "exact", "given"])
@pytest.mark.parametrize("seed", [1, 2])
def test_streams_threads_and_other_blocks_go_on(
    case: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass is gone on with in other blocks, on other threads, and of a stream."""
    data, *_ = rows_of(CASES[case][0], seed)
    expected = fitted(case, Job(threads=1), seed)
    for number, part in enumerate(stops(case, tmp_path, seed=seed)):
        if number % 3 == seed:
            continue
        with monkeypatch.context() as patch:
            patch.setattr(passes, "most_rows", lambda memory: 77)
            patch.setattr(passes, "_LEAST_ROWS", 401)
            rows = None if number % 2 else cut(data, [13, 0, 200], known=bool(number % 4))
            assert fitted(case, Counted(part, threads=2), seed, rows) == expected, number


@pytest.mark.parametrize("case", ["plain", "weighted", "given", "exact", "repaired", "codes"])
@pytest.mark.parametrize("adds", [False, True])
def test_elsewhere_a_pass_goes_on(case: str, adds: bool, tmp_path: Path) -> None:
    """From here to there, from there to here, and there."""
    expected = fitted(case, Job(threads=1))
    whole = Counted(tmp_path / "whole", executor=Far(adds=adds))
    assert fitted(case, whole) == expected
    assert any(0 < row < 600 for _, doing, row in whole.seen if doing == Doing.ASSIGN)
    for number, part in enumerate(stops(case, tmp_path / "here")):
        if number % 5 == 0:
            assert fitted(case, Counted(part, executor=Far(adds=adds))) == expected, number
    for last in range(1, len(whole.seen) + 1, 4):
        part = tmp_path / "there" / str(last)
        with pytest.raises(Stop):
            fitted(case, Counted(part, last, executor=Far(adds=adds)))
        again = Counted(part, executor=Far(adds=adds) if last % 8 == 1 else None)
        assert fitted(case, again) == expected, whole.seen[last - 1]


def test_rows_that_workers_can_read_stay_where_they_are(tmp_path: Path) -> None:
    """Also of a pass that is gone on with, wherever that is."""
    data, *_ = rows_of("plain")
    vwkit.write(tmp_path / "rows.npy", data)
    rows = vwkit.read(tmp_path / "rows.npy")
    expected = fitted("plain", Job(threads=1))
    for last in (1, 2, 20, 23):
        with pytest.raises(Stop):
            fitted("plain", Counted(tmp_path / str(last), last))
        far = Far()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(taking, "_LEAST_ROWS", 99)
            again = Counted(tmp_path / str(last), executor=far)
            assert fitted("plain", again, rows=rows) == expected
        assert far.row_bytes < far.chunks * 99 * 13 + 1000 * far.chunks


def test_a_damaged_checkpoint_costs_one_step(tmp_path: Path) -> None:
    """The one before it is used, within a pass as well."""
    expected = fitted("plain", Job(threads=1))
    whole = Counted(tmp_path / "whole")
    fitted("plain", whole)
    for last, part in enumerate(stops("plain", tmp_path), start=1):
        path = [*found_checkpoints(part / "start"), *found_checkpoints(part)][-1][1]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        again = Counted(part)
        assert fitted("plain", again) == expected
        assert again.seen == whole.seen[last - 1 :]
        assert not path.exists()


OTHERS: list[dict[str, Any]] = [
    {"k": 59},
    {"seed": 1},
    {"neighbours": 8},
    {"iterations": 5},
    {"relocate": 0.2},
    {"tolerance": 0.0},
    {"spherical": True},
    {"finish": "exact"},
    {"init": STARTS},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
@pytest.mark.parametrize("last", [2, 20])
def test_a_checkpoint_of_another_setting_is_not_taken(
    other: dict[str, Any], last: int, tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        fitted("plain", Counted(tmp_path, last))
    whole = Counted(tmp_path / "whole")
    params = {"seed": 0, **other}
    expected = fitted("plain", whole, **params)
    again = Counted(tmp_path, every=True)
    assert fitted("plain", again, **params) == expected
    assert again.seen == whole.seen  # from the beginning
    # What it kept itself is the last there is.
    once_more = Counted(tmp_path)
    assert fitted("plain", once_more, **params) == expected
    assert once_more.seen == []


def test_a_checkpoint_of_other_data_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fitted("plain", Counted(tmp_path, 9))
    data, *_ = rows_of("plain")
    data = data[:, ::-1] // 2
    expected = fitted("plain", Job(threads=1), rows=data)
    assert fitted("plain", Counted(tmp_path), rows=data) == expected


def wrong(name: str, value: int) -> Any:
    def change(arrays: dict[str, Any]) -> None:
        if len(arrays[name]):
            arrays[name].reshape(-1)[-1] = value

    return change


CHANGES: dict[str, Any] = {
    "a label": wrong("labels", 60),
    "a label below": wrong("labels", -1),
    "a runner": wrong("runners", 1 << 30),
    "a list": wrong("lists", 61),
    "a neighbour": wrong("near", -2),
    "a far row": wrong("far_rows", 600),
    "a share": wrong("wanted", 61),
    "the row": lambda arrays: arrays["at"].__setitem__(2, 601),
    "the phase": lambda arrays: arrays["at"].__setitem__(0, 9),
    "the pass": lambda arrays: arrays["at"].__setitem__(1, -1),
    "no centers": lambda arrays: arrays.update(centers=arrays["centers"][:0]),
    "no sums": lambda arrays: arrays.update(sums=arrays["sums"][:, :-1]),
    "no labels": lambda arrays: arrays.update(labels=arrays["labels"][:-1], runners=np.zeros(1)),
    "another dtype": lambda arrays: arrays.update(gaps=arrays["gaps"].astype(np.float64)),
    "nothing": lambda arrays: arrays.clear(),
    "more": lambda arrays: arrays.update(more=np.zeros(3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_numbers_that_cannot_be_are_not_believed(change: str, tmp_path: Path) -> None:
    """Whole files that this fit has not written: it begins again, and reads nothing outside of them."""
    expected = fitted("plain", Job(threads=1))
    for last in (3, 7, 11, 24, 29, 33):
        part = tmp_path / str(last)
        with pytest.raises(Stop):
            fitted("plain", Counted(part, last))
        for folder in (part, part / "start"):
            saved = Job(folder=folder).resume()
            if saved is None:
                continue
            step, arrays = saved
            arrays = {name: np.array(array) for name, array in arrays.items()}
            CHANGES[change](arrays)
            Job(folder=folder).checkpoint(step, arrays)
        assert fitted("plain", Counted(part)) == expected


def test_short_fits_keep_nothing_within_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_WORTH_KEEPING", 3600.0)
    job = Counted(tmp_path, every=True)
    fitted("plain", job)
    assert {doing for _, doing, _ in job.seen} == {Doing.NOTHING}
    # Checkpoints of the start go once there are two behind it.
    assert not found_checkpoints(tmp_path / "start")
    assert len(found_checkpoints(tmp_path)) == 2


@pytest.mark.parametrize("executor", [None, Far()])
def test_progress_within_a_pass_is_told(executor: Far | None) -> None:
    told: list[tuple[Any, ...]] = []
    job = Counted(None, executor=executor, progress=lambda *what: told.append(what))
    fitted("plain", job)
    done = [one[1] for one in told if one[4]]
    assert done == sorted(done)
    assert done == list(range(BLOCK, 4 * 600 + 1, BLOCK))
    assert {one[2] for one in told if one[4]} == {4 * 600}


def test_what_is_not_needed_is_not_written(tmp_path: Path) -> None:
    """Twelve bytes a row at most, and sums only where they are not made anew."""
    sizes: dict[tuple[Doing, bool], set[int]] = {}

    class Sized(Counted):
        def checkpoint(self, step: int, arrays: Any) -> None:
            super().checkpoint(step, arrays)
            _, doing, row = self.seen[-1]
            per_row = sum(arrays[name].nbytes for name in ("labels", "runners", "gaps"))
            assert per_row in (2400, 4800, 7200)
            assert len(arrays["sums"]) in (0, 60)
            sizes.setdefault((doing, row > 0), set()).add(len(arrays["sums"]))

    fitted("still", Sized(tmp_path))
    assert sizes[Doing.SPLIT, True] == sizes[Doing.FIRST, True] == {0}
    assert sizes[Doing.NOTHING, False] == sizes[Doing.ADD, True] == {60}
    assert sizes[Doing.ASSIGN, True] == {0, 60}
