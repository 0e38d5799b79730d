"""Outputs of clusters: folders of links, gallery, montage, dendrogram and table."""

import csv
import fcntl
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import vwkit
from tests.clustering import Joined, Page, cluster_run, cluster_spec, output, write_photos
from tests.helpers import picture, vector_spec
from vwkit.outputs.files import new_file
from vwkit.outputs.folders import link_names
from vwkit.outputs.gallery import shares
from vwkit.plugins import registered
from vwkit.types import Item

HOSTILE = 'a<img src=x onerror=alert(1)> & "b".png'


@pytest.fixture(autouse=True)
def _joined():
    with registered(Joined):
        yield


@pytest.fixture
def run(tmp_path):
    """3 + 3 + 2 photos in three clusters, and one in none."""
    return cluster_run(write_photos(tmp_path / "photos"), tmp_path / "run")


def links(folder):
    """Return {place: target} of the links below a folder."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink()
    }


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_photos_are_clustered_as_they_were_made(run):
    groups = [{item.id.split("/")[0] for item in one.items} for one in run.clusters]
    assert groups == [{"g0"}, {"g1"}, {"g2"}]
    assert [item.id for item in run.unclustered] == ["alone 0.png"]


class TestFolders:
    def test_a_folder_for_each_cluster_with_relative_links(self, run, tmp_path):
        out = tmp_path / "a b/clusters"
        assert output("folders", out).write(run) == out
        assert links(out) == {
            **{f"cluster_with_3/cluster_{g}/c{c}.png": f"../../../../photos/g{g}/c{c}.png"
               for g in range(2) for c in range(3)},
            **{f"cluster_with_2/cluster_0/c{c}.png": f"../../../../photos/g2/c{c}.png"
               for c in range(2)},
            "not_clustered/alone 0.png": "../../../photos/alone 0.png",
        }  # fmt: skip

    def test_it_moves_together_with_the_photos(self, run, tmp_path):
        (tmp_path / "all").mkdir()
        output("folders", tmp_path / "all/clusters").write(run)
        shutil.move(tmp_path / "photos", tmp_path / "all/photos")
        made = cluster_run(tmp_path / "all/photos", tmp_path / "run")
        output("folders", tmp_path / "all/clusters").write(made)
        shutil.move(tmp_path / "all", tmp_path / "elsewhere")
        found = links(tmp_path / "elsewhere/clusters")
        assert len(found) == 9
        for place in found:
            with PIL.Image.open(tmp_path / "elsewhere/clusters" / place) as image:
                image.load()

    def test_through_a_folder_that_is_a_link(self, run, tmp_path):
        (tmp_path / "deep/er").mkdir(parents=True)
        (tmp_path / "short").symlink_to(tmp_path / "deep/er")
        output("folders", tmp_path / "short/clusters").write(run)
        assert all((tmp_path / "short/clusters" / place).is_file()
                   for place in links(tmp_path / "short/clusters"))  # fmt: skip

    def test_unclustered_ones_can_be_left_out(self, run, tmp_path):
        output("folders", tmp_path / "out", unclustered=False).write(run)
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "cluster_with_3", "cluster_with_2", ".vwkit", ".vwkit-links.json"
        }  # fmt: skip

    @pytest.mark.parametrize("link", ["symlink", "hard", "copy"])
    def test_written_again_it_is_the_same_bytes(self, run, tmp_path, link):
        out = output("folders", tmp_path / "out", link=link)
        out.write(run)
        before = (out.path / ".vwkit-links.json").read_bytes()
        out.write(run)
        assert (out.path / ".vwkit-links.json").read_bytes() == before

    @pytest.mark.parametrize("link", ["symlink", "hard", "copy"])
    def test_replacing_never_touches_a_photo(self, run, tmp_path, link):
        before = contents(tmp_path / "photos")
        out = output("folders", tmp_path / "out", link=link)
        out.write(run)
        first = sorted(path.relative_to(out.path) for path in out.path.rglob("*"))
        file = out.path / "cluster_with_3/cluster_0/c0.png"
        assert file.is_symlink() == (link == "symlink")
        assert file.samefile(tmp_path / "photos/g0/c0.png") == (link != "copy")
        out.write(run)
        assert sorted(path.relative_to(out.path) for path in out.path.rglob("*")) == first
        assert contents(tmp_path / "photos") == before

    def test_a_folder_that_is_not_ours_is_left_alone(self, run, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine.txt").write_text("keep")
        with pytest.raises(vwkit.RunError, match="not made by vwkit"):
            output("folders", tmp_path / "out").write(run)
        assert (tmp_path / "out/mine.txt").read_text() == "keep"

    @pytest.mark.parametrize("link", ["symlink", "hard", "copy"])
    def test_a_file_put_into_it_is_kept(self, run, tmp_path, link):
        out = output("folders", tmp_path / "out", link=link)
        out.write(run)
        mine = out.path / "cluster_with_3/cluster_0/mine.png"
        picture(5).save(mine)
        with pytest.raises(vwkit.RunError, match=r"holds cluster_with_3/.*mine\.png, which vwkit"):
            out.write(run)
        assert mine.exists()
        mine.rename(out.path / ".DS_Store")  # what a file manager leaves behind is no obstacle
        out.write(run)
        assert not (out.path / ".DS_Store").exists()

    def test_an_edited_copy_is_kept(self, run, tmp_path):
        out = output("folders", tmp_path / "out", link="copy")
        out.write(run)
        edited = out.path / "not_clustered/alone 0.png"
        picture(7).save(edited)
        with pytest.raises(vwkit.RunError, match="alone 0.png, which vwkit did not write"):
            out.write(run)

    def test_the_last_link_to_a_photo_is_kept(self, run, tmp_path):
        out = output("folders", tmp_path / "out", link="hard")
        out.write(run)
        (tmp_path / "photos/g1/c1.png").unlink()
        with pytest.raises(vwkit.RunError, match=r"c1\.png, the last link to a photo"):
            out.write(run)
        assert (out.path / "cluster_with_3/cluster_1/c1.png").is_file()

    def test_photos_inside_the_folder_are_kept(self, run, tmp_path):
        out = output("folders", tmp_path / "out")
        out.write(run)
        shutil.move(tmp_path / "photos", tmp_path / "out/photos")
        moved = cluster_run(tmp_path / "out/photos", tmp_path / "run")
        with pytest.raises(vwkit.RunError, match="holds the photo"):
            out.write(moved)
        assert len(contents(tmp_path / "out/photos")) == 4  # c0, c1, c2 and the one alone

    def test_a_damaged_list_makes_nothing_ours(self, run, tmp_path):
        out = output("folders", tmp_path / "out", link="copy")
        out.write(run)
        (out.path / ".vwkit-links.json").write_text("[" * 100_000)
        with pytest.raises(vwkit.RunError, match="which vwkit did not write"):
            out.write(run)

    def test_photos_that_are_gone_are_named(self, run, tmp_path):
        (tmp_path / "photos/g0/c1.png").unlink()
        shutil.rmtree(tmp_path / "photos/g2")
        with pytest.warns(vwkit.SkippedItems, match="3 photos are no longer there.*g0/c1.png, g2/"):
            output("folders", tmp_path / "out").write(run)
        assert sorted(links(tmp_path / "out")) == [
            "cluster_with_3/cluster_0/c0.png", "cluster_with_3/cluster_0/c2.png",
            *(f"cluster_with_3/cluster_1/c{c}.png" for c in range(3)), "not_clustered/alone 0.png",
        ]  # fmt: skip

    def test_links_that_cannot_be_made_are_explained(self, run, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
        with pytest.raises(vwkit.RunError, match="hard-linked: .*; `link: copy` works everywhere"):
            output("folders", tmp_path / "out", link="hard").write(run)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".out*"))

    def test_what_it_wrote_among_the_photos_is_no_input(self, run, tmp_path):
        out = output("folders", tmp_path / "photos/clusters")
        out.write(run)
        for pattern in (None, "**/*.png"):
            spec = cluster_spec(tmp_path / "photos")
            if pattern:
                spec["images"]["pattern"] = pattern
            again = vwkit.Pipeline.from_dict(spec).run(tmp_path / "again")
            assert [item.id for item in again.items] == [item.id for item in run.items]
        one = tmp_path / "photos/clusters/cluster_with_3"  # but it may be asked for
        assert len(cluster_run(one, tmp_path / "one").items) == 6

    def test_flat_clusterers_will_do(self, tmp_path):
        photos = write_photos(tmp_path / "photos")
        made = cluster_run(photos, tmp_path / "run", {"use": "lloyd", "k": 3})
        output("folders", tmp_path / "out").write(made)
        assert len(links(tmp_path / "out")) == 9
        assert not (tmp_path / "out/not_clustered").exists()


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    path = tmp_path / "out [1]" / "t.csv"
    path.parent.mkdir()
    names = [".t.csv.abcd_123.part.csv", ".t.csv.abcd1234.part", ".u.csv.abcd1234.part.csv"]
    for name in names:
        (path.parent / name).mkdir() if name.endswith(".part") else (path.parent / name).touch()
    recent = path.parent / ".t.csv.recent00.part.csv"
    recent.touch()
    for name in names:
        os.utime(path.parent / name, (1e9, 1e9))
    with recent.open() as writing, new_file(path.with_name("other.csv")):
        fcntl.flock(writing, fcntl.LOCK_EX)
        with new_file(path) as part:
            part.write_text("x")
    assert sorted(os.listdir(path.parent)) == sorted([recent.name, names[2], "other.csv", "t.csv"])


class TestLinkNames:
    def names(self, *ids, path="x.jpg"):
        return link_names([Item(i, one, path) for i, one in enumerate(ids)])

    def test_plain_names_stay(self):
        assert self.names("a/été 1.jpg", "b/2.JPG") == ["été 1.jpg", "2.JPG"]

    def test_equal_names_get_their_folders(self):
        found = self.names("rome/2020/1.jpg", "oslo/1.jpg", "1.jpg", "2.jpg")
        assert found == ["rome_2020_1.jpg", "oslo_1.jpg", "1.jpg", "2.jpg"]

    def test_names_that_only_some_systems_tell_apart(self):
        found = self.names("a/IMG.jpg", "b/img.JPG", "c/e\u0301.jpg", "d/\u00e9.jpg")
        assert found == ["a_IMG.jpg", "b_img.JPG", "c_e\u0301.jpg", "d_\u00e9.jpg"]

    def test_and_a_number_where_that_is_not_enough(self):
        found = self.names("a/b.jpg", "x/a_b.jpg", "a_b.jpg", "c/b.jpg")
        assert len({name.casefold() for name in found}) == 4
        assert "a_b_2.jpg" in found

    @pytest.mark.parametrize(
        "name", ["", "..", "../../etc/passwd", "a\x00b", "a\nb.jpg", "x" * 5000, "é" * 300 + ".jpg"]
    )
    def test_hostile_ids_make_one_harmless_name(self, name):
        (found,) = self.names(name)
        assert "/" not in found
        assert "\x00" not in found
        assert found not in (".", "..")
        assert len(found.encode()) <= 255
        assert found.endswith(".jpg")

    def test_an_id_of_metadata_gets_the_ending_of_its_file(self):
        assert self.names("B00ABC", path="/cache/B00ABC.png") == ["B00ABC.png"]


class TestGallery:
    def test_a_page_with_the_photos_by_cluster(self, run, tmp_path):
        page = Page(output("gallery", tmp_path / "g.html").write(run).read_text())
        assert "8 images in 3 clusters, 1 image in none." in page.words
        assert "This page shows 9 of 9 images" in page.words
        assert "Images in a cluster Clusters 3 2 2 1" in page.words
        order = [image["alt"] for image in page.all("img")]
        assert order == [item.id for one in run.clusters for item in one.items] + ["alone 0.png"]
        assert [one["href"] for one in page.all("a")] == ["#cluster-0", "#cluster-2"]

    def test_large_clusters_are_cut_and_the_rest_is_named(self, run, tmp_path):
        out = output("gallery", tmp_path / "g.html", per_cluster=1, unclustered=False)
        page = Page(out.write(run).read_text())
        assert [image["alt"] for image in page.all("img")] == [
            "g0/c0.png",
            "g1/c0.png",
            "g2/c0.png",
        ]
        assert "… and 2 more g0/c1.png g0/c2.png" in page.words
        assert "shows 3 of 9 images" in page.words

    def test_only_the_largest_clusters(self, run, tmp_path):
        page = Page(
            output("gallery", tmp_path / "g.html", clusters=1, items=2).write(run).read_text()
        )
        assert "… and 2 more clusters, of 3 images at most." in page.words
        assert [image["alt"] for image in page.all("img")] == ["g0/c0.png", "alone 0.png"]
        assert "Images in a cluster Clusters 3 2 2 1" in page.words  # the summary is of all

    def test_the_page_is_as_small_as_asked(self, tmp_path):
        folder = tmp_path / "noise"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for i in range(60):
            noise = rng.integers(0, 256, (400, 400, 3)).astype(np.uint8)
            PIL.Image.fromarray(noise).save(folder / f"{i:02}{'n' * 200}.png", compress_level=0)
        made = cluster_run(folder, tmp_path / "run", {"use": "lloyd", "k": 2})
        out = output("gallery", tmp_path / "g.html", thumbnail=400, megabytes=1, per_cluster=60)
        text = out.write(made).read_text()
        assert len(text.encode()) < 1.1e6
        page = Page(text)
        shown = len(page.all("img"))
        assert 2 <= shown < 40
        assert f"shows {shown} of 60 images" in page.words
        assert "more 0" in page.words  # the others are named

    def test_names_are_text(self, tmp_path):
        folder = write_photos(tmp_path / "photos", alone=0)
        for name in (HOSTILE, "g0/\u202egnp.png", "g0/&lt;.png"):
            shutil.copy(folder / "g0/c0.png", folder / name)
        made = cluster_run(folder, tmp_path / "run")
        page = Page(output("gallery", tmp_path / "g.html", per_cluster=2).write(made).read_text())
        assert HOSTILE in page.words
        assert "&lt;.png" in page.words
        assert "\u202e" not in page.words
        assert not any("onerror" in image for image in page.all("img"))

    def test_photos_that_are_gone_are_told(self, run, tmp_path):
        (tmp_path / "photos/g0/c0.png").unlink()
        (tmp_path / "photos/g0/c1.png").write_bytes(b"no image")
        page = Page(output("gallery", tmp_path / "g.html").write(run).read_text())
        assert len(page.all("img")) == 7
        assert page.words.count("no picture") == 2
        assert "of 2 the file is no longer there or cannot be read" in page.words

    def test_no_cluster_at_all(self, tmp_path):
        folder = write_photos(tmp_path / "photos", groups=0, alone=3)
        made = cluster_run(folder, tmp_path / "run", {"use": "joined", "similarity": 1.0})
        page = Page(output("gallery", tmp_path / "g.html").write(made).read_text())
        assert "0 images in 0 clusters, 3 images in none." in page.words
        assert len(page.all("img")) == 3

    @pytest.mark.parametrize(
        ("sizes", "most", "total"),
        [([5, 5, 1], 3, 100), ([5, 5, 1], 9, 4), ([1] * 9, 2, 4), ([], 1, 1)],
    )
    def test_shares_are_fair_and_bounded(self, sizes, most, total):
        found = shares(sizes, most, total)
        assert sum(found) == min(total, sum(min(most, n) for n in sizes))
        assert all(one <= min(n, most) for one, n in zip(found, sizes, strict=True))
        cut = [one for one, n in zip(found, sizes, strict=True) if one < min(n, most)]
        assert not cut or max(found) - min(cut) <= 1


class TestMontageOfClusters:
    def test_a_row_for_each_cluster(self, run, tmp_path):
        path = tmp_path / "m.png"
        output("montage", path, mode="clusters", columns=2, thumbnail=40).write(run)
        with PIL.Image.open(path) as image:
            pixels = np.asarray(image)
        assert pixels.shape == (3 * 44 + 4, 2 * 44 + 4, 3)
        number = pixels[4:44, 48:88]  # a grey square with a number: two more
        assert (number[0] == (238, 239, 236)).all()
        assert (number < 100).any()
        last = pixels[92:132, 48:88]  # the pair has two pictures
        assert not (last[20] == (238, 239, 236)).all()

    def test_no_cluster_is_said(self, tmp_path):
        folder = write_photos(tmp_path / "photos", groups=0, alone=2)
        made = cluster_run(folder, tmp_path / "run", {"use": "joined", "similarity": 1.0})
        path = output("montage", tmp_path / "m.png", mode="clusters").write(made)
        with PIL.Image.open(path) as image:
            assert (np.asarray(image) < 100).any()


class TestTable:
    def rows(self, run, path, **params):
        text = output("table", path, **params).write(run).read_text()
        if path.suffix == ".json":
            return json.loads(text)
        return list(csv.DictReader(text.splitlines()))

    def test_csv(self, run, tmp_path):
        rows = self.rows(run, tmp_path / "t.csv")
        assert [row["id"] for row in rows] == [item.id for item in run.items]
        assert [row["cluster"] for row in rows] == ["", *"00011122"]
        assert [row["cluster_size"] for row in rows] == ["", *"33333322"]
        clusterer = run.clusterer
        for place, row in enumerate(rows):
            joins = clusterer.tree[(clusterer.tree[:, :2] == place).any(axis=1)]
            assert float(row["joined_height"]) == pytest.approx(joins[0, 2], rel=1e-5)
            similarity = 1 - joins[0, 2] / clusterer.diameter
            assert float(row["joined_similarity"]) == pytest.approx(similarity, abs=1e-5)
            assert (similarity >= clusterer.similarity) == bool(row["cluster"])

    def test_names_are_no_formulas_of_a_spreadsheet(self, tmp_path):
        folder = tmp_path / "photos"
        folder.mkdir()
        names = ["=1+1.png", "+1.png", "-1.png", "@a.png", " =2.png", "＝3.png", "a=1.png"]
        for seed, name in enumerate(names):
            picture(seed).save(folder / name)
        spec = {"vwkit": 1, "images": {"path": str(folder)}, "index": {"use": "exact"}}
        run = vwkit.Pipeline.from_dict(spec | {"featurizer": {"use": "colour-histogram"}}).run(
            tmp_path / "odd"
        )
        rows = self.rows(run, tmp_path / "t.csv")
        assert {row["id"] for row in rows} == {f"'{name}" for name in names[:-1]} | {names[-1]}
        assert all(row["nearest"][0] in "'a" for row in rows)
        exact = self.rows(run, tmp_path / "t.csv", formulas=True)
        assert {row["id"] for row in exact} == set(names)
        assert {row["id"] for row in self.rows(run, tmp_path / "t.json")} == set(names)

    def test_json(self, run, tmp_path):
        rows = self.rows(run, tmp_path / "t.json")
        assert [row["cluster"] for row in rows] == [None, 0, 0, 0, 1, 1, 1, 2, 2]
        assert rows[0] | {"joined_height": 0, "joined_similarity": 0} == {
            "row": 0, "id": "alone 0.png", "status": "ok", "width": 96, "height": 72, "reason": None,
            "nearest": None, "cluster": None, "cluster_size": None, "joined_height": 0,
            "joined_similarity": 0,
        }  # fmt: skip

    def test_a_flat_clusterer_has_no_heights(self, tmp_path):
        photos = write_photos(tmp_path / "photos")
        index = {"use": "exact"}
        made = cluster_run(photos, tmp_path / "run", {"use": "lloyd", "k": 2}, index=index)
        rows = self.rows(made, tmp_path / "t.json", neighbours=2)
        assert "joined_height" not in rows[0]
        assert {row["cluster"] for row in rows} == {0, 1}
        assert {one["id"] for one in rows[1]["nearest"]} == {"g0/c1.png", "g0/c2.png"}

    def test_without_clusters_it_is_what_it_was(self, tmp_path):
        photos = write_photos(tmp_path / "photos", alone=0)
        (photos / "broken.png").write_bytes(b"no")
        spec = cluster_spec(photos)
        del spec["clusterer"]
        with pytest.warns(vwkit.SkippedItems):
            made = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        rows = self.rows(made, tmp_path / "t.csv")
        assert list(rows[0]) == ["row", "id", "status", "width", "height", "reason", "nearest"]
        assert rows[0]["status"] == "skipped"
        assert rows[0]["reason"]

    def test_other_endings_are_refused(self):
        with pytest.raises(vwkit.ParameterError, match="a table is CSV or JSON; name it …t.csv"):
            output("table", Path("t.html"))


class TestSpecs:
    def problems(self, spec):
        with pytest.raises(vwkit.SpecError) as told:
            vwkit.Pipeline.from_dict(spec)
        return str(told.value)

    @pytest.mark.parametrize("name", ["folders", "gallery", "dendrogram", "montage"])
    def test_what_is_missing_is_told_before_any_work(self, tmp_path, name):
        path = str(tmp_path / {"folders": "x", "montage": "x.png"}.get(name, "x.html"))
        out = {"write": name, "path": path, **({"mode": "clusters"} if name == "montage" else {})}
        said = f"{name} needs a clustering of images"
        spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4}, output=[out])
        assert said in self.problems(spec)
        photos = write_photos(tmp_path / "photos")
        spec = cluster_spec(photos, output=[out])
        spec["featurizer"] = {"use": "pixels"}
        assert said in self.problems(spec)
        spec = cluster_spec(photos, output=[out])
        del spec["clusterer"]
        assert said in self.problems(spec)

    def test_a_dendrogram_needs_a_tree(self, tmp_path):
        out = {"write": "dendrogram", "path": str(tmp_path / "x.png")}
        spec = cluster_spec(
            write_photos(tmp_path / "photos"), {"use": "lloyd", "k": 2}, output=[out]
        )
        assert "dendrogram needs a hierarchical clusterer" in self.problems(spec)

    def test_a_slot_that_failed_is_not_told_twice(self, tmp_path):
        out = {"write": "dendrogram", "path": str(tmp_path / "x.png")}
        spec = cluster_spec(write_photos(tmp_path / "photos"), {"use": "joint"}, output=[out])
        assert "dendrogram" not in self.problems(spec)

    @pytest.mark.parametrize(
        ("name", "path", "said"),
        [
            ("gallery", "g.png", "a gallery is a page; name it …g.html"),
            ("dendrogram", "d.pdf", "name it ….png or ….html"),
        ],
    )
    def test_endings(self, name, path, said):
        with pytest.raises(vwkit.ParameterError, match=said):
            output(name, Path(path))

    def test_a_canvas_too_large(self):
        with pytest.raises(vwkit.ParameterError, match="dendrogram.thumbnail: 40 leaves make"):
            output("dendrogram", Path("d.png"), leaves=40, thumbnail=5000)


def test_the_whole_job_with_the_plugin(tmp_path):
    pytest.importorskip("vwkit_scipy")
    photos = write_photos(tmp_path / "photos")
    outputs = [
        {"write": "folders", "path": str(tmp_path / "out/clusters")},
        {"write": "gallery", "path": str(tmp_path / "out/gallery.html")},
        {"write": "dendrogram", "path": str(tmp_path / "out/tree.html")},
        {"write": "dendrogram", "path": str(tmp_path / "out/tree.png")},
        {"write": "montage", "path": str(tmp_path / "out/montage.png"), "mode": "clusters"},
        {"write": "table", "path": str(tmp_path / "out/table.csv")},
    ]
    spec = cluster_spec(
        photos,
        {"use": "agglomerative", "similarity": 0.6},
        transform=[{"use": "pca", "variance": 0.95}],
        output=outputs,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert [len(one.items) for one in run.clusters] == [3, 3, 2]
    assert len(links(tmp_path / "out/clusters")) == 9
    assert all(Path(one["path"]).exists() for one in outputs)
