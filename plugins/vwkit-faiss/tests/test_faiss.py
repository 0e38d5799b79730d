from __future__ import annotations

import doctest
import logging
import threading
from pathlib import Path

import faiss
import numpy as np
import pytest
from vwkit_faiss import Faiss, vwkit_backends

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError, UnsupportedError
from vwkit.jobs import Job, use_job

ROWS = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)


def nearest(allowed: np.ndarray, metric: str = "l2") -> np.ndarray:
    exact = vwkit.create("index", "exact", metric=metric).build(ROWS)
    return exact.search(QUERIES, 5, allowed=allowed).ids


@pytest.mark.parametrize("factory", ["Flat", "SQfp16", "IVF8,Flat", "RR,Flat"])
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_rows_keep_their_numbers(factory: str, metric: str) -> None:
    nprobe = 8 if "IVF" in factory else None
    index = Faiss(factory=factory, nprobe=nprobe, metric=metric).build(ROWS[:600])
    index.remove(np.arange(0, 600, 3))
    index.add(ROWS[600:])
    index.remove([601, 1, 999])
    left = np.setdiff1d(np.arange(1000), [*range(0, 600, 3), 601, 1, 999])
    assert index.ids.tolist() == left.tolist()
    found = index.search(QUERIES, 5).ids
    assert (found == nearest(left, metric)).mean() > 0.97
    some = left[::4]
    found = index.search(QUERIES, 5, allowed=some).ids
    assert (found == nearest(some, metric)).mean() > 0.97


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat"])
def test_removed_rows_stay_away_after_loading(factory: str, tmp_path: Path) -> None:
    index = Faiss(factory=factory).build(ROWS[:500])
    index.remove(np.arange(0, 500, 2))
    index.save(tmp_path / "index")
    loaded = vwkit.load(tmp_path / "index")
    assert (loaded.search(QUERIES, 5).ids == index.search(QUERIES, 5).ids).all()
    loaded.add(ROWS[500:])
    assert loaded.search(ROWS[777:778], 1).ids.tolist() == [[777]]


@pytest.mark.parametrize(
    ("factory", "can_remove", "can_filter", "exact"),
    [
        ("Flat", True, True, True),
        ("SQ8", True, True, False),
        ("PQ8", True, False, False),
        ("IVF64,PQ8", True, True, False),
        ("IVF64_HNSW32,Flat", True, True, False),
        ("IVF64(HNSW32,Flat),Flat", True, True, False),
        ("OPQ8,IVF64,PQ8", True, True, False),
        ("HNSW32", False, True, False),
        ("HNSW32,SQ8", False, True, False),
        ("IVF64,PQ8,RFlat", False, False, False),
        ("PQ8x4fs", True, False, False),
        ("IVF64,RQ4x8", False, False, False),
    ],
)
def test_abilities_are_those_of_the_factory(
    factory: str, can_remove: bool, can_filter: bool, exact: bool
) -> None:
    index = Faiss(factory=factory)
    abilities = (index.supports_remove, index.supports_filter, index.exact)
    assert abilities == (can_remove, can_filter, exact)


def test_hnsw_says_what_it_cannot() -> None:
    index = Faiss(factory="HNSW16").build(ROWS)
    with pytest.raises(UnsupportedError, match="supports_remove"):
        index.remove([1])
    some = np.arange(0, 1000, 2)
    found = index.search(QUERIES, 5, allowed=some, efSearch=200).ids
    assert np.isin(found, some).all()


@pytest.mark.parametrize(
    ("factory", "match"),
    [
        ("Falt", "such as"),
        ("", "such as"),
        ("Flat,Flat", "such as"),
        ("IVF0,Flat", "got 0"),
        ("HNSW1", "from 2"),
        ("IVF99999999999999,Flat", "2\\^31"),
        ("IDMap,Flat", "leave IDMap out"),
        ("LSH", "Hamming"),
        ("L2norm,Flat", "cosine"),
        ("NSG16,Flat", "HNSW"),
    ],
)
def test_a_bad_factory_is_refused_at_once(factory: str, match: str) -> None:
    with pytest.raises(ParameterError, match=match) as caught:
        Faiss(factory=factory)
    assert "\n" not in str(caught.value)


def test_a_factory_that_does_not_fit_the_data(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ParameterError, match=r"for 16 dimensions.*multiple"):
        Faiss(factory="PQ7").build(ROWS)
    with pytest.raises(DataError, match=r"learns 2,000 centroids.*got 1,000"):
        Faiss(factory="IVF2000,Flat").build(ROWS)
    with pytest.raises(DataError, match=r"got 50 \(of 1,000 vectors, train_rows: 50\)"):
        Faiss(factory="IVF100,Flat", train_rows=50).build(ROWS)
    with pytest.raises(DataError, match="learns 256 centroids"):
        Faiss(factory="OPQ4,PQ4").build(ROWS[:100])
    assert capfd.readouterr() == ("", "")


def test_few_training_rows_are_logged_not_printed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "vwkit"):
        Faiss(factory="IVF64_HNSW8,PQ2x4").build(ROWS)
    assert "2496 or more are advised" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_seed_and_training_rows() -> None:
    def answer(**params: int) -> bytes:
        index = Faiss(factory="IVF32,SQ8", train_rows=400, **params).build(ROWS)
        return index.search(QUERIES, 5).distances.tobytes()

    assert answer(seed=1) == answer(seed=1)
    assert answer(seed=1) != answer(seed=2)


def test_late_parameters_leave_the_index_alone() -> None:
    index = Faiss(factory="RR,IVF32,Flat").build(ROWS)
    few = index.search(QUERIES, 5)
    all_lists = index.search(QUERIES, 5, nprobe=32)
    assert (all_lists.ids == nearest(np.arange(1000))).mean() > 0.97
    assert (index.search(QUERIES, 5).ids == few.ids).all()
    assert (few.ids != all_lists.ids).any()
    index.nprobe = 32
    assert (index.search(QUERIES, 5).ids == all_lists.ids).all()
    with pytest.raises(ParameterError, match="efSearch"):
        index.search(QUERIES, 5, efSearch=9)
    with pytest.raises(ParameterError, match="nprobe"):
        Faiss(nprobe=3)


def test_a_stream_trains_and_builds_like_the_array() -> None:
    chunks = np.array_split(ROWS, 7)
    stream = vwkit.Stream(lambda: iter(chunks), dim=16, dtype=np.float32)
    params = {"factory": "IVF16,Flat", "train_rows": 600}
    one, other = Faiss(**params).build(ROWS), Faiss(**params).build(stream)
    assert (one.search(QUERIES, 5).ids == other.search(QUERIES, 5).ids).all()


def test_cosine_of_zero_and_of_tiny_vectors() -> None:
    rows = np.array([[0, 0], [1e-30, 0], [0, 1e25], [1, 1]], np.float32)
    found = Faiss(metric="cosine").build(rows).search(rows, 4)
    by_id = np.take_along_axis(found.distances, np.argsort(found.ids, axis=1), axis=1)
    half = 1 - 0.5**0.5
    expected = [[1, 1, 1, 1], [1, 0, 1, half], [1, 1, 0, half], [1, half, half, 0]]
    assert np.allclose(by_id, expected, atol=1e-6)


def test_threads_are_the_jobs_and_put_back() -> None:
    before = faiss.omp_get_max_threads()
    index = Faiss().build(ROWS)
    with use_job(Job(threads=before + 1)):
        index.search(QUERIES, 5)
    assert faiss.omp_get_max_threads() == before


def test_searching_while_adding() -> None:
    index = Faiss().build(ROWS)
    stop, wrong = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            if index.search(ROWS[:30], 1).ids[:, 0].tolist() != list(range(30)):
                wrong.append(True)

    workers = [threading.Thread(target=search) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in range(30):
        index.add(ROWS + 100)
    stop.set()
    for worker in workers:
        worker.join()
    assert not wrong
    assert len(index) == 31_000


def test_every_backend_names_library_and_license() -> None:
    for backend in vwkit_backends():
        assert (backend.library, backend.license) == ("faiss-cpu", "MIT")
        assert backend.choose


def test_the_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "README.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried > 5
    assert not failed


def test_a_file_of_another_index_is_refused(tmp_path: Path) -> None:
    for name, rows in (("a", ROWS[:50]), ("b", ROWS[:60])):
        Faiss().build(rows).save(tmp_path / name)
    other = Faiss()
    other._dim = 16
    native = next((tmp_path / "b").glob("native-*"))
    with pytest.raises(ArtifactError, match="holds 60 vectors"):
        other._load(native)
