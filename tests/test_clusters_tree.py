"""The output `dendrogram`: trees, cuts, the picture and the page."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import PIL.ImageFont
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vwkit
from tests.clustering import (
    Joined,
    Page,
    average_linkage,
    cluster_run,
    flat,
    output,
    write_photos,
)
from vwkit.outputs import dendrogram_picture
from vwkit.outputs.drawing import Drawing
from vwkit.outputs.tree import cut_sizes, lowest_cut, read_tree, shown
from vwkit.plugins import registered


@pytest.fixture(autouse=True)
def _joined():
    with registered(Joined):
        yield


@st.composite
def trees(draw, most=14):
    """A random linkage, inversions and equal heights included, and its number of rows."""
    rows = draw(st.integers(1, most))
    left = list(range(rows))
    table, counts = [], [1] * rows
    for step in range(rows - 1):
        a = left.pop(draw(st.integers(0, len(left) - 1)))
        b = left.pop(draw(st.integers(0, len(left) - 1)))
        counts.append(counts[a] + counts[b])
        table.append([a, b, draw(st.integers(0, 6)) / 2, counts[-1]])
        left.append(rows + step)
    return np.array(table, float).reshape(rows - 1, 4), rows


@given(trees())
def test_the_layout_is_that_of_the_tree(made):
    table, rows = made
    tree = read_tree(table, rows)
    assert sorted(tree.order.tolist()) == list(range(rows))
    for i, (left, right) in enumerate(tree.children.tolist(), rows):
        assert tree.below(i) == tree.below(left) + tree.below(right)
        assert tree.heights[i] >= max(tree.heights[left], tree.heights[right])
    assert tree.counts[-1] == rows
    assert tree.below(len(tree.heights) - 1, 2) == tree.order[:2].tolist()


@given(trees(), st.integers(0, 7), st.integers(1, 3))
def test_cuts_are_those_of_the_slow_way(made, half, min_size):
    table, rows = made
    cut = half / 2
    labels = flat(table, cut, min_size)
    ((sizes, alone),) = cut_sizes(read_tree(table, rows), [cut], min_size)
    counts = np.bincount(labels[labels >= 0])
    assert alone == (labels < 0).sum()
    assert dict(sizes) == {n: int((counts == n).sum()) for n in set(counts.tolist())}
    assert sizes == sorted(sizes, reverse=True)


@given(trees(), st.integers(0, 7))
def test_the_lowest_cut_gives_the_same_clusters(made, half):
    table, rows = made
    tree = read_tree(table, rows)
    labels = flat(table, half / 2, 1)
    cut = lowest_cut(tree, labels)
    assert cut <= half / 2
    assert (flat(table, cut, 1) == labels).all()


@given(trees(), st.integers(2, 8))
def test_the_top_of_a_tree(made, most):
    table, rows = made
    tree = read_tree(table, rows)
    top = shown(tree, most)
    assert len(top.nodes) == min(most, rows)
    assert len(top.merges) == len(top.nodes) - 1
    assert [row for node in top.nodes for row in tree.below(node)] == tree.order.tolist()
    for i, (left, right) in enumerate(top.merges, len(top.nodes)):
        assert max(left, right) < i
        assert min(top.places[left], top.places[right]) < top.places[i]
        assert top.heights[i] >= max(top.heights[left], top.heights[right])


@given(trees())
def test_scipy_agrees(made):
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    table, rows = made
    tree = read_tree(table, rows)
    if rows < 2:
        return
    for cut in (0.0, 1.0, 2.5):
        groups = hierarchy.fcluster(table, cut, criterion="distance")
        ((sizes, alone),) = cut_sizes(tree, [cut], 1)
        assert sorted(n for n, many in sizes for _ in range(many)) == sorted(
            np.bincount(groups)[1:].tolist()
        )
        assert alone == 0


@pytest.mark.parametrize(
    "table",
    [
        np.zeros((2, 3)),
        np.zeros((1, 4)),
        np.array([[0, 1, 1, 2], [0, 2, 2, 3.0]]),  # 0 twice
        np.array([[0, 3, 1, 2], [1, 2, 2, 3.0]]),  # not there yet
        np.array([[0, 1.5, 1, 2], [2, 3, 2, 3.0]]),
        np.array([[0, 1, np.nan, 2], [2, 3, 2, 3.0]]),
        np.array([[0, 1, -1, 2], [2, 3, 2, 3.0]]),
        np.array([[0, -1, 1, 2], [2, 3, 2, 3.0]]),
        np.array([["a", "b", "c", "d"]] * 2),
    ],
)
def test_what_is_no_tree_is_refused(table):
    with pytest.raises(vwkit.DataError, match="tree: "):
        read_tree(table, 3)


def test_a_deep_tree_of_many_rows():
    """A chain, as single linkage makes them: nothing recurses, nothing is quadratic."""
    rows = 200_000
    table = np.empty((rows - 1, 4))
    table[:, 0] = np.r_[0, np.arange(rows, 2 * rows - 2)]
    table[:, 1] = np.arange(1, rows)
    table[:, 2] = np.arange(1, rows)
    table[:, 3] = np.arange(2, rows + 1)
    tree = read_tree(table, rows)
    top = shown(tree, 150)
    assert tree.counts[top.nodes].sum() == rows
    cuts = [0.0, 1000.5, float(rows)]
    assert cut_sizes(tree, cuts, 2) == [([], rows), ([(1001, 1)], rows - 1001), ([(rows, 1)], 0)]


# What is written ---------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    return cluster_run(write_photos(tmp_path / "photos"), tmp_path / "run")


def page_data(page):
    """Return the numbers that the script reads."""
    found = re.search(r'<template id="tree-data">(.*?)</template>', page.source)
    return json.loads(html.unescape(found[1]))


def test_the_page(run, tmp_path):
    page = Page(output("dendrogram", tmp_path / "d.html").write(run).read_text(), scripts=1)
    assert len(page.all("img")) == 9
    names = [one["title"] for one in page.all("span") if one.get("class") == "what"]
    tree = read_tree(run.clusterer.tree, 9)
    assert names == [run.kept[row].id for row in tree.order]
    data = page_data(page)
    assert data["similarities"][data["start"]] == 0.6
    assert data["cuts"][data["start"]] == (1 - 0.6) * run.clusterer.diameter
    # For every place of the slider, the numbers are those of a run with that similarity.
    for cut, found in zip(data["cuts"], data["sizes"], strict=True):
        labels = flat(run.clusterer.tree, cut, 2)
        assert found["clusters"] == labels.max() + 1
        assert found["alone"] == (labels < 0).sum()
        sizes = [size for size, count in found["sizes"] for _ in range(count)]
        assert sizes == np.bincount(labels[labels >= 0]).tolist()[: len(sizes)]
    row = {item.id: i for i, item in enumerate(run.kept)}
    assert data["labels"] == [int(run.item_labels[row[name]]) for name in names]


def test_names_cannot_leave_their_place(tmp_path):
    photos = write_photos(tmp_path / "photos", alone=0)
    name = "g0/<template><!--&quot;'.png"
    shutil.copy(photos / "g0/c0.png", photos / name)
    run = cluster_run(photos, tmp_path / "run")
    page = Page(output("dendrogram", tmp_path / "d.html").write(run).read_text(), scripts=1)
    assert name in [one.get("title") for one in page.all("span")]
    policy = next(one["content"] for one in page.all("meta") if "content" in one)
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline'; script" in policy
    assert "png" not in json.dumps(page_data(page))


def test_a_truncated_page(run, tmp_path):
    page = Page(
        output("dendrogram", tmp_path / "d.html", leaves=3).write(run).read_text(), scripts=1
    )
    data = page_data(page)
    assert len(data["counts"]) == 3
    assert sum(data["counts"]) == 9
    assert "The last 2 merges of 9 images" in page.words
    assert re.search(r"\d images: ", page.words)
    whole = Page(output("dendrogram", tmp_path / "w.html").write(run).read_text(), scripts=1)
    assert data["sizes"] == page_data(whole)["sizes"]


def test_without_pictures(run, tmp_path):
    made = output("dendrogram", tmp_path / "d.html", pictures=0).write(run)
    assert Page(made.read_text(), scripts=1).all("img") == []


@pytest.mark.parametrize("name", ["d.html", "d.png"])
@pytest.mark.parametrize("photos", [1, 2])
def test_the_smallest_trees(tmp_path, name, photos):
    folder = write_photos(tmp_path / "photos", groups=0, alone=photos)
    run = cluster_run(folder, tmp_path / "run")
    assert output("dendrogram", tmp_path / name).write(run).stat().st_size > 0


def test_equal_photos_have_a_tree_of_no_height(tmp_path):
    folder = write_photos(tmp_path / "photos", groups=0, alone=1)
    for i in range(3):
        shutil.copy(folder / "alone 0.png", folder / f"copy{i}.png")
    run = cluster_run(folder, tmp_path / "run")
    page = Page(output("dendrogram", tmp_path / "d.html").write(run).read_text(), scripts=1)
    assert page_data(page)["sizes"][-1] == {"sizes": [[4, 1]], "clusters": 1, "rest": 0, "alone": 0}
    output("dendrogram", tmp_path / "d.png").write(run)


def test_the_picture(run, tmp_path):
    path = output("dendrogram", tmp_path / "d.png", thumbnail=30).write(run)
    with PIL.Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image).reshape(-1, 3)
    colours = {tuple(row) for row in np.unique(pixels, axis=0).tolist()}
    for colour in ("#0072b2", "#d55e00", "#009e73", "#cc3311"):  # three clusters and the cut
        assert tuple(bytes.fromhex(colour[1:])) in colours
    again = output("dendrogram", tmp_path / "e.png", thumbnail=30).write(run)
    assert again.read_bytes() == path.read_bytes()


def test_photos_that_are_gone_leave_their_place_empty(run, tmp_path):
    shutil.rmtree(tmp_path / "photos/g0")
    page = Page(output("dendrogram", tmp_path / "d.html").write(run).read_text(), scripts=1)
    assert len(page.all("img")) == 6
    output("dendrogram", tmp_path / "d.png").write(run)


def test_any_hierarchical_clusterer_has_a_page(tmp_path):
    """Without a word on diameter or similarity, the tree's own top and the labels tell."""

    @vwkit.backend("bare")
    class Bare(vwkit.Clusterer):
        """Two groups and one left over."""

        has_centers = False
        supports_predict = False
        fixed_k = False
        hierarchical = True

        def _fit(self, data, weights):
            self.tree, _ = average_linkage(np.asarray(data))
            self.labels = flat(self.tree, self.tree[-2, 2], 1)
            self.objective = []

    with registered(Bare):
        folder = write_photos(tmp_path / "photos", groups=2, copies=2, alone=0)
        run = cluster_run(folder, tmp_path / "run", {"use": "bare"})
        page = Page(output("dendrogram", tmp_path / "d.html").write(run).read_text(), scripts=1)
    data = page_data(page)
    tree = run.clusterer.tree
    assert data["cuts"][data["start"]] == tree[-2, 2]
    assert data["similarities"][data["start"]] == pytest.approx(1 - tree[-2, 2] / tree[-1, 2])
    assert data["cuts"][0] == tree[-1, 2]
    assert "--set" not in page.words


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to run the page's script with")
def test_the_script_cuts_anew(run, tmp_path):
    output("dendrogram", tmp_path / "d.html").write(run)
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
    ]
    for similarity, said in (("0.6", "8 images in 3 clusters, 1 image in none"),
                             ("0", "9 images in 1 cluster")):  # fmt: skip
        url = f"{(tmp_path / 'd.html').as_uri()}#{similarity}"
        done = subprocess.run(
            [*command, url], capture_output=True, text=True, timeout=120, check=True
        )
        assert f'id="said" class="said" role="status">{said}<' in done.stdout
        clusters = re.findall(r"<h3[^>]*>(Cluster \d+ · \d+ images)</h3>", done.stdout)
        assert (
            clusters
            == {
                "0.6": ["Cluster 0 · 3 images", "Cluster 1 · 3 images", "Cluster 2 · 2 images"],
                "0": ["Cluster 0 · 9 images"],
            }[similarity]
        )


@pytest.mark.parametrize(
    "cut", [{"clusters": 3}, {"height": 0.5}, {"similarity": 0.6, "scale": "root"}]
)
def test_however_the_plugin_cuts(tmp_path, cut):
    pytest.importorskip("vwkit_scipy")
    folder = write_photos(tmp_path / "photos")
    run = cluster_run(folder, tmp_path / "run", {"use": "agglomerative", **cut})
    page = Page(output("dendrogram", tmp_path / "d.html").write(run).read_text(), scripts=1)
    data = page_data(page)
    found = data["sizes"][data["start"]]
    assert found["clusters"] == len(run.clusters)
    assert found["alone"] == len(run.unclustered)
    output("dendrogram", tmp_path / "d.png").write(run)


def test_an_axis_of_merges_that_are_all_near_1():
    """Single linkage of many rows, say: the slider is where the merges are."""
    table = np.array([[0, 1, 0.001, 2], [2, 3, 0.002, 3]])
    tree = read_tree(table, 3)
    labels = np.array([0, 0, -1], np.int32)
    made = Drawing(tree, shown(tree, 9), [], labels, 1.0, 0.9985, 0.0015, 2, 0)
    assert 0.997 < made.low < 0.998
    assert made.digits == 5
    assert made.across(0.0) == 1
    assert 0 < made.across(0.002) < 0.2
    texts = [text for _, text in made.ticks()]
    assert len(set(texts)) == len(texts) == 3
    high = Drawing(tree, shown(tree, 9), [], labels, 0.001, 0.5, 0.0005, 2, 0)
    assert high.low == -1  # a tree twice as high as similarity 0
    assert high.across(0.001) == 0.5


def test_names_of_the_picture_can_be_drawn(run, tmp_path, monkeypatch):
    """Pillow's own font has ASCII; other names need one of the system, or lose their accents."""
    monkeypatch.setattr("vwkit.outputs.dendrogram_picture._FONTS", ("no such font.ttf",))
    font = dendrogram_picture._font(plain=False)
    assert dendrogram_picture._fitting(font, "été 写.jpg", 300) == "ete ?.jpg"
    assert dendrogram_picture._fitting(font, "a\nb\u202e.jpg", 300) == "a?b?.jpg"
    long = dendrogram_picture._fitting(font, "x" * 5000, 100)
    assert long.endswith("x...")
    assert font.getlength(long) <= 100
    if hasattr(PIL.ImageFont, "load_default_imagefont"):  # as of a Pillow without FreeType
        small = PIL.ImageFont.load_default_imagefont()
        monkeypatch.setattr(dendrogram_picture, "_font", lambda plain: small)
        output("dendrogram", tmp_path / "d.png", leaves=4).write(run)
