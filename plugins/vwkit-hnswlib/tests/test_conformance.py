from __future__ import annotations

from typing import Any, ClassVar

from vwkit_hnswlib import HNSW

from vwkit.testing import IndexTests


class TestHNSW(IndexTests):
    backend = HNSW
    min_recall = 0.95


class TestOneThread(IndexTests):
    backend = HNSW
    params: ClassVar[dict[str, Any]] = {"threads": 1, "M": 8}
    min_recall = 0.9
