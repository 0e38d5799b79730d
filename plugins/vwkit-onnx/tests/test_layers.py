"""Layers of a network: how they are named, cut off and pooled to one vector for each picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_checks import PRESETS, picture, wrong
from vwkit_onnx import Onnx


def test_layers_by_tensor_node_and_scope(graphs: Any, tmp_path: Path) -> None:
    import onnxruntime

    model = graphs.convolutions()
    path = graphs.save(model, tmp_path / "net.onnx")
    for name in ("r2", "flat", "f1", "fr1"):
        model.graph.output.append(graphs.onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = picture(32, 32)
    rows = PRESETS["imagenet"](image.astype(np.float64)).transpose(2, 0, 1)[None]
    names = [one.name for one in session.get_outputs()]
    values = dict(zip(names, session.run(None, {"image": rows.astype(np.float32)}), strict=True))
    expected = {
        None: values["scores"],
        "scores": values["scores"],
        "f1": values["f1"],
        "/fc1/MatMul": values["f1"],
        "fc1": values["fr1"],  # the layer's last node
        "avgpool": values["flat"],
        "r2": values["r2"].mean(axis=(2, 3)),
    }
    for layer, value in expected.items():
        featurizer = Onnx(model=path, layer=layer, size=32)
        found = featurizer.vectors([image])
        assert featurizer.dim == value.shape[1], layer
        assert found == pytest.approx(value, rel=1e-4, abs=1e-4), layer


def test_how_places_are_pooled(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    image = picture(32, 32)
    found = {
        pool: Onnx(model=path, layer="r2", pool=pool).vectors([image])[0]
        for pool in ("mean", "max", "flatten")
    }
    grid = found["flatten"].reshape(12, -1)
    assert found["mean"] == pytest.approx(grid.mean(axis=1), rel=1e-5)
    assert (found["max"] == grid.max(axis=1)).all()


def test_channels_are_found_behind_a_transposition(graphs: Any, tmp_path: Path) -> None:
    """As from Keras: pictures with channels last, convolutions with channels first."""
    node = graphs.node
    nodes = [
        node("Transpose", "image", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first w", "conv"),
        node("Relu", "conv", "relu"),
        node("Transpose", "relu", "back", perm=[0, 2, 3, 1]),
        node("Abs", "back", "out"),
    ]
    weights = graphs.array("w", np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype("f4"))
    model = graphs.model(
        nodes, [graphs.value("image", ["n", 8, 8, 3])], [graphs.value("out", [None] * 4)], [weights]
    )
    path = graphs.save(model, tmp_path / "keras.onnx")
    one, other = (Onnx(model=path, layer=layer) for layer in ("relu", "out"))
    assert one.dim == other.dim == 5
    assert one.vectors([picture()]) == pytest.approx(other.vectors([picture()]), rel=1e-6)
    plain = graphs.model(
        [node("Abs", "image", "out")],
        [graphs.value("image", ["n", 8, 8, 3])],
        [graphs.value("out", [None] * 4)],
    )
    assert Onnx(model=graphs.save(plain, tmp_path / "plain.onnx")).dim == 3


def test_tokens_are_pooled(graphs: Any, tmp_path: Path) -> None:
    nodes = [
        graphs.node("Reshape", "image shape", "grid"),
        graphs.node("Transpose", "grid", "tokens", perm=[0, 2, 1]),
    ]
    arrays = [graphs.array("shape", np.array([0, 3, 64]))]
    image, tokens = graphs.value("image", ["n", 3, 8, 8]), graphs.value("tokens", ["n", 64, 3])
    path = graphs.save(graphs.model(nodes, [image], [tokens], arrays), tmp_path / "vit.onnx")
    pixels = picture(8, 8)
    found = Onnx(model=path, preset="none", size=8).vectors([pixels])[0]
    assert found == pytest.approx(pixels.mean(axis=(0, 1)), rel=1e-6)


def test_what_stands_behind_the_layer_is_cut_off(graphs: Any, tmp_path: Path) -> None:
    """Also another input: of a network for texts and pictures, only the half for pictures runs."""
    node, value = graphs.node, graphs.value
    nodes = [
        node("GlobalAveragePool", "image", "pooled"),
        node("Flatten", "pooled", "image_embeds"),
        node("MatMul", "text w", "text_embeds"),
        node("Add", "image_embeds text_embeds", "both"),
    ]
    inputs = [value("text", ["n", 4]), value("image", ["n", 3, 8, 8])]
    outputs = [value("both", ["n", 3]), value("image_embeds", ["n", 3])]
    weights = graphs.array("w", np.ones((4, 3), np.float32))
    path = graphs.save(graphs.model(nodes, inputs, outputs, [weights]), tmp_path / "clip.onnx")
    text = wrong("one input", model=path)
    assert "text, image" in text
    assert Onnx(model=path, layer="image_embeds").dim == 3
    wrong("4 axes", model=path, layer="text_embeds")


def test_what_a_branch_needs_is_kept(graphs: Any, tmp_path: Path) -> None:
    node, helper = graphs.node, graphs.onnx.helper
    branches = [
        helper.make_graph([node(op, "pooled bias", "inner")], op, [], [graphs.value("inner", None)])
        for op in ("Add", "Sub")
    ]
    nodes = [
        node("GlobalAveragePool", "image", "pooled"),
        node("ReduceMax", "image", "most", keepdims=0),
        node("Greater", "most limit", "is_bright"),
        node("If", "is_bright", "out", then_branch=branches[0], else_branch=branches[1]),
    ]
    arrays = [graphs.array("bias", np.float32([5])), graphs.array("limit", np.float32(100))]
    image = graphs.value("image", [1, 3, 8, 8])
    model = graphs.model(nodes, [image], [graphs.value("out", [1, 3, 1, 1])], arrays)
    featurizer = Onnx(model=graphs.save(model, tmp_path / "if.onnx"), preset="none")
    values = [np.full((8, 8, 3), value, np.uint8) for value in (10, 200)]
    assert featurizer.vectors(values)[:, 0].tolist() == [5, 205]


def test_an_unknown_layer_is_answered_with_near_ones(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    assert "did you mean scores?" in wrong("layer: ", model=path, layer="score")
    assert "did you mean avgpool" in wrong("layer: ", model=path, layer="avg_pool")
    assert "scores" in wrong("the last of", model=path, layer="something else")


def test_a_layer_must_give_vectors_of_images(graphs: Any, tmp_path: Path) -> None:
    node = graphs.node
    nodes = [
        node("GlobalAveragePool", "image", "out"),
        node("ReduceMean", "image", "scalar", keepdims=0),
        node("Reshape", "image merged", "rows"),
        node("Greater", "image zero", "flags"),
        node("Shape", "image", "shape"),
    ]
    arrays = [graphs.array("merged", np.array([-1, 8])), graphs.array("zero", np.float32(0))]
    image, out = graphs.value("image", ["n", 3, 8, 8]), graphs.value("out", ["n", 3, 1, 1])
    path = graphs.save(graphs.model(nodes, [image], [out], arrays), tmp_path / "net.onnx")
    wrong(r"layer: 'scalar' gives \(\)", model=path, layer="scalar")
    wrong(r"layer: 'rows' gives \(24, 8\)", model=path, layer="rows")
    wrong(r"layer: 'shape' gives \(4,\)", model=path, layer="shape")
    wrong("layer: 'flags' gives no numbers", model=path, layer="flags")
