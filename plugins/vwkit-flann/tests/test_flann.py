from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from vwkit_flann import Flann

import vwkit
from vwkit.errors import ArtifactError, BackendError, ParameterError

ROWS = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
TREES = ("kdtree", "kmeans", "composite")


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize("algorithm", [*TREES, "linear"])
def test_defaults_reach_95_percent(algorithm: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 256, (3000, 32)).astype(np.uint8)
    asked = rng.integers(0, 256, (100, 32)).astype(np.uint8)
    true = vwkit.create("index", "exact").build(rows).search(asked, 10).ids
    assert recall(Flann(algorithm=algorithm).build(rows).search(asked, 10).ids, true) >= 0.95


@pytest.mark.parametrize("algorithm", TREES)
def test_late_checks(algorithm: str, capfd: pytest.CaptureFixture[str]) -> None:
    index = Flann(algorithm=algorithm).build(ROWS)
    true = vwkit.create("index", "exact").build(ROWS).search(QUERIES, 10).ids
    low = recall(index.search(QUERIES, 10, checks=16).ids, true)
    assert recall(index.search(QUERIES, 10, checks=1200).ids, true) > max(low, 0.8)
    assert (index.search(QUERIES, 10, checks=-1).ids == true).all()
    assert index.checks == 1024
    # To the library itself, -1 with several trees is worth a line on stderr.
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("algorithm", TREES)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_all_neighbours_are_found_once_however_few_the_checks(algorithm: str, metric: str) -> None:
    rows = np.concatenate([np.repeat(ROWS[:3], 100, axis=0), np.zeros((7, 16), np.float32)])
    index = Flann(algorithm=algorithm, metric=metric, checks=1).build(rows)
    found = index.search(rows[::100], 307)
    assert (np.sort(found.ids, axis=1) == np.arange(307)).all()
    true = vwkit.create("index", "exact", metric=metric).build(rows).search(rows[::100], 307)
    assert np.allclose(found.distances, true.distances, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", [*TREES, "linear"])
def test_cosine_of_zero_and_of_tiny_vectors(algorithm: str) -> None:
    rows = np.array([[0, 0], [1e-30, 0], [0, 1e25], [1, 1]], np.float32)
    found = Flann(metric="cosine", algorithm=algorithm).build(rows).search(rows, 4)
    by_id = np.take_along_axis(found.distances, np.argsort(found.ids, axis=1), axis=1)
    half = 1 - 0.5**0.5
    expected = [[1, 1, 1, 1], [1, 0, 1, half], [1, 1, 0, half], [1, half, half, 0]]
    assert np.allclose(by_id, expected, atol=1e-6)


def test_zero_vectors_are_as_far_as_any_at_a_right_angle() -> None:
    rows = np.concatenate([np.zeros((5, 3)), np.eye(3), -np.eye(3)]).astype(np.float32)
    found = Flann(metric="cosine", checks=-1).build(rows).search(np.eye(3)[:1], 11)
    assert found.ids[0, 0] == 5
    assert found.ids[0, -1] == 8
    assert (found.distances[0, 1:-1] == 1).all()


@pytest.mark.parametrize("algorithm", [*TREES, "linear"])
def test_numbers_too_large_to_square(algorithm: str) -> None:
    # The library finds nothing at an infinite distance; the rest are compared one by one.
    rows = (ROWS[:200] * 1e30).astype(np.float32)
    found = Flann(algorithm=algorithm).build(rows).search(rows[:3], 200)
    assert (np.sort(found.ids, axis=1) == np.arange(200)).all()
    assert found.ids[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("algorithm", [*TREES, "linear"])
def test_a_loaded_index_is_the_same_and_its_vectors_are_mapped(
    algorithm: str, metric: str, tmp_path: Path
) -> None:
    index = Flann(algorithm=algorithm, metric=metric).build(ROWS)
    before = index.search(QUERIES, 9, checks=32)
    index.save(tmp_path / "a")
    del index
    gc.collect()
    loaded = vwkit.load(tmp_path / "a")
    assert isinstance(loaded._vectors, np.memmap)
    after = loaded.search(QUERIES, 9, checks=32)
    assert (before.ids == after.ids).all()
    assert (before.distances == after.distances).all()


def test_autotuned(tmp_path: Path) -> None:
    # Larger data take the library many seconds.
    rows = ROWS[:60]
    index = Flann(algorithm="autotuned", target_precision=0.8).build(rows)
    found = index.search(QUERIES, 5)
    index.save(tmp_path / "a")
    assert (vwkit.load(tmp_path / "a").search(QUERIES, 5).ids == found.ids).all()
    assert (index.search(rows, 1, checks=-1).ids[:, 0] == np.arange(60)).all()


def test_building_again_lets_the_old_one_go() -> None:
    index = Flann()
    for _ in range(50):
        found = index.build(ROWS[:100]).search(ROWS[:100], 1)
        assert (found.ids[:, 0] == np.arange(100)).all()
        other = index.with_late({"checks": 64})
    del index
    gc.collect()
    assert (other.search(ROWS[:100], 1).ids[:, 0] == np.arange(100)).all()


def test_parameters_that_the_library_cannot_take() -> None:
    for name, value in (
        ("algorithm", "kd-tree"),
        ("trees", 0),
        ("branching", 1),
        ("iterations", 0),
        ("iterations", -2),
        ("checks", 0),
        ("checks", 2**31),
        ("target_precision", 1.5),
        ("threads", 0),
    ):
        with pytest.raises(ParameterError, match=name):
            Flann(**{name: value})
    for seed in (-1, 0, 2**40):
        assert Flann(seed=seed).build(ROWS[:50]).search(ROWS[:1], 1).ids.tolist() == [[0]]


def test_what_the_library_refuses_is_an_error_and_not_printed(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    index = Flann(algorithm="kmeans")
    object.__setattr__(index, "branching", 1)
    with pytest.raises(BackendError, match="could not build"):
        index.build(ROWS)
    index = Flann().build(ROWS)
    index._save(tmp_path)
    path = tmp_path / "kdtree.flann"
    path.write_bytes(path.read_bytes()[:72])
    index = Flann()
    index._dim, index._ids = 16, Flann().build(ROWS)._ids
    with pytest.raises(ArtifactError, match="damaged"):
        index._load(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda head: b"",
        lambda head: head[:30],
        lambda head: b"FLANN_INDEX" + head[11:],
        lambda head: head[:40] + b"\x09" + head[41:],  # of float64
        lambda head: head[:44] + b"\x02" + head[45:],  # a k-means tree
        lambda head: head[:48] + b"\xff" + head[49:],  # more rows
        lambda head: head[:56] + b"\x01" + head[57:],  # fewer columns
    ],
)
def test_a_false_header_is_refused(tmp_path: Path, change: object) -> None:
    index = Flann().build(ROWS)
    index._save(tmp_path)
    index._load(tmp_path)
    path = tmp_path / "kdtree.flann"
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ArtifactError, match="not a kdtree of flann"):
        index._load(tmp_path)


def test_false_vectors_are_refused(tmp_path: Path) -> None:
    index = Flann().build(ROWS)
    for wrong in (ROWS[:-1], ROWS[:, :-1], ROWS.astype(np.float64), np.asfortranarray(ROWS)):
        index._save(tmp_path)
        np.save(tmp_path / "vectors.npy", wrong)
        with pytest.raises(ArtifactError, match="vectors.npy"):
            index._load(tmp_path)
