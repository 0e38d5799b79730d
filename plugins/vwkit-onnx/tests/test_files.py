"""Files that are no models, or damaged, or that name weights elsewhere: one clear error each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_checks import wrong
from vwkit_onnx import Onnx

import vwkit
from vwkit.errors import ParameterError

# Files that are not what they should be ----------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"no model", b"<!DOCTYPE html><html>", bytes(100), b"\x08\x08", bytes(range(256)) * 9],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(content)
    assert str(path) in wrong("model: .*not an ONNX file", model=path)


def test_files_that_are_not_there_or_not_whole(graphs: Any, tmp_path: Path) -> None:
    wrong("model: .*no such file", model=tmp_path / "none.onnx")
    wrong("model: .*cannot be read", model=tmp_path)
    pointer = tmp_path / "lfs.onnx"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    wrong("Git LFS", model=pointer)
    whole = graphs.convolutions().SerializeToString()
    for size in range(7, len(whole) - 1, len(whole) // 40):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[:size])
        wrong("model: ", model=path)


def test_damaged_models_are_one_line(graphs: Any, tmp_path: Path) -> None:
    whole = bytearray(graphs.convolutions().SerializeToString())
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    for _ in range(60):
        damaged = whole.copy()
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            Onnx(model=path)  # damaged weights are only other weights
        except ParameterError as error:
            assert "\n" not in str(error)


def test_models_that_take_no_picture(graphs: Any, tmp_path: Path) -> None:
    def model(shape: list[Any], operator: str = "Abs") -> Path:
        made = graphs.model(
            [graphs.node(operator, "image", "out")],
            [graphs.value("image", shape)],
            [graphs.value("out", None)],
        )
        return graphs.save(made, tmp_path / "m.onnx")

    wrong(
        r"input image is tensor\(float\) \['n', 784\]; images have 4 axes", model=model(["n", 784])
    )
    wrong("3 channels", model=model(["n", 1, 28, 28]))
    wrong("3 channels", model=model(["n", 4, 28, 28]))
    wrong("layout: .*write nchw or nhwc", model=model(["n", None, None, None]))
    assert Onnx(model=model(["n", None, None, None]), layout="nhwc", crop=8).dim == 3
    wrong("which is not nhwc", model=model(["n", 3, 8, 8]), layout="nhwc")
    wrong("at most 8192", model=model(["n", 3, 10**6, 10**6]))
    wrong("ONNX Runtime cannot load it", model=model(["n", 3, 8, 8], "NoSuchOperator"))
    wrong("this ONNX Runtime has no 'GPU'", model=model([1, 3, 8, 8]), providers=["GPU"])
    wrong("providers: at least one", model=model([1, 3, 8, 8]), providers=[])


def test_a_model_that_fails_on_pictures(graphs: Any, tmp_path: Path) -> None:
    nodes = [graphs.node("Reshape", "image shape", "out")]
    arrays = [graphs.array("shape", np.array([1, 17]))]
    image, out = graphs.value("image", [1, 3, None, None]), graphs.value("out", [1, 17])
    path = graphs.save(graphs.model(nodes, [image], [out], arrays), tmp_path / "m.onnx")
    wrong("cannot run it", model=path)


# Weights beside the model ------------------------------------------------------------------------


def external(graphs: Any, path: Path, location: str, **entries: str) -> Path:
    """Write a model whose only weights, three numbers, lie in another file."""
    nodes = [graphs.node("GlobalAveragePool", "image", "mean"), graphs.node("Mul", "mean w", "out")]
    tensor = graphs.onnx.TensorProto(name="w", dims=[1, 3, 1, 1], data_type=1, data_location=1)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    image, out = graphs.value("image", ["n", 3, 8, 8]), graphs.value("out", ["n", 3, 1, 1])
    return graphs.save(graphs.model(nodes, [image], [out], [tensor]), path)


def test_weights_in_a_file_of_their_own(
    graphs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    path = external(graphs, folder / "net.onnx", "weights/w.bin", offset="4", length="12")
    (folder / "weights").mkdir()
    (folder / "weights/w.bin").write_bytes(np.array([9, 1, 2, 3], np.float32).tobytes())
    monkeypatch.chdir(folder)  # a path below the current folder
    featurizer = Onnx(model="net.onnx", preset="none")
    image = np.full((8, 8, 3), 10, np.uint8)
    assert featurizer.vectors([image]).tolist() == [[10, 20, 30]]
    monkeypatch.chdir(tmp_path)
    featurizer.save(tmp_path / "saved")
    first = featurizer.kind
    (folder / "weights/w.bin").write_bytes(np.array([9, 4, 2, 3], np.float32).tobytes())
    assert Onnx(model=path, preset="none").kind != first
    shutil.rmtree(folder)
    (tmp_path / "saved").rename(tmp_path / "moved")
    assert vwkit.load(tmp_path / "moved").vectors([image]).tolist() == [[10, 20, 30]]


def test_weights_elsewhere_are_refused(
    graphs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(3, np.float32).tobytes())
    (folder / "link.bin").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for location in (
        *("../secret.bin", str(secret), "link.bin", "linked/secret.bin", "a/../../secret.bin"),
        *("..\\secret.bin", "", "."),
    ):
        path = external(graphs, folder / "net.onnx", location)
        wrong("outside its folder; refused", model=path)
    for location in ("secret.bin", "net.onnx"):
        wrong("which is not there", model=external(graphs, folder / "net.onnx", location))
    (folder / "model.onnx").write_bytes(secret.read_bytes())
    wrong("a name for models", model=external(graphs, folder / "net.onnx", "model.onnx"))


def test_weights_elsewhere_are_found_wherever_they_hide(graphs: Any, tmp_path: Path) -> None:
    helper, node = graphs.onnx.helper, graphs.node
    hidden = graphs.onnx.TensorProto(name="w", dims=[3], data_type=1, data_location=1)
    hidden.external_data.add(key="location", value="/etc/hostname")
    constant = node("Constant", "", "inner", value=hidden)
    branch = helper.make_graph([constant], "b", [], [graphs.value("inner", [3])])
    sparse = graphs.onnx.SparseTensorProto(values=hidden, dims=[3])
    image, out = graphs.value("image", [1, 3, 8, 8]), graphs.value("out", None)
    mean = node("GlobalAveragePool", "image", "out")
    flag = graphs.array("flag", np.array(True))
    models = [
        graphs.model([node("If", "flag", "x", then_branch=branch, else_branch=branch), mean],
                     [image], [out], [flag]),
        graphs.model([node("Constant", "", "x", value=hidden), mean], [image], [out]),
        graphs.model([mean], [image], [out]),
        graphs.model([mean], [image], [out]),
    ]  # fmt: skip
    models[2].graph.sparse_initializer.append(sparse)
    function = helper.make_function(
        "mine", "F", [], ["inner"], [constant], [helper.make_opsetid("", 17)]
    )
    models[3].functions.append(function)
    for number, model in enumerate(models):
        path = graphs.save(model, tmp_path / f"{number}.onnx")
        wrong("'/etc/hostname', outside its folder", model=path)
