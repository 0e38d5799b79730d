"""What a notebook shows of runs, matches and clusters."""

import re

import numpy as np
import pytest

import vwkit
from tests.clustering import Joined, Page, cluster_run, cluster_spec, write_photos
from tests.helpers import picture, vector_spec
from vwkit.plugins import registered


@pytest.fixture(autouse=True)
def _joined():
    with registered(Joined):
        yield


@pytest.fixture
def run(tmp_path):
    return cluster_run(write_photos(tmp_path / "photos"), tmp_path / "run", index={"use": "exact"})


def shown(value):
    """Take apart what a notebook shows; it is one piece, without script or style sheet."""
    text = value._repr_html_()
    assert type(text) is str or isinstance(text, str)
    assert text.startswith("<div")
    assert "<style" not in text
    assert len(text) < 400_000
    return Page(text)


def names(page):
    return [image["alt"] for image in page.all("img")]


def test_a_run(run):
    page = shown(run)
    assert "colour-histogram → joined (similarity 0.6) → exact (l2)" in page.words
    assert "8 images in 3 clusters, 1 image in none." in page.words
    assert "images : clusters 3 : 2, 2 : 1" in page.words
    assert names(page)[:3] == ["g0/c0.png", "g0/c1.png", "g0/c2.png"]


def test_a_run_without_clusters(tmp_path):
    photos = write_photos(tmp_path / "photos", groups=4)
    (photos / "broken.png").write_bytes(b"no")
    spec = cluster_spec(photos)
    del spec["clusterer"]
    with pytest.warns(vwkit.SkippedItems):
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    page = shown(run)
    assert "12 images · 1 skipped" in page.words
    assert len(names(page)) == 8  # a few of them


def test_a_run_of_vectors(tmp_path):
    spec = vector_spec(
        tmp_path, clusterer={"use": "lloyd", "k": 4, "iterations": 2}, index={"use": "exact"}
    )
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    page = shown(run)
    assert "600 descriptors · 4 words" in page.words
    assert names(page) == []
    page = shown(run.search(np.zeros((2, 8), np.float32), 3))
    assert "Matches of 2 queries" in page.words
    assert re.search(r"query 1 \d+ \(", page.words)


def test_matches(run):
    page = shown(run.search(["g0/c0.png", "g1/c0.png"], 3))
    assert "Matches of 2 queries query 0" in page.words
    assert sorted(names(page)) == [f"g{g}/c{c}.png" for g in range(2) for c in range(3)]
    assert "0.000" in page.words


def test_many_matches_are_cut(run):
    ids = [item.id for item in run.kept]
    page = shown(run.search(ids * 2, 9))
    assert len(names(page)) == 8 * 8
    assert "… and 1 more found" in page.words
    assert "… and 10 more queries" in page.words


def test_no_match():
    matches = vwkit.Matches(np.full((1, 2), -1), np.full((1, 2), np.inf, np.float32))
    assert "Matches of 1 query query 0 nothing was found" in shown(matches).words
    none = vwkit.Matches(np.empty((0, 2), np.int64), np.empty((0, 2), np.float32))
    assert "Matches of 0 queries" in shown(none).words


def test_clusters(run):
    page = shown(run.clusters)
    assert "8 images in 3 clusters." in page.words
    assert "Cluster 1 · 3 images" in page.words
    assert len(names(page)) == 8
    page = shown(run.clusters[2])
    assert page.words.startswith("Cluster 2 · 2 images")
    assert names(page) == ["g2/c0.png", "g2/c1.png"]
    assert run.clusters == list(run.clusters)


def test_large_clusters_are_cut(tmp_path):
    folder = write_photos(tmp_path / "photos", groups=1, copies=12, alone=0)
    run = cluster_run(folder, tmp_path / "run", {"use": "lloyd", "k": 1})
    page = shown(run.clusters)
    assert len(names(page)) == 8
    assert "… and 3 more images" in page.words


def test_photos_that_are_gone(run, tmp_path):
    (tmp_path / "photos/g2/c0.png").unlink()
    page = shown(run.clusters[2])
    assert names(page) == ["g2/c1.png"]
    assert "no picture g2/c0.png" in page.words


def test_names_are_text(tmp_path):
    folder = write_photos(tmp_path / "photos", alone=0)
    name = "<script>alert(1)</script>".replace("/", "\u2215") + "\u202egpj.png"
    picture(0).save(folder / name)
    run = cluster_run(folder, tmp_path / "run", index={"use": "exact"})
    for value in (run, run.clusters, run.clusters[0], run.search(name, 3)):
        page = shown(value)  # which would see a script
        assert "<script>alert(1)<\u2215script>\ufffdgpj.png" in page.words
