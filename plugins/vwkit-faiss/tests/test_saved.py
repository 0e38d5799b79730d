"""Every kind of index, saved and opened again: the same, and never a crash for what others made."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from vwkit_faiss import Faiss, saved

import vwkit
from vwkit.errors import ArtifactError, VwkitError
from vwkit.jobs import Job, use_job

ROWS = np.random.default_rng(0).integers(0, 256, (400, 16)).astype(np.float32)
KINDS = [
    *("Flat", "SQ8", "SQfp16", "PQ4x4", "PQ4x4fs", "RQ2x4", "LSQ2x4", "PRQ2x2x4", "RaBitQ"),
    *("HNSW8", "HNSW8,SQ8", "HNSW8_PQ4x4", "PCA8,Flat", "OPQ4,PQ4x4", "HR,Flat", "Pad20,Flat"),
    *("IVF4,Flat", "IVF4,SQ8", "IVF4,SQ8_direct", "IVF4,PQ4x4", "IVF4,PQ4x4fs", "IVF4,RQ2x4"),
    *("IVF4,RaBitQ", "IVF4,FlatDedup", "IVF4_HNSW4,Flat", "IVF4(IVF2,Flat),Flat", "IMI2x2,Flat"),
    *("RR,IVF4,Flat", "IVF4,SQ8,RFlat", "PQ4x4,Refine(SQ8)", "IVF4_HNSW4,PQ4x4fs,RFlat"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with use_job(Job(threads=1)):
        yield


@pytest.fixture(params=["mapped", "read"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(saved, "_MAPPED_FROM", 0 if request.param == "mapped" else 1 << 60)
    return str(request.param)


def same(one: Faiss, other: Faiss, share: float = 1.0) -> None:
    found, again = one.search(ROWS[::8], 7), other.search(ROWS[::8], 7)
    assert (found.ids == again.ids).mean() >= share
    assert (found.distances == again.distances).mean() >= share


@pytest.mark.parametrize("factory", KINDS)
def test_what_is_loaded_answers_and_changes_like_what_was_saved(
    factory: str, how: str, tmp_path: Path
) -> None:
    index = Faiss(factory=factory).build(ROWS[:300])
    index.save(tmp_path / "index")
    loaded = vwkit.load(tmp_path / "index")
    same(index, loaded)
    for each in (index, loaded):
        if each.supports_remove:
            each.remove(np.arange(0, 300, 7))
        each.add(ROWS[300:])
    # The levels of new nodes of a graph are drawn, and a file does not hold where the draw stands.
    same(index, loaded, 0.8 if factory.startswith("HNSW") else 1.0)


@pytest.mark.parametrize("factory", ["RQ2x4", "LSQ2x4"])
def test_a_quantizer_that_learnt_nothing_is_refused(factory: str, how: str, tmp_path: Path) -> None:
    """FAISS would throw inside of its threads, which ends the process."""
    index = Faiss(factory=factory).build(ROWS)
    index.save(tmp_path / "index")
    path = next((tmp_path / "index").glob("native-*/index.faiss"))
    forged = faiss.read_index(str(path))
    (forged.rq if factory.startswith("RQ") else forged.lsq).is_trained = False
    faiss.write_index(forged, str(path))
    with pytest.raises(ArtifactError, match="not trained"):
        index._load(path.parent)


@pytest.mark.parametrize("factory", ["IVF128,PQ16x8np", "OPQ16,IVF128,PQ16x8np"])
def test_tables_that_are_larger_than_the_file_are_no_reason_to_refuse_it(
    factory: str, tmp_path: Path
) -> None:
    """If this fails, check what FAISS makes of lists and codewords when it reads them."""
    rows = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    index = Faiss(factory=factory).build(rows)
    index.save(tmp_path / "index")
    found = vwkit.load(tmp_path / "index").search(rows[:20], 3)
    assert (found.ids == index.search(rows[:20], 3).ids).all()


@pytest.mark.parametrize("factory", KINDS)
def test_changed_and_cut_files_crash_nothing(
    factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, the process ends: run the factory by itself to see which file did it."""
    Faiss(factory=factory).build(ROWS[: 260 if "OPQ" in factory else 60]).save(tmp_path / "index")
    path = next((tmp_path / "index").glob("native-*/index.faiss"))
    index, whole = vwkit.load(tmp_path / "index"), path.read_bytes()
    draw, refused = random.Random(0), 0
    # What is mapped is touched later, and checked less by FAISS.
    monkeypatch.setattr(saved, "_MAPPED_FROM", 0)
    for _ in range(25):
        data, place = bytearray(whole), draw.randrange(len(whole))
        if draw.random() < 0.3:
            del data[place:]
        else:
            place %= draw.choice((200, len(whole)))
            value = draw.choice((0, 1, 255, 1 << 31, 1 << 61, (1 << 64) - 1))
            data[place : place + 8] = value.to_bytes(8, "little")[: len(whole) - place]
        path.write_bytes(data)
        try:
            index._load(path.parent)
            index.search(ROWS[:5], 3)
        except VwkitError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused
