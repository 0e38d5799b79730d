from __future__ import annotations

from vwkit.testing import IndexTests
from vwkit_hnswlib import HNSW


class TestHNSW(IndexTests):
    backend = HNSW
    min_recall = 0.95


class TestOneThread(IndexTests):
    backend = HNSW
    params = {"threads": 1, "M": 8}
    min_recall = 0.9
