"""Write the small example data that the pages of this folder and the specs use.

    python docs/make_data.py try
    cd try && vwkit new retrieval > retrieval.yaml && vwkit run retrieval.yaml

All of it is made up from fixed seeds: ``photos/`` (four places, each photographed three times) with
their ground truth ``groups.csv`` and, as if they were for sale, ``products.csv``, ``picture.png``, ``descriptors.bvecs`` and a tiny data set in the
layout of Oxford5k. Where the package ``onnx`` is installed, also ``network.onnx``: no trained network,
but one that sees where in a picture which colours are. The tests run every example of the documentation
in such a folder.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image

import vwkit

PLACES = ("bridge", "castle", "harbour", "market")
VIEWS = ("far", "left", "right")

_OXFORD = ("oxc1_all_souls_000000", "oxc1_ashmolean_000001", "oxc1_radcliffe_camera_000002")
_OXFORD_ROWS = (400, 0, 700)


def make(folder: Path) -> None:
    """Write everything into a folder."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for number, place in enumerate(PLACES):
        wide = scene(number, 300, 400)
        views = {"far": wide, "left": wide.crop((0, 30, 300, 270)), "right": wide.rotate(8)}
        for view in VIEWS:
            views[view].save(folder / "photos" / f"{place}_{view}.jpg", quality=90)
    scene(9, 90, 120).save(folder / "picture.png")
    names = {place: [f"{place}_{view}.jpg" for view in VIEWS] for place in PLACES}
    lines = [
        f"{query},{item},relevant\n"
        for group in names.values()
        for query in group
        for item in group
        if item != query
    ]
    (folder / "groups.csv").write_text("query,item,what\n" + "".join(lines))
    (folder / "products.csv").write_text("".join(_products()))
    vwkit.write(folder / "descriptors.bvecs", descriptors(0, 3000, 32))
    with gzip.open(folder / "base.bvecs.gz", "wb") as compressed:
        compressed.write((folder / "descriptors.bvecs").read_bytes())
    vwkit.write(folder / "learn.bvecs", descriptors(1, 2000, 32))
    _oxford(folder)
    _network(folder / "network.onnx")


def _products() -> Iterator[str]:
    """Describe the photographs as a shop would."""
    yield "file,sku,title,price,category\n"
    for number, place in enumerate(PLACES):
        for column, (view, kind) in enumerate(zip(VIEWS, ("print", "card", "card"), strict=True)):
            title = f"The {place}, {'from afar' if view == 'far' else f'from the {view}'}"
            price = (18.5 if kind == "print" else 2.25) + number
            code = f"{place[:3].upper()}-{column + 1}"
            yield f'{place}_{view}.jpg,{code},"{title}",{price},{kind}\n'


def scene(seed: int, height: int, width: int) -> PIL.Image.Image:
    """Draw a picture with structure of all sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    shade = np.zeros((height, width, 3))
    for size, weight in ((4, 90), (12, 60), (40, 45), (100, 25)):
        coarse = rng.uniform(0, 255, (size, size, 3)).astype(np.uint8)
        smooth = PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)
        shade += weight / 255 * np.asarray(smooth, np.float64)
    for _ in range(60):
        top, left = rng.integers(0, height), rng.integers(0, width)
        tall, broad = rng.integers(4, 30, 2)
        shade[top : top + tall, left : left + broad] = rng.uniform(0, 255, 3)
    return PIL.Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8))


def descriptors(seed: int, rows: int, dim: int) -> np.ndarray:
    """Draw clustered (rows, dim) uint8 vectors."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, 200, (50, dim))
    spread = rng.normal(0, 15, (rows, dim))
    return np.clip(centers[rng.integers(0, 50, rows)] + spread, 0, 255).astype(np.uint8)


def _oxford(folder: Path) -> None:
    """Write what the official archives of Oxford5k unpack to, for three photographs."""
    rows = sum(_OXFORD_ROWS)
    binary = descriptors(1, rows, 128).tobytes() + bytes(12)
    (folder / "feat_oxc1_hesaff_sift.bin").write_bytes(binary)
    prose = "".join(f"Line {i} of the explanation.\n" for i in range(20))
    (folder / "README2.txt").write_text(prose + "".join(f"{name}\n" for name in _OXFORD))
    words = folder / "word_oxc1_hesaff_sift_16M_1M"
    words.mkdir(exist_ok=True)
    for name, count in zip(_OXFORD, _OXFORD_ROWS, strict=True):
        features = "".join(f"{i + 1} {i % 90} {i // 90} 0.01 0 0.01\n" for i in range(count))
        (words / f"{name}.txt").write_text(f"1.0\n{count}\n{features}")


def _network(path: Path) -> None:
    """Write a network that takes (n, 3, 224, 224) and gives the mean colours of 4 × 4 fields."""
    try:
        import onnx
    except ImportError:
        return  # whoever has the plugin vwkit-onnx has it
    number = onnx.TensorProto.FLOAT
    image = onnx.helper.make_tensor_value_info("image", number, ["n", 3, 224, 224])
    fields = onnx.helper.make_tensor_value_info("fields", number, ["n", 48])
    nodes = [
        onnx.helper.make_node(
            "AveragePool", ["image"], ["pooled"], kernel_shape=[56, 56], strides=[56, 56]
        ),
        onnx.helper.make_node("Flatten", ["pooled"], ["fields"]),
    ]
    graph = onnx.helper.make_graph(nodes, "fields", [image], [fields])
    opset = onnx.helper.make_opsetid("", 17)
    # An old enough version of the format for every version of ONNX Runtime.
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    path.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else "try"))
