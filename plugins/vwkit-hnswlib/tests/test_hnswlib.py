from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from vwkit_hnswlib import HNSW

import vwkit
from vwkit.errors import ArtifactError, ParameterError
from vwkit.jobs import Job, use_job

ROWS = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


def test_defaults_reach_95_percent() -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 256, (3000, 32)).astype(np.uint8)
    asked = rng.integers(0, 256, (100, 32)).astype(np.uint8)
    true = vwkit.create("index", "exact").build(rows).search(asked, 10).ids
    assert recall(HNSW().build(rows).search(asked, 10).ids, true) >= 0.95


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_every_vector_is_found_where_the_graph_falls_apart(metric: str) -> None:
    # Thousands of equal vectors link only to each other: the other places cannot be reached.
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(3, 4)) * 100)[rng.integers(0, 3, 3000)].astype(np.float32)
    index = HNSW(M=4, ef_construction=10, metric=metric).build(rows)
    found = index.search(rows[:5], 3000)
    assert (np.sort(found.ids, axis=1) == np.arange(3000)).all()
    true = vwkit.create("index", "exact", metric=metric).build(rows).search(rows[:5], 3000)
    assert np.allclose(found.distances, true.distances, rtol=1e-4, atol=1e-2)
    index.remove(np.arange(0, 3000, 2))
    found = index.search(rows[:5], 1500)
    assert (np.sort(found.ids, axis=1) == np.arange(1, 3000, 2)).all()


@pytest.mark.parametrize("share", [1, 2, 10, 200, 2000])
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_filter(share: int, metric: str) -> None:
    some = np.arange(0, 2000, share)
    index = HNSW(metric=metric).build(ROWS)
    found = index.search(QUERIES, 5, allowed=some)
    true = vwkit.create("index", "exact", metric=metric).build(ROWS)
    expected = true.search(QUERIES, 5, allowed=some)
    wanted = expected.ids >= 0
    assert ((found.ids >= 0) == wanted).all()
    assert (found.ids == expected.ids)[wanted].mean() > 0.9


def test_filter_far_from_the_query() -> None:
    # All near ones are forbidden, so the search must be widened until it reaches the others.
    order = np.argsort(((ROWS - ROWS[0]) ** 2).sum(axis=1))
    far = np.sort(order[1000:])
    found = HNSW().build(ROWS).search(ROWS[:1], 5, allowed=far).ids[0]
    true = vwkit.create("index", "exact").build(ROWS).search(ROWS[:1], 5, allowed=far).ids[0]
    assert len(set(found) & set(true)) >= 4


def test_growing_and_removing(tmp_path: Path) -> None:
    index = HNSW().build(ROWS[:10])
    for start in range(10, 400, 30):
        index.add(ROWS[start : start + 30])
    index.remove([0, 5, 399])
    assert index._index.get_max_elements() >= 400
    index.save(tmp_path / "index")
    loaded = vwkit.load(tmp_path / "index")
    assert len(loaded) == 397
    for one in (index, loaded):
        one.add(ROWS[400:500])
        found = one.search(ROWS[:500], 1).ids[:, 0]
        kept = np.setdiff1d(np.arange(500), [0, 5, 399])
        assert (found[kept] == kept).mean() > 0.99
        assert not np.isin(found, [0, 5, 399]).any()


def test_one_thread_gives_the_same_bytes(tmp_path: Path) -> None:
    def files(name: str, **params: int) -> dict[str, bytes]:
        HNSW(threads=1, **params).build(ROWS).save(tmp_path / name)
        return {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.hnsw")}

    assert HNSW(threads=1).deterministic
    assert not HNSW().deterministic
    assert files("a", seed=1) == files("b", seed=1)
    assert files("c", seed=2) != files("a", seed=1)


def test_a_stream_builds_the_same_graph(tmp_path: Path) -> None:
    chunks = np.array_split(ROWS, 7)
    stream = vwkit.Stream(lambda: iter(chunks), dim=16, dtype=np.float32)
    one = HNSW(threads=1).build(ROWS).search(QUERIES, 10)
    other = HNSW(threads=1).build(stream).search(QUERIES, 10)
    assert (one.ids == other.ids).all()
    assert (one.distances == other.distances).all()


def test_late_ef() -> None:
    index = HNSW(M=4, ef_construction=20).build(ROWS)
    true = vwkit.create("index", "exact").build(ROWS).search(QUERIES, 10).ids
    low = recall(index.search(QUERIES, 10, ef=1).ids, true)
    assert recall(index.search(QUERIES, 10, ef=1000).ids, true) > max(low, 0.9)
    assert index.ef == 100


def test_more_neighbours_than_ef() -> None:
    found = HNSW(ef=1).build(ROWS).search(QUERIES, 500)
    assert (found.ids >= 0).all()


def test_cosine_of_zero_and_of_tiny_vectors() -> None:
    rows = np.array([[0, 0], [1e-30, 0], [0, 1e25], [1, 1]], np.float32)
    found = HNSW(metric="cosine").build(rows).search(rows, 4)
    by_id = np.take_along_axis(found.distances, np.argsort(found.ids, axis=1), axis=1)
    half = 1 - 0.5**0.5
    expected = [[1, 1, 1, 1], [1, 0, 1, half], [1, 1, 0, half], [1, half, half, 0]]
    assert np.allclose(by_id, expected, atol=1e-6)


def test_parameters_that_the_library_cannot_take() -> None:
    with pytest.raises(ParameterError, match="M"):
        HNSW(M=1)
    with pytest.raises(ParameterError, match="M"):
        HNSW(M=10_001)
    with use_job(Job(threads=1)):
        assert HNSW(seed=-1).build(ROWS[:50]).search(ROWS[:1], 1).ids.tolist() == [[0]]


@pytest.mark.parametrize(
    ("place", "value"), [(1, 0), (2, 10**15), (3, 8), (4, 999), (7, 1 << 30), (10, 99)]
)
def test_a_false_header_is_refused(tmp_path: Path, place: int, value: int) -> None:
    HNSW().build(ROWS[:50]).save(tmp_path / "index")
    path = next((tmp_path / "index").rglob("*.hnsw"))
    layout = struct.Struct("=6QiI3QdQ")
    fields = list(layout.unpack_from(path.read_bytes()))
    fields[place] = value
    index = HNSW()
    index._dim = 16
    (tmp_path / "other").mkdir()
    content = layout.pack(*fields) + path.read_bytes()[layout.size :]
    (tmp_path / "other" / "index.hnsw").write_bytes(content)
    with pytest.raises(ArtifactError, match="not an hnswlib index"):
        index._load(tmp_path / "other")


def test_a_file_that_could_not_be_written_to_the_end_is_told(tmp_path: Path) -> None:
    """As on a full disk: the library itself says nothing."""
    code = (
        "import resource, signal, sys, numpy as np, vwkit\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "index = vwkit.create('index', 'hnsw').build(np.eye(200, dtype=np.float32))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
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
