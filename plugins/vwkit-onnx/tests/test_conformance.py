from __future__ import annotations

from typing import Any, ClassVar

import pytest
from vwkit_onnx import Onnx

from vwkit.testing import FeaturizerTests


@pytest.fixture(autouse=True, scope="class")
def _network(request: Any, graphs: Any, tmp_path_factory: Any) -> None:
    """Write the network of a class before its tests begin."""
    name, options = request.cls.network
    path = tmp_path_factory.mktemp(name) / "network.onnx"
    graphs.save(getattr(graphs, name)(**options), path)
    request.cls.params = {"model": str(path), **request.cls.others}


class OnnxTests(FeaturizerTests):
    backend = Onnx
    network: ClassVar[tuple[str, dict[str, Any]]] = ("convolutions", {})
    others: ClassVar[dict[str, Any]] = {}


class TestOnnx(OnnxTests):
    pass


class TestInnerLayer(OnnxTests):
    others: ClassVar[dict[str, Any]] = {"layer": "r2", "pool": "max", "preset": "clip"}


class TestBatches(OnnxTests):
    others: ClassVar[dict[str, Any]] = {"layer": "fc1", "batch_size": 4}


class TestFixedBatch(OnnxTests):
    network: ClassVar[tuple[str, dict[str, Any]]] = ("convolutions", {"batch": 3})


class TestQuantised(OnnxTests):
    network: ClassVar[tuple[str, dict[str, Any]]] = ("quantised", {})
    others: ClassVar[dict[str, Any]] = {"batch_size": 4, "preset": "keras-caffe"}


class TestQuantisedFixedBatch(OnnxTests):
    network: ClassVar[tuple[str, dict[str, Any]]] = ("quantised", {"batch": 4})


class TestMixing(OnnxTests):
    network: ClassVar[tuple[str, dict[str, Any]]] = ("mixing", {})
    others: ClassVar[dict[str, Any]] = {"batch_size": 5}
