from __future__ import annotations

from typing import Any, ClassVar

from vwkit_faiss import OPQ, RQ, SQ, Faiss, FaissKMeans, FaissPQ, FaissSuperKMeans

from vwkit.testing import ClustererTests, IndexTests, QuantizerTests


class TestFlat(IndexTests):
    backend = Faiss
    min_recall = 1.0


class TestHNSW(IndexTests):
    backend = Faiss
    params: ClassVar[dict[str, Any]] = {"factory": "HNSW32", "efSearch": 64}
    min_recall = 0.95


class TestIVF(IndexTests):
    backend = Faiss
    params: ClassVar[dict[str, Any]] = {"factory": "IVF4,Flat", "nprobe": 4}
    min_recall = 1.0
    min_rows = 4


class TestOnDisk(IndexTests):
    backend = Faiss
    params: ClassVar[dict[str, Any]] = {"factory": "IVF4,Flat", "nprobe": 4, "on_disk": True}
    min_recall = 1.0
    min_rows = 4


class TestHalf(IndexTests):
    backend = Faiss
    params: ClassVar[dict[str, Any]] = {"factory": "SQfp16"}
    min_recall = 0.95


class TestKMeans(ClustererTests):
    backend = FaissKMeans


class TestSuperKMeans(ClustererTests):
    backend = FaissSuperKMeans


class TestPQ(QuantizerTests):
    backend = FaissPQ
    params: ClassVar[dict[str, Any]] = {"m": 2, "ks": 16}


class TestOPQ(QuantizerTests):
    backend = OPQ
    params: ClassVar[dict[str, Any]] = {"m": 2, "ks": 16}


class TestRQ(QuantizerTests):
    backend = RQ
    params: ClassVar[dict[str, Any]] = {"m": 2, "ks": 16}


class TestSQ(QuantizerTests):
    backend = SQ
