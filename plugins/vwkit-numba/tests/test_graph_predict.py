"""Words of graph k-means for new rows, and fits from given centers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_fits import blobs, check, everything, fitted_quietly, used
from numpy.typing import NDArray
from vwkit_numba import GraphKMeans

from vwkit.errors import DataError, ShapeError
from vwkit.jobs import Job, use_job
from vwkit.reference.distances import distances
from vwkit.testing.data import cut, layouts, mixture

# Predicting -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words() -> GraphKMeans:
    data = blobs(rows=12_000, dim=16, clusters=300, spread=12)
    return fitted_quietly(data, k=1000, iterations=8)[0]


def test_predict_finds_nearly_all(words: GraphKMeans) -> None:
    asked = blobs(rows=3000, dim=16, clusters=300, spread=12)[1000:]
    every = distances(asked, words.centers, "l2")
    shares = []
    groups = len(words._coarse)
    assert 20 <= groups <= 32  # about the square root
    before = words.probes
    assert before == 16
    try:
        for probes in (1, 4, 16, groups, 10 * groups):
            words.probes = probes  # may be set behind a fit
            own = every[np.arange(len(asked)), words.predict(asked)]
            assert (own >= every.min(axis=1)).all()
            shares.append(np.mean(own <= every.min(axis=1) + 1e-2))
    finally:
        words.probes = before
    assert shares[0] > 0.97  # the nearest group alone, and then along the graph
    assert shares[2] > 0.99
    assert shares == sorted(shares)
    assert shares[3] == shares[4] == 1


def test_a_label_depends_on_its_row_alone(words: GraphKMeans) -> None:
    asked = blobs(rows=1000, dim=16, clusters=300, seed=5)
    expected = words.predict(asked)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(words.predict(asked[order]), expected[order])
    for size in (1, 3, 4, 5, 63, 64, 65):
        assert np.array_equal(words.predict(asked[:size]), expected[:size])
    assert np.array_equal(words.predict(np.repeat(asked, 3, axis=0)), np.repeat(expected, 3))
    assert words.predict(asked[:0]).shape == (0,)
    for threads in (1, 3):
        with use_job(Job(threads=threads)):
            assert np.array_equal(words.predict(asked), expected)
            stream = words.predict(cut(asked, [7, 300]))
            assert np.array_equal(stream.toarray()[:, 0], expected)
    for _, other in layouts(asked.astype(np.float32)):
        assert np.array_equal(words.predict(other), expected)


@pytest.mark.parametrize("spherical", [False, True])
def test_labels_of_a_fit_are_predicted_again(spherical: bool) -> None:
    data = mixture(0, 3000, 8, 150)
    model, _ = fitted_quietly(data, k=200, spherical=spherical)
    assert np.mean(model.predict(data) == model.labels) > model.label_agreement
    if spherical:
        assert np.array_equal(model.predict(data * np.float32(1e15)), model.predict(data))


def run(code: str) -> str:
    """Run Python in a process of its own, which may crash, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_rows_far_from_the_words_find_one() -> None:
    """Nothing fills up a list so well that a row far away takes it for a center."""
    run(
        """
import numpy as np
from vwkit_numba import GraphKMeans

rng = np.random.default_rng(0)
for size in (1e-38, 1e-20, 1, 1e20):
    rows = (rng.exponential(size=(60, 3)) * size).astype(np.float32)
    for k, spherical in ((1, False), (2, False), (3, True), (5, False), (30, False), (30, True)):
        model = GraphKMeans(k=k, iterations=2, spherical=spherical).fit(rows)
        for far in (1e10, 1e19, 1e30, 3e38):
            asked = rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], (100, 3)) * far
            labels = model.predict(asked.astype(np.float32))
            assert 0 <= labels.min() and labels.max() < k, (size, k, spherical, far)
for rows in (np.array([[0], [10], [10], [10]]), np.array([[250], [0], [0], [1]], np.uint8)):
    model = GraphKMeans(k=1).fit(rows)
    assert not model.predict(np.array([[-3e38], [3e38], [5.0]], np.float32)).any()
"""
    )


def test_centers_given_far_from_the_rows_do_no_harm() -> None:
    run(
        """
import warnings
import numpy as np
import vwkit
from vwkit_numba import GraphKMeans

warnings.simplefilter("error")
rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
for far in (1e10, 1e18, 1e19, 1e25, 3e38):
    for k in (1, 3, 8):
        for sign in (1, -1):
            start = (sign * far * np.arange(1, k + 1) / k)[:, None].repeat(3, axis=1)
            try:
                model = GraphKMeans(k=k, init=start.astype(np.float32)).fit(rows)
            except vwkit.VwkitError as error:
                assert "init" in str(error)
                continue
            assert len(np.unique(model.labels)) == k
            assert np.abs(model.centers).max() < 10
"""
    )


# Starting from given centers --------------------------------------------------------------------


def test_given_centers_and_a_file_of_them_are_the_same(tmp_path: Path) -> None:
    data = blobs(rows=600)
    start = data[:40].astype(np.float32)
    np.save(tmp_path / "centers.npy", start)
    before = start.copy()
    expected = everything(fitted_quietly(data, k=40, init=start)[0])
    assert np.array_equal(start, before)
    for given_ in (
        tmp_path / "centers.npy",
        str(tmp_path / "centers.npy"),
        data[:40],
        start.astype(np.float64),
        np.asfortranarray(start),
    ):
        assert everything(fitted_quietly(data, k=40, init=given_)[0]) == expected
    # Another seed draws other rows, but starts in the same place.
    firsts = {fitted_quietly(data, k=40, init=start, seed=s)[0].objective[0] for s in range(3)}
    assert len(firsts) == 1


def test_words_go_on_from_words() -> None:
    """A warm start on new data is about settled at once."""
    data, more = blobs(rows=3000, seed=0), blobs(rows=3000, seed=0, spread=6)
    words, _ = fitted_quietly(data, k=100)
    warm, _ = fitted_quietly(more, k=100, init=words.centers, relocate=0.0, iterations=3)
    cold, _ = fitted_quietly(more, k=100, relocate=0.0)
    check(warm, more)
    assert warm.objective[0] < 1.1 * cold.objective[-1]
    assert warm.objective[-1] < 1.05 * cold.objective[-1]
    same, _ = fitted_quietly(data, k=100, init=words.centers, relocate=0.0)
    assert same.objective[0] == pytest.approx(words.objective[-1], rel=1e-2)


def test_equal_given_centers_part() -> None:
    data = mixture(0, 400, 4, 12)
    model, told = fitted_quietly(data, k=12, init=np.zeros((12, 4), np.float32))
    check(model, data)
    assert used(model) == 12
    assert not told


def bad_files(folder: Path) -> Iterator[Path]:
    """Yield paths that hold no centers."""
    yield folder / "missing.npy"
    yield folder
    contents = {
        "empty.npy": b"",
        "text.npy": b"1 2 3",
        "zip.npy": b"PK\x03\x04 and no more",
        "cut.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        yield folder / name
    np.save(folder / "short.npy", np.zeros((5, 8), np.float32))
    whole = (folder / "short.npy").read_bytes()
    (folder / "short.npy").write_bytes(whole[:-8])
    yield folder / "short.npy"
    np.save(folder / "objects.npy", np.full((5, 8), None), allow_pickle=True)
    yield folder / "objects.npy"


def test_files_without_centers_are_refused(tmp_path: Path) -> None:
    for path in bad_files(tmp_path):
        with pytest.raises(DataError, match=r"^init: ") as caught:
            GraphKMeans(k=5, init=path).fit(blobs(rows=50))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (np.zeros((4, 8)), ShapeError),
        (np.zeros((5, 7)), ShapeError),
        (np.zeros(40), ShapeError),
        (np.zeros((1, 5, 8)), ShapeError),
        (np.zeros((0, 8)), ShapeError),
        (np.array(3.0), ShapeError),
        (np.full((5, 8), np.nan), DataError),
        (np.full((5, 8), np.inf), DataError),
        (np.full((5, 8), 1e300), DataError),
        (np.full((5, 8), "x"), DataError),
        (np.full((5, 8), 1j), DataError),
        (np.full((5, 8), np.datetime64(0, "s")), DataError),
    ],
)
def test_wrong_centers_are_refused(
    wrong: NDArray[Any], error: type[Exception], in_file: bool, tmp_path: Path
) -> None:
    init: Any = wrong
    if in_file:
        init = tmp_path / "centers.npy"
        np.save(init, wrong)
    with pytest.raises(error, match=r"^init: ") as caught:
        GraphKMeans(k=5, init=init).fit(blobs(rows=50))
    if error is ShapeError:
        assert "(5, 8)" in str(caught.value)
        assert str(wrong.shape) in str(caught.value)
