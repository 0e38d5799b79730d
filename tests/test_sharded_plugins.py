"""Shards of every installed kind of index pass the suite that the index itself passes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from vwkit.builtin.sharded import Sharded
from vwkit.errors import UnknownNameError
from vwkit.plugins import registry, unavailable
from vwkit.testing import IndexTests


class OfPlugin(IndexTests):
    """The suite, for a nested index that may not be installed."""

    needs: ClassVar[str]

    @pytest.fixture(autouse=True)
    def _installed(self, _known_by_name: Any) -> None:
        try:
            missing = unavailable(registry().entry("index", self.needs).cls)
        except UnknownNameError:
            missing = f"no index {self.needs} is installed"
        if missing:
            pytest.skip(missing)


class TestShardedHNSW(OfPlugin):
    needs = "hnsw"
    backend = Sharded
    params = {"index": {"use": "hnsw", "threads": 1}, "shards": 3}


class TestShardedFaiss(OfPlugin):
    needs = "faiss"
    backend = Sharded
    params = {"index": {"use": "faiss"}, "shards": 3}


class TestShardedIVF(OfPlugin):
    needs = "faiss"
    backend = Sharded
    params = {
        "index": {"use": "faiss", "factory": "IVF4,Flat", "nprobe": 4, "on_disk": True},
        "shards": 2,
    }
    min_rows = 8


class TestShardedAnnoy(OfPlugin):
    needs = "annoy"
    backend = Sharded
    params = {"index": {"use": "annoy", "n_trees": 20, "n_jobs": 1}, "rows_per_shard": 50}


class TestShardedFlann(OfPlugin):
    needs = "flann"
    backend = Sharded
    params = {"index": {"use": "flann", "checks": 256}, "shards": 3}


class TestShardedUSearch(OfPlugin):
    needs = "usearch"
    backend = Sharded
    params = {"index": {"use": "usearch", "threads": 1}, "shards": 3}
