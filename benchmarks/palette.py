"""Pictures in k colours: error, file size and time beside Pillow, libimagequant and scikit-learn.

Time is from decoded pixels to palette and index of each pixel, in memory; files are written by the same
writer for all. Each measurement is of all contestants in turn, in one process with as many threads for
each. libimagequant runs at its slowest and best setting, without dithering; scikit-learn's KMeans (one
start, as is its default) gets the distinct colours with weights, so that it need not see all pixels.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import append, child, lines_of, machine, pinned, table

COUNTS = (8, 16, 32, 64, 128, 256)
SPACES = ("rgb", "lab", "oklab")
LIMIT = 3600
OURS = "vwkit quantize"


def pictures(folder):
    """Return names and pixels of the pictures in a folder, or of some that scikit-image ships."""
    import PIL.Image

    if folder:
        paths = sorted(path for path in Path(folder).iterdir() if path.suffix in (".png", ".jpg"))
        return [(path.name, np.asarray(PIL.Image.open(path).convert("RGB"))) for path in paths]
    import skimage.data

    names = ("astronaut", "chelsea", "coffee", "rocket")
    return [(name, np.ascontiguousarray(getattr(skimage.data, name)())) for name in names]


def contestants(space, threads):
    """Return functions of (rgb, k) → palette (k, 3) uint8 and indices (h, w)."""
    import PIL.features
    import PIL.Image

    import vwkit
    from vwkit.palettes import distinct_colours, fit_palette, quantize

    def ours(rgb, k):
        made = quantize(rgb, k, space=space)
        return made.palette.colours, made.indices

    def clusterer(name, **params):
        def made(rgb, k):
            counted = distinct_colours(rgb)
            model = vwkit.create("clusterer", name, k=k, **params)
            palette, nearest = fit_palette(*counted[:2], k, space=space, clusterer=model)
            return palette.colours, nearest.astype(np.uint8)[counted.inverse]

        return made

    def pillow(method):
        def made(rgb, k):
            found = PIL.Image.fromarray(rgb).quantize(k, method, dither=PIL.Image.Dither.NONE)
            return np.array(found.getpalette(), np.uint8).reshape(-1, 3), np.asarray(found)

        return made

    found = {OURS: ours, "vwkit lloyd": clusterer("lloyd", iterations=30)}
    methods = PIL.Image.Quantize
    for method in (methods.MEDIANCUT, methods.MAXCOVERAGE, methods.FASTOCTREE):
        found[f"Pillow {method.name.lower()}"] = pillow(method)
    if PIL.features.check("libimagequant"):
        found["Pillow libimagequant"] = pillow(methods.LIBIMAGEQUANT)
    for name, rival in (("libimagequant", _imagequant), ("scikit-learn KMeans", _sklearn)):
        try:
            found[name] = rival(space)
        except ImportError:
            print(f"{name} is left out: it is not installed", file=sys.stderr)
    return found


def _imagequant(space):
    from imagequant._libimagequant import ffi, lib

    def made(rgb, k):
        h, w = rgb.shape[:2]
        rgba = np.dstack([rgb, np.full((h, w), 255, np.uint8)])
        attributes = lib.liq_attr_create()
        lib.liq_set_speed(attributes, 1)
        lib.liq_set_max_colors(attributes, k)
        image = lib.liq_image_create_rgba(attributes, ffi.from_buffer(rgba), w, h, 0)
        result = ffi.new("liq_result**")
        status = lib.liq_image_quantize(image, attributes, result)
        if status:
            raise RuntimeError(f"libimagequant: status {status}")
        lib.liq_set_dithering_level(result[0], 0.0)
        indices = np.empty((h, w), np.uint8)
        lib.liq_write_remapped_image(result[0], image, ffi.from_buffer(indices), h * w)
        found = lib.liq_get_palette(result[0])
        palette = np.array([[e.r, e.g, e.b] for e in found.entries[0 : found.count]], np.uint8)
        lib.liq_result_destroy(result[0])
        lib.liq_image_destroy(image)
        lib.liq_attr_destroy(attributes)
        return palette, indices

    return made


def _sklearn(space):
    from sklearn.cluster import KMeans

    from vwkit.palettes import colour_vectors, vector_colours

    def made(rgb, k):
        colours, inverse, counts = np.unique(
            rgb.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
        )
        rows = colour_vectors(colours, space).astype(np.float32)
        model = KMeans(k, n_init=1, random_state=0).fit(rows, sample_weight=counts)
        palette = vector_colours(model.cluster_centers_, space)
        nearest = model.predict(colour_vectors(colours, space).astype(np.float32))
        return palette, nearest[inverse].reshape(rgb.shape[:2])

    return made


def measure(task):
    """Yield one line for each picture, k and contestant."""
    from vwkit.palettes import delta_e, psnr, write_png8

    space, repeats = task["space"], task["repeats"]
    found = contestants(space, task["threads"])
    shown = pictures(task["data"])
    for make in found.values():  # imports, first calls
        make(shown[0][1][:64, :64], 8)
    with tempfile.TemporaryDirectory(prefix="vwkit-palette-") as folder:
        target = Path(folder) / "a.png"
        for k in task["counts"]:
            for name, rgb in shown:
                took = {label: [] for label in found}
                made = {}
                for turn in range(repeats):
                    for label, make in list(found.items())[:: 1 if turn % 2 else -1]:
                        if turn and label.startswith("scikit"):
                            continue  # seconds need no repetition
                        start, cpu = time.perf_counter(), time.process_time()
                        made[label] = make(rgb, k)
                        spent = time.perf_counter() - start, time.process_time() - cpu
                        took[label].append(spent)
                for label, (palette, indices) in made.items():
                    picture = palette[indices]
                    write_png8(target, indices, palette)
                    pairs = rgb.reshape(-1, 3), picture.reshape(-1, 3)
                    yield {
                        "space": space, "k": k, "picture": name, "label": label,
                        "seconds": statistics.median(wall for wall, _ in took[label]),
                        "cpu": statistics.median(cpu for _, cpu in took[label]),
                        "colours": len(np.unique(indices)),
                        "psnr": psnr(rgb, picture), "bytes": target.stat().st_size,
                        "delta_e_76": float(delta_e(*pairs, "cie76").mean()),
                        "delta_e_2000": float(delta_e(*pairs).mean()),
                        "delta_e_ok": 100 * float(np.linalg.norm(_oklab(*pairs), axis=1).mean()),
                    }  # fmt: skip


def _oklab(first, second):
    from vwkit.palettes import colour_vectors

    return colour_vectors(first, "oklab") - colour_vectors(second, "oklab")


def main(options):
    own = {"data": options.data, "threads": options.threads, "repeats": options.repeats}
    results = Path(options.results) if options.results else None
    for space in SPACES:
        if options.only and options.only != space:
            continue
        held = [] if results is None else [one for one in lines_of(results) if one["own"] == own]
        told = [one for one in held if one["space"] == space]
        if not told:
            task = {**own, "space": space, "counts": COUNTS}
            with tempfile.TemporaryDirectory(prefix="vwkit-palette-") as folder:
                told, failure = child("palette", task, Path(folder), LIMIT, pinned(options.threads))
            if failure:
                print(f"{space}: {failure}")
            if results is not None:
                for one in told:
                    append(results, {"own": own, **one})
        _print(space, told, options)


# What is better: the error that the space is chosen for.
_BY = {"rgb": ("psnr", -1), "lab": ("delta_e_2000", 1), "oklab": ("delta_e_ok", 1)}


def _print(space, told, options):
    key, sign = _BY[space]
    count = len({one["picture"] for one in told})
    libraries = ("numpy", "pillow", "imagequant", "scikit-learn", "vwkit")
    rows = []
    for k in COUNTS:
        best, ours = {}, {}
        for one in told:
            if one["k"] == k:
                value = sign * one[key]
                best[one["picture"]] = min(best.get(one["picture"], value), value)
                if one["label"] == OURS:
                    ours[one["picture"]] = one
        for label in dict.fromkeys(one["label"] for one in told):
            lines = [one for one in told if one["k"] == k and one["label"] == label]
            if not lines:
                continue
            first = sum(sign * one[key] <= best[one["picture"]] + 1e-9 for one in lines)
            times = [one["seconds"] / ours[one["picture"]]["seconds"] for one in lines]
            sizes = [one["bytes"] / ours[one["picture"]]["bytes"] for one in lines]
            rows.append(
                [
                    k, label,
                    *(f"{statistics.median(one[name] for one in lines):.2f}"
                      for name in ("psnr", "delta_e_76", "delta_e_2000", "delta_e_ok")),
                    f"{first} of {count}",
                    f"{statistics.median(one['bytes'] for one in lines) / 1000:.1f}",
                    f"{statistics.median(sizes):.2f}",
                    f"{1000 * statistics.median(one['seconds'] for one in lines):.0f}",
                    f"{1000 * statistics.median(one['cpu'] for one in lines):.0f}",
                    f"{statistics.median(times):.2f}",
                    min(one["colours"] for one in lines),
                ]
            )  # fmt: skip
    head = ["k", "by", "PSNR dB", "ΔE 76", "ΔE 2000", "ΔE ok", "best on", "kB", "× ours", "ms", "CPU ms",
            "× ours", "colours"]  # fmt: skip
    what = {"rgb": "PSNR", "lab": "ΔE 2000", "oklab": "ΔE ok, 100 × the distance in Oklab"}[space]
    table(
        f"{count} pictures in k colours, space {space} (best by {what}), medians "
        f"({machine(options.threads, libraries)}, {os.cpu_count()} processors)",
        head,
        rows,
    )


if __name__ == "__main__":
    for step in measure(json.loads(sys.argv[1])):
        print(json.dumps(step), flush=True)
