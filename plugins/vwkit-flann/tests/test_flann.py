from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vwkit_flann import Flann
from vwkit_flann_library import Part
from vwkit_flann_trees import LEVELS, KDTrees, KMeansTree, load_tree, save_tree

import vwkit
from vwkit.errors import ArtifactError, BackendError, ParameterError
from vwkit.types import Array

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
    capfd: pytest.CaptureFixture[str],
) -> None:
    index = Flann(algorithm="kmeans")
    object.__setattr__(index, "branching", 1)
    with pytest.raises(BackendError, match="could not build"):
        index.build(ROWS)
    assert capfd.readouterr() == ("", "")


# Saved ------------------------------------------------------------------------------------------


def saved(folder: Path, **params: Any) -> dict[str, Array]:
    """Save a small index; return its arrays by name."""
    Flann(seed=3, **params).build(FEW)._save(folder)
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def opened(folder: Path, **params: Any) -> Flann:
    index = Flann(**params)
    index._dim, index._ids = FEW.shape[1], Flann(algorithm="linear").build(FEW)._ids
    index._load(folder)
    index._fitted = True
    return index


FEW = ROWS[:60]
KMEANS = {"algorithm": "kmeans", "branching": 4}


def nothing_left(folder: Path) -> bool:
    return all(path.suffix == ".npy" for path in folder.iterdir())


def test_what_is_saved(tmp_path: Path) -> None:
    held = saved(tmp_path, trees=3)
    assert nothing_left(tmp_path)
    assert held["kdtree-points"].shape == (3, 60)
    assert (np.sort(held["kdtree-points"], axis=1) == np.arange(60)).all()
    assert held["kdtree-dimensions"].shape == held["kdtree-values"].shape == (3, 59)
    assert held["kdtree-dimensions"].max() < 16
    leaves = np.unpackbits(held["kdtree-leaves"], axis=1, count=119)
    assert (leaves.sum(axis=1) == 60).all()
    assert (opened(tmp_path, trees=3).search(FEW, 1).ids[:, 0] == np.arange(60)).all()


def test_what_is_saved_of_a_k_means_tree(tmp_path: Path) -> None:
    held = saved(tmp_path, **KMEANS)
    leaf = held["kmeans-leaves"].astype(bool)
    assert held["kmeans-sizes"][0] == held["kmeans-sizes"][leaf].sum() == 60
    assert np.allclose(held["kmeans-centers"][0], FEW.mean(axis=0), atol=1e-5)
    assert (np.sort(held["kmeans-points"]) == np.arange(60)).all()
    first = int(np.flatnonzero(leaf)[0])
    inside = FEW[held["kmeans-points"][: held["kmeans-sizes"][first]]]
    assert np.allclose(held["kmeans-centers"][first], inside.mean(axis=0), atol=1e-5)


def set_to(at: Any, value: float) -> Callable[[Array], Array]:
    def change(array: Array) -> Array:
        array[at] = value
        return array

    return change


def leaf_bits(*nodes: int) -> Callable[[Array], Array]:
    """Make another tree of 60 leaves in the place of the second."""

    def change(array: Array) -> Array:
        array[1] = np.packbits(np.array(nodes, bool))
        return array

    return change


COMB = (*[0, 1] * 59, 1)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("points", set_to((1, 5), 60), "tree 1: a leaf holds a row that is none of 60"),
        ("points", set_to((1, 5), -1), "a row that is none"),
        ("points", lambda array: np.repeat(array[:, :30], 2, axis=1), "a row twice"),
        ("points", lambda array: array[:1], "arrays of 1 and 2 trees"),
        ("points", lambda array: array[:, :59], "of shape any × 60 is needed"),
        ("points", lambda array: array.astype(np.int64), "int32 of shape any × 60 is needed"),
        ("points", lambda array: array.astype(">i4"), "int32 of shape any × 60 is needed"),
        ("points", np.asfortranarray, "int32 of shape any × 60 is needed"),
        ("dimensions", set_to((0, 58), 16), "tree 0: a node divides by a dimension that is none"),
        ("leaves", leaf_bits(*COMB[:-2], 0, 1), "59 leaves, not 60"),
        ("leaves", leaf_bits(*[1] * 60, *[0] * 59), "not one tree"),
        ("leaves", leaf_bits(0, 1, 1, *[1] * 58, *[0] * 58), "not one tree"),
        ("leaves", leaf_bits(*COMB), None),
        ("leaves", leaf_bits(*[0] * 59, *[1] * 60), None),
        ("values", set_to((0, 0), np.nan), None),
    ],
)
def test_k_d_trees_that_lead_elsewhere(
    tmp_path: Path, name: str, change: Callable[[Array], Array], said: str | None
) -> None:
    held = saved(tmp_path, trees=2)
    np.save(tmp_path / f"kdtree-{name}.npy", change(held[f"kdtree-{name}"]))
    if said is None:
        assert opened(tmp_path, trees=2).search(FEW, 60).ids.min() == 0
        return
    with pytest.raises(ArtifactError, match=said) as caught:
        opened(tmp_path, trees=2)
    assert "kdtree-" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("points", set_to(5, 60), "a row that is none of 60"),
        ("points", set_to(slice(2), 7), "a row twice"),
        ("leaves", set_to(0, 1), "a node has one child|not one tree"),
        ("leaves", set_to(-1, 0), "a node has one child|not one tree"),
        ("leaves", lambda array: array[:-1], "of different numbers of nodes"),
        ("leaves", lambda array: array[:0], "of different numbers of nodes"),
        ("sizes", set_to(-1, 99), "do not share the 60 rows"),
        ("sizes", set_to(-1, -1), "do not share the 60 rows"),
        ("centers", lambda array: array[:, :15], "any × 16 is needed"),
        ("border", lambda array: array[:0], "of shape 1 is needed"),
        ("sizes", set_to(0, -(2**31)), None),
        ("spreads", set_to(0, np.nan), None),
        ("centers", set_to(1, np.inf), None),
    ],
)
def test_a_k_means_tree_that_leads_elsewhere(
    tmp_path: Path, name: str, change: Callable[[Array], Array], said: str | None
) -> None:
    held = saved(tmp_path, **KMEANS)
    np.save(tmp_path / f"kmeans-{name}.npy", change(held[f"kmeans-{name}"]))
    if said is None:
        assert opened(tmp_path, **KMEANS).search(FEW, 60).ids.min() == 0
        return
    with pytest.raises(ArtifactError, match=said) as caught:
        opened(tmp_path, **KMEANS)
    assert "kmeans-" in str(caught.value)


@pytest.mark.parametrize("kind", ["left", "right"])
@pytest.mark.parametrize("levels", [LEVELS - 1, LEVELS])
def test_trees_too_high_for_a_stack(tmp_path: Path, kind: str, levels: int) -> None:
    rows = np.random.default_rng(0).normal(size=(levels + 1, 2)).astype(np.float32)
    leaf = np.array([0] * levels + [1] * (levels + 1) if kind == "left" else [0, 1] * levels + [1])
    high = KDTrees(
        np.packbits(leaf.astype(bool))[None],
        np.arange(levels + 1, dtype=np.int32)[None],
        np.zeros((1, levels), np.uint16),
        np.zeros((1, levels), np.float32),
    )
    flat = KMeansTree(
        leaf.astype(np.uint8),
        np.ones(len(leaf), np.int32),
        np.zeros((len(leaf), 2), np.float32),
        np.zeros((len(leaf), 2), np.float32),
        np.arange(levels + 1, dtype=np.int32),
        np.zeros(1, np.float32),
    )
    for tree in (high, flat):
        if levels < LEVELS:
            save_tree(tmp_path, tree)
            Part.loaded(load_tree(tmp_path, tree.name, len(rows), 2), rows).search(
                rows[:3].copy(), 5, {"checks": 2**30}
            )
        else:
            with pytest.raises(BackendError, match=f"more than {LEVELS} levels high"):
                save_tree(tmp_path, tree)


def test_leaves_and_centers_of_more_than_a_block(tmp_path: Path) -> None:
    # Equal vectors are one leaf of the k-means tree; 20,000 numbers are more than 64 KiB.
    equal = np.ones((9000, 3), np.float32)
    wide = np.random.default_rng(0).normal(size=(40, 20_000)).astype(np.float32)
    for at, rows in enumerate((equal, wide)):
        index = Flann(algorithm="kmeans", branching=4).build(rows)
        found = index.search(rows[:4], 3)
        index.save(tmp_path / str(at))
        again = vwkit.load(tmp_path / str(at)).search(rows[:4], 3)
        assert (found.ids == again.ids).all()
        assert (found.distances == again.distances).all()


@pytest.mark.parametrize("chosen", ["linear", "kdtree", "kmeans"])
def test_what_autotuned_chose_is_loaded_and_saved_again(tmp_path: Path, chosen: str) -> None:
    if chosen != "linear":
        saved(tmp_path, **({"algorithm": chosen, "branching": 4}))
    np.save(tmp_path / "vectors.npy", FEW)
    np.save(tmp_path / "tuned.npy", np.array([("linear", "kdtree", "kmeans").index(chosen), 17]))
    index = opened(tmp_path, algorithm="autotuned")
    found = index.search(FEW, 3)
    (tmp_path / "again").mkdir()
    index._save(tmp_path / "again")
    assert np.load(tmp_path / "again" / "tuned.npy")[1] == 17
    assert (opened(tmp_path / "again", algorithm="autotuned").search(FEW, 3).ids == found.ids).all()


@pytest.mark.parametrize("tuned", [[3, 9], [-1, 9], [1, -2], [1, 2**40]])
def test_autotuned_that_chose_nothing_there_is(tmp_path: Path, tuned: list[int]) -> None:
    saved(tmp_path)
    np.save(tmp_path / "tuned.npy", np.array(tuned))
    with pytest.raises(ArtifactError, match=r"tuned\.npy"):
        opened(tmp_path, algorithm="autotuned")


def test_a_file_of_flanns_own_is_told_to_be_old(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", FEW)
    (tmp_path / "kdtree.flann").write_bytes(b"FLANN_IBEIS_INDEX_v2.0")
    with pytest.raises(ArtifactError, match="saved by an older vwkit-flann: build the index again"):
        opened(tmp_path)


def test_no_room_for_the_librarys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", "/dev/full/nowhere")
    with pytest.raises(ArtifactError, match="name another folder by TMPDIR"):
        opened(tmp_path)


def test_a_disk_that_is_full_while_saving(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys, numpy as np, vwkit\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "index = vwkit.create('index', 'flann').build(np.eye(400, 8, dtype=np.float32))\n"
        "index.search(np.eye(8, dtype=np.float32), 1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (14000, 14000))\n"
        "try:\n"
        "    index.save(sys.argv[1])\n"
        "except vwkit.ArtifactError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "saved")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "saved: cannot be written: " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_false_vectors_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    nan, infinite = FEW.copy(), FEW.copy()
    nan[7, 3], infinite[7, 3] = np.nan, -np.inf
    for wrong in (
        FEW[:-1],
        FEW[:, :-1],
        FEW.astype(np.float64),
        np.asfortranarray(FEW),
        nan,
        infinite,
    ):
        np.save(tmp_path / "vectors.npy", wrong)
        with pytest.raises(ArtifactError, match=r"vectors\.npy"):
            opened(tmp_path)
    np.save(tmp_path / "vectors.npy", np.full_like(FEW, 3e38))  # its sum is not finite
    opened(tmp_path)
