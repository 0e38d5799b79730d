"""Groups of copies: found, told in words, shown on a page."""

import csv
import html
import json
import shutil

import numpy as np
import PIL.Image
import pytest

import vwkit
from tests.helpers import bag_spec
from vwkit import duplicates
from vwkit.duplicates import Pair, find_duplicates
from vwkit.geometry import Transformation
from vwkit.outputs import duplicates as duplicates_output
from vwkit.outputs.spreadsheets import no_formula
from vwkit.types import Item

pytest.importorskip("vwkit_opencv")

LOCAL = {"use": "sift", "max_keypoints": 300}


def scene(seed, size=(320, 240)):
    from tests.test_docs import script

    return script("make_data").scene(seed, size[1], size[0])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Copies of two pictures, two other pictures, and some without keypoints."""
    folder = tmp_path_factory.mktemp("copies") / "photos"
    folder.mkdir()
    one, two = scene(1), scene(2)
    one.save(folder / "a.png")
    one.crop((32, 24, 288, 216)).save(folder / "a_crop.jpg", quality=90)
    one.resize((160, 120)).save(folder / "a_half.jpg", quality=60)
    one.transpose(0).save(folder / "a_mirror.jpg", quality=90)
    two.save(folder / "b.png")
    two.rotate(-90, expand=True).save(folder / "b_turned.png")
    scene(3).save(folder / "c.png")
    scene(4).save(folder / "d <b>&\"' ü.png")
    shutil.copy(folder / "c.png", folder / "e_of_c.png")
    PIL.Image.new("RGB", (50, 40), (9, 9, 9)).save(folder / "flat.png")
    shutil.copy(folder / "flat.png", folder / "flat again.png")
    PIL.Image.new("RGB", (50, 40), (90, 9, 9)).save(folder / "flat red.png")
    PIL.Image.new("L", (1, 1)).save(folder / "dot.png")
    return folder


def spec_of(folder, **slots):
    featurizer = {"use": "vlad", "local": LOCAL, "vocabulary": {"use": "lloyd", "k": 6}}
    return bag_spec(folder, **{"featurizer": featurizer, "index": {"use": "exact"}, **slots})


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWKIT_CACHE", str(folder / "cache"))
        yield vwkit.Pipeline.from_dict(spec_of(photos)).run(folder / "run")


GROUPS = [
    ["a.png", "a_mirror.jpg", "a_crop.jpg", "a_half.jpg"],
    ["b.png", "b_turned.png"],
    ["c.png", "e_of_c.png"],
    ["flat again.png", "flat.png"],
]
WORDS = {
    ("a.png", "a_crop.jpg"): "crop (keeps 64 %)",
    ("a.png", "a_half.jpg"): "scaled 0.5×",
    ("a.png", "a_mirror.jpg"): "mirrored",
    ("b.png", "b_turned.png"): "rotated 90° clockwise",
    ("c.png", "e_of_c.png"): "identical file",
    ("flat again.png", "flat.png"): "identical file",
}


def names(groups):
    return [[item.id for item in group.items] for group in groups]


def told(groups):
    return {(pair.first.id, pair.second.id): pair.words for one in groups for pair in one.pairs}


def test_copies_are_found_and_told(run):
    groups = find_duplicates(run)
    assert [sorted(one) for one in names(groups)] == [sorted(one) for one in GROUPS]
    assert names(groups)[0][0] == "a.png"
    said = told(groups)
    assert WORDS.items() <= said.items()
    for group in groups:
        assert [pair.second for pair in group.tree] == group.items[1:]
        seen = {group.items[0].row}
        for pair in group.tree:
            assert pair.first.row in seen
            seen.add(pair.second.row)


@pytest.mark.parametrize(
    ("featurizer", "index"),
    [
        ({"use": "bag-of-words", "vocabulary": {"use": "lloyd", "k": 60}}, {"use": "inverted"}),
        (None, {"use": "exact"}),  # the descriptors themselves, which vote
    ],
)
def test_any_index_proposes(photos, tmp_path, featurizer, index, run):
    made = LOCAL if featurizer is None else {**featurizer, "local": LOCAL}
    other = vwkit.Pipeline.from_dict(spec_of(photos, featurizer=made, index=index))
    groups = find_duplicates(other.run(tmp_path / "run"))
    assert told(groups) == told(find_duplicates(run))


def test_the_same_for_any_threads_and_again(run, monkeypatch, tmp_path):
    kept = told(find_duplicates(run))
    calls = []
    real = duplicates.align_many

    def counted(*args, **params):
        calls.append(1)
        return real(*args, **params)

    monkeypatch.setattr(duplicates, "align_many", counted)
    assert told(find_duplicates(run)) == kept
    assert not calls  # from the cache
    said = []
    for threads in (1, 3):
        monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / str(threads)))
        with vwkit.use_job(vwkit.Job(threads=threads)):
            groups = find_duplicates(run)
        said.append([pair.how and pair.how.as_dict() for one in groups for pair in one.pairs])
    assert calls
    assert said[0] == said[1]


def test_what_is_asked_decides(run):
    unmirrored = told(find_duplicates(run, mirrored=False))
    assert not any("mirrored" in words for words in unmirrored.values())
    assert ("a.png", "a_crop.jpg") in unmirrored
    strict = told(find_duplicates(run, inliers=100_000))
    assert set(strict.values()) == {"identical file"}
    exact = told(find_duplicates(run, share=1.0))
    assert ("a.png", "a_half.jpg") not in exact
    assert ("c.png", "e_of_c.png") in exact


def test_few_candidates_are_compared(run, monkeypatch, tmp_path):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path))
    compared = []
    real = duplicates.align_many

    def counted(a, others, **params):
        others = list(others)
        compared.append(len(others))
        return real(a, others, **params)

    monkeypatch.setattr(duplicates, "align_many", counted)
    find_duplicates(run, candidates=1)
    pictures = sum(not item.id.startswith(("flat", "dot", "e_of")) for item in run.kept)
    assert 0 < sum(compared) <= 2 * pictures


def test_copies_of_one_file_leave_room_for_others(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    one = scene(5)
    for i in range(9):
        one.save(folder / f"same {i}.png")
    one.crop((40, 30, 280, 210)).save(folder / "crop.png")
    scene(6).save(folder / "other.png")
    run = vwkit.Pipeline.from_dict(spec_of(folder)).run(tmp_path / "run")
    (group,) = find_duplicates(run, candidates=2)
    assert len(group.items) == 10
    assert told([group])["same 0.png", "crop.png"].startswith("crop")


def test_nothing_is_a_copy(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in (7, 8):
        scene(seed).save(folder / f"{seed}.png")
    output = [{"write": "duplicates", "path": str(tmp_path / f"out.{e}")} for e in ("html", "csv")]
    run = vwkit.Pipeline.from_dict(spec_of(folder, output=output)).run(tmp_path / "run")
    assert find_duplicates(run) == []
    assert "None of the 2 pictures is a copy of another." in (tmp_path / "out.html").read_text()
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1


def test_a_featurizer_that_cannot_tell_looks_at_the_mirrored_picture(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))
    from vwkit_opencv import Sift

    monkeypatch.setattr(Sift, "_mirrored", lambda self, features: None)
    run = vwkit.Pipeline.from_dict(spec_of(photos)).run(tmp_path / "run")
    assert told(find_duplicates(run))["a.png", "a_mirror.jpg"] == "mirrored"
    looked = []
    real = Sift._extract
    monkeypatch.setattr(
        Sift, "_extract", lambda self, images: looked.append(1) or real(self, images)
    )
    find_duplicates(run, candidates=3)
    assert not looked  # mirrored features are kept, too
    # Whose file is gone is compared as it is.
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "another"))
    gone = tmp_path / "photos"
    shutil.copytree(photos, gone)
    moved = vwkit.Pipeline.from_dict(spec_of(gone)).run(tmp_path / "moved")
    shutil.rmtree(gone)
    left = told(find_duplicates(moved))
    assert left["a.png", "a_crop.jpg"] == "crop (keeps 64 %)"
    assert "mirrored" not in left.values()
    assert left["c.png", "e_of_c.png"] == "copy"  # by keypoints: the files cannot be compared


def test_mirrored_features_of_any_featurizer():
    pixels = vwkit.create("featurizer", "pixels")
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    (as_it_is,) = pixels.features([picture])
    for known in (None, as_it_is):
        mirrored = pixels.mirrored(picture, known)
        (expected,) = pixels.features([np.ascontiguousarray(picture[:, ::-1])])
        assert np.array_equal(mirrored.vectors, expected.vectors)


def test_the_original_is_the_picture_that_shows_most():
    def item(row, width, height):
        return Item(row, f"{row}.png", None, (width, height))

    def pair(first, second, matrix):
        how = Transformation(np.array(matrix, float), first.size, second.size, 50, 60, 0.9)
        return Pair(first, second, how)

    turned, plain, small = item(0, 500, 500), item(1, 400, 300), item(2, 200, 150)
    pairs = [
        pair(plain, turned, [[1, 0, 50], [0, 1, 100]]),  # with something empty around it
        pair(plain, small, [[0.5, 0, -0.25], [0, 0.5, -0.25]]),
    ]
    (group,) = duplicates._groups(pairs)
    assert group.items == [plain, turned, small]
    assert [one.words for one in group.tree][1] == "scaled 0.5×"


# Output ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=cmd()", "'=cmd()"),
        (" @x", "' @x"),
        ("-1+2", "'-1+2"),
        ("-0.25", "-0.25"),
        ("-1e-05", "-1e-05"),
        ("a=b", "a=b"),
        ("", ""),
        (-3, -3),
    ],
)
def test_names_are_no_formulas(text, shown):
    assert no_formula(text) == shown


def test_a_name_is_no_formula_in_the_table(tmp_path):
    first, second = Item(0, "a.png", "a.png", (4, 4)), Item(1, "=1+1.png", "b.png", (4, 4))
    duplicates_output._write_table(
        tmp_path / "x.csv", duplicates._groups([Pair(first, second, None)])
    )
    assert "'=1+1.png" in (tmp_path / "x.csv").read_text()


def written(run, path, **params):
    return vwkit.create("output", "duplicates", path=path, **params).write(run).read_text("utf-8")


def test_the_table(run, tmp_path):
    lines = list(csv.DictReader(written(run, tmp_path / "d.csv").splitlines()))
    assert {(line["of"], line["item"]): line["words"] for line in lines} == told(
        find_duplicates(run)
    )
    (mirror,) = (line for line in lines if line["words"] == "mirrored")
    assert mirror["mirrored"] == "true"
    assert float(mirror["scale"]) == pytest.approx(1, abs=0.01)
    (same,) = (line for line in lines if line["item"] == "e_of_c.png")
    assert same["inliers"] == ""


def test_the_json(run, tmp_path):
    groups = json.loads(written(run, tmp_path / "d.json"))
    assert sorted(sorted(one["items"]) for one in groups) == sorted(map(sorted, GROUPS))
    crop = next(
        pair for pair in groups[0]["pairs"] if (pair["of"], pair["item"]) == ("a.png", "a_crop.jpg")
    )
    np.testing.assert_allclose(crop["matrix"], [[1, 0, -32], [0, 1, -24]], atol=0.5)
    assert groups[2]["pairs"] == [
        {"of": "c.png", "item": "e_of_c.png", "identical": True, "words": "identical file"}
    ]


def test_the_page(run, tmp_path):
    text = written(run, tmp_path / "d.html")
    assert "10 of 13 pictures are in 4 groups" in text
    assert text.count('class="group"') == 4
    for words in WORDS.values():
        assert words in text
    assert "<script" not in text
    assert " src=" not in text
    # Each picture is stored once, in the page itself.
    assert text.count("<image ") == 10
    assert text.count('href="data:image/jpeg;base64,') == 10
    outline = text.split("<polygon", 1)[1]
    assert outline.count("points=") > 4


def test_names_are_text(photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    name = "<script>alert(1)</script>&\"' ü.png"
    scene(1).save(folder / name.replace("/", "_"))
    scene(1).crop((20, 20, 300, 230)).save(folder / "other.png")
    run = vwkit.Pipeline.from_dict(spec_of(folder)).run(tmp_path / "run")
    text = written(run, tmp_path / "d.html")
    assert "<script" not in text
    assert html.escape(name.replace("/", "_")) in text


def test_a_page_has_bounds(run, tmp_path):
    text = written(run, tmp_path / "d.html", groups=2, per_group=2, thumbnail=32)
    assert text.count('class="group"') == 2
    assert text.count("<image ") == 4
    assert "… and 2 more groups, of 2 pictures at most." in text
    assert "… and 2 more." in text
    assert len(text) < 60_000


def test_pictures_that_are_gone_leave_empty_frames(photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    run = vwkit.Pipeline.from_dict(spec_of(folder)).run(tmp_path / "run")
    find_duplicates(run)
    (folder / "a_crop.jpg").unlink()
    text = written(run, tmp_path / "d.html")
    assert "no picture" in text
    assert "crop (keeps 64 %)" in text


def test_what_does_not_fit(tmp_path, photos):
    with pytest.raises(vwkit.ParameterError, match=r"duplicates.path: .*\.html, \.json or \.csv"):
        vwkit.create("output", "duplicates", path=tmp_path / "d.txt")
    output = {"write": "duplicates", "path": str(tmp_path / "d.html")}
    spec = spec_of(photos, output=output, featurizer={"use": "colour-histogram"})
    with pytest.raises(vwkit.SpecError, match="duplicates needs a local featurizer, and the spec"):
        vwkit.Pipeline.from_dict(spec)
    del (spec := spec_of(photos, output=output))["index"]
    with pytest.raises(vwkit.SpecError, match="duplicates needs a index"):
        vwkit.Pipeline.from_dict(spec)
    spec = bag_spec(photos, output=output)
    with pytest.raises(
        vwkit.DataError, match="duplicates compares pictures by keypoints, and pixels"
    ):
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    plain = vwkit.Pipeline.from_dict(bag_spec(photos)).run(tmp_path / "plain")
    with pytest.raises(vwkit.UnsupportedError, match="its features have no keypoints"):
        find_duplicates(plain)
