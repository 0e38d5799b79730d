"""Saved trees, damaged ones, and the paths of words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_fits import blobs, everything, node_centers
from vwkit_numba import VocabularyTree

import vwkit
from vwkit.artifact import open_artifact, write_artifact
from vwkit.errors import ArtifactError, DataError, NotFittedError


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
