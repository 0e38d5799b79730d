"""Reports and search pages: sound HTML, nothing from outside, honest when something is missing."""

import base64
import io
import re
import shutil
import warnings
from html.parser import HTMLParser

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vwkit
from tests.helpers import photo_folder, picture, vector_spec
from vwkit.plugins import registered
from vwkit.report import write_report
from vwkit.report.markup import Html, tag
from vwkit.report.pictures import PATCH, patch, spread
from vwkit.report.search_page import write_search_page
from vwkit.report.searches import find_examples
from vwkit.report.svg import bar_chart, compact, line_chart
from vwkit.report.words import groups_of, word_counts
from vwkit.types import Features, Matches

VOID = {"br", "hr", "img", "meta"}


class Page(HTMLParser):
    """A page taken apart; badly nested elements are an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, name, attributes):
        assert len(dict(attributes)) == len(attributes), f"repeated attribute in {name}"
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open, f"</{name}> closes nothing"
        assert self.open.pop() == name

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def all(self, name, class_=None):
        return [
            attributes
            for found, attributes in self.elements
            if found == name and (class_ is None or class_ in attributes.get("class", "").split())
        ]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    @property
    def headings(self):
        return re.findall(r"<h2>([^<]*)</h2>", self.source)


def read(path):
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    page.source = source
    assert source.startswith("<!doctype html>\n<html lang=")
    check_alone(page)
    check_accessible(page)
    return page


def check_alone(page):
    """Nothing is fetched and nothing runs."""
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {
        n for n, _ in page.elements
    }
    for name, attributes in page.elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (name, key)
            if key in ("src", "href", "srcset", "action", "data"):
                assert value.startswith("data:image/jpeg;base64,"), (name, key)
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style
    assert "default-src 'none'" in str(page.all("meta"))


def check_accessible(page):
    assert len(page.all("h1")) == 1
    assert len(page.all("title")) >= 1
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert "prefers-color-scheme:dark" in page.source
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))


def decoded(uri):
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    with PIL.Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


@vwkit.backend("cells")
class Cells(vwkit.Featurizer):
    """A grid of grey cells with keypoints: a local featurizer that needs no library."""

    local = True
    deterministic = True

    @property
    def dim(self):
        return 16

    def _extract(self, images):
        found = []
        for image in images:
            h, w = (side // 8 for side in image.gray.shape)
            cells = image.gray[: h * 8, : w * 8].reshape(h, 8, w, 8).swapaxes(1, 2)
            vectors = cells.reshape(h * w, 8, 8)[:, ::2, ::2].reshape(h * w, 16).astype(np.float32)
            y, x = (axis.ravel() * 8 + 3.5 for axis in np.mgrid[:h, :w])
            points = np.stack([x, y, np.full(h * w, 5), x * 3, vectors.max(1)], 1)
            found.append(Features(vectors, points.astype(np.float32), image.size))
        return found


@vwkit.backend("mean-colour")
class MeanColour(vwkit.Featurizer):
    """One vector per image."""

    @property
    def dim(self):
        return 3

    def _extract(self, images):
        means = [image.rgb.reshape(-1, 3).mean(0)[None].astype(np.float32) for image in images]
        return [Features(mean, None, image.size) for mean, image in zip(means, images, strict=True)]


@vwkit.backend("graded")
class Graded(vwkit.Clusterer):
    """Labels -1, 0, 1, 2 in turn; without centers."""

    has_centers = False
    supports_predict = False
    fixed_k = False

    def _fit(self, data, weights):
        self.labels = (np.arange(len(data)) % 4 - 1).astype(np.int32)
        self.objective = []


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _own_backends():
    with registered(Cells), registered(MeanColour):
        yield


def run_of(tmp_path, spec):
    return vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")


def bag(tmp_path, **slots):
    truth = photo_folder(tmp_path / "photos", groups=4, copies=3)
    local = {"use": "cells"}
    vocabulary = {"use": "lloyd", "k": 20, "iterations": 4}
    spec = {
        "vwkit": 1,
        "images": {"path": str(tmp_path / "photos")},
        "featurizer": {"use": "bag-of-words", "local": local, "vocabulary": vocabulary},
        "index": {"use": "inverted"},
        "evaluate": {"protocol": "groups", "groundtruth": str(truth), "exclude_query": True},
    }
    return {**spec, **slots}


# Whole pages -----------------------------------------------------------------------------------


def test_report_of_images_shows_searches_words_scores_and_stages(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    page = read(run.folder / "report.html")
    assert page.headings == [
        "Search", "Scores", "What the words look like", "Words", "Learning", "Stages", "Accounts",
        "To repeat it",
    ]  # fmt: skip
    assert f"mAP {run.scores['mAP']:.3f} 12 queries" in page.words
    for stage in run.manifest["stages"]:
        assert stage in page.words
    # Six queries of twelve, the best first and the worst last, six results each.
    assert len(page.all("li", "asked")) == 6
    assert len(page.all("li", "right")) + len(page.all("li", "wrong")) == 36
    ranked = sorted(run.scores["average_precision"].values())
    said = [float(x) for x in re.findall(r"average precision (\d\.\d+)", page.source)]
    assert said[0] == pytest.approx(ranked[-1], abs=5e-4)
    assert said[-1] == pytest.approx(ranked[0], abs=5e-4)
    assert (run.folder / "report.html").stat().st_size < 5_000_000


def test_right_and_wrong_are_those_of_the_ground_truth(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    examples = find_examples(run)
    assert len(examples) == 6
    for example in examples:
        assert example.query.row not in [item.row for item, _ in example.found]
        distances = [distance for _, distance in example.found]
        assert distances == sorted(distances)
        group = example.query.id.split("/")[0]
        for item, _ in example.found:
            assert example.kinds[item.id] == (
                "right" if item.id.startswith(group + "/") else "wrong"
            )


def test_junk_is_neither_right_nor_wrong(tmp_path):
    spec = bag(tmp_path)
    truth = tmp_path / "junk.csv"
    truth.write_text("g0/c0.png,g0/c1.png,relevant\ng0/c0.png,g0/c2.png,junk\n")
    spec["evaluate"]["groundtruth"] = str(truth)
    (example,) = find_examples(run_of(tmp_path, spec))
    assert example.kinds["g0/c1.png"] == "right"
    assert "g0/c2.png" in [item.id for item, _ in example.found]
    assert "g0/c2.png" not in example.kinds


def test_ground_truth_that_is_gone_leaves_the_scores(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    (tmp_path / "groups.csv").unlink()
    write_report(run, tmp_path / "again.html")
    page = read(tmp_path / "again.html")
    assert "Scores" in page.headings
    assert len(page.all("li", "right")) == 0
    assert len(page.all("li", "asked")) == 6


def test_patches_show_the_words_where_they_are(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    page = read(run.folder / "report.html")
    lines = page.all("div", "word")
    patches = [image for image in page.all("img") if image.get("width") == str(PATCH)]
    assert 2 <= len(lines) <= 12
    assert len(lines) <= len(patches) <= 8 * len(lines)
    words = run.words
    for image in patches:
        word, name = re.fullmatch(r"Word (\d+) in (.+)", image["alt"]).groups()
        row = [item.id for item in run.kept].index(name)
        assert int(word) in words.words[words.offsets[row] : words.offsets[row + 1]]
        assert decoded(image["src"]).size == (PATCH, PATCH)


def test_two_reports_of_one_run_are_the_same_bytes(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    write_report(run, tmp_path / "one.html")
    write_report(vwkit.Run.open(run.folder), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_vanished_images_are_left_out(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    (tmp_path / "photos/g0/c0.png").unlink()
    (tmp_path / "photos/g1/c0.png").write_bytes(b"not an image any more")
    write_report(run, tmp_path / "some.html")
    some = read(tmp_path / "some.html")
    assert "What the words look like" in some.headings
    assert "no picture" in some.words
    assert not [i for i in some.all("img") if i["alt"].endswith(("g0/c0.png", "g1/c0.png"))]
    shutil.rmtree(tmp_path / "photos")
    write_report(run, tmp_path / "none.html")
    none = read(tmp_path / "none.html")
    assert none.all("img") == []
    assert "What the words look like" not in none.headings
    assert "Search" in none.headings  # names and distances are still worth reading
    assert len(none.all("li", "asked")) == 6


def test_skipped_items_are_listed_with_their_reasons(tmp_path):
    spec = bag(tmp_path)
    (tmp_path / "photos/torn.png").write_bytes(b"\x89PNG")
    with pytest.warns(vwkit.SkippedItems):
        run = run_of(tmp_path, spec)
    page = read(run.folder / "report.html")
    assert "Skipped" in page.headings
    assert "torn.png" in page.words
    assert run.items[-1].reason in page.words
    assert "Images 12 1 skipped" in page.words


def test_vectors_only(tmp_path):
    spec = vector_spec(
        tmp_path, clusterer={"use": "lloyd", "k": 12, "iterations": 3}, index={"use": "exact"}
    )
    page = read(run_of(tmp_path, spec).folder / "report.html")
    assert page.headings == ["Words", "Learning", "Stages", "To repeat it"]
    assert "Vectors 600 Words 12 Dimensions 8" in page.words
    assert page.all("img") == []
    assert len(page.all("svg")) == 3


def test_neither_clusterer_nor_index(tmp_path):
    spec = vector_spec(tmp_path, quantizer={"use": "pq", "m": 2, "ks": 16})
    page = read(run_of(tmp_path, spec).folder / "report.html")
    assert page.headings == ["Stages", "To repeat it"]
    assert "Dimensions 8" in page.words


def test_images_without_an_index_are_shown(tmp_path):
    spec = bag(tmp_path, featurizer={"use": "mean-colour"})
    del spec["index"], spec["evaluate"]
    page = read(run_of(tmp_path, spec).folder / "report.html")
    assert page.headings == ["Images", "Stages", "Accounts", "To repeat it"]
    assert [image["alt"] for image in page.all("img")] == [
        f"g{g}/c{c}.png" for g in range(4) for c in range(3)
    ]


def test_grouped_images_are_shown_by_group(tmp_path):
    clusterer = {"use": "lloyd", "k": 4, "iterations": 5}
    spec = bag(tmp_path, featurizer={"use": "mean-colour"}, clusterer=clusterer)
    run = run_of(tmp_path, spec)
    page = read(run.folder / "report.html")
    assert "Clusters of images" in page.headings
    assert "Words" not in page.headings
    shown = [image["alt"] for image in page.all("img") if image["alt"].startswith("Cluster")]
    labels = groups_of(run)
    assert sorted(shown) == sorted(
        f"Cluster {label}: {item.id}" for label, item in zip(labels, run.kept, strict=True)
    )


def test_images_in_no_group_are_counted(tmp_path):
    spec = bag(tmp_path, featurizer={"use": "mean-colour"}, clusterer={"use": "graded"})
    del spec["index"], spec["evaluate"]
    with registered(Graded):
        page = read(run_of(tmp_path, spec).folder / "report.html")
    assert "Clusters 3 3 in none" in page.words
    assert "9 images in 3 clusters, 3 images in none." in page.words
    assert "Images in a cluster Clusters 3 3" in page.words
    shown = [image["alt"] for image in page.all("img") if image["alt"].startswith("Cluster")]
    assert len(shown) == 9
    assert "Learning" not in page.headings


@pytest.mark.parametrize("clusterer", [{"use": "lloyd", "k": 10}, {"use": "graded"}])
def test_local_features_clustered_without_a_bag(tmp_path, clusterer):
    transform = [{"use": "l2-norm"}]
    spec = bag(tmp_path, featurizer={"use": "cells"}, clusterer=clusterer, transform=transform)
    del spec["evaluate"]
    spec["index"] = {"use": "exact"}
    with registered(Graded):
        page = read(run_of(tmp_path, spec).folder / "report.html")
    assert "What the words look like" in page.headings
    assert "Search" not in page.headings  # each descriptor would find itself
    assert "Images" in page.headings


def test_a_saved_vocabulary_is_shown_without_its_learning(tmp_path):
    first = run_of(tmp_path, bag(tmp_path))
    first.vocabulary.save(tmp_path / "vocabulary")
    spec = bag(tmp_path)
    spec["featurizer"]["vocabulary"] = str(tmp_path / "vocabulary")
    page = read(vwkit.Pipeline.from_dict(spec).run(tmp_path / "second").folder / "report.html")
    assert {"What the words look like", "Words"} <= set(page.headings)
    assert "Learning" not in page.headings


# Untrusted text --------------------------------------------------------------------------------

NASTY = "<img src=x onerror=alert(1)>&\"'</style><script>alert(2)</script>"


def test_names_and_reasons_bring_no_markup(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    # A slash cannot be in a file name, so closing tags come by the folders' names.
    names = ["<b>bold.png", '"onload=alert(1) x=".png', "'&lt;.png", "</title><script>x.png"]
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(folder / name, "PNG")
    (folder / "<i>torn.png").write_bytes(b"no image")
    spec = bag(tmp_path, images={"path": str(folder)})
    del spec["evaluate"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vwkit.SkippedItems)
        run = run_of(tmp_path, spec)
    page = read(run.folder / "report.html")
    for name in [*names, "<i>torn.png"]:
        assert name in page.text or name in page.words
    assert "<b>bold" not in page.source
    assert "<script" not in page.source
    assert "onload" not in {key for _, attributes in page.elements for key in attributes}


@given(st.text(), st.text())
def test_any_text_stays_text(text, value):
    page = Page(tag("p", text, title=value))
    assert [(name, list(attributes)) for name, attributes in page.elements] == [("p", ["title"])]
    if text.isprintable() and value.isprintable():
        assert "".join(page.text) == text
        assert page.elements[0][1]["title"] == value


@pytest.mark.parametrize("text", [NASTY, "&lt;b&gt;", "<", "]]>", "<!--", "\x00<p>", "é☃"])
def test_hostile_text_stays_text(text):
    page = Page(tag("p", text, title=text))
    assert [(name, list(attributes)) for name, attributes in page.elements] == [("p", ["title"])]
    assert "".join(page.text) == text.replace("\x00", "\ufffd")


def test_markup_is_kept_and_text_is_not():
    inner = tag("b", NASTY)
    assert isinstance(inner, Html)
    assert tag("p", inner, NASTY).count("<b>") == 1
    assert Page(tag("p", inner, NASTY)).text == [NASTY, NASTY]
    assert tag("i", None, 3, hidden=True, title=None, class_="x") == '<i hidden class="x">3</i>'
    assert "\u202e" not in tag("p", "abc\u202egnp.exe")
    assert "\\udc80" in tag("p", "\udc80")


# Search pages ----------------------------------------------------------------------------------


def test_search_page_shows_each_query_and_its_results(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    outside = tmp_path / "new <query>.png"
    picture(2).save(outside)
    queries = ["g0/c1.png", str(outside), picture(3), np.asarray(picture(1))]
    matches = run.search(queries, 5)
    write_search_page(run, matches, queries, tmp_path / "page.html")
    page = read(tmp_path / "page.html")
    assert page.headings == ["g0/c1.png", "new &lt;query&gt;.png", "query 3", "query 4"]
    assert len(page.all("li", "asked")) == 4
    assert len(page.all("img")) == 4 * (1 + 5)
    for row, distances in zip(matches.items, matches.distances, strict=True):
        for rank, (item, distance) in enumerate(zip(row, distances, strict=True), 1):
            assert f"{rank} · {distance:.3f} {item.id}" in page.words


def test_search_page_when_nothing_is_found_or_the_files_are_gone(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    matches = run.search(["g0/c1.png"], 3)
    none = Matches(np.full((1, 3), -1), np.full((1, 3), np.inf, np.float32), [[None] * 3])
    write_search_page(run, none, ["g0/c1.png"], tmp_path / "none.html")
    assert "Nothing was found." in read(tmp_path / "none.html").words
    shutil.rmtree(tmp_path / "photos")
    write_search_page(run, matches, ["g0/c1.png"], tmp_path / "gone.html")
    page = read(tmp_path / "gone.html")
    assert page.all("img") == []
    assert page.words.count("no picture") == 4


def test_search_page_refuses_what_has_no_pictures(tmp_path):
    run = run_of(tmp_path, bag(tmp_path))
    matches = run.search(["g0/c1.png"], 3)
    with pytest.raises(vwkit.DataError, match="2 queries for 1 rows"):
        write_search_page(run, matches, ["g0/c1.png"] * 2, tmp_path / "x.html")
    bare = Matches(matches.ids, matches.distances)
    with pytest.raises(vwkit.UnsupportedError, match="only images"):
        write_search_page(run, bare, ["g0/c1.png"], tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


# Small parts -----------------------------------------------------------------------------------


def test_patch_is_turned_upright():
    """Left of the keypoint dark, right of it light: upright along the angle it was seen at."""
    x, y = np.meshgrid(np.arange(200.0), np.arange(200.0))
    for angle in (0, 30, 90, 200, 315):
        direction = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        side = (x - 90) * direction[0] + (y - 110) * direction[1]
        gray = np.where(side > 0, 220, 30).astype(np.uint8)
        made = np.asarray(patch(PIL.Image.fromarray(gray).convert("RGB"), (90, 110, 8, angle)))
        assert made.shape == (PATCH, PATCH, 3)
        half = PATCH // 2
        assert made[:, : half - 3].max() < 60, angle
        assert made[:, half + 3 :].min() > 190, angle


def test_patch_size_follows_the_scale():
    """A white square of 6 diameters fills the patch, whatever the diameter."""
    for scale in (4, 10, 40):
        gray = np.zeros((400, 400), np.uint8)
        gray[200 - 3 * scale : 200 + 3 * scale, 200 - 3 * scale : 200 + 3 * scale] = 255
        made = patch(PIL.Image.fromarray(gray).convert("RGB"), (199.5, 199.5, scale, 0))
        inner = np.asarray(made)[3:-3, 3:-3]
        assert inner.min() > 200, scale
        wide = patch(PIL.Image.fromarray(gray).convert("RGB"), (199.5, 199.5, 1.3 * scale, 0))
        assert np.asarray(wide)[:3].max() < 60, scale


@given(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True, width=32)] * 4),
       st.integers(1, 40), st.integers(1, 40))  # fmt: skip
def test_patch_of_any_keypoint(keypoint, width, height):
    made = patch(PIL.Image.new("RGB", (width, height), (9, 9, 9)), keypoint)
    assert made.size == (PATCH, PATCH)


def test_word_counts_in_chunks(monkeypatch):
    from vwkit.report import words

    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 30, 1000).astype(np.int32)
    want = np.bincount(labels[labels >= 0], minlength=40)
    monkeypatch.setattr(words, "_CHUNK", 37)
    assert (word_counts(labels, 40) == want).all()
    assert (word_counts(labels.view(np.uint32), 40) == want).all()
    assert (word_counts(labels) == np.bincount(labels[labels >= 0])).all()


@given(st.integers(1, 5000), st.integers(2, 50), st.booleans())
def test_spread(count, most, log):
    places = spread(count, most, log=log)
    assert places == sorted(set(places))
    assert (places[0], places[-1]) == (0, count - 1)
    assert len(places) <= most
    assert len(places) == min(count, most) or log


numbers = st.floats(-1e18, 1e18, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-18)


@given(st.lists(numbers, min_size=1, max_size=30), st.booleans())
def test_charts_of_any_numbers_stay_inside(values, whole):
    points = [(i + 1.0, value) for i, value in enumerate(values)]
    chart = line_chart(points, title="t", x_label="x", y_label="y", whole_x=whole)
    check_chart(chart)
    positive = [(i + 1.0, abs(value) + 1e-3) for i, value in enumerate(values)]
    check_chart(line_chart(positive, title="t", x_label="x", y_label="y", log=True))


@given(st.lists(st.integers(0, 10**9), min_size=10, max_size=10))
def test_histograms_stay_inside(counts):
    edges = [i / 10 for i in range(11)]
    page = check_chart(bar_chart(counts, edges, title="t", x_label="x", y_label="y"))
    assert len(page.all("rect")) == 10


def check_chart(chart):
    page = Page(chart)
    (svg,) = page.all("svg")
    _, _, width, height = map(float, svg["viewbox"].split())
    for line in page.all("polyline"):
        for pair in line["points"].split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    for name in ("x", "x1", "x2", "cx", "y", "y1", "y2", "cy"):
        limit = width if name[-1] == "x" or name[0] == "x" else height
        for _, attributes in page.elements:
            if name in attributes:
                assert -0.1 <= float(attributes[name]) <= limit + 0.1
    ticks = page.all("text")
    assert len(ticks) >= 4  # two labels and at least a tick each way
    return page


def test_compact_numbers():
    said = [0, 1, 0.25, 12.3456, 999, 1234, 12_345, 1_234_567, 5e9, 1e-9, float("nan")]
    want = ["0", "1", "0.25", "12.35", "999", "1,234", "12.35k", "1.235M", "5G", "1.00e-09", "-"]
    assert [compact(value) for value in said] == want


def test_a_long_spec_is_cut(tmp_path):
    from vwkit.report import sections

    run = run_of(tmp_path, vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 3}))
    run.manifest["spec"]["note"] = ["x" * 50] * 5000
    assert len(sections.spec_section(run)) < 2 * sections._SPEC_LETTERS
    assert "has it all" in sections.spec_section(run)


def test_scores_of_a_stranger_are_shown_as_they_are(tmp_path):
    from vwkit.report import sections

    run = run_of(tmp_path, vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 3}))
    run.manifest["scores"] = {"mAP": None, "recall_at_10": 0.5, "note": "<x>", "more": {"a": [1]}}
    page = Page(sections.score_section(run))
    assert "recall at 10 0.5000" in " ".join(page.text)
    assert "<x>" in page.text
