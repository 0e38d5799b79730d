"""Graph k-means gives the same bytes every way, also cut off and taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_fits import PARAMS, Always, Stop, blobs, everything, fitted_quietly
from vwkit_numba import GraphKMeans, passes, predicting, room
from vwkit_numba.fitting import Fit

from vwkit.errors import Interrupted
from vwkit.jobs import Job, use_job
from vwkit.testing.data import cut, layouts


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_threads_chunks_and_maps_give_the_same_bytes(
    tmp_path: Path, dtype: Any, weighted: bool, spherical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blobs(rows=17_000, dim=5, clusters=200).astype(dtype)
    weights = np.random.default_rng(1).exponential(size=len(data)) if weighted else None
    if weights is not None:
        weights[::7] = 0
    np.save(tmp_path / "rows.npy", data)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    before = data.copy()

    def fitted(rows: Any, **budgets: Any) -> list[bytes]:
        with use_job(Job(**budgets)):
            model = GraphKMeans(**PARAMS, spherical=spherical).fit(rows, weights)
            again = [model.predict(rows[:500])] if isinstance(rows, np.ndarray) else []
            assert all(np.array_equal(one, found) for one in again)
        return everything(model)

    with use_job(Job(threads=1)):
        model = GraphKMeans(**PARAMS, spherical=spherical).fit(data, weights)
        found = model.predict(data[:500])
    expected = everything(model)
    assert fitted(data, threads=2) == expected
    assert fitted(mapped, threads=3) == expected
    # Blocks of 16,384 rows, whatever the chunks.
    assert fitted(cut(data, [77, 0, 5000]), threads=1, memory=1) == expected
    assert fitted(cut(data, [16_384], known=False), threads=2, memory=1) == expected
    data.flags.writeable = False
    monkeypatch.setattr(passes, "most_rows", lambda memory: 4567)
    monkeypatch.setattr(predicting, "_ROWS", 1000)
    monkeypatch.setattr(room, "_MAPPED", 1 << 10)
    assert fitted(data, threads=2) == expected
    assert np.array_equal(data, before)


def test_layouts_give_the_same_bytes() -> None:
    data = blobs(rows=2000, dim=5).astype(np.float32)
    expected = everything(fitted_quietly(data, **PARAMS)[0])
    for name, other in layouts(data):
        if name == "uint8":  # has whole numbers as the coordinates' origin
            continue
        before = other.copy()
        other.flags.writeable = False
        assert everything(fitted_quietly(other, **PARAMS)[0]) == expected, name
        assert np.array_equal(other, before)


def test_the_order_of_the_rows_does_not_matter_to_the_sums() -> None:
    """Where every start is given, and nothing is drawn."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(4000, 7)).astype(np.float32)
    weights = rng.exponential(size=4000)
    start = data[:100].copy()
    for heavy in (None, weights):
        params: dict[str, Any] = {"k": 100, "init": start, "relocate": 0.0, "neighbours": 16}
        model, _ = fitted_quietly(data, heavy, **params)
        assert not any(model.moved)  # rows to move to are drawn
        order = rng.permutation(4000)
        other, _ = fitted_quietly(data[order], None if heavy is None else heavy[order], **params)
        assert np.array_equal(other.centers, model.centers)
        assert np.array_equal(other.labels, model.labels[order])
        assert other.objective == model.objective


def test_another_seed_is_another_start() -> None:
    data = np.random.default_rng(0).normal(size=(1000, 4))
    found = [fitted_quietly(data, k=50, seed=seed)[0].centers.tobytes() for seed in range(3)]
    assert len(set(found)) == 3


def test_numpys_own_generator_is_left_alone() -> None:
    def numbers_of() -> bytes:
        state: Any = np.random.get_state()  # noqa: NPY002 - this is the one
        return bytes(state[1].tobytes())

    before = numbers_of()
    fitted_quietly(blobs(rows=300), k=30)
    assert numbers_of() == before


@pytest.mark.parametrize(
    ("rows", "dim", "k", "clusters", "params"),
    [
        (3000, 16, 300, 50, {}),
        (3000, 16, 300, 50, {"weighted": True}),
        (600, 8, 60, 12, {"relocate": 0.5}),
        (500, 3, 200, 12, {"spherical": True}),
        (300, 2, 40, 300, {"neighbours": 4, "relocate": 0.0}),
        (300, 2, 150, 9, {"fold": True, "weighted": True, "finish": "exact"}),
    ],
)
def test_an_interrupted_fit_goes_on(
    tmp_path: Path, rows: int, dim: int, k: int, clusters: int, params: dict[str, Any]
) -> None:
    """Behind every checkpoint it goes on to the same bytes."""
    params = dict(params)
    weighted = params.pop("weighted", False)
    for seed in range(2):
        data = blobs(rows, dim, clusters, seed)
        rng = np.random.default_rng(seed)
        weights = rng.exponential(size=rows) if weighted else None

        def model(seed: int = seed) -> GraphKMeans:
            return GraphKMeans(k=k, seed=seed, iterations=12, **params)

        job = Always(tmp_path / f"whole{seed}")
        with use_job(job):
            expected = everything(model().fit(data, weights))
        assert job.steps > 2
        for last in range(1, job.steps + 1):
            folder = tmp_path / f"{seed}-{last}"
            with pytest.raises(Stop), use_job(Always(folder, last)):
                model().fit(data, weights)
            again = Always(folder)
            with use_job(again):
                resumed = model().fit(data, weights)
            assert again.steps == job.steps - last
            assert everything(resumed) == expected, f"after {last} of {job.steps}"


@pytest.mark.parametrize("params", [{}, {"relocate": 0.5}, {"spherical": True}])
def test_the_start_is_kept(tmp_path: Path, params: dict[str, Any], monkeypatch: Any) -> None:
    """Cut off in the first iteration, a fit does not start again, and ends in the same bytes."""
    data = blobs(600, 8, 20)

    def model() -> GraphKMeans:
        return GraphKMeans(k=60, iterations=5, **params)

    with use_job(Job(threads=1)):
        expected = everything(model().fit(data))

    def cut(self: Fit, **_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "_update", cut)
        with pytest.raises(Stop), use_job(Job(threads=1, folder=tmp_path)):
            model().fit(data)

    def begin(self: Fit) -> None:
        raise AssertionError("it starts again")

    with monkeypatch.context() as patch, use_job(Job(threads=1, folder=tmp_path)):
        patch.setattr(Fit, "_begin", begin)
        assert everything(model().fit(data)) == expected


@pytest.mark.parametrize(("rows", "dim", "k"), [(400, 8, 31), (400, 7, 30), (399, 8, 30)])
def test_a_checkpoint_of_another_fit_is_not_used(
    tmp_path: Path, rows: int, dim: int, k: int
) -> None:
    with pytest.raises(Stop), use_job(Always(tmp_path, 2)):
        GraphKMeans(k=30).fit(blobs(rows=400))
    data = blobs(rows=rows, dim=dim)
    with use_job(Always(tmp_path)):
        model = GraphKMeans(k=k).fit(data)
    assert everything(model) == everything(fitted_quietly(data, k=k)[0])


def test_work_that_is_asked_to_stop_stops() -> None:
    job = Job(threads=1)
    job.stop.set()
    with pytest.raises(Interrupted), use_job(job):
        GraphKMeans(k=5).fit(blobs(rows=100))
    model = fitted_quietly(blobs(rows=100), k=5)[0]
    with pytest.raises(Interrupted), use_job(job):
        model.predict(blobs(rows=100))


@pytest.mark.parametrize("finish", ["graph", "exact"])
def test_progress_is_told(finish: str) -> None:
    told: list[tuple[Any, ...]] = []
    data = blobs(rows=500)
    with use_job(Job(threads=1, stage="words", progress=lambda *what: told.append(what))):
        model = GraphKMeans(k=50, iterations=7, finish=finish).fit(data)
    steps = [one for one in told if one[4]]
    assert len(steps) == len(model.moved)
    for number, (stage, done, total, unit, values) in enumerate(steps, start=1):
        assert (stage, done, total, unit) == ("words", 500 * number, 500 * 7, "rows")
        assert values == {"iteration": number, "objective": model.objective[number]} or (
            number == len(steps)
        )
    assert all(done <= total for _, done, total, _, _ in told)
