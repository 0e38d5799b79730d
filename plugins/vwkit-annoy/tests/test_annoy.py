from __future__ import annotations

from pathlib import Path

import annoy
import numpy as np
import pytest
from vwkit_annoy import Annoy, _check_size

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError

ROWS = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize("k", [1, 10])
def test_defaults_reach_95_percent(k: int) -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 256, (3000, 32)).astype(np.uint8)
    asked = rng.integers(0, 256, (100, 32)).astype(np.uint8)
    true = vwkit.create("index", "exact").build(rows).search(asked, k).ids
    assert recall(Annoy().build(rows).search(asked, k).ids, true) >= 0.95


def test_the_answers_are_those_of_the_bare_library() -> None:
    bare = annoy.AnnoyIndex(16, "euclidean")
    bare.set_seed(5)
    for row, vector in enumerate(ROWS):
        bare.add_item(row, vector)
    bare.build(7, n_jobs=1)
    index = Annoy(n_trees=7, seed=5, n_jobs=1).build(ROWS)
    found = index.search(QUERIES, 5, search_k=90)
    for i, query in enumerate(QUERIES):
        rows, near = bare.get_nns_by_vector(query, 5, 90, include_distances=True)
        assert found.ids[i].tolist() == rows
        assert np.allclose(found.distances[i], np.square(near))


def test_one_thread_gives_the_same_bytes(tmp_path: Path) -> None:
    def files(name: str, **params: int) -> list[bytes]:
        Annoy(n_jobs=1, n_trees=5, **params).build(ROWS).save(tmp_path / name)
        return [path.read_bytes() for path in (tmp_path / name).rglob("*.annoy")]

    assert Annoy(n_jobs=1).deterministic
    assert not Annoy().deterministic
    assert files("a", seed=1) == files("b", seed=1)
    assert files("c", seed=-2) != files("a", seed=1)


def test_late_search_k() -> None:
    index = Annoy(n_trees=5).build(ROWS)
    true = vwkit.create("index", "exact").build(ROWS).search(QUERIES, 10).ids
    low = recall(index.search(QUERIES, 10, search_k=1).ids, true)
    assert recall(index.search(QUERIES, 10, search_k=5000).ids, true) > max(low, 0.9)
    assert index.search_k == -1


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_all_neighbours_are_found_however_few_the_candidates(metric: str) -> None:
    rows = np.repeat(ROWS[:3], 500, axis=0)
    found = Annoy(metric=metric, search_k=1, n_trees=2).build(rows).search(rows[::500], 1500)
    assert (np.sort(found.ids, axis=1) == np.arange(1500)).all()


def test_cosine_of_zero_and_of_tiny_vectors() -> None:
    rows = np.array([[0, 0], [1e-30, 0], [0, 1e25], [1, 1]], np.float32)
    found = Annoy(metric="cosine").build(rows).search(rows, 4)
    by_id = np.take_along_axis(found.distances, np.argsort(found.ids, axis=1), axis=1)
    half = 1 - 0.5**0.5
    expected = [[1, 1, 1, 1], [1, 0, 1, half], [1, 1, 0, half], [1, half, half, 0]]
    assert np.allclose(by_id, expected, atol=1e-6)


def test_numbers_too_large_to_square() -> None:
    rows = (ROWS[:200] * 1e30).astype(np.float32)
    found = Annoy().build(rows).search(rows[:3], 200)
    assert (np.sort(found.ids, axis=1) == np.arange(200)).all()
    assert found.ids[:, 0].tolist() == [0, 1, 2]


def test_an_index_outlives_its_files(tmp_path: Path) -> None:
    index = Annoy(n_trees=5).build(ROWS)
    before = index.search(QUERIES, 5).ids
    index.save(tmp_path / "a")
    loaded = vwkit.load(tmp_path / "a")
    Annoy(n_trees=5).build(-ROWS).save(tmp_path / "a")  # another one in its place
    for one in (index, loaded):
        assert (one.search(QUERIES, 5).ids == before).all()
        one.save(tmp_path / "a")
        assert (vwkit.load(tmp_path / "a").search(QUERIES, 5).ids == before).all()


def test_what_the_library_cannot_take() -> None:
    with pytest.raises(ParameterError, match="search_k"):
        Annoy(search_k=0)
    with pytest.raises(ParameterError, match="search_k"):
        Annoy(search_k=2**31)
    with pytest.raises(ParameterError, match="n_trees"):
        Annoy(n_trees=0)
    with pytest.raises(DataError, match="nodes"):
        _check_size(2_000_000_000, 128, 100)
    with pytest.raises(DataError, match="stack"):
        _check_size(1_000_000, 100_000, 1)
    _check_size(1_000_000, 2048, 100)
    _check_size(100_000_000, 128, 100)


def damaged(path: Path, row: int, column: int, value: int) -> None:
    nodes = np.fromfile(path, np.int32).reshape(-1, 20)
    nodes[row, column] = value
    nodes.tofile(path)


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (-1, 0, 1999),  # of a root: how many rows are below it
        (-1, 2, 10**6),  # its child
        (-1, 3, -1),
        (7, 0, 2),  # an item that is none
        (2000, 2, 2000),  # the first node lists rows; this is none
        (2000, 0, 0),
    ],
)
def test_a_false_file_is_refused(tmp_path: Path, row: int, column: int, value: int) -> None:
    index = Annoy(n_trees=3, n_jobs=1).build(ROWS)
    (tmp_path / "other").mkdir()
    index._save(tmp_path / "other")
    index._load(tmp_path / "other")
    damaged(tmp_path / "other/index.annoy", row, column, value)
    with pytest.raises(ArtifactError, match="not an annoy index of 2000 vectors"):
        index._load(tmp_path / "other")


def test_a_circle_or_a_cut_file_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    index = Annoy(n_trees=3, n_jobs=1).build(ROWS)
    index._save(tmp_path)
    path = tmp_path / "index.annoy"
    whole = path.read_bytes()
    last = len(whole) // 80 - 1
    damaged(path, -1, 2, last)
    for content in (path.read_bytes(), whole[:-1], whole[:-80], b"", None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        if content == whole[:-80]:
            index._load(tmp_path)  # one of three trees less is still a forest
        else:
            with pytest.raises(ArtifactError, match="damaged"):
                index._load(tmp_path)
    assert capfd.readouterr() == ("", "")
