"""The whole job, photos to pages, over a folder with everything that photo folders hold."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import PIL.Image
import pytest

import vwkit
from tests.clustering import Joined, Page, cluster_spec, output
from tests.helpers import picture
from vwkit.image import MAX_PIXELS
from vwkit.items import find_images
from vwkit.plugins import registered


@pytest.fixture(autouse=True)
def _joined():
    with registered(Joined):
        yield


def bomb(path):
    """A PNG of a few hundred bytes that says it is 100,000 by 100,000 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def write_good(folder):
    """Write one photo in every guise; all show the same, but for size and depth."""
    base = picture(1, (240, 160))
    names = {}

    def save(name, image, **options):
        image.save(folder / name, **options)
        names[name] = image.size

    save("plain.jpg", base)
    save("progressive.jpg", base, progressive=True, quality=92)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter to the right
    save("turned by exif.jpg", base.rotate(90, expand=True), exif=exif)
    names["turned by exif.jpg"] = base.size
    save("cmyk.jpg", base.convert("CMYK"))
    save("grey.png", base.convert("L"))
    save("grey alpha.png", base.convert("LA"))
    deep = np.asarray(base.convert("L")).astype(np.uint16) * 257
    save("sixteen bits.png", PIL.Image.fromarray(deep))
    save("palette.png", base.quantize(64))
    clear = base.copy()
    clear.putalpha(128)
    save("half clear.png", clear)
    clear.putalpha(0)
    save("all clear.png", clear)
    save("one bit.png", base.convert("1"))
    frames = [picture(seed, (60, 40)) for seed in range(3)]
    save("animated.gif", frames[0], save_all=True, append_images=frames[1:], duration=50)
    save("animated.webp", frames[0], save_all=True, append_images=frames[1:])
    save("tiles.tif", base, compression="tiff_lzw")
    save("one pixel.png", base.crop((0, 0, 1, 1)))
    save("panorama.jpg", base.resize((2000, 100)))
    save("tower.jpg", base.resize((40, 800)))
    buffer = io.BytesIO()
    base.save(buffer, "PNG")
    (folder / "really a png.jpg").write_bytes(buffer.getvalue())
    names["really a png.jpg"] = base.size
    for name in ("été in København.jpg", "写真 🌄.jpg", "a'b\"c&<b>.jpg", "trailing space .jpg",
                 "-rf.jpg", "new\nline.jpg", "%2e%2e%2f.jpg", "UPPER.JPG", "x" * 240 + ".jpg"):  # fmt: skip
        save(name, base)
    (folder / "sub folder" / "deeper").mkdir(parents=True)
    save("sub folder/plain.jpg", base)
    save("sub folder/deeper/plain.jpg", base)
    return names


def write_bad(folder):
    """Write what cannot be used, and return a word of each reason."""
    whole = io.BytesIO()
    picture(2, (200, 150)).save(whole, "JPEG")
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture")
    (folder / "program.jpg").write_bytes(b"%!PS-Adobe-3.0\n(cat /etc/passwd) run\n")
    bomb(folder / "bomb.png")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    return {
        "truncated.jpg": "cannot be decoded",
        "empty.jpg": "not an image",
        "text.png": "not an image",
        "program.jpg": "not an image",
        "bomb.png": "refused",
        "gone.jpg": "no such file",
        "circle.jpg": "circle.jpg",
    }


def everything(tmp_path):
    folder = tmp_path / "my photos"
    folder.mkdir()
    good, bad = write_good(folder), write_bad(folder)
    (folder / "notes.txt").write_text("no photo, and not looked at")
    (folder / "round").symlink_to(folder)  # folders in a circle
    (folder / "sub folder" / "up").symlink_to(folder)
    (folder / "folder.jpg").mkdir()
    odd = os.fsencode(folder) + b"/not utf-8 \xff.jpg"
    picture(1, (240, 160)).save(folder / "tmp.jpg")
    os.rename(folder / "tmp.jpg", odd)
    good["not utf-8 \\xff.jpg"] = (240, 160)
    return folder, good, bad


def outputs(tmp_path):
    out = tmp_path / "out put"
    return out, [
        {"write": "folders", "path": str(out / "clusters")},
        {"write": "gallery", "path": str(out / "gallery.html"), "thumbnail": 60},
        {"write": "dendrogram", "path": str(out / "tree.html")},
        {"write": "dendrogram", "path": str(out / "tree.png")},
        {"write": "montage", "path": str(out / "montage.png"), "mode": "clusters"},
        {"write": "table", "path": str(out / "table.csv")},
        {"write": "table", "path": str(out / "table.json")},
    ]


@pytest.mark.parametrize("pattern", [None, "**/*.*"])
def test_every_photo_is_handled_or_named(tmp_path, pattern):
    folder, good, bad = everything(tmp_path)
    out, wanted = outputs(tmp_path)
    spec = cluster_spec(folder, transform=[{"use": "pca", "variance": 0.95}], output=wanted)
    if pattern:
        (folder / "notes.txt").unlink()
        (folder / "gone.jpg").unlink()  # a pattern takes files only
        (folder / "circle.jpg").unlink()
        del bad["gone.jpg"], bad["circle.jpg"]
        spec["images"]["pattern"] = pattern
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", vwkit.SkippedItems)
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")

    skipped = {item.id: item.reason for item in run.items if item.status != "ok"}
    assert set(skipped) == set(bad)
    assert all(word in skipped[name] for name, word in bad.items()), skipped
    assert {item.id: item.size for item in run.kept} == good
    report = Page((run.folder / "report.html").read_text())
    assert all(name in report.words for name in bad)

    placed = [path for path in (out / "clusters").rglob("*") if path.is_symlink()]
    assert len(placed) == len(good)
    assert len({path.resolve() for path in placed}) == len(good)
    for path in placed:
        assert not os.path.isabs(os.readlink(path))
        with PIL.Image.open(path) as image:
            image.load()
    gallery = Page((out / "gallery.html").read_text())
    assert "no picture" not in gallery.words
    tree = Page((out / "tree.html").read_text(), scripts=1)
    assert len(tree.all("img")) == len(good)
    assert len((out / "table.json").read_text().splitlines()) == len(run.items) + 2
    for name in ("tree.png", "montage.png"):
        with PIL.Image.open(out / name) as image:
            assert image.width < MAX_PIXELS

    # The same picture in every guise is in one cluster.
    (same,) = [one for one in run.clusters if "plain.jpg" in {item.id for item in one.items}]
    assert {"progressive.jpg", "turned by exif.jpg", "palette.png", "sub folder/plain.jpg",
            "really a png.jpg", "写真 🌄.jpg", "half clear.png"} <= {i.id for i in same.items}  # fmt: skip


def test_turned_by_exif_is_shown_upright(tmp_path):
    base = picture(3, (64, 32))
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = PIL.Image.Exif()
    exif[0x0112] = 8
    for i in range(2):
        base.rotate(-90, expand=True).save(folder / f"{i}.jpg", exif=exif, quality=95)
    run = vwkit.Pipeline.from_dict(cluster_spec(folder)).run(tmp_path / "run")
    path = output("montage", tmp_path / "m.png", mode="clusters", columns=2, thumbnail=64).write(
        run
    )
    with PIL.Image.open(path) as image:
        shown = np.asarray(image)[4 + 16 : 4 + 48, 4:68].astype(int)
    assert np.abs(shown - np.asarray(base)).mean() < 8


def test_thousands_in_one_folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    colours = ("red", "green", "blue", "black", "white", "yellow", "cyan")
    for i in range(2000):
        PIL.Image.new("RGB", (8, 8), colours[i % 7]).save(folder / f"{i:04}.png")
    out, wanted = outputs(tmp_path)
    wanted = [one for one in wanted if one["write"] != "dendrogram"]
    spec = cluster_spec(folder, {"use": "lloyd", "k": 7}, output=wanted)
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert len(run.clusters) == 7
    assert sum(path.is_symlink() for path in (out / "clusters").rglob("*")) == 2000
    gallery = Page((out / "gallery.html").read_text())
    assert len(gallery.all("img")) == 7 * 24
    assert "… and 262 more" in gallery.words
    assert all(f"{i:04}.png" in gallery.words for i in range(2000))


def test_errors_can_stop_the_run(tmp_path):
    folder, _, _ = everything(tmp_path)
    spec = cluster_spec(folder, run={"on_error": "stop"})
    with pytest.raises(vwkit.ImageError, match="refused"):
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")


def test_what_never_ends_is_no_photo(tmp_path):
    """A pipe called like a picture would be waited for without end."""
    picture(0).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    assert [item.id for item in find_images(tmp_path)] == ["a.png", "gone.png"]


def test_outputs_among_the_photos_are_no_photos(tmp_path):
    for seed in range(4):
        picture(seed // 2).save(tmp_path / f"{seed}.png")
    spec = {
        "vwkit": 1,
        "images": {"path": str(tmp_path)},
        "featurizer": {"use": "colour-histogram"},
        "output": [{"write": "montage", "path": str(tmp_path / "m.png")}],
    }
    for _ in range(2):
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        assert [item.id for item in run.items] == ["0.png", "1.png", "2.png", "3.png"]
        assert (tmp_path / "m.png").is_file()
