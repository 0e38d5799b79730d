from __future__ import annotations

import hashlib
import io
import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from vwkit_onnx import Onnx

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError
from vwkit.jobs import Job, use_job


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def wrong(match: str, **params: Any) -> str:
    """Return the one line that refuses these parameters."""
    with pytest.raises(ParameterError, match=match) as caught:
        Onnx(**params)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.problems[0].path
    return text


# Preparation -------------------------------------------------------------------------------------


def plainly(image: np.ndarray, size: int, crop: int, method: Any) -> np.ndarray:
    """Do what torchvision does to a PIL image: resize all of it, then crop."""
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    new = (size, size * long // short) if height <= width else (size * long // short, size)
    whole = np.asarray(PIL.Image.fromarray(image).resize((new[1], new[0]), method))
    top, left = round((new[0] - crop) / 2), round((new[1] - crop) / 2)
    return whole[top : top + crop, left : left + crop]


PRESETS = {
    "imagenet": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "clip": lambda x: (
        (x / 255 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    ),
    "keras-caffe": lambda x: x[..., ::-1] - [103.939, 116.779, 123.68],
    "none": lambda x: x,
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_numbers_of_a_preset(graphs: Any, tmp_path: Path, preset: str, layout: str) -> None:
    shape = ["n", 3, 24, 24] if layout == "nchw" else ["n", 24, 24, 3]
    model = graphs.save(graphs.pixels(shape), tmp_path / "pixels.onnx")
    image = picture(24, 24)
    # As large as the crop, so that nothing is resized.
    found = Onnx(model=model, preset=preset, size=24).vectors([image])[0]
    expected = PRESETS[preset](image.astype(np.float64))
    if layout == "nchw":
        expected = expected.transpose(2, 0, 1)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected.ravel(), abs=1e-5)


def test_sizes_follow_the_model_and_the_preset(graphs: Any, tmp_path: Path) -> None:
    image = picture(70, 90)
    dynamic = graphs.save(graphs.pixels(["n", 3, None, None]), tmp_path / "dynamic.onnx")
    assert Onnx(model=dynamic).dim == 3 * 224 * 224
    assert Onnx(model=dynamic, crop=10).dim == 300
    fixed = graphs.save(graphs.pixels(["n", 3, 28, 28]), tmp_path / "fixed.onnx")
    found = Onnx(model=fixed, preset="none").vectors([image])[0]
    expected = plainly(image, 32, 28, PIL.Image.Resampling.BILINEAR)  # 28 · 256 / 224
    assert np.abs(found - expected.transpose(2, 0, 1).ravel()).max() <= 1
    wrong("28 × 28 pixels", model=fixed, crop=30)
    wrong("at least the crop's 28", model=fixed, size=27)
    oblong = graphs.save(graphs.pixels(["n", 3, 20, 40]), tmp_path / "oblong.onnx")
    assert Onnx(model=oblong).vectors([image, picture(9, 200)]).shape == (2, 3 * 20 * 40)


def test_mean_and_std(graphs: Any, tmp_path: Path) -> None:
    model = graphs.save(graphs.pixels([1, 3, 8, 8]), tmp_path / "m.onnx")
    image = picture(8, 8)
    for mean, std in ((127.5, 127.5), ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)), ([1, 2, 3], 2)):
        found = Onnx(model=model, preset="none", size=8, mean=mean, std=std).vectors([image])
        expected = (image - np.array(mean)) / np.array(std)
        assert found[0] == pytest.approx(expected.transpose(2, 0, 1).ravel(), abs=1e-4)
    wrong("std: must be greater than 0", model=model, std=0.0)
    wrong("mean: must be a number or 3", model=model, mean=(1.0, 2.0))
    wrong("mean: must be a number or 3", model=model, mean=float("nan"))


def test_types_of_the_input(graphs: Any, tmp_path: Path) -> None:
    image = picture(8, 8)
    for dtype in ("FLOAT16", "DOUBLE"):
        model = graphs.save(graphs.pixels([1, 3, 8, 8], dtype), tmp_path / f"{dtype}.onnx")
        found = Onnx(model=model, size=8).vectors([image])[0]
        expected = PRESETS["imagenet"](image.astype(np.float64)).transpose(2, 0, 1).ravel()
        assert found == pytest.approx(expected, abs=2e-3)
    raw = graphs.save(graphs.pixels([1, 8, 8, 3], "UINT8"), tmp_path / "raw.onnx")
    found = Onnx(model=raw, size=8, preset="none").vectors([image])[0]
    assert (found == image.ravel()).all()
    wrong("preset: .*prepares pixels itself", model=raw)
    wrong("preset: ", model=raw, preset="none", mean=1.0)
    whole = graphs.save(graphs.pixels([1, 8, 8, 3], "INT64"), tmp_path / "whole.onnx")
    wrong("int64.*float or uint8", model=whole)


# Layers ------------------------------------------------------------------------------------------


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


# Batches and threads -----------------------------------------------------------------------------


def test_batches_only_where_they_change_nothing(graphs: Any, tmp_path: Path) -> None:
    paths = {
        name: graphs.save(getattr(graphs, name)(), tmp_path / f"{name}.onnx")
        for name in ("convolutions", "quantised", "mixing")
    }
    for name, size in (("quantised", 1), ("mixing", 1)):
        assert Onnx(model=paths[name], batch_size=4).batch_size == size
    # Whether it does depends on the processor; the bytes must be the same either way.
    assert Onnx(model=paths["convolutions"], batch_size=4).batch_size in (1, 4)
    images = [picture(40, 50, seed) for seed in range(6)]
    for path in paths.values():
        alone = Onnx(model=path).vectors(images)
        for size in (1, 3, 4):
            together = Onnx(model=path, batch_size=size)
            assert together.batch_invariant
            assert together.vectors(images) == pytest.approx(alone, rel=1e-4, abs=1e-5)
            for some in (images[:1], images[2:4], images[::-1]):
                again = {row.tobytes() for row in together.vectors(some)}
                assert again <= {row.tobytes() for row in together.vectors(images)}


def test_a_fixed_batch_is_filled_up(graphs: Any, tmp_path: Path) -> None:
    images = [picture(40, 50, seed) for seed in range(5)]
    for name in ("convolutions", "quantised"):
        fixed = graphs.save(getattr(graphs, name)(batch=4), tmp_path / "fixed.onnx")
        free = graphs.save(getattr(graphs, name)(), tmp_path / "free.onnx")
        assert Onnx(model=fixed).vectors(images) == pytest.approx(
            Onnx(model=free).vectors(images), rel=1e-4, abs=1e-5
        )
        wrong("batch_size: the model is fixed to 4; got 3", model=fixed, batch_size=3)


def test_same_bytes_for_any_threads(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    images = [picture(40, 50, seed) for seed in range(9)]
    for size in (1, 4):
        answers = set()
        for threads in (1, 2, 5):
            with use_job(Job(threads=threads)):
                answers.add(Onnx(model=path, batch_size=size).vectors(images).tobytes())
        assert len(answers) == 1


def test_what_is_deterministic(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    assert Onnx(model=path).deterministic
    node = graphs.node
    nodes = [
        node("GlobalAveragePool", "image", "mean"),
        node("RandomNormalLike", "mean", "r"),
        node("Add", "mean r", "out"),
    ]
    image, out = graphs.value("image", [1, 3, 8, 8]), graphs.value("out", [1, 3, 1, 1])
    drawn = graphs.save(graphs.model(nodes, [image], [out]), tmp_path / "drawn.onnx")
    assert not Onnx(model=drawn).deterministic
    assert Onnx(model=drawn, layer="mean").deterministic


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


# Keeping -----------------------------------------------------------------------------------------


def test_a_saved_one_needs_its_file_no_more(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "one/net.onnx")
    featurizer = Onnx(model=path, layer="fc1", mean=(0.5, 0.4, 0.3))
    expected = featurizer.vectors([picture()])
    featurizer.save(tmp_path / "saved")
    other = graphs.save(graphs.convolutions(), tmp_path / "two/other-name.onnx")
    Onnx(model=other, layer="fc1", mean=(0.5, 0.4, 0.3)).save(tmp_path / "again")
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("saved", "again")]
    assert manifests[0] == manifests[1]
    assert str(tmp_path) not in manifests[0]
    (native,) = (tmp_path / "saved").glob("native-*/*")
    assert native.read_bytes() == other.read_bytes()
    path.unlink()
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = vwkit.load(tmp_path / "moved")
    assert loaded.vectors([picture()]).tobytes() == expected.tobytes()
    assert loaded.kind == featurizer.kind
    assert loaded.layer == "fc1"
    # What is kept is a file like any other.
    assert vwkit.create("featurizer", "onnx", **loaded.params()).kind == featurizer.kind


def test_a_damaged_or_foreign_artifact_is_refused(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    featurizer = Onnx(model=path)
    featurizer.save(tmp_path / "saved")
    (native,) = (tmp_path / "saved").glob("native-*/*")
    native.write_bytes(native.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="checksum"):
        vwkit.load(tmp_path / "saved")
    graphs.save(graphs.mixing(), path)
    with pytest.raises(ArtifactError, match="changed since"):
        featurizer.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_kinds_tell_models_layers_and_preparations_apart(graphs: Any, tmp_path: Path) -> None:
    one = graphs.save(graphs.convolutions(), tmp_path / "one.onnx")
    kinds = [
        Onnx(model=model, **params).kind
        for model, params in (
            (one, {}),
            (one, {"layer": "fc1"}),
            (one, {"layer": "r2"}),
            (one, {"layer": "r2", "pool": "max"}),
            (one, {"preset": "clip"}),
            (one, {"size": 40}),
            (one, {"squash": True}),
            (one, {"interpolation": "bicubic"}),
            (one, {"mean": 0.5}),
            (graphs.save(graphs.mixing(), tmp_path / "two.onnx"), {}),
        )
    ]
    assert len(set(kinds)) == len(kinds)
    copy = graphs.save(graphs.convolutions(), tmp_path / "copy.onnx")
    assert Onnx(model=copy, batch_size=2, size=37, crop=32).kind == kinds[0]


def test_parameters_stay_what_they_are(graphs: Any, tmp_path: Path) -> None:
    featurizer = Onnx(model=graphs.save(graphs.convolutions(), tmp_path / "net.onnx"))
    with pytest.raises(ParameterError, match="cannot change"):
        featurizer.layer = "fc1"


# URLs --------------------------------------------------------------------------------------------

URL = "https://example.org/net.onnx"


class Web:
    """Answers instead of the network, and counts."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content = content
        self.asked: list[str] = []

    def __call__(self, url: str, timeout: float) -> Any:
        self.asked.append(url)
        if isinstance(self.content, Exception):
            raise self.content
        answer: Any = io.BytesIO(self.content)
        answer.headers = {"Content-Length": str(len(self.content))}
        return answer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_is_fetched_once(
    graphs: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = graphs.convolutions().SerializeToString()
    web = Web(content)
    monkeypatch.setattr(urllib.request, "urlopen", web)
    digest = hashlib.sha256(content).hexdigest()
    local = Onnx(model=graphs.save(graphs.convolutions(), tmp_path / "net.onnx"), sha256=digest)
    remote = Onnx(model=URL, sha256=digest.upper())
    assert web.asked == []  # not before it is needed
    assert remote.vectors([picture()]).tobytes() == local.vectors([picture()]).tobytes()
    assert Onnx(model=URL, sha256=digest).dim == 10
    assert remote.kind == local.kind
    assert web.asked == [URL]
    assert [path.name for path in (cache / "models").iterdir()] == [f"{digest}.onnx"]
    remote.save(tmp_path / "saved")
    shutil.rmtree(cache)
    loaded = vwkit.load(tmp_path / "saved")
    assert loaded.vectors([picture()]).tobytes() == local.vectors([picture()]).tobytes()
    assert loaded.params() == remote.params()
    assert web.asked == [URL]
    # A damaged copy in the cache is fetched again.
    (cache / "models").mkdir(parents=True)
    (cache / "models" / f"{digest}.onnx").write_bytes(b"damaged")
    assert Onnx(model=URL, sha256=digest).dim == 10
    assert web.asked == [URL, URL]


def test_urls_that_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", Web(OSError("must not be asked")))
    wrong("sha256: a model from a URL needs its SHA-256", model=URL)
    wrong("64 hexadecimal digits", model=URL, sha256="abc")
    for url in ("file:///etc/passwd", "ftp://example.org/net.onnx"):
        wrong("model: a URL begins with https://", model=url, sha256="0" * 64)


def test_what_is_fetched_must_be_what_was_meant(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", Web(b"something else"))
    featurizer = Onnx(model=URL, sha256="0" * 64)
    with pytest.raises(ParameterError, match="is not used"):
        _ = featurizer.dim
    monkeypatch.setattr(urllib.request, "urlopen", Web(OSError("no route to host")))
    with pytest.raises(DataError, match="cannot be fetched: no route to host"):
        _ = featurizer.dim
    assert not list((cache / "models").glob("*"))


def test_a_local_file_may_be_checked_too(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    wrong("sha256: .*another file", model=path, sha256="0" * 64)


# In a run ----------------------------------------------------------------------------------------


def spec(folder: Path, model: str, **more: Any) -> Path:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for seed in range(4):
        base = np.random.default_rng(seed).integers(0, 256, 3)
        noise = np.random.default_rng(seed).integers(-20, 20, (40, 50, 3))
        pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
        for copy in range(2):
            PIL.Image.fromarray(pixels[copy:]).save(folder / f"photos/{seed}-{copy}.png")
    text = {
        "vwkit": 1,
        "images": {"path": "photos"},
        "featurizer": {"use": "onnx", "model": model, **more},
        "index": {"use": "exact", "metric": "l2"},
    }
    (folder / "spec.yaml").write_text(json.dumps(text))
    return folder / "spec.yaml"


def test_a_run_can_be_moved(graphs: Any, tmp_path: Path, cache: Path) -> None:
    home = tmp_path / "home"
    graphs.save(graphs.pixels(["n", 3, 8, 8]), home / "models/net.onnx")
    run = vwkit.Pipeline.from_file(spec(home, "models/net.onnx")).run(tmp_path / "run")
    assert run.search(str(home / "photos/2-0.png"), 2).ids[0].tolist() == [4, 5]
    (tmp_path / "run").rename(tmp_path / "moved")
    query = home / "photos/1-1.png"
    shutil.copy(query, tmp_path / "query.png")
    shutil.rmtree(home)
    shutil.rmtree(cache)
    again = vwkit.Run.open(tmp_path / "moved")
    assert again.search(str(tmp_path / "query.png"), 2).ids[0].tolist() == [3, 2]


def test_mistakes_in_a_spec_have_their_place(graphs: Any, tmp_path: Path) -> None:
    graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    for model, more, text in (
        ("none.onnx", {}, f"featurizer.model: no such file or folder: {tmp_path / 'none.onnx'}"),
        ("net.onnx", {"layer": "fc3"}, "did you mean fc2"),
        (URL, {}, "featurizer.sha256: a model from a URL"),
    ):
        with pytest.raises(vwkit.SpecError, match=r"spec\.yaml:1:") as caught:
            vwkit.Pipeline.from_file(spec(tmp_path, model, **more))
        assert text in str(caught.value)


def test_checking_a_spec_fetches_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", Web(OSError("must not be asked")))
    pipeline = vwkit.Pipeline.from_file(spec(tmp_path, URL, sha256="0" * 64))
    assert pipeline.spec.featurizer.model == URL
