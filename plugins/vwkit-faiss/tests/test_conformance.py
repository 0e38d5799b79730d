from __future__ import annotations

from vwkit.testing import IndexTests
from vwkit_faiss import Faiss


class TestFlat(IndexTests):
    backend = Faiss
    min_recall = 1.0


class TestHNSW(IndexTests):
    backend = Faiss
    params = {"factory": "HNSW32", "efSearch": 64}
    min_recall = 0.95


class TestIVF(IndexTests):
    backend = Faiss
    params = {"factory": "IVF4,Flat", "nprobe": 4}
    min_recall = 1.0
    min_rows = 4


class TestHalf(IndexTests):
    backend = Faiss
    params = {"factory": "SQfp16"}
    min_recall = 0.95
