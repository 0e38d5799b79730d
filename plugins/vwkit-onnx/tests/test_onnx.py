"""Vectors of pictures: how these are prepared, and that batches and threads change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from onnx_checks import PRESETS, picture, wrong
from vwkit_onnx import Onnx

from vwkit.jobs import Job, use_job

# Preparation -------------------------------------------------------------------------------------


def plainly(image: np.ndarray, size: int, crop: int, method: Any) -> np.ndarray:
    """Do what torchvision does to a PIL image: resize all of it, then crop."""
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    new = (size, size * long // short) if height <= width else (size * long // short, size)
    whole = np.asarray(PIL.Image.fromarray(image).resize((new[1], new[0]), method))
    top, left = round((new[0] - crop) / 2), round((new[1] - crop) / 2)
    return whole[top : top + crop, left : left + crop]


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
