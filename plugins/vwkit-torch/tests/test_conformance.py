from __future__ import annotations

from typing import Any, ClassVar

import pytest
from vwkit_torch import Torch

from vwkit.testing import FeaturizerTests


@pytest.fixture(autouse=True, scope="class")
def _network(request: Any, networks: Any, tmp_path_factory: Any) -> None:
    """Write the network of a class before its tests begin."""
    name, how = request.cls.network
    made = getattr(networks, name)()
    path = networks.save(how, made, tmp_path_factory.mktemp(name) / "network")
    request.cls.params = {"model": str(path), **request.cls.others}


class TorchTests(FeaturizerTests):
    backend = Torch
    network: ClassVar[tuple[str, str]] = ("small", "exported")
    # Where the file does not tell, pictures would be 224 pixels wide.
    others: ClassVar[dict[str, Any]] = {}


class TestExported(TorchTests):
    pass


class TestScripted(TorchTests):
    network: ClassVar[tuple[str, str]] = ("small", "scripted")
    others: ClassVar[dict[str, Any]] = {"crop": 32}


class TestTracedLayer(TorchTests):
    network: ClassVar[tuple[str, str]] = ("small", "traced")
    others: ClassVar[dict[str, Any]] = {"crop": 32, "layer": "layer1.0.relu", "batch_size": 3}


class TestInnerLayer(TorchTests):
    others: ClassVar[dict[str, Any]] = {"layer": "layer1.1.bn1", "pool": "max", "preset": "clip"}


class TestBatches(TorchTests):
    others: ClassVar[dict[str, Any]] = {"layer": "fc1", "batch_size": 4}


class TestMixing(TorchTests):
    network: ClassVar[tuple[str, str]] = ("mixing", "exported")
    others: ClassVar[dict[str, Any]] = {"batch_size": 5, "preset": "keras-caffe"}
