"""The demo's data: real photographs, and copies of each with known changes as ground truth."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vwkit.errors import PluginError
from vwkit.outputs.files import new_folder
from vwkit.plugins import registry

__all__ = ["PHOTOGRAPHS", "prepare"]

#: Pictures that the package scikit-image ships (see its data/README.txt for their sources).
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png",
    "coffee.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png",
    "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip

_LARGEST_SIDE = 640
_DONE = "demo.yaml"


def _crop(image: Any) -> Any:
    w, h = image.size
    return image.crop((w // 6, h // 6, w - w // 6, h - h // 6))


def _rotate(image: Any) -> Any:
    from PIL.Image import Resampling

    return image.rotate(25, resample=Resampling.BICUBIC, expand=True, fillcolor=(128, 128, 128))


def _shrink(image: Any) -> Any:
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)))


def _blur(image: Any) -> Any:
    from PIL.ImageFilter import GaussianBlur

    return image.filter(GaussianBlur(1.5))


def _bright(image: Any) -> Any:
    return image.point([min(255, round(i * 1.5)) for i in range(256)] * 3)


def _dark(image: Any) -> Any:
    return image.point([round(i * 0.5) for i in range(256)] * 3)


def _same(image: Any) -> Any:
    return image


_CHANGES: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "original": (_same, {"quality": 95}),
    "crop": (_crop, {"quality": 95}),
    "rotation": (_rotate, {"quality": 95}),
    "half-size": (_shrink, {"quality": 95}),
    "blur": (_blur, {"quality": 95}),
    "jpeg-10": (_same, {"quality": 10}),
    "bright": (_bright, {"quality": 95}),
    "dark": (_dark, {"quality": 95}),
}


def prepare(folder: Path) -> Path:
    """Write the photographs, their changed copies, the ground truth and the spec.

    Returns
    -------
    Path
        The spec, in the folder.

    Raises
    ------
    PluginError
        scikit-image or a local featurizer is not installed.
    """
    spec = folder / _DONE
    text = _spec_text()
    if spec.is_file() and spec.read_text(encoding="utf-8") == text:
        return spec
    if importlib.util.find_spec("skimage") is None:
        raise PluginError("the demo's photographs come with scikit-image: pip install scikit-image")
    with new_folder(folder) as made:
        (made / "images").mkdir()
        for name in PHOTOGRAPHS:
            _write_copies(name, made / "images")
        (made / "groups.csv").write_text(_truth(), encoding="utf-8")
        (made / _DONE).write_text(text, encoding="utf-8")
    return spec


def _write_copies(name: str, folder: Path) -> None:
    import PIL.Image

    # Found without importing the package, which takes a second.
    found = importlib.util.find_spec("skimage")
    root = Path(str(found.origin)).parent if found is not None else Path()
    with PIL.Image.open(root / "data" / name) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    stem = name.rsplit(".", 1)[0]
    for change, (function, options) in _CHANGES.items():
        function(image).save(folder / f"{stem}_{change}.jpg", **options)


def _truth() -> str:
    lines = ["query,item,what"]
    for name in PHOTOGRAPHS:
        stem = name.rsplit(".", 1)[0]
        members = [f"{stem}_{change}.jpg" for change in _CHANGES]
        lines += [
            f"{query},{item},relevant" for query in members for item in members if item != query
        ]
    return "\n".join(lines) + "\n"


def _spec_text() -> str:
    names = registry().names("clusterer")
    words = "graph-kmeans" if "graph-kmeans" in names else "lloyd"
    return f"""\
# Photographs → SIFT → visual words → tf-idf → inverted index → mean average precision.
vwkit: 1
seed: 0
images: {{path: images}}
featurizer:
  use: bag-of-words
  local: {{use: sift, root: true, max_keypoints: 1000}}
  vocabulary: {{use: {words}, k: 2000, iterations: 8}}
  weighting: tf-idf
index: {{use: inverted, metric: cosine}}
evaluate: {{protocol: groups, groundtruth: groups.csv, exclude_query: true}}
output:
  - {{write: vocabulary, path: vocabulary}}
  - {{write: words, path: words}}
"""
