from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from vwkit_numba import VocabularyTree, room, tree_fitting

import vwkit
from vwkit.artifact import open_artifact, write_artifact
from vwkit.errors import ArtifactError, DataError, NotFittedError, ParameterError
from vwkit.jobs import Job, use_job
from vwkit.stream import Stream
from vwkit.testing import ClustererTests


class TestTree(ClustererTests):
    backend = VocabularyTree


class TestFlatTree(ClustererTests):
    backend = VocabularyTree
    params: ClassVar[dict[str, Any]] = {"branch": 16, "depth": 1}


class TestBinaryTree(ClustererTests):
    backend = VocabularyTree
    params: ClassVar[dict[str, Any]] = {"branch": 2, "depth": 3, "iterations": 4}


class TestBeam(ClustererTests):
    backend = VocabularyTree
    params: ClassVar[dict[str, Any]] = {"branch": 3, "depth": 3, "beam": 3}


# The slow, obvious tree -------------------------------------------------------------------------


def node_centers(tree: VocabularyTree) -> NDArray[np.float64]:
    """Return the center of every node, the root's as NaN where nobody asks for it."""
    leaf = np.diff(tree._first) == 0
    centers = np.full((len(leaf), tree.centers.shape[1]), np.nan)
    centers[leaf] = tree.centers
    inside = np.flatnonzero(~leaf)
    centers[inside[inside > 0]] = tree._inside
    return centers


def slowly(tree: VocabularyTree, row: NDArray[Any]) -> tuple[int, float]:
    """Go down with plain numbers; return the word, and how close the closest choice was."""
    first, centers = tree._first, node_centers(tree)

    def far(node: int) -> float:
        return float(((row.astype(np.float64) - centers[node]) ** 2).sum())

    beam, closest = [0], np.inf
    while any(first[node] < first[node + 1] for node in beam):
        found: list[int] = []
        for node in beam:
            children = range(first[node], first[node + 1])
            found += children if len(children) else [node]
        found.sort(key=lambda node: (far(node), node))
        values = [far(node) for node in found]
        for end in {1, tree.beam}:
            if end < len(values):
                closest = min(closest, values[end] - values[end - 1])
        beam = found[: tree.beam]
    leaves = np.flatnonzero(np.diff(first) == 0)
    return int(np.searchsorted(leaves, beam[0])), closest


def check(tree: VocabularyTree, rows: NDArray[Any]) -> None:
    """Check everything that holds of a fitted tree."""
    first = tree._first
    sizes = np.diff(first)
    assert first[0] == 1
    assert first[-1] == len(first) - 1
    assert (first[:-1] > np.arange(len(sizes))).all()
    assert sizes.max() <= tree.branch
    assert len(tree.centers) == np.count_nonzero(sizes == 0) <= tree.branch**tree.depth
    assert tree.path(np.arange(len(tree.centers))).shape[1] <= tree.depth
    assert np.array_equal(tree.predict(rows), tree.labels)
    own = tree.centers[tree.labels].astype(np.float64)
    error = float(((rows.astype(np.float64) - own) ** 2).sum(axis=1).mean())
    scale = float(np.abs(rows.astype(np.float64)).max()) ** 2 * rows.shape[1] + 1
    assert tree.objective[-1] == pytest.approx(error, rel=1e-4, abs=1e-6 * scale)
    if tree.beam == 1:
        assert (np.bincount(tree.labels, minlength=len(tree.centers)) > 0).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 80),
    dim=st.integers(1, 20),
    branch=st.integers(2, 11),
    depth=st.integers(1, 4),
    beam=st.integers(1, 4),
    whole=st.booleans(),
)
def test_words_are_those_of_a_slow_descent(
    seed: int, rows: int, dim: int, branch: int, depth: int, beam: int, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    data: NDArray[Any] = rng.integers(0, 256, (rows, dim)).astype(np.uint8)
    asked: NDArray[Any] = rng.integers(0, 256, (20, dim)).astype(np.uint8)
    if not whole:
        data, asked = data.astype(np.float32) - 100, asked.astype(np.float32) - 100
    tree = VocabularyTree(branch=branch, depth=depth, beam=beam, seed=seed).fit(data)
    check(tree, data)
    labels = tree.predict(asked)
    for row, label in zip(asked, labels, strict=True):
        word, closest = slowly(tree, row)
        assert label == word or closest < 1e-4 * 255**2 * dim


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    distinct=st.integers(1, 12),
    rows=st.integers(1, 60),
    dim=st.integers(1, 5),
    branch=st.integers(2, 5),
    weighted=st.booleans(),
)
def test_few_distinct_rows(
    seed: int, distinct: int, rows: int, dim: int, branch: int, weighted: bool
) -> None:
    """A deep tree ends at the distinct rows: one word for each, right at its place."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 9, (distinct, dim)).astype(np.uint8)[rng.integers(0, distinct, rows)]
    weights = rng.integers(1, 4, rows).astype(np.float64) if weighted else None
    tree = VocabularyTree(branch=branch, depth=30, seed=seed).fit(data, weights)
    check(tree, data)
    assert np.array_equal(tree.centers[tree.labels], data)
    assert len(tree.centers) == len(np.unique(data, axis=0))
    assert tree.objective[-1] == 0


@pytest.mark.parametrize("value", [0, 7.25, 255])
def test_equal_rows_are_one_word(value: float) -> None:
    rows = np.full((50, 3), value, np.float32)
    tree = VocabularyTree(branch=4, depth=3).fit(rows)
    check(tree, rows)
    assert np.array_equal(tree.centers, rows[:1])
    assert tree.path([0]).shape == (1, 0)
    assert np.array_equal(tree.predict(rows[:5] + 3), np.zeros(5, np.int32))


def test_a_row_is_a_word() -> None:
    tree = VocabularyTree().fit(np.array([[3.0, 4.0]]))
    assert np.array_equal(tree.centers, [[3, 4]])
    assert tree.objective == [0]


def test_rows_far_from_the_tree_find_a_word() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1.0, 1e30):
        rows = (rng.normal(size=(60, 4)) * scale).astype(np.float32)
        tree = VocabularyTree(branch=3, depth=3, beam=2).fit(rows)
        check(tree, rows)
        far = np.array([[3e38] * 4, [-3e38] * 4, [0, 0, 0, 3e38]], np.float32)
        assert set(tree.predict(far)) <= set(range(len(tree.centers)))


# Large nodes are split by a sample --------------------------------------------------------------


@pytest.fixture
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let samples, batches and kept arrays be so small that all ways are gone."""
    monkeypatch.setattr(tree_fitting, "_SAMPLE", 40)
    monkeypatch.setattr(tree_fitting, "_PER_CHILD", 8)
    monkeypatch.setattr(tree_fitting, "_BATCH_BYTES", 512)
    monkeypatch.setattr(room, "_MAPPED", 1 << 10)


def blobs(rows: int = 3000, dim: int = 9, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    places = rng.integers(20, 236, (60, dim))
    return (places[rng.integers(0, 60, rows)] + rng.integers(-15, 16, (rows, dim))).astype(np.uint8)


@pytest.mark.usefixtures("small_samples")
def test_samples_do_nearly_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (3000, 6)).astype(np.uint8)
    monkeypatch.setattr(tree_fitting, "_SAMPLE", 300)
    sampled = VocabularyTree(branch=4, depth=3).fit(rows)
    check(sampled, rows)
    assert isinstance(sampled.labels, np.memmap)
    monkeypatch.setattr(tree_fitting, "_SAMPLE", 1 << 20)
    whole = VocabularyTree(branch=4, depth=3).fit(rows)
    check(whole, rows)
    assert sampled.objective[-1] < 1.1 * whole.objective[-1]


@pytest.mark.usefixtures("small_samples")
def test_words_of_a_sampled_node_are_means_of_all_its_rows() -> None:
    rows = np.random.default_rng(0).integers(0, 100, (3000, 3)).astype(np.uint8)
    rows[::3] += 150  # so far off that no row changes its word
    tree = VocabularyTree(branch=2, depth=1).fit(rows)
    means = np.stack([rows[tree.labels == word].mean(axis=0) for word in range(2)])
    assert np.abs(tree.centers - means).max() < 1e-3


def test_the_tree_is_better_with_more_levels_and_a_beam() -> None:
    rows = blobs(dim=16)
    trees = [VocabularyTree(branch=4, depth=depth).fit(rows) for depth in (1, 2, 3)]
    errors = [tree.objective[-1] for tree in trees]
    assert errors[0] > errors[1] > errors[2]
    assert trees[2].objective[0] == errors[0]
    assert trees[2].objective[1] == errors[1]
    wide = VocabularyTree(branch=4, depth=3, beam=64).fit(rows)
    check(wide, rows)
    assert wide.objective[-1] <= errors[2]
    distances = ((rows[:, None].astype(np.float64) - wide.centers) ** 2).sum(axis=2)
    least = distances.min(axis=1)
    own = distances[np.arange(len(rows)), wide.labels]
    assert (own <= least + 1e-3).all()  # a beam of all nodes is a search of all words


def test_uneven_weights_are_repeats() -> None:
    """With one level and k-means settled, a weight of 3 is worth three rows."""
    rows = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
    tree = VocabularyTree(branch=2, depth=1).fit(rows, [1.0, 3.0, 1.0, 1.0])
    assert sorted(tree.centers.ravel().tolist()) == [0.75, 10.5]
    assert tree.objective[-1] == pytest.approx((0.75 + 0.5) / 6)


# The same bytes every way -----------------------------------------------------------------------


def cut(rows: NDArray[Any], step: int) -> Stream:
    def chunks() -> Iterator[NDArray[Any]]:
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    return Stream(chunks, dim=rows.shape[1], dtype=rows.dtype, rows=len(rows))


def everything(tree: VocabularyTree) -> list[bytes]:
    arrays = [tree.centers, tree.labels, tree._first, tree._inside, np.array(tree.objective)]
    return [np.asarray(array).tobytes() for array in arrays]


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

    def fitted(data: Any, **budgets: Any) -> VocabularyTree:
        with use_job(Job(**budgets)):
            return VocabularyTree(branch=4, depth=4, beam=2).fit(data, weights)

    expected = fitted(rows, threads=1)
    for data, budgets in (
        (rows, {"threads": 3}),
        (mapped, {"threads": 2}),
        (cut(rows, 77), {"threads": 1, "memory": 1 << 18}),
        (cut(rows, 4096), {"threads": 2}),
    ):
        assert everything(fitted(data, **budgets)) == everything(expected)
    for threads in (1, 3):
        with use_job(Job(threads=threads)):
            assert np.array_equal(expected.predict(rows), expected.labels)
            stream = expected.predict(cut(rows, 333))
            assert np.array_equal(stream.toarray()[:, 0], expected.labels)


@pytest.mark.usefixtures("small_samples")
def test_an_interrupted_fit_goes_on(tmp_path: Path) -> None:
    rows = blobs()
    whole = VocabularyTree(branch=4, depth=4, beam=2).fit(rows)

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int | None, unit: str, values: dict[str, float]) -> None:
        if values["level"] == 3:
            raise Stop

    with pytest.raises(Stop), use_job(Job(folder=tmp_path, progress=stop)):
        VocabularyTree(branch=4, depth=4, beam=2).fit(rows)
    assert list(tmp_path.glob("step-*.npz"))
    levels = []

    def note(stage: str, done: int, total: int | None, unit: str, values: dict[str, float]) -> None:
        if "resumed" not in values:  # told of before the first level
            levels.append(values["level"])

    with use_job(Job(folder=tmp_path, progress=note)):
        resumed = VocabularyTree(branch=4, depth=4, beam=2).fit(rows)
    assert levels[0] > 1
    assert everything(resumed) == everything(whole)


# Saving -----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    rows = blobs(rows=300)
    # Some leaves above the last level.
    rows[:40] = 1
    VocabularyTree(branch=3, depth=5).fit(rows).save(tmp_path / "tree")
    return tmp_path / "tree"


def test_a_saved_tree_gives_the_same_words(saved: Path) -> None:
    rows, asked = blobs(rows=300), blobs(rows=200, seed=1)
    rows[:40] = 1
    fresh = VocabularyTree(branch=3, depth=5).fit(rows)
    loaded = vwkit.load(saved)
    assert everything(loaded) == everything(fresh)
    assert loaded.objective == fresh.objective
    assert np.array_equal(loaded.predict(asked), fresh.predict(asked))
    words = np.arange(len(fresh.centers))
    assert np.array_equal(loaded.path(words), fresh.path(words))
    fresh.predict(asked)
    fresh.save(saved)  # what is made for prediction is not saved
    assert not any("ready" in name for name in open_artifact(saved).manifest["arrays"])


def forged(folder: Path, name: str, array: Any) -> Path:
    """Write the artifact again with one array changed, all checksums right."""
    artifact = open_artifact(folder)
    arrays = {key: np.array(value) for key, value in artifact.arrays().items()}
    arrays[name] = np.asarray(array)
    manifest = json.loads(json.dumps(artifact.manifest))
    for key in ("arrays", "files", "sha256"):
        manifest.pop(key, None)
    target = folder.with_name("forged")
    shutil.rmtree(target, ignore_errors=True)
    with write_artifact(target, manifest) as draft:
        for key, value in arrays.items():
            draft.array(key, value)
    return target


def test_a_damaged_tree_is_refused(saved: Path) -> None:
    tree = vwkit.load(saved)
    first = np.array(tree._first)
    count = len(first) - 1
    assert np.array_equal(vwkit.load(forged(saved, "_first", first))._first, first)
    loop, back, beyond, start = first.copy(), first.copy(), first.copy(), first.copy()
    loop[5] = 5
    back[3] = first[2] - 1
    beyond[-1] = count + 5
    start[0] = 0
    labels = np.array(tree.labels)
    high, low = labels.copy(), labels.copy()
    high[3], low[3] = len(tree.centers), -1
    centers = np.array(tree.centers)
    endless = centers.copy()
    endless[0, 0] = np.nan
    for name, wrong in (
        ("_first", loop),
        ("_first", back),
        ("_first", beyond),
        ("_first", start),
        ("_first", first[:-1]),
        ("_first", first[:1]),
        ("_first", first[:0]),
        ("_first", first.astype(np.float64)),
        ("_first", first[None]),
        ("_first", np.arange(1, count + 2)),
        ("labels", high),
        ("labels", low),
        ("labels", labels.astype(np.int64)),
        ("labels", labels[None]),
        ("centers", centers[:-1]),
        ("centers", centers[:, :-1]),
        ("centers", endless),
        ("centers", centers.astype(np.int32)),
        ("_inside", np.array(tree._inside)[1:]),
        ("_inside", np.full_like(tree._inside, np.inf)),
        ("_shift", np.array(tree._shift)[:-1]),
        ("_scale", np.array([1.0, 2.0])),
        ("_scale", np.array(np.nan)),
    ):
        with pytest.raises(ArtifactError):
            vwkit.load(forged(saved, name, wrong))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 20), min_size=0, max_size=20))
def test_whatever_passes_for_a_tree_can_be_gone_down(steps: list[int]) -> None:
    """Children come behind their parents, and each has one: so every way down ends."""
    from vwkit_numba.tree_nodes import checked_first, parents

    first = np.array(steps, np.int64)
    try:
        checked = checked_first(first)
    except ArtifactError:
        return
    above = parents(checked)
    assert (above[1:] < np.arange(1, len(above))).all()
    assert np.array_equal(np.bincount(above[1:], minlength=len(above)), np.diff(checked))


def test_a_chain_of_nodes_is_gone_down(saved: Path) -> None:
    """The deepest tree of all: every node has one child."""
    from vwkit_numba.tree_nodes import checked_first

    count = 12
    first = np.append(np.arange(1, count + 1), count)
    assert np.array_equal(checked_first(first), first)


# Paths and errors -------------------------------------------------------------------------------


def test_paths_lead_from_the_root_to_the_words() -> None:
    rows = np.concatenate([blobs(rows=300), np.full((30, 9), 7, np.uint8)])
    tree = VocabularyTree(branch=3, depth=4).fit(rows)
    words = np.arange(len(tree.centers))
    paths = tree.path(words)
    leaves = np.flatnonzero(np.diff(tree._first) == 0)
    assert paths.dtype == np.int32
    assert np.array_equal(paths[:, -1], leaves)
    for path in paths:
        before = 0
        for node in path:
            below = range(tree._first[before], tree._first[before + 1])
            assert node in below or (not below and node == before)
            before = node
    assert tree.path(np.zeros(0, np.int32)).shape == (0, paths.shape[1])
    # The rows below a node are nearest to it among its siblings.
    top = paths[tree.labels, 0]
    centers = node_centers(tree)[1 : tree._first[1]]
    distances = ((rows[:, None].astype(np.float64) - centers) ** 2).sum(axis=2)
    assert (distances[np.arange(len(rows)), top - 1] <= distances.min(axis=1) + 1e-2).all()


def test_wrong_words_have_no_path() -> None:
    with pytest.raises(NotFittedError):
        VocabularyTree().path([0])
    tree = VocabularyTree(branch=2, depth=2).fit(blobs(rows=50))
    for wrong in ([4], [-1], [0.5], [[0]], 0):
        with pytest.raises(DataError, match="words"):
            tree.path(wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("branch", 1),
        ("branch", 1025),
        ("branch", 2.5),
        ("depth", 0),
        ("depth", 65),
        ("iterations", 0),
        ("beam", 0),
        ("beam", 1025),
        ("k", 100),
    ],
)
def test_bad_parameters_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=name):
        vwkit.create("clusterer", "tree", **{name: value})


def test_words_of_a_vocabulary() -> None:
    rows = blobs(rows=400)
    tree = VocabularyTree(branch=4, depth=3).fit(rows)
    vocabulary: Any = vwkit.create("quantizer", "vocabulary", clusterer=tree)
    assert np.array_equal(vocabulary.encode(rows)[:, 0], tree.labels)
