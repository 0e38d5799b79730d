"""Small real networks, written with the onnx package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Tests of this folder share helpers: `from onnx_checks import …`.
sys.path.insert(0, str(Path(__file__).parent))


class Graphs:
    """Builds graphs."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx

    def value(self, name: str, shape: list[Any], dtype: str = "FLOAT") -> Any:
        return self.onnx.helper.make_tensor_value_info(
            name, getattr(self.onnx.TensorProto, dtype), shape
        )

    def node(self, operator: str, inputs: str, outputs: str, name: str = "", **options: Any) -> Any:
        return self.onnx.helper.make_node(
            operator, inputs.split(), outputs.split(), name=name, **options
        )

    def array(self, name: str, array: Any) -> Any:
        return self.onnx.numpy_helper.from_array(np.asarray(array), name)

    def model(
        self, nodes: list[Any], inputs: list[Any], outputs: list[Any], arrays: list[Any] = ()
    ) -> Any:
        graph = self.onnx.helper.make_graph(nodes, "graph", inputs, outputs, list(arrays))
        opset = self.onnx.helper.make_opsetid("", 17)
        return self.onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)

    def save(self, model: Any, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
        return path

    def pixels(self, shape: list[Any], dtype: str = "FLOAT") -> Any:
        """All numbers that the network is given, unchanged."""
        nodes = [self.node("Flatten", "image", "flat")]
        if dtype != "FLOAT":
            nodes.append(self.node("Cast", "flat", "out", to=self.onnx.TensorProto.FLOAT))
        out = "flat" if dtype == "FLOAT" else "out"
        return self.model(nodes, [self.value("image", shape, dtype)], [self.value(out, ["n", "d"])])

    def convolutions(self, batch: Any = "n", size: Any = 32) -> Any:
        """Two convolutions, a global mean and two dense layers, as PyTorch names them."""
        rng = np.random.default_rng(0)
        weights = {"w1": (8, 3, 3, 3), "w2": (12, 8, 3, 3), "w3": (12, 16), "w4": (16, 10)}
        arrays = [
            self.array(name, rng.normal(0, 0.3, shape).astype(np.float32))
            for name, shape in weights.items()
        ]
        node = self.node
        nodes = [
            node("Conv", "image w1", "c1", "/features/0/Conv", strides=[2, 2]),
            node("Relu", "c1", "r1", "/features/1/Relu"),
            node("Conv", "r1 w2", "c2", "/features/2/Conv", strides=[2, 2]),
            node("Relu", "c2", "r2", "/features/3/Relu"),
            node("GlobalAveragePool", "r2", "pooled", "/avgpool/GlobalAveragePool"),
            node("Flatten", "pooled", "flat", "/Flatten"),
            node("MatMul", "flat w3", "f1", "/fc1/MatMul"),
            node("Relu", "f1", "fr1", "/fc1/Relu"),
            node("MatMul", "fr1 w4", "scores", "/fc2/MatMul"),
        ]
        image = self.value("image", [batch, 3, size, size])
        return self.model(nodes, [image], [self.value("scores", [batch, 10])], arrays)

    def quantised(self, batch: Any = "n") -> Any:
        """A dense layer of int8 that scales by the numbers of the whole batch."""
        rng = np.random.default_rng(0)
        node = self.node
        nodes = [
            node("AveragePool", "image", "small", kernel_shape=[8, 8], strides=[8, 8]),
            node("Flatten", "small", "flat"),
            node("DynamicQuantizeLinear", "flat", "q scale zero"),
            node("MatMulInteger", "q w zero", "whole"),
            node("Cast", "whole", "float", to=self.onnx.TensorProto.FLOAT),
            node("Mul", "float scale", "out"),
        ]
        return self.model(
            nodes,
            [self.value("image", [batch, 3, 32, 32])],
            [self.value("out", [batch, 9])],
            [self.array("w", rng.integers(-99, 99, (48, 9)).astype(np.int8))],
        )

    def mixing(self) -> Any:
        """A network whose answer for an image depends on the others."""
        nodes = [
            self.node("GlobalAveragePool", "image", "pooled"),
            self.node("ReduceMean", "pooled", "mean", axes=[0]),
            self.node("Sub", "pooled mean", "apart"),
            self.node("Add", "apart pooled", "out"),
        ]
        image = self.value("image", ["n", 3, 16, 16])
        return self.model(nodes, [image], [self.value("out", ["n", 3, 1, 1])])


@pytest.fixture(scope="session")
def graphs() -> Graphs:
    pytest.importorskip("onnxruntime")
    return Graphs(pytest.importorskip("onnx"))
