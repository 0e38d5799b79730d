"""The API as its users meet it: over HTTP, on every kind of run."""

import io
import json
import re
import shutil
import time
import warnings

import numpy as np
import PIL.Image
import pytest
from vwkit_serve import models

import vwkit

ODD = "<b>&\"'é.png"
ODD_QUOTED = "%3Cb%3E%26%22%27%C3%A9.png"
JPEG = "image/jpeg"


def picture_bytes(folder, name="0-left.png"):
    return (folder / "photos" / name).read_bytes()


def form(content, name="image", filename="a.png"):
    body = (
        f'--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n--xyz\r\n'
        f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode() + content + b"\r\n--xyz--\r\n"  # fmt: skip
    return body, {"content-type": "multipart/form-data; boundary=xyz"}


class TestRun:
    CAN = {
        "bag": {"search", "matches", "words", "patches"},
        "votes": {"search", "matches"},
        "whole": {"search", "clusters"},
        "groups": {"clusters"},
        "words": {"words", "patches"},
        "vectors": {"words"},
    }

    @pytest.mark.parametrize("kind", CAN)
    def test_says_what_it_can_and_why_not(self, serve, kind):
        facts = serve(kind).json("/api/run")
        assert {name for name, able in facts["can"].items() if able} == self.CAN[kind]
        assert set(facts["why_not"]) == set(facts["can"]) - self.CAN[kind]
        assert all(len(why) > 10 for why in facts["why_not"].values())
        assert facts["name"] == kind
        assert facts["images"] == (kind != "vectors")
        assert len(facts["samples"]) == (0 if kind == "vectors" else 10)
        models.Facts.model_validate(facts)

    def test_what_it_cannot_is_404_with_the_reason(self, serve, folder):
        server = serve("groups")
        reason = server.json("/api/run")["why_not"]["search"]
        assert server.error_of("/api/search?item=0-left.png") == (404, reason)
        status, said = server.error_of("/api/search", picture_bytes(folder))
        assert (status, said) == (404, reason)
        assert server.error_of("/api/words")[0] == 404
        assert serve("bag").error_of("/api/clusters")[0] == 404
        assert serve("whole").error_of("/api/matches?query=0-left.png&row=1")[0] == 404


class TestItems:
    def test_pages(self, serve):
        server = serve("bag")
        whole = server.json("/api/items")
        assert [item["row"] for item in whole["items"]] == [*range(10)]
        models.Items.model_validate(whole)
        part = server.json("/api/items?offset=3&limit=2")
        assert part["items"] == whole["items"][3:5]
        assert part["total"] == 10
        assert server.json("/api/items?offset=2000000")["items"] == []

    def test_a_part_of_the_name_and_skipped_ones(self, serve):
        server = serve("bag")
        assert server.json("/api/items?q=LEFT")["total"] == 5
        assert server.json("/api/items?q=broken")["total"] == 0
        skipped = server.json("/api/items?q=broken&skipped=true")["items"]
        assert [one["status"] for one in skipped] == ["skipped"]
        details = server.json(f"/api/items/{skipped[0]['row']}")
        assert "cannot be decoded" in details["reason"] or "not an image" in details["reason"]

    def test_details(self, serve):
        found = serve("whole").json("/api/items/2")
        models.ItemDetails.model_validate(found)
        assert (found["width"], found["height"]) == (140, 110)
        assert found["available"] is True
        assert found["cluster"] == int(serve("whole").run.item_labels[2])

    def test_a_name_is_data_whatever_is_in_it(self, serve):
        server = serve("bag")
        assert ODD in [item["id"] for item in server.json("/api/items")["items"]]
        found = server.json(f"/api/search?item={ODD_QUOTED}")
        assert found["query"] == ODD

    @pytest.mark.parametrize("size", [16, 100, 2048])
    def test_pictures_are_encoded_anew(self, serve, size):
        for kind in ("thumbnail", "image"):
            status, headers, content = serve("bag").ask(f"/api/items/0/{kind}?size={size}")
            assert (status, headers["content-type"]) == (200, JPEG)
            assert "max-age" in headers["cache-control"]
            with PIL.Image.open(io.BytesIO(content)) as picture:
                assert picture.format == "JPEG"
                assert max(picture.size) == min(size, 140)

    def test_wrong_parameters(self, serve):
        server = serve("bag")
        for path in (
            "/api/items?limit=0", "/api/items?limit=100000", "/api/items?offset=-1",
            "/api/items/x", "/api/items/1e9", "/api/items/-1", "/api/items/99999999999999999999",
            "/api/items/0/thumbnail?size=9", "/api/items/0/thumbnail?size=99999",
            "/api/search", "/api/search?item=0-left.png&k=0", "/api/search?item=0-left.png&k=nan",
            "/api/words?order=size", "/api/words/-1/patches", f"/api/items?q={'a' * 300}",
            "/api/matches?query=0-left.png", "/api/clusters/zero",
        ):  # fmt: skip
            assert server.error_of(path)[0] == 422, path
        message = server.error_of("/api/items?limit=0")[1]
        assert message == "limit: must be greater than or equal to 1; got '0'"

    def test_unknown_things(self, serve):
        server = serve("bag")
        for path in (
            "/api/items/11", "/api/items/4000/image", "/api/words/60/patches", "/api/nothing",
            "/nothing", "/static/app.py", "/api/search?item=nobody.png",
            "/api/matches?query=nobody.png&row=0", "/api/matches?query=0-left.png&row=77",
        ):  # fmt: skip
            assert server.error_of(path)[0] == 404, path
        assert server.error_of("/api/items", method="DELETE")[0] == 405

    @pytest.mark.parametrize(
        "path",
        [
            "/static/../__init__.py", "/static/..%2f__init__.py", "/static/%2e%2e/guard.py",
            "/../../etc/passwd", "//etc/passwd", "/api/items/..%2f..%2fetc%2fpasswd/image",
            "/api/items/0/image/../../../../etc/passwd", "/api/search?item=/etc/passwd",
            "/api/search?item=../photos/0-left.png", "/api/search?item=%00",
            "/api/matches?query=/etc/passwd&row=0", "/api/items/%ff/image", "/api/items?q=%ff%fe",
        ],
    )  # fmt: skip
    def test_paths_lead_nowhere(self, serve, path):
        status, _, content = serve("bag").ask(path)
        assert status in (200, 404, 422)
        assert b"root:" not in content
        if status == 200:
            assert json.loads(content)["total"] == 0


class TestSearch:
    @pytest.mark.parametrize("kind", ["bag", "votes", "whole"])
    def test_by_item_is_what_the_run_finds(self, serve, kind):
        server = serve(kind)
        found = server.json("/api/search?item=1-left.png&k=4")
        models.Result.model_validate(found)
        expected = server.run.search("1-left.png", 4)
        assert [one["row"] for one in found["results"]] == expected.ids[0].tolist()
        distances = [one["distance"] for one in found["results"]]
        assert np.allclose(distances, expected.distances[0], atol=1e-6)
        assert [one["itself"] for one in found["results"]] == [True, False, False, False]
        assert [one["rank"] for one in found["results"]] == [1, 2, 3, 4]
        assert found["results"][1]["id"] == "1-right.png"

    @pytest.mark.parametrize("kind", ["bag", "votes", "whole"])
    def test_by_picture_as_bytes_and_as_a_form(self, serve, folder, kind):
        server = serve(kind)
        content = picture_bytes(folder, "3-right.png")
        found = server.json("/api/search?k=5", content)
        expected = server.run.search(PIL.Image.open(io.BytesIO(content)), 5)
        assert [one["row"] for one in found["results"]] == expected.ids[0].tolist()
        assert found["results"][0]["id"] == "3-right.png"
        assert found["query"] is None
        body, headers = form(content)
        assert server.json("/api/search?k=5", body, headers=headers)["results"] == found["results"]

    def test_only_where(self, serve, folder):
        server = serve("whole")
        asked = "/api/search?item=0-left.png&where="
        found = server.json(f"{asked}id+contains+'right'")["results"]
        assert len(found) == 4
        assert all("right" in one["id"] for one in found)
        content = picture_bytes(folder)
        again = server.json("/api/search?where=id+contains+'right'", content)["results"]
        assert [one["row"] for one in again] == [one["row"] for one in found]
        for wrong in ("price+<", "colour+==+'red'", "__import__('os')", "1+1"):
            assert server.error_of(asked + wrong)[0] == 422

    def test_many_want_more_than_there_is(self, serve):
        assert len(serve("votes").json("/api/search?item=0-left.png&k=200")["results"]) <= 10

    @pytest.mark.parametrize("mode", ["L", "1", "RGBA", "P", "CMYK", "I;16", "LA"])
    def test_pictures_of_all_kinds(self, serve, mode):
        if mode == "I;16":
            picture = PIL.Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13)
        else:
            picture = PIL.Image.effect_noise((80, 60), 90).convert("RGB").convert(mode)
        buffer = io.BytesIO()
        picture.save(buffer, "TIFF")
        for kind in ("bag", "whole"):
            serve(kind).json("/api/search", buffer.getvalue())

    def test_a_picture_without_any_point(self, serve):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (9, 9)).save(buffer, "PNG")
        for kind in ("bag", "votes"):
            assert serve(kind).json("/api/search", buffer.getvalue())["results"] == []
        matched = serve("bag").json("/api/matches?row=0", buffer.getvalue())
        assert (matched["points"], matched["total"], matched["lines"]) == (0, 0, [])

    def test_a_preview_for_formats_that_browsers_do_not_show(self, serve):
        buffer = io.BytesIO()
        PIL.Image.new("RGB", (300, 200), (200, 30, 30)).save(buffer, "TIFF")
        status, headers, content = serve("bag").ask("/api/preview?size=100", buffer.getvalue())
        assert (status, headers["content-type"]) == (200, JPEG)
        assert headers["cache-control"] == "no-store"
        with PIL.Image.open(io.BytesIO(content)) as shown:
            assert shown.size == (100, 67)


class TestMatches:
    @pytest.mark.parametrize(("kind", "by"), [("bag", "words"), ("votes", "descriptors")])
    def test_the_same_place_is_found_shifted(self, serve, folder, kind, by):
        """The right picture was cut 20 pixels further right and 10 further down."""
        server = serve(kind)
        matched = server.json("/api/matches?query=2-left.png&row=5")
        models.Matched.model_validate(matched)
        assert server.run.items[5].id == "2-right.png"
        assert (matched["by"], matched["verified"]) == (by, True)
        assert len(matched["lines"]) == matched["total"] >= 10
        for line in matched["lines"]:
            assert abs(line["x1"] - line["x2"] - 20) <= 5
            assert abs(line["y1"] - line["y2"] - 10) <= 5
            assert (line["word"] is None) == (by == "descriptors")
        uploaded = server.json("/api/matches?row=5", picture_bytes(folder, "2-left.png"))
        assert uploaded == matched
        again = server.json("/api/matches?row=5", picture_bytes(folder, "2-left.png"))
        assert again == matched

    def test_another_place_is_not(self, serve):
        matched = serve("votes").json("/api/matches?query=2-left.png&row=8")
        assert not matched["verified"]

    def test_a_skipped_item_has_none(self, serve):
        row = serve("bag").json("/api/items?q=broken&skipped=true")["items"][0]["row"]
        assert serve("bag").error_of(f"/api/matches?query=0-left.png&row={row}")[0] == 404
        assert serve("bag").error_of("/api/search?item=broken.png")[0] == 404


class TestClusters:
    @pytest.mark.parametrize("kind", ["whole", "groups"])
    def test_all_items_are_in_one(self, serve, kind):
        server = serve(kind)
        found = server.json("/api/clusters?show=50")
        models.Clusters.model_validate(found)
        sizes = [one["size"] for one in found["clusters"]]
        assert sizes == sorted(sizes, reverse=True)
        assert found["total"] == len(sizes) == 3
        rows = [item["row"] for one in found["clusters"] for item in one["items"]]
        assert sorted(rows) == [*range(10)]
        one = server.json(f"/api/clusters/{found['clusters'][0]['number']}?limit=2")
        models.Cluster.model_validate(one)
        assert one["items"] == found["clusters"][0]["items"][:2]
        assert server.json("/api/clusters?offset=1&limit=1&show=0")["clusters"][0]["items"] == []
        assert server.json("/api/clusters/-1")["size"] == found["unclustered"] == 0
        assert server.error_of("/api/clusters/77")[0] == 404


class TestWords:
    def test_the_most_frequent_first(self, serve):
        server = serve("bag")
        found = server.json("/api/words?limit=60")
        models.Words.model_validate(found)
        counts = [one["count"] for one in found["words"]]
        assert counts == sorted(counts, reverse=True)
        assert sum(counts) == found["occurrences"] == len(server.run.words.words)
        expected = np.bincount(server.run.words.words, minlength=60)
        assert {one["word"]: one["count"] for one in found["words"]} == dict(enumerate(expected))
        by_number = server.json("/api/words?order=number&offset=7&limit=3")["words"]
        assert [one["word"] for one in by_number] == [7, 8, 9]

    @pytest.mark.parametrize("kind", ["bag", "words"])
    def test_patches(self, serve, kind):
        server = serve(kind)
        word = server.json("/api/words?limit=1")["words"][0]["word"]
        found = server.json(f"/api/words/{word}/patches?limit=4")
        models.Patches.model_validate(found)
        assert 1 <= len(found["patches"]) <= 4
        said = server.run.words
        for patch in found["patches"]:
            assert patch["image"].startswith("data:image/")
            place = [item.row for item in server.run.kept].index(patch["row"])
            rows = slice(said.offsets[place], said.offsets[place + 1])
            here = said.keypoints[rows][said.words[rows] == word]
            assert [patch["x"], patch["y"]] in here[:, :2].tolist()

    def test_of_vectors(self, serve):
        server = serve("vectors")
        assert server.json("/api/words")["occurrences"] == 300
        status, said = server.error_of("/api/words/0/patches")
        assert (status, said) == (404, server.json("/api/run")["why_not"]["patches"])


class TestPages:
    PATHS = {
        "/api/run", "/api/items", "/api/items/{row}", "/api/items/{row}/thumbnail",
        "/api/items/{row}/image", "/api/search", "/api/matches", "/api/preview", "/api/clusters",
        "/api/clusters/{number}", "/api/words", "/api/words/{word}/patches",
    }  # fmt: skip

    def test_the_description_names_every_path_and_parameter(self, serve):
        described = serve("bag").json("/openapi.json")
        assert set(described["paths"]) == self.PATHS
        for methods in described["paths"].values():
            for one in methods.values():
                assert one["description"].strip()
                assert "200" in one["responses"]

    def test_the_page_of_the_api_shows_all_of_it_and_fetches_nothing(self, serve):
        status, headers, content = serve("bag").ask("/api")
        page = content.decode()
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        for path in self.PATHS:
            assert f"<code>{path}</code>" in page
        for name in ("Facts", "Matched", "max_upload", "skipped"):
            assert name in page
        assert "<script" not in page
        assert set(re.findall(r'(?:src|href)="([^"]+)"', page)) == {
            "/static/app.css", "/static/icon.svg", "/openapi.json", "/",
        }  # fmt: skip

    def test_the_page_fetches_from_here_only(self, serve):
        server = serve("bag")
        for path, kind in (
            ("/", "text/html"), ("/static/app.js", "text/javascript"),
            ("/static/app.css", "text/css"), ("/static/icon.svg", "image/svg+xml"),
        ):  # fmt: skip
            status, headers, content = server.ask(path)
            assert status == 200
            assert headers["content-type"].startswith(kind)
            addresses = set(re.findall(rb"https?://[^\"'\s)]+", content))
            assert addresses <= {b"http://www.w3.org/2000/svg"}
            answer = server.ask(path, headers={"if-none-match": headers["etag"]})
            assert (answer[0], answer[2]) == (304, b"")

    def test_nothing_becomes_markup(self, serve):
        script = serve("bag").ask("/static/app.js")[2].decode()
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in script


class TestAChangedRun:
    def test_a_run_made_again_is_loaded(self, folder, tmp_path, make, bag_run):
        run = bag_run(tmp_path / "run")
        server = make(run)
        before = server.json("/api/run")
        photos = tmp_path / "photos"
        photos.mkdir()
        for name in ("0-left.png", "0-right.png", "1-left.png"):
            shutil.copy(folder / "photos" / name, photos / name)
        bag_run(tmp_path / "run", images={"path": str(photos)})
        after = until(lambda: server.json("/api/run"), lambda f: f["version"] != before["version"])
        assert (before["usable"], after["usable"]) == (10, 3)
        assert len(server.json("/api/search?item=0-left.png")["results"]) <= 3
        assert server.error_of("/api/items/9")[0] == 404

    def test_one_that_cannot_be_loaded_is_told_and_the_old_one_served(
        self, tmp_path, make, bag_run
    ):
        run = bag_run(tmp_path / "run")
        server = make(run)
        asked = "/api/search?item=0-left.png&k=3"
        before = server.json(asked)["results"]
        (run.folder / "manifest.json").write_text("{}")
        facts = until(lambda: server.json("/api/run"), lambda f: f["notice"])
        assert "cannot be loaded" in facts["notice"]
        assert server.json(asked)["results"] == before

    def test_one_that_is_gone_is_still_served(self, tmp_path, make, bag_run):
        run = bag_run(tmp_path / "run")
        server = make(run)
        shutil.rmtree(run.folder)
        facts = until(lambda: server.json("/api/run"), lambda f: f["notice"])
        assert "gone" in facts["notice"]
        assert server.json("/api/search?item=1-left.png")["results"][0]["id"] == "1-left.png"
        assert server.json("/api/matches?query=1-left.png&row=3")["verified"]
        assert server.json("/api/words/1/patches")

    def test_pictures_that_are_gone_have_a_stand_in(self, folder, tmp_path, make, bag_run):
        photos = tmp_path / "photos"
        shutil.copytree(folder / "photos", photos)
        run = bag_run(tmp_path / "run", images={"path": str(photos)})
        server = make(run)
        kept = server.ask("/api/items/1/thumbnail")[2]
        shutil.rmtree(photos)
        assert server.ask("/api/items/1/thumbnail")[2] == kept
        status, headers, content = server.ask("/api/items/0/thumbnail")
        assert (status, headers["content-type"], headers["cache-control"]) == (
            200,
            JPEG,
            "no-store",
        )
        assert PIL.Image.open(io.BytesIO(content)).size == (320, 240)
        assert server.json("/api/items/0")["available"] is False
        assert server.json("/api/words/1/patches")["patches"] == []
        assert server.json("/api/search?item=0-left.png")["results"]

    def test_foreign_items_open_no_pipe_and_no_device(self, tmp_path, make, bag_run):
        """What a run's items name is looked at only if it is a file and a picture."""
        import os

        run = bag_run(tmp_path / "run")
        os.mkfifo(tmp_path / "pipe")
        secret = tmp_path / "secret.txt"
        secret.write_text("root:secret")
        paths = [str(tmp_path / "pipe"), "/dev/zero", "/etc", str(secret), 0, "a\0b", None, True]
        for item, path in zip(run.items, paths, strict=False):
            object.__setattr__(item, "path", path)
        object.__setattr__(run.items[0], "metadata", {"x": float("nan"), "y": ["\ud800", 1e999]})
        object.__setattr__(run.items[1], "id", "\ud800.png")
        server = make(run)
        stand_in = server.ask("/api/items/0/thumbnail")
        assert stand_in[1]["cache-control"] == "no-store"
        for row in range(len(paths)):
            assert server.ask(f"/api/items/{row}/image?size=320")[2] == stand_in[2]
        assert server.json("/api/items/3")["available"] is True
        details = server.json("/api/items/0")
        assert details["metadata"] == {"x": None, "y": ["\ud800", None]}
        assert server.json("/api/items")["items"][1]["id"] == "\\ud800.png"


def until(ask, fine):
    """Ask again for a while: the folder is looked at once a second."""
    end = time.monotonic() + 20
    while not fine(found := ask()):
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


@pytest.fixture
def bag_run(folder, monkeypatch):
    def make(out, **changes):
        spec = {
            "vwkit": 1,
            "seed": 1,
            "images": {"path": str(folder / "photos")},
            "featurizer": {
                "use": "bag-of-words",
                "local": {"use": "test-corners"},
                "vocabulary": {"use": "lloyd", "k": 30, "iterations": 2},
            },
            "index": {"use": "inverted"},
            **changes,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vwkit.SkippedItems)
            return vwkit.Pipeline.from_dict(spec).run(out)

    monkeypatch.setenv("VWKIT_CACHE", str(folder / "cache"))
    return make
