"""Items added to a run and removed from it: the same as built at once, and safe from kills."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import vwkit
from tests.dying import Dying
from tests.helpers import bag_spec, picture, tree
from tests.picture_server import PictureServer
from vwkit.errors import DataError, RunError, SkippedItems, UnsupportedError
from vwkit.lock import locked


def colour_spec(folder, **slots):
    return {
        "vwkit": 1,
        "images": {"path": str(folder)},
        "featurizer": {"use": "colour-histogram"},
        "transform": [{"use": "l2-norm"}],
        "index": {"use": "exact"},
        **slots,
    }


def given_bags(folder, **slots):
    """Return bags of words over a saved vocabulary: nothing depends on which pictures there are."""
    vocabulary = folder.parent / "vocabulary"
    if not vocabulary.exists():
        pixels = np.concatenate(
            [np.asarray(picture(seed)).reshape(-1, 3)[::50] for seed in range(8)]
        )
        vwkit.create("clusterer", "lloyd", k=12, iterations=2).fit(pixels).save(vocabulary)
    return {
        **bag_spec(folder),
        "featurizer": {
            "use": "bag-of-words",
            "local": {"use": "pixels"},
            "vocabulary": str(vocabulary),
            "weighting": "tf",
        },
        **slots,
    }


SPECS = {"colours": colour_spec, "bags": given_bags}


def photos(folder, groups):
    """Write pictures of which no two have the same colours."""
    for group in range(groups):
        (folder / f"g{group}").mkdir(parents=True)
        for copy in range(2):
            picture(10 * group + copy).save(folder / f"g{group}/c{copy}.png")
    return folder


def files(folder, *names):
    return [folder / name for name in names]


def answers(run, k=4):
    """Return what searches find, as ids and distances, for every item."""
    found = run.search([item.id for item in run.kept], k)
    return {
        item.id: [
            (other.id, round(float(d), 5))
            for other, d in zip(found.items[i], found.distances[i], strict=True)
            if other is not None
        ]
        for i, item in enumerate(run.kept)
    }


@pytest.mark.parametrize("kind", SPECS)
def test_growing_gives_what_building_gives(tmp_path, kind):
    every = photos(tmp_path / "photos", 5)
    few = tmp_path / "few"
    for group in range(3):
        shutil.copytree(every / f"g{group}", few / f"g{group}")
    whole = vwkit.Pipeline.from_dict(SPECS[kind](every)).run(tmp_path / "whole")
    run = vwkit.Pipeline.from_dict(SPECS[kind](few)).run(tmp_path / "run")
    before = tree(tmp_path / "run")
    shutil.copytree(every / "g3", few / "g3")
    shutil.copytree(every / "g4", few / "g4")
    added = run.add([few / "g3", few / "g4/c0.png", few / "g4/c1.png"])
    assert [item.id for item in added] == ["g3/c0.png", "g3/c1.png", "g4/c0.png", "g4/c1.png"]
    assert [item.row for item in added] == [6, 7, 8, 9]
    assert answers(run) == answers(whole)
    for opened in (run, vwkit.Run.open(tmp_path / "run")):
        assert [item.id for item in opened.items] == [item.id for item in whole.items]
        assert opened.manifest["counts"]["indexed"] == 10
        assert opened.items[9].size == (96, 72)
        assert np.array_equal(dense(opened.vectors), dense(whole.vectors))
    removed = run.remove(["g1/c0.png", "g4/c1.png"])
    assert [item.status for item in removed] == ["removed"] * 2
    for opened in (run, vwkit.Run.open(tmp_path / "run")):
        assert [item.row for item in opened.items if item.status == "removed"] == [2, 9]
        assert [item.row for item in opened.kept] == [0, 1, 3, 4, 5, 6, 7, 8]
        assert answers(opened) == {
            name: [one for one in near if one[0] not in ("g1/c0.png", "g4/c1.png")][:4]
            for name, near in answers(whole, 10).items()
            if name not in ("g1/c0.png", "g4/c1.png")
        }
        with pytest.raises(DataError, match="this item was removed"):
            opened.search("g1/c0.png")
        assert opened.search(every / "g1/c0.png", 1).items[0][0].id != "g1/c0.png"
    again = run.add(few / "g1/c0.png")
    assert [(item.id, item.row) for item in again] == [("g1/c0.png", 10)]
    assert run.search("g1/c0.png", 1).ids.tolist() == [[10]]
    text = (run.folder / "report.html").read_text()
    assert "5 items were added and 2 removed" in text
    assert text.count("<!--changed-->") == 1
    assert run.manifest["changes"] == [{"added": 4}, {"removed": 2}, {"added": 1}]
    assert run.manifest["fingerprint"] != json.loads(before["manifest.json"])["fingerprint"]
    assert not (run.folder / ".run/next").exists()
    assert not (run.folder / ".run/parts").exists()


def dense(vectors):
    return vectors.toarray() if isinstance(vectors, vwkit.Sparse) else np.asarray(vectors)


def test_a_vocabulary_and_its_weights_stay_as_they_were(tmp_path):
    folder = photos(tmp_path / "photos", 3)
    run = vwkit.Pipeline.from_dict(bag_spec(folder)).run(tmp_path / "run")
    weights = run.featurizer._idf.copy()
    words = run.vocabulary.codebook.copy()
    held = run.vectors.toarray()
    picture(97).save(folder / "new.png")
    run.add(folder / "new.png")
    assert (run.featurizer._idf == weights).all()
    assert (run.vocabulary.codebook == words).all()
    assert (run.vectors.toarray()[:6] == held).all()
    assert len(run.words.offsets) == 8
    assert run.manifest["counts"]["descriptors"] == int(run.words.offsets[-1])
    assert run.search("new.png", 1).items[0][0].id == "new.png"
    run.remove("g0/c0.png")
    assert len(run.words.offsets) == 7
    assert run.search("new.png", 1).items[0][0].id == "new.png"


@pytest.fixture
def run(tmp_path):
    folder = photos(tmp_path / "photos", 2)
    return vwkit.Pipeline.from_dict(colour_spec(folder)).run(tmp_path / "run")


def test_ids_metadata_and_what_is_there(run, tmp_path):
    for name in ("a", "b"):
        picture(99).save(tmp_path / f"{name}.png")
    more = files(tmp_path, "a.png", "b.png")
    added = run.add(more, ids=["A/1", "\u00e4"], metadata=[{"price": 5}, {"price": 50}])
    assert [item.id for item in added] == ["A/1", "\u00e4"]
    assert run.search("g0/c0.png", 9, where="price < 20").ids[0].tolist()[:2] == [4, -1]
    before = tree(run.folder, skip=(".run",))
    with pytest.raises(DataError, match=r"'A/1' is an item of this run already"):
        run.add(tmp_path / "a.png", ids=["A/1"])
    with pytest.raises(DataError, match=r"'a.png' is given twice"):
        run.add([tmp_path / "a.png", tmp_path / "a.png"])
    with pytest.raises(DataError, match="one for each picture"):
        run.add(tmp_path / "a.png", ids=["x", "y"])
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        run.add(tmp_path / "none.png")
    with pytest.raises(UnsupportedError, match="by their files"):
        run.add(PIL.Image.new("RGB", (9, 9)))
    with pytest.raises(UnsupportedError, match="got a Image"):
        run.add([PIL.Image.new("RGB", (9, 9))])
    (tmp_path / "m.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UnsupportedError, match="began from a folder of pictures"):
        run.add(tmp_path / "m.csv")
    assert run.add(tmp_path / "photos", existing="skip") == []
    assert tree(run.folder, skip=(".run",)) == before


def test_pictures_that_cannot_be_used(run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    picture(99).save(tmp_path / "good.png")
    with pytest.raises(DataError, match=r"nothing was added; the first: bad\.png"):
        run.add(tmp_path / "bad.png")
    with pytest.raises(vwkit.ImageError, match=r"bad\.png"):
        run.add(files(tmp_path, "bad.png", "good.png"), on_error="stop")
    assert len(run.items) == 4
    with pytest.warns(SkippedItems, match=r"1 of 2 were skipped; the first: bad\.png"):
        added = run.add(files(tmp_path, "bad.png", "good.png"))
    assert [(item.row, item.status) for item in added] == [(4, "skipped"), (5, "ok")]
    assert run.manifest["counts"]["skipped"] == 1
    picture(98).save(tmp_path / "bad.png")  # mended
    assert run.add(tmp_path / "bad.png")[0].row == 6
    assert run.search("bad.png", 1).ids.tolist() == [[6]]


def test_what_cannot_be_removed(run):
    with pytest.raises(DataError, match=r"no item 'g0/c9.png'; did you mean g0/c[01].png\?"):
        run.remove(["g0/c0.png", "g0/c9.png"])
    with pytest.raises(DataError, match="all items of the run"):
        run.remove([item.id for item in run.items])
    run.remove("g0/c0.png")
    with pytest.raises(DataError, match="was removed before"):
        run.remove("g0/c0.png")
    assert run.remove([]) == []
    assert [item.row for item in run.kept] == [1, 2, 3]


def test_what_cannot_grow_says_what_can(tmp_path):
    folder = photos(tmp_path / "photos", 3)

    class Fixed(vwkit.Index):
        """An index that is built once."""

        metrics = frozenset({"l2"})

        def _build(self, vectors):
            self._vectors = vectors

        def _search(self, queries, k):
            raise NotImplementedError

    from vwkit.plugins import registered

    with registered(vwkit.backend("fixed-index")(Fixed)):
        spec = colour_spec(folder, index={"use": "fixed-index"})
        spec["index"] = {"use": "fixed-index"}
        run = vwkit.Pipeline.from_dict(colour_spec(folder)).run(tmp_path / "run")
        run.__dict__["index"] = Fixed().build(run.vectors)
        from vwkit import changing

        with pytest.raises(UnsupportedError, match=r"cannot add items; .* that can: .*exact"):
            changing.check(run, "add", "supports_add")
    local = vwkit.Pipeline.from_dict(
        colour_spec(folder, featurizer={"use": "pixels"}, transform=[])
    )
    with pytest.raises(UnsupportedError, match="single descriptors"):
        local.run(tmp_path / "local").add(folder)
    clustered = colour_spec(folder, clusterer={"use": "lloyd", "k": 2})
    with pytest.raises(UnsupportedError, match="run its spec again"):
        vwkit.Pipeline.from_dict(clustered).run(tmp_path / "clustered").add(folder)
    plain = {key: value for key, value in colour_spec(folder).items() if key != "index"}
    with pytest.raises(UnsupportedError, match="has no index"):
        vwkit.Pipeline.from_dict(plain).run(tmp_path / "plain").remove("g0/c0.png")


def test_one_writer_at_a_time(run, tmp_path):
    picture(99).save(tmp_path / "a.png")
    with locked(run.folder / ".run/lock", run.folder), pytest.raises(RunError, match="in use by"):
        run.add(tmp_path / "a.png")
    (run.folder / ".run/state.json").write_text("{}")
    with pytest.raises(RunError, match="an interrupted"):
        run.remove("g0/c0.png")


def test_a_run_opened_before_is_told_to_open_again(run, tmp_path):
    early, late = vwkit.Run.open(run.folder), vwkit.Run.open(run.folder)
    early.search("g0/c0.png", 1)
    picture(99).save(tmp_path / "a.png")
    run.add(tmp_path / "a.png")
    with pytest.raises(RunError, match="changed since it was opened"):
        late.search("g0/c0.png", 1)
    # Whoever wants to change it sees it as it is.
    early.remove("a.png")
    assert [item.status for item in early.items] == ["ok"] * 4 + ["removed"]


def test_old_pictures_are_not_needed_any_more(run, tmp_path):
    shutil.rmtree(tmp_path / "photos")
    picture(99).save(tmp_path / "a.png")
    run.add(tmp_path / "a.png")
    assert len(run.kept) == 5
    assert run.search("g1/c1.png", 1).items[0][0].id == "g1/c1.png"


def test_metadata_of_urls_is_added(tmp_path):
    with PictureServer() as server:

        def lines(*numbers):
            records = [
                {"id": f"P{i}", "u": server.url(f"/picture/{i}.jpg"), "price": i} for i in numbers
            ]
            return "".join(json.dumps(one) + "\n" for one in records)

        (tmp_path / "m.jsonl").write_text(lines(1, 2, 3))
        (tmp_path / "more.jsonl").write_text(lines(3, 4, 5))
        spec = colour_spec(tmp_path)
        spec["images"] = {
            "urls": str(tmp_path / "m.jsonl"),
            "url_field": "u",
            "id_field": "id",
            "fields": ["price"],
            "cache": str(tmp_path / "cache"),
            "allow_private": True,
        }
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        with pytest.raises(DataError, match="'P3' is an item"):
            run.add(tmp_path / "more.jsonl")
        added = run.add(tmp_path / "more.jsonl", existing="skip")
        assert [(item.id, item.metadata) for item in added] == [
            ("P4", {"price": 4}),
            ("P5", {"price": 5}),
        ]
        assert server.asked.total() == 5
        assert run.search("P5", 5, where="price > 3").ids[0].tolist() == [4, 3, -1, -1, -1]


def test_a_table_describes_what_is_added_too(tmp_path):
    folder = photos(tmp_path / "photos", 2)
    table = tmp_path / "m.csv"
    table.write_text("file,sku,price\ng0/c0.png,A,1\ng0/c1.png,B,2\n")
    spec = colour_spec(folder)
    spec["images"] |= {"metadata": str(table), "id_field": "sku", "fields": ["price"]}
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    picture(99).save(folder / "new.png")
    picture(98).save(folder / "plain.png")
    table.write_text(table.read_text() + "new.png,C,3\n")
    added = run.add(folder, existing="skip")
    assert [(item.id, item.metadata) for item in added] == [("C", {"price": 3}), ("plain.png", {})]
    shutil.rmtree(folder)
    table.unlink()
    picture(97).save(tmp_path / "other.png")
    with pytest.raises(DataError, match=r"m\.csv: cannot be read"):
        run.add(tmp_path / "other.png")


# Kills -------------------------------------------------------------------------------------------


def test_a_change_cut_at_any_step_is_the_old_run_or_the_new(run, tmp_path, monkeypatch):
    """Every rename and removal of the commit may be the last thing that happens."""
    picture(99).save(tmp_path / "a.png")
    folder = run.folder
    old = [item.id for item in run.items]
    ends = set()
    dying = Dying(monkeypatch, folder)
    for _ in dying.every(lambda: vwkit.Run.open(folder).add(tmp_path / "a.png")):
        after = vwkit.Run.open(folder)
        ids = [item.id for item in after.items]
        assert ids in (old, [*old, "a.png"])
        ends.add(len(ids))
        assert len(after.index) == len(ids) == len(after.vectors)
        for name in ids:
            assert after.search(name, 1).items[0][0].id == name
        # And it can be changed again.
        after.remove(ids[-1])
    assert ends == {4, 5}


@pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="kill-safety is promised on Linux and macOS"
)
def test_killed_while_adding(run, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    for i in range(40):
        picture(100 + i).save(folder / f"n{i:02d}.png")
    command = [sys.executable, "-m", "vwkit", "add", str(run.folder), str(folder), "--quiet"]
    generator = random.Random(4)
    for _ in range(4):
        process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.3, 1.2))
        process.kill()
        process.wait(10)
        after = vwkit.Run.open(run.folder)
        assert len(after.items) in (4, 44)
        assert len(after.index) == len(after.kept) == len(after.vectors)
    subprocess.run([*command, "--skip-existing"], check=True, capture_output=True)
    after = vwkit.Run.open(run.folder)
    assert len(after.kept) == 44
    assert after.search("n07.png", 1).items[0][0].id == "n07.png"


def test_a_run_is_opened_while_another_process_changes_it(run, tmp_path):
    """A reader must not take part in a writer's commit: it would throw away what is new."""
    more = tmp_path / "more"
    more.mkdir()
    picture(77).save(more / "new.png")
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, vwkit\n"
            "run = vwkit.Run.open(sys.argv[1])\n"
            "for _ in range(4):\n"
            "    run.add([sys.argv[2]])\n"
            "    run.remove(['new.png'])\n",
            str(run.folder),
            str(more / "new.png"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    opened = 0
    with writer:
        while writer.poll() is None:
            seen = vwkit.Run.open(run.folder)
            opened += 1
            try:
                found = seen.search("g0/c0.png", 20)
            except RunError as error:
                assert "was changed since it was opened" in str(error)
                continue
            names = [item.id for item in found.items[0] if item is not None]
            assert sorted(names) == sorted(item.id for item in seen.kept)
        assert (writer.returncode, writer.stderr.read()) == (0, "")
    assert opened > 4
    assert vwkit.Run.open(run.folder).search("g0/c0.png", 1).items[0][0].id == "g0/c0.png"


def test_ids_and_metadata_are_plain_or_refused(run, tmp_path):
    picture(77).save(tmp_path / "new.png")
    before = tree(run.folder, {"lock"})
    for ids in ([""], ["a\nb"], ["x" * 301], [None], [b"x"], [True]):
        with pytest.raises(DataError, match="ids: text of 1 to 300 characters"):
            run.add(tmp_path / "new.png", ids=ids)
    for ids in ("N", b"N", 5):
        with pytest.raises(UnsupportedError, match="ids: a list, one for each picture"):
            run.add(tmp_path / "new.png", ids=ids)
    for one in ("x", None, {"p": Path("x")}, {"p": 10**5000}, {(1, 2): 3}):
        with pytest.raises(DataError, match=r"metadata of new\.png: text, numbers"):
            run.add(tmp_path / "new.png", metadata=[one])
    with pytest.raises(UnsupportedError, match="metadata: a list, one for each picture"):
        run.add(tmp_path / "new.png", metadata={"p": 1})
    for ids in (None, 5, b"x"):
        with pytest.raises(UnsupportedError, match="ids of items: text or a list"):
            run.remove(ids)
    for name in ("~nosuchuser/x", "a\0b", "x" * 5000):
        with pytest.raises(DataError, match="no such file or folder"):
            run.add(name)
    assert tree(run.folder, {"lock"}) == before
    known = {"p": np.float32(3), "q": float("nan"), "r": np.array([1, 2]), "s": {"b", "a"}}
    (item,) = run.add(tmp_path / "new.png", metadata=[known | {"t": "\ud800", "\ud800": 1}])
    assert item.metadata == {"p": 3.0, "q": None, "r": [1, 2], "s": ["a", "b"], "t": "?", "?": 1}
    assert run.search("new.png", 1, where="p >= 3").items[0][0].metadata == item.metadata


def test_what_was_of_no_use_is_told_once(tmp_path):
    """A metadata file that grows is added every night; a dead URL in it is no reason to fail."""
    with PictureServer() as server:
        lines = [{"id": f"P{i}", "url": server.url(f"/picture/{i}.jpg")} for i in range(3)]
        lines += [{"id": "dead", "url": server.url("/gone")}, {"id": "none"}]
        path = tmp_path / "m.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in lines) + "{broken\n")
        spec = colour_spec(tmp_path)
        images = {"urls": str(path), "id_field": "id", "cache": str(tmp_path / "cache")}
        spec["images"] = images | {"allow_private": True}
        with pytest.warns(SkippedItems):
            run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        assert len(run.items) == 6
        assert run.add(path, existing="skip") == []
        with path.open("a") as file:
            file.write(json.dumps({"id": "new", "url": server.url("/picture/7.jpg")}) + "\n")
        assert [item.id for item in run.add(path, existing="skip")] == ["new"]
        assert run.add(path, existing="skip") == []
        assert len(run.items) == 7


def test_a_bad_picture_given_again_is_left_out(run, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    picture(77).save(folder / "new.png")
    (folder / "bad.png").write_text("none")
    with pytest.warns(SkippedItems):
        run.add(folder, existing="skip")
    before = tree(run.folder, skip=(".run",))  # which keeps the log
    assert run.add(folder, existing="skip") == []
    assert tree(run.folder, skip=(".run",)) == before


def test_queries_that_are_no_picture(run, tmp_path):
    for query in ("", "x" * 5000):
        with pytest.raises(DataError, match="neither an item of this run nor a file"):
            run.search(query)
    with pytest.raises(DataError, match="a folder; a query is a picture file"):
        run.search(tmp_path)
