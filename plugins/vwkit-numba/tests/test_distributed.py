"""What is computed elsewhere has the same bytes as what is computed here."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from far_executor import Far
from graph_fits import PARAMS, Always, Stop, blobs
from vwkit_numba import elsewhere, room, taking
from vwkit_numba.totals import PartTotals, Totals

import vwkit
from vwkit.errors import DataError, FewDistinctRows
from vwkit.jobs import Job, use_job
from vwkit.testing.data import mixture

CUTS = [1, 11]


def everything(model: Any) -> dict[str, bytes]:
    """Return all that a fit leaves behind."""
    names = ["centers", "labels", "objective", "changed", "moved", "corrected"]
    names += ["_lists", "_coarse", "_members", "_starts", "_shift", "_scale"]
    return {
        name: np.asarray(getattr(model, name)).tobytes() for name in names if hasattr(model, name)
    }


def fitted(
    data: Any, weights: Any = None, *, far: Far | None = None, job: Job | None = None, **params: Any
) -> Any:
    """Fit graph k-means, or that of codes if there is a `quantizer`."""
    quantizer = params.pop("quantizer", None)
    name = "graph-kmeans" if quantizer is None else "graph-pqkmeans"
    given = {} if quantizer is None else {"quantizer": quantizer}
    current = Job(threads=1) if job is None else job
    if far is not None:
        current._executor = far
    with use_job(current), warnings.catch_warnings():
        warnings.simplefilter("ignore", FewDistinctRows)
        return vwkit.create("clusterer", name, **params).fit(data, weights, **given)


def stored(path: Path, rows: Any) -> Any:
    """Return a stream that workers can read by themselves."""
    vwkit.write(path, rows)
    return vwkit.read(path)


@pytest.fixture(params=CUTS)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Cut the rows of a fit, 3000, into so many blocks."""
    count: int = request.param
    monkeypatch.setattr(taking, "_LEAST_ROWS", -(-3000 // count))
    return count


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_fit_has_the_same_bytes(
    tmp_path: Path, dtype: Any, weighted: bool, spherical: bool, blocks: int
) -> None:
    data = blobs(rows=3000, dim=5, clusters=200).astype(dtype)
    weights = np.random.default_rng(1).exponential(size=len(data)) if weighted else None
    if weights is not None:
        weights[::7] = 0
    params = PARAMS | {"spherical": spherical}
    expected = everything(fitted(data, weights, **params))
    far = Far()
    stream = stored(tmp_path / "rows.npy", data)
    assert everything(fitted(stream, weights, far=far, **params)) == expected
    assert far.chunks >= 10 * blocks
    # Rows in memory are sent.
    assert everything(fitted(data, weights, far=Far(adds=False), **params)) == expected


@pytest.mark.parametrize(
    "params",
    [
        {"k": 1},
        {"k": 40, "finish": "exact"},
        {"k": 40, "fold": True},
        {"k": 900},
        {"k": 1000},
        {"k": 300, "neighbours": 4, "relocate": 0.0, "tolerance": 0.0},
        {"k": 300, "neighbours": 8, "relocate": 0.5},
        {"k": 30, "finish": "exact", "spherical": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("many", [elsewhere._MANY, 0.0, 2.0])
def test_every_way_through_a_fit_has_the_same_bytes(
    params: dict[str, Any], many: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added up in the same pass, or in one behind it."""
    monkeypatch.setattr(taking, "_LEAST_ROWS", 111)
    monkeypatch.setattr(elsewhere, "_MANY", many)
    data = blobs(rows=1000, dim=6, clusters=60)
    assert everything(fitted(data, far=Far(), **params)) == everything(fitted(data, **params))


@pytest.mark.parametrize("adds", [False, True])
def test_given_centers_have_the_same_bytes(adds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "_LEAST_ROWS", 333)
    data = mixture(3, 3000, 6, 100)
    params: dict[str, Any] = {"k": 80, "init": data[:80].astype(np.float32), "iterations": 5}
    far = Far(adds=adds)
    assert everything(fitted(data, far=far, **params)) == everything(fitted(data, **params))


@pytest.mark.parametrize("spherical", [False, True])
def test_few_distinct_rows_have_the_same_bytes(
    spherical: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "_LEAST_ROWS", 50)
    data = np.repeat(blobs(rows=30, dim=4), 10, axis=0)
    params = {"k": 64, "spherical": spherical}
    assert everything(fitted(data, far=Far(), **params)) == everything(fitted(data, **params))


def test_rows_that_workers_can_read_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_MAPPED", 1 << 10)  # what is known of rows lies in files
    data = blobs(rows=3000, dim=128, clusters=50)
    far = Far()
    model = fitted(stored(tmp_path / "rows.bvecs", data), far=far, k=50, iterations=6)
    # Labels and runners, at most; every now and then labels and gaps to be added up.
    assert far.row_bytes < far.chunks * (12 * len(data) + 1000)
    assert far.result_bytes < far.chunks * (13 * len(data) + 2000)
    assert everything(fitted(data, k=50, iterations=6)) == everything(model)


# Codes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ks", [16, 300])
@pytest.mark.parametrize("finish", ["graph", "exact"])
def test_a_fit_of_codes_has_the_same_bytes(
    tmp_path: Path, ks: int, finish: str, blocks: int
) -> None:
    vectors = blobs(rows=3000, dim=8, clusters=200)
    quantizer = vwkit.create("quantizer", "pq", m=4, ks=ks, iterations=3).fit(vectors)
    codes = quantizer.encode(vectors)
    assert codes.dtype == (np.uint8 if ks <= 256 else np.uint16)
    np.save(tmp_path / "codes.npy", codes)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    params = {"k": 90, "iterations": 5, "finish": finish, "quantizer": quantizer}
    expected = everything(fitted(codes, **params))
    assert everything(fitted(mapped, far=Far(), **params)) == expected
    assert everything(fitted(codes, far=Far(adds=False), **params)) == expected


def test_codes_that_are_made_on_the_way_have_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers read vectors and encode them, in every pass; nobody does so for all of them here."""
    cloudpickle = pytest.importorskip("cloudpickle")
    monkeypatch.setattr(taking, "_LEAST_ROWS", 400)
    vectors = blobs(rows=3000, dim=8, clusters=200)
    quantizer = vwkit.create("quantizer", "fast-pq", m=4, ks=16, iterations=3).fit(vectors)
    params = {"k": 90, "iterations": 5, "quantizer": quantizer}
    codes = quantizer.encode(stored(tmp_path / "rows.bvecs", vectors))

    def nobody() -> Any:
        raise AssertionError

    expected = everything(fitted(quantizer.encode(vectors), **params))
    codes.chunks = nobody
    far = Far(dumps=cloudpickle.dumps)
    assert everything(fitted(codes, far=far, **params)) == expected


def test_a_bad_code_is_named_by_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "_LEAST_ROWS", 100)
    vectors = blobs(rows=900, dim=8)
    quantizer = vwkit.create("quantizer", "pq", m=4, ks=16, iterations=2).fit(vectors)
    codes = quantizer.encode(vectors)
    codes[777, 2] = 99
    for far in (None, Far()):
        # Given codes to start from, nothing draws a sample before.
        params = {"k": 20, "init": codes[:20], "quantizer": quantizer}
        with pytest.raises(DataError, match="row 777 has the code 99 at 2"):
            fitted(codes, far=far, **params)


# Checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("far_first", [False, True])
@pytest.mark.parametrize("relocate", [0.0, 0.2])
@pytest.mark.parametrize("last", [1, 4])
def test_a_fit_goes_on_elsewhere(
    tmp_path: Path,
    far_first: bool,
    relocate: float,
    last: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here and elsewhere alike: what is kept is the same."""
    monkeypatch.setattr(taking, "_LEAST_ROWS", 500)
    data = blobs(rows=3000, dim=8, clusters=50)
    params: dict[str, Any] = {"k": 200, "iterations": 8, "relocate": relocate}
    params |= {"neighbours": 8, "tolerance": 0.0}
    expected = everything(fitted(data, **params))
    fars = (Far(), None) if far_first else (None, Far())
    with pytest.raises(Stop):
        fitted(data, far=fars[0], job=Always(tmp_path, last), **params)
    again = Always(tmp_path)
    assert everything(fitted(data, far=fars[1], job=again, **params)) == expected
    assert again.steps == 8 - last


# Words and quantizers elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("graph-kmeans", {"k": 100, "iterations": 3}),
        ("graph-kmeans", {"k": 100, "iterations": 3, "spherical": True, "probes": 3}),
        ("graph-pqkmeans", {"k": 100, "iterations": 3}),
        ("tree", {"branch": 5, "depth": 3}),
        ("tree", {"branch": 5, "depth": 2, "beam": 3}),
    ],
)
def test_fitted_words_travel(name: str, params: dict[str, Any]) -> None:
    vectors = blobs(rows=2000, dim=8, clusters=100)
    given: dict[str, Any] = {}
    if name == "graph-pqkmeans":
        given["quantizer"] = vwkit.create("quantizer", "fast-pq", m=4, ks=32).fit(vectors)
        vectors = given["quantizer"].encode(vectors)
    words = vwkit.create("clusterer", name, **params).fit(vectors, **given)
    before = words.predict(vectors)
    other = pickle.loads(pickle.dumps(words))
    assert type(other) is type(words)
    assert everything(other) == everything(words)
    assert np.array_equal(other.predict(vectors), before)
    assert np.array_equal(words.predict(vectors), before)  # the first is as it was
    if name != "tree":
        other.probes = words.probes = 1
        assert np.array_equal(other.predict(vectors), words.predict(vectors))


@pytest.mark.parametrize("name", ["fast-pq", "fast-opq"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_fitted_quantizers_travel(tmp_path: Path, name: str, dtype: Any) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    vectors = blobs(rows=2000, dim=8, clusters=100).astype(dtype)
    quantizer = vwkit.create("quantizer", name, m=4, ks=32, iterations=5).fit(vectors)
    codes = quantizer.encode(vectors)
    other = pickle.loads(pickle.dumps(quantizer))
    assert np.array_equal(other.encode(vectors), codes)
    assert other.decode(codes).tobytes() == quantizer.decode(codes).tobytes()
    # What a worker is given to make codes by itself.
    stream = quantizer.encode(stored(tmp_path / "rows.npy", vectors))
    reader = pickle.loads(cloudpickle.dumps(stream.reader))
    assert np.array_equal(reader.read(100, 300), codes[100:300])


# Adding up ----------------------------------------------------------------------------------------


def test_totals_of_parts_are_those_of_all_in_any_order() -> None:
    rng = np.random.default_rng(0)

    def some(row: int) -> PartTotals:
        clusters = np.flatnonzero(rng.random(12) < 0.5).astype(np.int32)
        totals = Totals(
            rng.integers(-9, 9, (len(clusters), 3)),
            rng.integers(0, 9, (len(clusters), 4)),
            rng.integers(0, 3, len(clusters)).astype(np.float64),  # many are equal
            row + rng.integers(0, 9, len(clusters)),
        )
        totals.far_rows[totals.far_keys == 0] = -1
        return PartTotals(clusters, totals)

    parts = [some(10 * number) for number in range(6)]
    whole = Totals.zeros(12, 3)
    for part in parts:
        whole.add(part, part.clusters)
    for cluster in range(12):
        own = [
            (-part.totals.far_keys[place], part.totals.far_rows[place])
            for part in parts
            for place in np.flatnonzero(part.clusters == cluster)
            if part.totals.far_rows[place] >= 0
        ]
        assert whole.far_rows[cluster] == (min(own)[1] if own else -1)
    for order in (rng.permutation(6) for _ in range(5)):
        merged = parts[order[0]]
        for number in order[1:]:
            merged = merged.merged(parts[number])
        found = Totals.zeros(12, 3)
        found.add(merged, merged.clusters)
        for name in ("sums", "totals", "far_keys", "far_rows"):
            assert np.array_equal(getattr(found, name), getattr(whole, name))
