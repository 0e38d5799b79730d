"""Saved words of graph k-means, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_fits import blobs, everything, fitted_quietly
from numpy.typing import NDArray
from vwkit_numba import GraphKMeans, graph_kmeans

import vwkit
from vwkit.artifact import open_artifact, write_artifact
from vwkit.errors import ArtifactError, DataError, ParameterError
from vwkit.jobs import Job, use_job
from vwkit.testing.data import cut

# Saving -----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    fitted_quietly(blobs(rows=900), k=100, iterations=3)[0].save(tmp_path / "words")
    return tmp_path / "words"


def test_saved_words_go_on_as_before(saved: Path) -> None:
    fresh, _ = fitted_quietly(blobs(rows=900), k=100, iterations=3)
    asked = blobs(rows=500, seed=1)
    loaded = vwkit.load(saved)
    assert isinstance(loaded, GraphKMeans)
    assert everything(loaded) == everything(fresh)
    assert loaded.corrected == fresh.corrected
    assert np.array_equal(loaded.predict(asked), fresh.predict(asked))
    loaded.probes = fresh.probes = 1
    assert np.array_equal(loaded.predict(asked), fresh.predict(asked))
    loaded.save(saved)  # what was made for predicting is not saved
    assert not any("ready" in name for name in open_artifact(saved).manifest["arrays"])
    again = vwkit.load(saved)
    assert again.probes == 1
    assert everything(again) == everything(fresh)


def forged(folder: Path, name: str, array: Any) -> Path:
    """Write the artifact again with one array changed, all checksums right."""
    artifact = open_artifact(folder)
    arrays = {key: np.array(value) for key, value in artifact.arrays().items()}
    assert name in arrays
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


def put(array: NDArray[Any], value: Any) -> NDArray[Any]:
    changed = array.copy()
    changed[(-1,) * changed.ndim] = value
    return changed


DAMAGE: list[tuple[str, Callable[[NDArray[Any]], Any]]] = [
    ("_lists", lambda a: put(a, 101)),
    ("_lists", lambda a: put(a, 1 << 30)),
    ("_lists", lambda a: put(a, -1)),
    ("_lists", lambda a: a[:-1]),
    ("_lists", lambda a: a[:, :-1]),  # no longer a multiple of four
    ("_lists", lambda a: a[:, :0]),
    ("_lists", lambda a: a.astype(np.int64)),
    ("_lists", lambda a: a.ravel()),
    ("_members", lambda a: put(a, 100)),
    ("_members", lambda a: put(a, 1 << 30)),
    ("_members", lambda a: put(a, -1)),
    ("_members", lambda a: a[:-1]),
    ("_members", lambda a: a.astype(np.float64)),
    ("_starts", lambda a: put(a, 1 << 40)),
    ("_starts", lambda a: put(a, 99)),
    ("_starts", lambda a: a[::-1].copy()),
    ("_starts", lambda a: a[:-1]),
    ("_starts", lambda a: a - 1),
    ("_coarse", lambda a: a[:-1]),
    ("_coarse", lambda a: a[:, :-1]),
    ("_coarse", lambda a: np.zeros((len(a), 4096), np.float32)),
    ("_coarse", lambda a: put(a, np.nan)),
    ("_shift", lambda a: a[:-1]),
    ("_shift", lambda a: np.zeros(4096, np.float32)),
    ("_shift", lambda a: put(a, np.inf)),
    ("_scale", lambda a: np.array(np.nan)),
    ("_scale", lambda a: np.array([1.0, 2.0])),
    ("centers", lambda a: a[:-1]),
    ("centers", lambda a: a[:, :-1]),
    ("centers", lambda a: put(a, np.nan)),
    ("centers", lambda a: a.astype(np.int32)),
    ("labels", lambda a: put(a, 100)),
    ("labels", lambda a: put(a, -1)),
    ("labels", lambda a: a[None]),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_damaged_words_are_refused(
    saved: Path, name: str, damage: Callable[[NDArray[Any]], Any]
) -> None:
    """Kernels read where these numbers say: a wrong one must not get that far."""
    array = np.array(open_artifact(saved).arrays()[name])
    vwkit.load(forged(saved, name, array))
    with pytest.raises(ArtifactError):
        vwkit.load(forged(saved, name, damage(array)))


# Errors -----------------------------------------------------------------------------------------


def test_more_clusters_than_rows_are_refused() -> None:
    with pytest.raises(DataError, match=r"k = 6 .* 6 rows; got 5"):
        GraphKMeans(k=6).fit(np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.array([[1.0, 2.0], [1.0, np.nan], [3.0, 4.0]]), r"row 1, column 1 is nan"),
        (
            np.array([[1.0, 2.0], [1.0, 1.0], [-np.inf, 4.0]], np.float32),
            r"row 2, column 0 is -inf",
        ),
        (np.array([["a", "b"]] * 4), r"numbers are needed"),
        (np.array([[1j, 2j]] * 4), r"numbers are needed"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((0, 4)), r"0 rows"),
        (np.zeros((4, 0)), r"at least one dimension"),
        (np.full((4, 2), 1e300), r"beyond float32"),
        (iter([np.zeros((4, 2))]), r"generator"),
    ],
)
def test_bad_data_are_refused(data: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        GraphKMeans(k=2).fit(data)


def test_bad_rows_of_a_stream_are_refused() -> None:
    data = np.zeros((100, 3), np.float32)
    data[70, 2] = np.nan
    with pytest.raises(DataError, match="row 70, column 2 is nan"):
        GraphKMeans(k=2).fit(cut(data, [30]))


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.ones(3), r"shape \(4,\), got \(3,\)"),
        (np.ones((4, 1)), r"shape \(4,\)"),
        ([1, 2, -1, 4], r"row 2 is -1"),
        ([1, np.nan, 1, 1], r"row 1 is nan"),
        ([1, 1, 1, np.inf], r"row 3 is inf"),
        (np.zeros(4), r"all are 0"),
        (["a"] * 4, r"cannot be read as numbers"),
    ],
)
def test_bad_weights_are_refused(weights: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        GraphKMeans(k=2).fit(np.arange(8.0).reshape(4, 2), weights)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", 2.5),
        ("iterations", 0),
        ("tolerance", -1e-9),
        ("tolerance", float("nan")),
        ("neighbours", 3),
        ("relocate", -0.1),
        ("relocate", 0.6),
        ("probes", 0),
        ("finish", "well"),
        ("neighbors", 8),
    ],
)
def test_bad_parameters_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=name):
        vwkit.create("clusterer", "graph-kmeans", **{"k": 5, name: value})


def test_a_second_fit_replaces_the_first() -> None:
    model, _ = fitted_quietly(blobs(rows=600), k=40)
    model.predict(blobs(rows=10))
    data = blobs(rows=500, dim=3, seed=4).astype(np.float32)
    with use_job(Job(threads=1)):
        model.fit(data)
    assert everything(model) == everything(fitted_quietly(data, k=40)[0])
    asked = blobs(rows=100, dim=3, seed=5).astype(np.float32)
    assert np.array_equal(model.predict(asked), fitted_quietly(data, k=40)[0].predict(asked))


def test_vocabularies_take_them() -> None:
    data = blobs(rows=500)
    vocabulary: Any = vwkit.create(
        "quantizer", "vocabulary", clusterer={"use": "graph-kmeans", "k": 30}
    )
    vocabulary.fit(data)
    assert np.array_equal(vocabulary.encode(data)[:, 0], vocabulary.clusterer.predict(data))
    assert graph_kmeans.GraphKMeans is type(vocabulary.clusterer)
