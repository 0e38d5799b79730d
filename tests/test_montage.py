"""The output `montage`: one PNG of a run's images, or of searches."""

import numpy as np
import PIL.Image
import pytest

import vwkit
from tests.helpers import bag_spec, photo_folder, vector_spec
from vwkit.outputs.montage import _FRAME, _GAP, _QUERY

COLOURS = [(250, 20, 20), (20, 250, 20), (20, 20, 250), (240, 240, 20), (20, 240, 240)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))


def plain_run(tmp_path, **output):
    """Five one-coloured pictures, twice as wide as high."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for i, colour in enumerate(COLOURS):
        PIL.Image.new("RGB", (80, 40), colour).save(folder / f"{i}.png")
    spec = {
        "vwkit": 1,
        "images": {"path": str(folder)},
        "featurizer": {"use": "pixels"},
        "output": [{"write": "montage", "path": str(tmp_path / "m.png"), **output}],
    }
    return vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")


def written(path):
    with PIL.Image.open(path) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        return np.asarray(image)


def square(pixels, row, column, side):
    top, left = (_GAP + i * (side + _GAP) for i in (row, column))
    return pixels[top : top + side, left : left + side]


def test_grid_of_items_in_order(tmp_path):
    plain_run(tmp_path, columns=3, thumbnail=40)
    pixels = written(tmp_path / "m.png")
    assert pixels.shape == (2 * 44 + 4, 3 * 44 + 4, 3)
    for i, colour in enumerate(COLOURS):
        cell = square(pixels, i // 3, i % 3, 40)
        assert (cell[20, 20] == colour).all()
        assert (cell[10:30] == colour).all()  # as wide as the square, half as high
        assert (cell[:9] == 255).all()
        assert (cell[31:] == 255).all()
    assert (square(pixels, 1, 2, 40) == 255).all()
    assert (pixels[:_GAP] == 255).all()


def test_fewer_items_than_columns_make_a_narrow_picture(tmp_path):
    plain_run(tmp_path, columns=8, thumbnail=20, items=2)
    pixels = written(tmp_path / "m.png")
    assert pixels.shape == (24 + 4, 2 * 24 + 4, 3)
    # Of more items than wanted, a spread over the whole run.
    assert (square(pixels, 0, 0, 20)[10, 10] == COLOURS[0]).all()
    assert (square(pixels, 0, 1, 20)[10, 10] == COLOURS[-1]).all()


def test_rows_of_searches(tmp_path):
    photo_folder(tmp_path / "photos", groups=3, copies=2)
    output = {"write": "montage", "path": str(tmp_path / "m.png"), "mode": "search",
              "columns": 4, "thumbnail": 48, "items": 24}  # fmt: skip
    spec = bag_spec(tmp_path / "photos", output=[output])
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    pixels = written(tmp_path / "m.png")
    assert pixels.shape == (6 * 52 + 4, 4 * 52 + 4, 3)
    for row, item in enumerate(run.kept):
        query = square(pixels, row, 0, 48)
        red = (query == _QUERY).all(axis=2)
        assert red[:, 0].any()
        assert red[:, -1].any()
        assert not red[12:-12, _FRAME:-_FRAME].any()
        found = [one for one in run.search(item.id, 4).items[0] if one and one.row != item.row]
        for column, other in enumerate(found[:3], 1):
            with PIL.Image.open(other.path) as image:
                mean = np.asarray(image.convert("RGB")).reshape(-1, 3).mean(0)
            shown = square(pixels, row, column, 48)
            inner = shown[8:-8]  # 96 by 72 becomes 48 by 36
            assert np.abs(inner.reshape(-1, 3).mean(0) - mean).max() < 6
            assert not (shown == _QUERY).all(axis=2).any()


def test_vanished_images_leave_an_empty_square(tmp_path):
    run = plain_run(tmp_path)
    (tmp_path / "plain/1.png").unlink()
    (tmp_path / "plain/2.png").write_bytes(b"no image")
    montage = vwkit.create("output", "montage", path=tmp_path / "n.png", columns=5, thumbnail=20)
    montage._write(run, montage.path)
    pixels = written(tmp_path / "n.png")
    for i in (1, 2):
        assert (square(pixels, 0, i, 20) == 255).all()
    assert (square(pixels, 0, 3, 20)[10, 10] == COLOURS[3]).all()


def test_nothing_to_show_is_an_error_and_keeps_the_old_picture(tmp_path):
    run = plain_run(tmp_path)
    before = (tmp_path / "m.png").read_bytes()
    for i in range(5):
        (tmp_path / f"plain/{i}.png").unlink()
    montage = vwkit.create("output", "montage", path=tmp_path / "m.png")
    with pytest.raises(vwkit.DataError, match="none of the images"):
        montage._write(run, montage.path)
    assert (tmp_path / "m.png").read_bytes() == before


def test_same_run_same_bytes(tmp_path):
    run = plain_run(tmp_path)
    montage = vwkit.create("output", "montage", path=tmp_path / "again.png")
    montage._write(run, montage.path)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "m.png").read_bytes()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"path": "m.jpg"}, "montage.path: a montage is a PNG"),
        ({"path": "m.png", "mode": "search", "columns": 1}, "montage.columns: a search needs 2"),
        ({"path": "m.png", "items": 9999, "thumbnail": 999}, "montage.thumbnail: 9999 items make"),
        ({"path": "m.png", "columns": 0}, "montage.columns"),
        ({"path": "m.png", "mode": "rows"}, "montage.mode"),
    ],
)
def test_parameters_are_checked_before_any_work(params, said):
    with pytest.raises(vwkit.ParameterError, match=said):
        vwkit.create("output", "montage", **params)


def test_a_spec_without_images_or_index_is_refused(tmp_path):
    output = {"write": "montage", "path": str(tmp_path / "m.png")}
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4}, output=[output])
    with pytest.raises(vwkit.SpecError, match="montage needs a images"):
        vwkit.Pipeline.from_dict(spec)
    photo_folder(tmp_path / "photos")
    spec = bag_spec(tmp_path / "photos", output=[{**output, "mode": "search"}])
    del spec["index"]
    with pytest.raises(vwkit.SpecError, match="montage needs a index"):
        vwkit.Pipeline.from_dict(spec)
