from __future__ import annotations

from typing import Any, ClassVar

from vwkit_usearch import USearch

from vwkit.testing import IndexTests


class TestUSearch(IndexTests):
    backend = USearch
    min_recall = 0.95


class TestOneThread(IndexTests):
    backend = USearch
    params: ClassVar[dict[str, Any]] = {"threads": 1, "connectivity": 8}
    min_recall = 0.9


class TestHalf(IndexTests):
    backend = USearch
    params: ClassVar[dict[str, Any]] = {"dtype": "f16"}
    min_recall = 0.95


class TestBytes(IndexTests):
    backend = USearch
    params: ClassVar[dict[str, Any]] = {"dtype": "i8"}
    min_recall = 0.9
