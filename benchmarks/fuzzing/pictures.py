"""Targets: pictures and models."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.target import Wrong, target

#: A small limit of pixels, as a case is a small file: whatever passes it fits into memory.
PIXELS = 1 << 22


def _made() -> list[Any]:
    import PIL.Image

    rng = np.random.default_rng(0)
    small = PIL.Image.fromarray(rng.integers(0, 255, (3, 4, 3)).astype(np.uint8))
    picture = small.resize((19, 13))
    deep = PIL.Image.fromarray(rng.integers(0, 65535, (9, 7)).astype(np.uint16))
    clear = picture.convert("RGBA")
    clear.putalpha(90)
    return [picture, picture.convert("L"), picture.convert("P"), picture.convert("1"), deep, clear]


def _files(*kinds: str) -> list[bytes]:
    made = []
    for kind in kinds:
        for picture in _made():
            for options in _OPTIONS.get(kind, ({},)):
                file = io.BytesIO()
                try:
                    picture.save(file, kind, **options)
                except (OSError, ValueError, KeyError):
                    continue  # not in this format
                made.append(file.getvalue())
    return made


_EXIF = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
_OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "JPEG": ({}, {"progressive": True, "exif": _EXIF}),
    "TIFF": (
        {},
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate"},
        {"compression": "jpeg"},
    ),
    "PNG": ({}, {"exif": _EXIF}),
    "WEBP": ({}, {"lossless": True}),
}


def _read(data: bytes, path: Path) -> None:
    from vwkit.errors import VwkitError
    from vwkit.image import open_image, picture_kind

    path.write_bytes(data)
    error: Exception | None = None
    for ask in (
        lambda: picture_kind(path, max_pixels=PIXELS),
        lambda: _used(open_image(path, max_pixels=PIXELS)),
        lambda: _used(open_image(io.BytesIO(data), max_pixels=PIXELS, enough=8)),
    ):
        try:
            ask()
        except VwkitError as one:
            error = one
    if error is not None:
        raise error


def _used(image: Any) -> None:
    width, height = image.size
    if width * height > PIXELS:
        raise Wrong(f"{width} × {height} pixels")
    for array, shape in ((image.rgb, (height, width, 3)), (image.gray, (height, width))):
        if array.shape != shape or array.dtype != np.uint8:
            raise Wrong(f"{array.dtype} of shape {array.shape} of {image.size}")
    if image.alpha is not None and image.alpha.shape != (height, width):
        raise Wrong(f"an alpha of shape {image.alpha.shape}")


_SIGNS = (b"\xff\xd8", b"\xff\xc0\x00\x11\x08", b"\xff\xda", b"\xff\xd9", b"\x89PNG\r\n\x1a\n", b"IHDR", b"IDAT", b"tRNS",
          b"PLTE", b"acTL", b"GIF89a", b"II*\x00", b"MM\x00*", b"RIFF", b"WEBPVP8X", b"BM", b"P6\n9 9\n255\n", b"eXIf", b"iCCP",
          b"\xff\xe1", b"zTXt")  # fmt: skip


def _register(name: str, *kinds: str) -> None:
    @target(f"image-{name}", lambda _: _files(*kinds), words=_SIGNS, cheap=False, guided=False)
    def run(data: bytes, folder: Path) -> None:
        _read(data, folder / "picture")


_register("jpeg", "JPEG")
_register("png", "PNG")
_register("gif", "GIF")
_register("tiff", "TIFF")
_register("webp", "WEBP")
_register("bmp-ppm", "BMP", "PPM")


# Models -----------------------------------------------------------------------------------------


def _model() -> list[bytes]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(size=(2, 3, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    tensor = outside.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../weights"
    tensor.ClearField("raw_data")
    return [model.SerializeToString(), outside.SerializeToString()]


@target("onnx", lambda _: _model(), cheap=False, guided=False, needs=("onnx", "onnxruntime"),
        words=(b"Conv", b"Loop", b"If", b"Relu", b"Reshape", b"Expand", b"Tile", b"ConstantOfShape", b"../", b"/etc/passwd",
               b"kernel_shape", b"strides", b"com.microsoft", b"location", b"\x08\x08"))  # fmt: skip
def model(data: bytes, folder: Path) -> None:
    """An ONNX model, asked for the vector of one picture."""
    import vwkit

    path = folder / "model.onnx"
    path.write_bytes(data)
    made: Any = vwkit.create("featurizer", "onnx", model=path)
    image = np.full((20, 20, 3), 90, np.uint8)
    image[4:9, 4:15] = 200
    for one in made.extract([image]):
        if one.ndim != 2:
            raise Wrong(f"vectors of shape {one.shape}")
