from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vwkit_usearch import USearch, _usearch
from vwkit_usearch_file import check_file

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError

# Not imported by hand: FAISS, tested in the same process, would not survive that.
Bare = _usearch().Index
ROWS = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
DTYPES = ("f32", "f16", "i8")
METRICS = ("l2", "cosine", "ip")


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_defaults_reach_95_percent(dtype: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 256, (3000, 32)).astype(np.uint8)
    asked = rng.integers(0, 256, (100, 32)).astype(np.uint8)
    true = vwkit.create("index", "exact").build(rows).search(asked, 10).ids
    assert recall(USearch(dtype=dtype).build(rows).search(asked, 10).ids, true) >= 0.95


def test_the_answers_are_those_of_the_bare_library() -> None:
    bare = Bare(ndim=16, metric="l2sq", dtype="f32", connectivity=8, expansion_add=30)
    bare.add(np.arange(2000), ROWS, threads=1)
    bare.expansion_search = 20
    expected = bare.search(QUERIES, 5, threads=1)
    index = USearch(connectivity=8, expansion_add=30, expansion_search=20, threads=1).build(ROWS)
    found = index.search(QUERIES, 5)
    assert (found.ids == expected.keys.astype(np.int64)).all()
    assert (found.distances == expected.distances).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_every_vector_is_found_where_the_graph_falls_apart(dtype: str, metric: str) -> None:
    # Thousands of equal vectors link only to each other: the other places cannot be reached.
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(3, 4)) * 100)[rng.integers(0, 3, 3000)].astype(np.float32)
    index = USearch(dtype=dtype, metric=metric, connectivity=4, expansion_add=10).build(rows)
    found = index.search(rows[:5], 3000)
    assert (np.sort(found.ids, axis=1) == np.arange(3000)).all()
    index.remove(np.arange(0, 3000, 2))
    found = index.search(rows[:5], 1500)
    assert (np.sort(found.ids, axis=1) == np.arange(1, 3000, 2)).all()


@pytest.mark.parametrize("dtype", ["f16", "i8"])
@pytest.mark.parametrize(
    ("metric", "scale"),
    # Inner products of numbers around 1e30 are infinite.
    [(m, s) for m in METRICS for s in (1e-12, 1.0, 1e30) if s <= 1 or m != "ip"],
)
def test_distances_of_narrow_numbers(dtype: str, metric: str, scale: float) -> None:
    rows, asked = (ROWS[:500] * scale).astype(np.float32), (QUERIES * scale).astype(np.float32)
    index = USearch(dtype=dtype, metric=metric).build(rows)
    found = index.search(asked, 10)
    true = vwkit.create("index", "exact", metric=metric).build(rows).search(asked, 500)
    far = np.take_along_axis(true.distances, np.argsort(true.ids, axis=1), axis=1)
    if scale > 1 and metric == "l2":
        assert np.isinf(found.distances).mean() == np.isinf(true.distances[:, :10]).mean()
        return
    expected = np.take_along_axis(far, found.ids, axis=1)
    size = 2.0 if metric == "cosine" else 2 * 16 * scale**2
    error = np.abs(found.distances - expected).max()
    assert error <= {"f16": 2.5e-3, "i8": 0.02}[dtype] * size + 1e-6 * (metric == "ip")
    if scale >= 1 or metric != "ip":  # where not all distances round to 1
        assert recall(found.ids, true.ids[:, :10]) > 0.8


@pytest.mark.parametrize("widest", [1, 90, 200, 255])
def test_bytes_are_kept_as_they_are(widest: int) -> None:
    rng = np.random.default_rng(2)
    rows = rng.integers(0, widest + 1, (500, 16)).astype(np.uint8)
    rows[:2] = [[0], [widest]]
    index = USearch(dtype="i8").build(rows)
    true = vwkit.create("index", "exact").build(rows).search(rows, 10)
    assert np.allclose(index.search(rows, 10).distances, true.distances, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_of_zero_and_of_tiny_vectors(dtype: str) -> None:
    rows = np.array([[0, 0], [1e-30, 0], [0, 1e25], [1, 1]], np.float32)
    index = USearch(dtype=dtype, metric="cosine").build(rows)
    half = 1 - 0.5**0.5
    expected = [[1, 1, 1, 1], [1, 0, 1, half], [1, 1, 0, half], [1, half, half, 0]]
    for allowed in (None, np.arange(4)):
        found = index.search(rows, 4, allowed=allowed)
        by_id = np.take_along_axis(found.distances, np.argsort(found.ids, axis=1), axis=1)
        assert np.allclose(by_id, expected, atol=1e-6 if dtype == "f32" else 2e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [1, 2, 10, 200, 2000])
def test_filter(dtype: str, metric: str, share: int) -> None:
    some = np.arange(0, 2000, share)
    found = USearch(dtype=dtype, metric=metric).build(ROWS).search(QUERIES, 5, allowed=some)
    true = vwkit.create("index", "exact", metric=metric).build(ROWS)
    expected = true.search(QUERIES, 5, allowed=some)
    wanted = expected.ids >= 0
    assert ((found.ids >= 0) == wanted).all()
    assert (found.ids == expected.ids)[wanted].mean() > (0.6 if dtype == "i8" else 0.9)


def test_filter_far_from_the_query() -> None:
    # All near ones are forbidden, so the search must be widened until it reaches the others.
    order = np.argsort(((ROWS - ROWS[0]) ** 2).sum(axis=1))
    far = np.sort(order[1000:])
    found = USearch().build(ROWS).search(ROWS[:1], 5, allowed=far).ids[0]
    true = vwkit.create("index", "exact").build(ROWS).search(ROWS[:1], 5, allowed=far).ids[0]
    assert len(set(found) & set(true)) >= 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_growing_and_removing(dtype: str, tmp_path: Path) -> None:
    index = USearch(dtype=dtype).build(ROWS[:10])
    for start in range(10, 400, 30):
        index.add(ROWS[start : start + 30])
    index.remove([0, 5, 399])
    index.save(tmp_path / "index")
    loaded = vwkit.load(tmp_path / "index")
    assert len(loaded) == 397
    for one in (index, loaded):
        one.add(ROWS[400:500])
        found = one.search(ROWS[:500], 2).ids
        kept = np.setdiff1d(np.arange(500), [0, 5, 399])
        # What was built of ten vectors has the range of these ten.
        assert (found[kept] == kept[:, None]).any(axis=1).mean() > (0.8 if dtype == "i8" else 0.99)
        assert not np.isin(found, [0, 5, 399]).any()
    index.save(tmp_path / "index")
    assert (vwkit.load(tmp_path / "index").search(ROWS[:9], 3).ids >= 0).all()


def test_a_loaded_index_is_mapped_until_it_changes(tmp_path: Path) -> None:
    index = USearch(threads=1).build(ROWS)
    before = index.search(QUERIES, 5).ids
    index.save(tmp_path / "a")
    loaded = vwkit.load(tmp_path / "a")
    assert loaded._mapped
    USearch().build(-ROWS).save(tmp_path / "a")  # another one in its place
    assert (loaded.search(QUERIES, 5).ids == before).all()
    loaded.save(tmp_path / "b")
    again = vwkit.load(tmp_path / "b")
    assert (again.search(QUERIES, 5).ids == before).all()
    again.remove([0])
    assert not again._mapped
    assert 0 not in again.search(ROWS[:1], 5).ids


def test_half_floats_say_what_they_cannot_hold() -> None:
    index = USearch(dtype="f16").build(ROWS)
    with pytest.raises(DataError, match=r"holds -600, .* go to 511"):
        index.add(np.concatenate([ROWS, np.full((1, 16), -600, np.float32)]))
    assert len(index) == 2000
    index.remove([3])
    large = (QUERIES * np.where(np.arange(20) % 2, 1000, 1)[:, None]).astype(np.float32)
    true = vwkit.create("index", "exact").build(ROWS).remove([3])
    for allowed in (None, np.arange(10, 2000)):
        found, expected = (one.search(large, 5, allowed=allowed) for one in (index, true))
        assert recall(found.ids, expected.ids) > 0.9
        assert np.allclose(found.distances, expected.distances, rtol=1e-2)


def test_one_thread_gives_the_same_bytes(tmp_path: Path) -> None:
    def files(name: str) -> list[bytes]:
        USearch(threads=1).build(ROWS).save(tmp_path / name)
        return [path.read_bytes() for path in (tmp_path / name).rglob("*.usearch")]

    assert USearch(threads=1).deterministic
    assert not USearch().deterministic
    assert files("a") == files("b")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stream_builds_the_same_graph(dtype: str) -> None:
    chunks = np.array_split(ROWS, 7)
    stream = vwkit.Stream(lambda: iter(chunks), dim=16, dtype=np.float32)
    one = USearch(threads=1, dtype=dtype).build(ROWS).search(QUERIES, 10)
    other = USearch(threads=1, dtype=dtype).build(stream).search(QUERIES, 10)
    assert (one.ids == other.ids).all()
    assert (one.distances == other.distances).all()


def test_late_expansion_search() -> None:
    index = USearch(connectivity=4, expansion_add=20).build(ROWS)
    true = vwkit.create("index", "exact").build(ROWS).search(QUERIES, 10).ids
    low = recall(index.search(QUERIES, 10, expansion_search=1).ids, true)
    assert recall(index.search(QUERIES, 10, expansion_search=1000).ids, true) > max(low, 0.9)
    assert index.expansion_search == 100


def test_parameters_that_the_library_cannot_take() -> None:
    for name, value in (
        ("dtype", "f8"),
        ("connectivity", 1),
        ("connectivity", 2000),
        ("expansion_add", 0),
        ("expansion_search", 1 << 40),
        ("threads", 0),
    ):
        with pytest.raises(ParameterError, match=name):
            USearch(**{name: value})
    assert USearch(threads=5).build(ROWS).search(ROWS[:3], 1).ids[:, 0].tolist() == [0, 1, 2]


# Places in the file of an index of 2,000 vectors of 16 dimensions.
HEAD = 8 + 2000 * 64
GRAPH = HEAD + 64
NODES = GRAPH + 40 + 2 * 2000


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 200),  # rows
        (4, 128),  # bytes of a row
        (HEAD, 0),  # the magic word
        (HEAD + 13, 99),  # metric
        (HEAD + 14, 12),  # numbers
        (HEAD + 17, 7),  # vectors held
        (HEAD + 33, 17),  # dimensions
        (GRAPH + 8, 17),  # links
        (GRAPH + 24, 9),  # levels
        (GRAPH + 35, 1),  # where a search begins
        (GRAPH + 40, 1),  # level of the first node
        (NODES, 1),  # its key
        (NODES + 7, 1),
        (NODES + 8, 1),  # its level again
        (NODES + 10, 99),  # the number of its links
        (NODES + 16, 9),  # where its first link leads
    ],
)
def test_a_false_file_is_refused(tmp_path: Path, place: int, value: int) -> None:
    index = USearch(threads=1).build(ROWS)
    index._save(tmp_path)
    path = tmp_path / "index.usearch"
    check_file(path, 16, "f32", "l2sq", 16, 2000, 2000)
    content = bytearray(path.read_bytes())
    assert content[place] != value
    content[place] = value
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a usearch index of 2000 vectors of 16"):
        index._load(tmp_path)


def test_a_cut_or_missing_file_is_refused(tmp_path: Path) -> None:
    index = USearch(threads=1).build(ROWS)
    index._save(tmp_path)
    path = tmp_path / "index.usearch"
    content = path.read_bytes()
    for length in (len(content) - 1, NODES, NODES - 50, GRAPH + 5, HEAD, 8, 0):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match="damaged"):
            index._load(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="damaged"):
        index._load(tmp_path)
    index._save(tmp_path)
    np.save(tmp_path / "coding.npy", np.array([2000, np.nan, *[0.0] * 16]))
    with pytest.raises(ArtifactError, match=r"coding\.npy"):
        index._load(tmp_path)
