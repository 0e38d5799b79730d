"""Indexes in files: built there, mapped, changed, moved, damaged."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from vwkit_faiss import Faiss, lists

import vwkit
from vwkit.errors import ArtifactError, BackendError, DataError, Interrupted, ParameterError
from vwkit.jobs import Job, use_job

ROWS = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
# Above 1 MiB, so that loading maps it.
LARGE = np.random.default_rng(2).normal(size=(20_000, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def spooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One thread, and many small files instead of one large: in the end their folder is empty."""
    folder = tmp_path / "spooled"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(lists, "_MOST_ROOM", 8192)
    with use_job(Job(threads=1)):
        yield folder
    assert not folder.is_dir() or not list(folder.iterdir())


def made(rows: np.ndarray = ROWS, **params: Any) -> Faiss:
    params = {"factory": "IVF8,Flat", "on_disk": True, "nprobe": 8, **params}
    return Faiss(**params).build(rows)


def saved_file(folder: Path) -> Path:
    return next(folder.glob("native-*/index.faiss"))


def opened(folder: Path, **params: Any) -> Faiss:
    """Load the library's files as they are, past the checksums that a forger would make anew."""
    index = Faiss(**{"factory": "IVF8,Flat", "on_disk": True, "nprobe": 8, **params})
    held = vwkit.load(folder)
    index._dim, index._ids = held._dim, held._ids
    return index


def nearest(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return vwkit.create("index", "exact").build(rows[ids], ids=ids).search(QUERIES, 5).ids


# Building ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "factory",
    [
        "IVF8,Flat",
        "IVF8,SQ8",
        "IVF8,PQ4x4",
        "IVF8_HNSW8,Flat",
        "IMI2x2,Flat",
        "PCA8,IVF8,SQfp16",
        "OPQ4,IVF8,PQ4x4",
    ],
)
def test_the_file_is_what_faiss_writes_of_an_index_in_memory(factory: str, tmp_path: Path) -> None:
    params = {"factory": factory, "train_rows": 300}
    made(**params, on_disk=False).save(tmp_path / "memory")
    made(**params).save(tmp_path / "disk")
    files = [saved_file(tmp_path / name).read_bytes() for name in ("memory", "disk")]
    assert files[0] == files[1]


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_a_stream_is_built_like_the_array(metric: str) -> None:
    chunks = np.array_split(ROWS, 7)
    stream = vwkit.Stream(lambda: iter(chunks), dim=16, dtype=np.float32)
    exact = vwkit.create("index", "exact", metric=metric).build(ROWS).search(QUERIES, 5)
    for rows in (stream, ROWS):
        found = made(rows, metric=metric).search(QUERIES, 5)
        assert (found.ids == exact.ids).mean() > 0.97
        assert np.allclose(found.distances, exact.distances, atol=1e-4)


@pytest.mark.parametrize(
    "factory",
    ["Flat", "HNSW32", "PQ4", "IVF8,PQ4x4fs", "IVF8,Flat,RFlat", "IVF8,RQ2x4", "IVF8,FlatDedup"],
)
def test_only_plain_lists_lie_in_a_file(factory: str) -> None:
    with pytest.raises(ParameterError, match="on_disk: only an IVF with Flat, SQ or PQ"):
        Faiss(factory=factory, on_disk=True)


_MEMORY = """
import sys, threading, time
import faiss, numpy as np, vwkit
from vwkit.jobs import Job, use_job

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) >> 10

# One group behind the other: each file holds other lists than the one before.
def chunks():
    for group in range(64):
        draw = np.random.default_rng(group).normal(size=(2500, 64))
        yield (draw + 50 * np.random.default_rng(-group + 99).normal(size=64)).astype(np.float32)

vectors = vwkit.Stream(chunks, dim=64, dtype=np.float32)
made = vwkit.create("index", "faiss", factory="IVF64,Flat", train_rows=5000, **{on_disk})
with use_job(Job(threads=1, memory=32 << 20)):
    vwkit.create("index", "faiss", factory="IVF2,Flat").build(np.eye(64, dtype=np.float32))
    before, peak, stop = anonymous(), 0, threading.Event()
    def watch():
        global peak
        while not stop.wait(0.002):
            peak = max(peak, anonymous())
    watcher = threading.Thread(target=watch)
    watcher.start()
    made.build(vectors)
    stop.set()
    watcher.join()
    print(peak - before)
    made.save(sys.argv[1])
"""
_LOADED = """
import sys
import faiss, numpy as np, vwkit
vwkit.create("index", "faiss").build(np.eye(64, dtype=np.float32)).search(np.eye(64), 3)
{reader}
before = anonymous()
index = vwkit.load(sys.argv[1])
index.search(np.random.default_rng(0).normal(size=(50, 64)), 5, nprobe=64)
print(anonymous() - before)
"""


def answer(script: str, *arguments: str) -> int:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("on_disk", [True, False])
def test_memory_does_not_hold_the_lists(on_disk: bool, tmp_path: Path) -> None:
    # 41 MB of lists.
    script = _MEMORY.replace("{on_disk}", repr({"on_disk": on_disk}))
    built = answer(script, str(tmp_path / "index"))
    assert built < 34 if on_disk else built > 41
    reader = _MEMORY[_MEMORY.index("def anonymous") : _MEMORY.index("# One group")]
    assert answer(_LOADED.replace("{reader}", reader), str(tmp_path / "index")) < 8


# Saved, moved, loaded ------------------------------------------------------------------------------


def test_a_copied_folder_is_whole(tmp_path: Path) -> None:
    index = made()
    found = index.search(QUERIES, 5)
    index.save(tmp_path / "one")
    assert str(tmp_path).encode() not in saved_file(tmp_path / "one").read_bytes()
    shutil.copytree(tmp_path / "one", tmp_path / "else" / "two")
    shutil.rmtree(tmp_path / "one")
    loaded = vwkit.load(tmp_path / "else" / "two")
    shutil.rmtree(tmp_path / "else")
    # What is open stays, also to be saved again.
    loaded.save(tmp_path / "three")
    for each in (index, loaded, vwkit.load(tmp_path / "three")):
        again = each.search(QUERIES, 5)
        assert (again.ids == found.ids).all()
        assert (again.distances == found.distances).all()


def test_saving_over_the_index_in_use(tmp_path: Path) -> None:
    index = made()
    index.save(tmp_path / "index")
    loaded = vwkit.load(tmp_path / "index")
    loaded.add(ROWS[:10] + 100).save(tmp_path / "index")
    assert loaded.search(ROWS[3:4] + 100, 1).ids.tolist() == [[3003]]
    assert vwkit.load(tmp_path / "index").search(ROWS[3:4] + 100, 1).ids.tolist() == [[3003]]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are seen in /proc")
def test_files_are_closed_with_the_index(tmp_path: Path) -> None:
    made().save(tmp_path / "index")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        vwkit.load(tmp_path / "index").add(ROWS[:5])
    assert len(os.listdir("/proc/self/fd")) <= before
    with open("/proc/self/maps") as maps:
        assert str(tmp_path) not in maps.read()


# Changing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_mapped_index_changes_and_its_files_do_not(on_disk: bool, tmp_path: Path) -> None:
    made(LARGE, on_disk=on_disk).save(tmp_path / "index")
    before = saved_file(tmp_path / "index").read_bytes()
    assert len(before) > 1 << 20
    index = vwkit.load(tmp_path / "index")
    index.remove(np.arange(0, 20_000, 3))
    index.add(ROWS + 0.5)
    index.remove([1, 20_001, 22_999])
    left = np.setdiff1d(np.arange(23_000), [*range(0, 20_000, 3), 1, 20_001, 22_999])
    both = np.concatenate([LARGE, ROWS + 0.5])
    index.save(tmp_path / "changed")
    for each in (index, vwkit.load(tmp_path / "changed")):
        assert np.array_equal(each.ids, left)
        assert (each.search(QUERIES, 5).ids == nearest(both, left)).mean() > 0.97
        found = each.search(QUERIES, 5, allowed=left[::4]).ids
        assert (found == nearest(both, left[::4])).mean() > 0.97
    assert saved_file(tmp_path / "index").read_bytes() == before


def test_fewer_vectors_than_lists_may_be_left(tmp_path: Path) -> None:
    index = made(ROWS[:10])
    index.remove(range(3, 10))
    index.save(tmp_path / "index")
    assert vwkit.load(tmp_path / "index").search(ROWS[2:3], 1).ids.tolist() == [[2]]


def test_others_search_while_it_changes() -> None:
    index, found = made(), []

    def search() -> None:
        found.append(index.search(ROWS[:5], 1).ids[:, 0].tolist())

    def look(*_: object) -> None:
        searcher = threading.Thread(target=search, daemon=True)
        searcher.start()
        searcher.join(20)
        assert not searcher.is_alive()

    with use_job(Job(threads=1, progress=look)):
        index.add(ROWS[:1000] + 100)
        index.remove([2999])
    assert len(found) > 5
    assert all(ids == [0, 1, 2, 3, 4] for ids in found)
    assert len(index) == 3999


def test_searching_from_many_threads_while_it_changes() -> None:
    index, stop, wrong = made(), threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            if index.search(ROWS[:30], 1).ids[:, 0].tolist() != list(range(30)):
                wrong.append(True)

    workers = [threading.Thread(target=search) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in range(10):
        index.add(ROWS[:100] + 100)
    stop.set()
    for worker in workers:
        worker.join()
    assert not wrong
    assert len(index) == 4000


# Failing -----------------------------------------------------------------------------------------


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_in_one_line(full_disk: None) -> None:
    with pytest.raises(DataError, match=r"lists cannot be written: .*TMPDIR") as caught:
        made()
    assert "\n" not in str(caught.value)


def test_a_change_that_fails_changes_nothing(request: pytest.FixtureRequest) -> None:
    index = made(ROWS[:1000])
    found = index.search(QUERIES, 5)
    request.getfixturevalue("full_disk")
    with pytest.raises(DataError, match="lists cannot be written"):
        index.add(ROWS[1000:])
    assert len(index) == 1000
    assert (index.search(QUERIES, 5).ids == found.ids).all()
    assert (index.remove([5]).search(ROWS[5:6], 1).ids != 5).all()


def test_no_folder_for_the_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(DataError, match="lists cannot be written: No such file"):
        made()


@pytest.mark.parametrize("unit", ["vectors", "lists"])
def test_an_interrupted_build_leaves_nothing(unit: str, tmp_path: Path) -> None:
    stop, inside = threading.Event(), []

    def progress(stage: str, done: int, total: int | None, what: str, values: object) -> None:
        if what == unit and list((tmp_path / "job").glob("*/part-3")):
            inside.append(True)
            stop.set()

    work = Job(threads=1, folder=tmp_path / "job", progress=progress, stop=stop)
    with use_job(work), pytest.raises(Interrupted):
        made()
    assert inside
    assert not list((tmp_path / "job").iterdir())


def test_vectors_that_cannot_be_read_leave_nothing() -> None:
    def chunks() -> Iterator[np.ndarray]:
        yield ROWS[:2000]
        raise OSError("the camera was unplugged")

    stream = vwkit.Stream(chunks, dim=16, dtype=np.float32, rows=3000)
    with pytest.raises(OSError, match="unplugged"):
        made(stream, train_rows=100)


# Damaged -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_cut_file_is_refused(on_disk: bool, tmp_path: Path) -> None:
    made(on_disk=on_disk).save(tmp_path / "index")
    index, path = opened(tmp_path / "index", on_disk=on_disk), saved_file(tmp_path / "index")
    whole = path.read_bytes()
    near = [0, 1, 3, 4, 15, 16, 33, len(whole) - 1, len(whole) - 9]
    for size in [*near, *range(40, len(whole), len(whole) // 40)]:
        path.write_bytes(whole[:size])
        with pytest.raises(ArtifactError) as caught:
            index._load(path.parent)
        assert "\n" not in str(caught.value)
    with pytest.raises(ArtifactError, match="truncated or changed"):
        vwkit.load(tmp_path / "index")


def test_changed_bytes_crash_nothing(tmp_path: Path) -> None:
    rows, params = ROWS[:50, :2].copy(), {"factory": "IVF2,Flat", "nprobe": 2}
    made(rows, **params).save(tmp_path / "index")
    index, path = opened(tmp_path / "index", **params), saved_file(tmp_path / "index")
    whole = path.read_bytes()
    refused = 0
    # Before the first list stands all that says where something lies.
    start = len(whole) - 50 * (8 + 8)
    for place in [*range(start), *range(start, len(whole), 50)]:
        for value in (0x01, 0xFF):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                index._load(path.parent)
                index._fitted = True
                index.search(rows[:2], 3)
            except (ArtifactError, BackendError, DataError):
                refused += 1
    assert refused > 100


def test_a_file_that_names_another_file_is_refused(tmp_path: Path) -> None:
    made(on_disk=False).save(tmp_path / "index")
    path = saved_file(tmp_path / "index")
    forged = faiss.read_index(str(path))
    elsewhere = faiss.OnDiskInvertedLists(8, 64, str(tmp_path / "elsewhere"))
    elsewhere.merge_from_1(forged.invlists)
    forged.replace_invlists(elsewhere)
    faiss.write_index(forged, str(path))
    for on_disk in (True, False):
        # FAISS says so before it opens the other one.
        with pytest.raises(ArtifactError, match="SAME_DIR"):
            made(on_disk=on_disk)._load(path.parent)


def test_row_numbers_of_a_file_are_not_trusted(tmp_path: Path) -> None:
    made().save(tmp_path / "index")
    index, path = opened(tmp_path / "index"), saved_file(tmp_path / "index")
    whole = path.read_bytes()
    for wrong in (3000, -1, 1 << 62):
        path.write_bytes(whole[:-8] + np.int64(wrong).tobytes())
        index._load(path.parent)
        index._fitted = True
        with pytest.raises(ArtifactError, match="none of the 3000"):
            index.remove([7])


def test_a_file_does_not_set_how_to_search(tmp_path: Path) -> None:
    made(LARGE, on_disk=False).save(tmp_path / "index")
    index = opened(tmp_path / "index", on_disk=False, nprobe=None)
    path = saved_file(tmp_path / "index")
    forged = faiss.read_index(str(path))
    forged.nprobe = 8
    faiss.write_index(forged, str(path))
    index._load(path.parent)
    index._fitted = True
    fewer = made(LARGE, on_disk=False, nprobe=None).search(QUERIES, 50)
    assert (index.search(QUERIES, 50).ids == fewer.ids).all()
    index.add(ROWS[:1] + 1000)  # which brings it into memory
    assert (index.search(QUERIES, 50).ids == fewer.ids).all()


def test_a_file_that_is_cut_while_in_use_is_not_saved(tmp_path: Path) -> None:
    made(LARGE).save(tmp_path / "index")
    index = vwkit.load(tmp_path / "index")
    os.truncate(saved_file(tmp_path / "index"), 1 << 20)
    with pytest.raises(ArtifactError, match="cut while it was in use"):
        index.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()
