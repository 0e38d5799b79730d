"""Small data that tests share: pictures with texture, descriptors in clusters."""

import json
from pathlib import Path

import numpy as np
import PIL.Image

import vwkit


def picture(seed, size=(96, 72), *, shift=0):
    """Smooth random blobs: texture for local features, and colours of its own for each seed."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 156, 3)
    small = (base + rng.integers(0, 100, (9, 12, 3))).astype(np.uint8)
    image = PIL.Image.fromarray(small).resize(size, PIL.Image.Resampling.BICUBIC)
    return PIL.Image.fromarray(np.roll(np.asarray(image), shift, axis=1))


def photo_folder(folder: Path, groups=3, copies=2):
    """Write groups × copies pictures, `copies` alike in each group, and their ground truth."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [[f"g{g}/c{c}.png" for c in range(copies)] for g in range(groups)]
    for g in range(groups):
        (folder / f"g{g}").mkdir(exist_ok=True)
        for c in range(copies):
            picture(g, shift=c).save(folder / names[g][c])
    lines = ["query,item,what"]
    lines += [f"{q},{i},relevant" for group in names for q in group for i in group if i != q]
    truth = folder.parent / "groups.csv"
    truth.write_text("\n".join(lines) + "\n")
    return truth


def blobs(rows=600, dim=8, clusters=12, seed=0, dtype=np.uint8):
    """Rows around `clusters` points."""
    rng = np.random.default_rng(seed)
    centers = rng.integers(30, 220, (clusters, dim))
    noise = rng.normal(0, 6, (rows, dim))
    values = centers[rng.integers(0, clusters, rows)] + noise
    return np.clip(np.rint(values), 0, 255).astype(dtype)


def tree(folder: Path, skip=()):
    """Return {relative path: bytes} of a folder's files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part in skip for part in path.relative_to(folder).parts)
    }


def vector_spec(folder: Path, **slots):
    """Write a descriptor file and return a spec over it."""
    path = folder / "x.npy"
    if not path.exists():
        vwkit.write(path, blobs())
    return {"vwkit": 1, "seed": 3, "vectors": {"path": str(path)}, **slots}


def bag_spec(folder: Path, **slots):
    """Return a spec of bags of words over a folder of pictures."""
    return {
        "vwkit": 1,
        "images": {"path": str(folder)},
        "featurizer": {
            "use": "bag-of-words",
            "local": {"use": "pixels"},
            "vocabulary": {"use": "lloyd", "k": 12, "iterations": 3},
        },
        "index": {"use": "inverted"},
        **slots,
    }


def dump(path: Path, spec):
    """Write a spec as JSON, which is YAML."""
    path.write_text(json.dumps(spec))
    return path
