from __future__ import annotations

from typing import Any, ClassVar

from vwkit_pqkmeans import PQKMeans

from vwkit.testing import ClustererTests


class TestPQKMeans(ClustererTests):
    backend = PQKMeans


class TestFromRandomCodes(ClustererTests):
    backend = PQKMeans
    params: ClassVar[dict[str, Any]] = {"init": "random", "tolerance": 0.0}
