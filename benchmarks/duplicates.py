"""Near-duplicates: copies made of real photographs with known changes, and what is found of them."""

import importlib.util
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps

from benchmarks.common import machine, table

ENDINGS = (".png", ".jpg", ".jpeg")
EMPTY = (128, 128, 128)
LEAST = 150  # keypoints of a picture that has some texture
# Two pictures of one scene, or of no scene at all, are no ground truth.
LEFT_OUT = ("motorcycle_right", "chessboard_RGB")


def crop(share, x, y):
    def change(image):
        width, height = (round(side * share**0.5) for side in image.size)
        left, top = round((image.width - width) * x), round((image.height - height) * y)
        return image.crop((left, top, left + width, top + height))

    return change


def scale(factor):
    def change(image):
        size = tuple(max(1, round(side * factor)) for side in image.size)
        return image.resize(size, PIL.Image.Resampling.LANCZOS)

    return change


def turn(degrees, expand=True):
    def change(image):
        how = PIL.Image.Resampling.BICUBIC
        return image.rotate(-degrees, how, expand=expand, fillcolor=EMPTY)

    return change


def jpeg(quality):
    def change(image):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return PIL.Image.open(buffer).convert("RGB")

    return change


def brighter(image):
    return PIL.ImageEnhance.Brightness(image).enhance(1.3)


def paler(image):
    return PIL.ImageEnhance.Color(PIL.ImageEnhance.Contrast(image).enhance(0.8)).enhance(0.5)


def everything(image):
    image = crop(0.6, 0.7, 0.2)(PIL.ImageOps.mirror(image))
    return jpeg(40)(scale(0.5)(turn(-8)(image)))


# Name, change, and what it does: mirrored, degrees clockwise, scale.
CHANGES = (
    ("crop to 80 %", crop(0.8, 0.3, 0.6), False, 0, 1),
    ("crop to 60 %", crop(0.6, 0, 1), False, 0, 1),
    ("crop to 40 %", crop(0.4, 0.5, 0.5), False, 0, 1),
    ("scale 0.25", scale(0.25), False, 0, 0.25),
    ("scale 0.5", scale(0.5), False, 0, 0.5),
    ("scale 2", scale(2), False, 0, 2),
    ("turned 90°", turn(90), False, 90, 1),
    ("turned 180°", turn(180), False, 180, 1),
    ("turned −17°", turn(-17), False, -17, 1),
    ("turned 40° in its frame", turn(40, expand=False), False, 40, 1),
    ("mirrored", PIL.ImageOps.mirror, True, 0, 1),
    ("mirrored top to bottom", PIL.ImageOps.flip, True, 180, 1),
    ("JPEG 30", jpeg(30), False, 0, 1),
    ("JPEG 10", jpeg(10), False, 0, 1),
    ("brighter", brighter, False, 0, 1),
    ("paler", paler, False, 0, 1),
    ("mirrored, cropped, turned, 0.5×, JPEG 40", everything, True, -8, 0.5),
)


def photographs(folder):
    """Return the pictures to make copies of, by name."""
    if folder is None:
        found = importlib.util.find_spec("skimage")
        if found is None:
            sys.exit("duplicates: needs --data FOLDER with photos, or scikit-image installed")
        folder = Path(found.origin).parent / "data"
    pictures = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() not in ENDINGS or path.stem in LEFT_OUT:
            continue
        image = PIL.ImageOps.exif_transpose(PIL.Image.open(path))
        if image.mode in ("RGBA", "LA", "P"):
            image = image.convert("RGBA")
            white = PIL.Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            image = white
        pictures[path.stem] = image.convert("RGB")
    return pictures


def make(pictures, folder):
    """Write every picture and its copies; return the original and the change of each file."""
    truth = {}
    for number, (name, image) in enumerate(pictures.items()):
        image.save(folder / f"{number:04d}.png")
        truth[f"{number:04d}.png"] = (name, None)
        for i, (_, change, *_) in enumerate(CHANGES):
            copy = f"{number:04d}_{i:02d}.jpg"
            change(image).save(folder / copy, quality=90)
            truth[copy] = (name, i)
    return truth


def right(how, change):
    """Tell whether a transformation is the one that was made."""
    _, _, mirrored, degrees, factor = change
    off = (how.angle - degrees + 180) % 360 - 180
    return how.mirrored == mirrored and abs(off) < 2 and abs(how.scale / factor - 1) < 0.05


def main(options):
    import vwkit
    from vwkit.cli.new import jobs
    from vwkit.duplicates import find_duplicates

    pictures = photographs(options.data)
    with (
        tempfile.TemporaryDirectory(prefix="vwkit-duplicates-") as name,
        vwkit.use_job(vwkit.Job(threads=options.threads)) as job,
    ):
        folder = Path(name)
        (folder / "photos").mkdir()
        truth = make(pictures, folder / "photos")
        (folder / "spec.yaml").write_text(jobs()["near-duplicates"])
        os.environ["VWKIT_CACHE"] = str(folder / "cache")
        start = time.perf_counter()
        pipeline = vwkit.Pipeline.from_file(folder / "spec.yaml", ("output=",))
        run = pipeline.run(folder / "run", job=job)
        ran = time.perf_counter() - start
        groups = find_duplicates(run)
        found = time.perf_counter() - start - ran
        counts = dict(
            zip((item.id for item in run.kept), np.diff(run.features.offsets), strict=True)
        )
    plain = {name for file, (name, made) in truth.items() if made is None and counts[file] < LEAST}
    show(groups, truth, plain, ran, found, machine(options.threads, ("numpy", "vwkit")))


def show(groups, truth, plain, ran, found, where):
    group_of = {item.id: number for number, one in enumerate(groups) for item in one.items}
    direct = {}
    for one in groups:
        for pair in one.pairs:
            for way in (pair, pair.turned):
                direct[way.first.id, way.second.id] = way.how
    rows, told, of = [], 0, 0
    for i, change in enumerate(CHANGES):
        copies = [file for file, (_, made) in truth.items() if made == i]
        originals = [f"{file[:4]}.png" for file in copies]
        pairs = list(zip(originals, copies, strict=True))
        together = [a in group_of and group_of[a] == group_of.get(b) for a, b in pairs]
        hows = [direct[pair] for pair in pairs if direct.get(pair) is not None]
        good = sum(right(how, change) for how in hows)
        told, of = told + good, of + len(hows)
        rows.append(
            [change[0], len(copies), sum(together), f"{sum(together) / len(copies):.1%}",
             len(hows), good]
        )  # fmt: skip
    table(
        f"{len(truth):,} files of {len(truth) // (len(CHANGES) + 1)} pictures ({where})",
        ["change", "copies", "in the group of the original", "recall", "compared directly",
         "told right"],
        rows,
    )  # fmt: skip
    pairs = wrong = 0
    for one in groups:
        names = [truth[item.id][0] for item in one.items]
        pairs += len(names) * (len(names) - 1) // 2
        wrong += sum(a != b for i, a in enumerate(names) for b in names[:i])
    lost = {}
    for file, (name, made) in truth.items():
        if made is not None and group_of.get(f"{file[:4]}.png", -1) != group_of.get(file, -2):
            lost[name] = lost.get(name, 0) + 1
    copies = sum(row[1] for row in rows)
    rich = copies - len(CHANGES) * len(plain)
    rich_lost = sum(count for name, count in lost.items() if name not in plain)
    print(
        f"\nrecall {1 - sum(lost.values()) / copies:.1%}; without the {len(plain)} pictures of fewer "
        f"than {LEAST} keypoints {1 - rich_lost / rich:.1%}; of {pairs:,} pairs in a common group "
        f"{wrong:,} are of different pictures (precision {1 - wrong / max(1, pairs):.1%}); told right "
        f"{told / max(1, of):.1%}; features, vocabulary and index {ran:.0f} s, copies {found:.0f} s"
    )
    print("lost copies by picture:", ", ".join(f"{k} {v}" for k, v in sorted(lost.items())) or "0")
