"""Every row is accounted for, and a run that loses one does not end well."""

import json

import numpy as np
import pytest

import vwkit
from tests.helpers import bag_spec, blobs, photo_folder, picture, vector_spec
from vwkit import extraction, stage_arrays
from vwkit.observing import read_log
from vwkit.observing.accounts import reasons_of
from vwkit.outputs.arrays import CodesOutput, LabelsOutput
from vwkit.outputs.words import WordsOutput
from vwkit.plugins import registered


def accounts(run):
    return run.manifest["accounts"]


# What the manifest says --------------------------------------------------------------------------


def test_a_run_of_vectors(tmp_path):
    spec = vector_spec(
        tmp_path,
        transform=[{"use": "pca", "dim": 4}, {"use": "l2-norm"}],
        quantizer={"use": "pq", "m": 2, "ks": 16},
        clusterer={"use": "lloyd", "k": 5, "train_rows": 100},
        index={"use": "exact"},
        output=[
            {"write": "codes", "path": str(tmp_path / "c.npy")},
            {"write": "labels", "path": str(tmp_path / "l.npy")},
            {"write": "words", "path": str(tmp_path / "w")},
        ],
    )
    said = accounts(vwkit.Pipeline.from_dict(spec).run(tmp_path / "run"))
    assert said["items"] == {"listed": 1, "ok": 1, "skipped": {}}
    rows = {name: (one["in"], one["out"]) for name, one in said["stages"].items()}
    assert rows == {
        "transform[0]": (600, None),
        "transform[1]": (None, None),
        "quantizer": (600, None),
        "codes": (600, 600),
        "clusterer": (100, 100),
        "labels": (600, 600),
        "index": (600, 600),
    }
    assert said["outputs"] == [
        {"write": "codes", "unit": "rows", "rows": 600},
        {"write": "labels", "unit": "rows", "rows": 600},
        {"write": "words", "unit": "words", "rows": 600},
    ]


def test_a_run_of_pictures(tmp_path):
    photo_folder(tmp_path / "photos")
    (tmp_path / "photos/broken.png").write_bytes(b"none")
    (tmp_path / "photos/torn.png").write_bytes(b"none")
    (tmp_path / "photos/notes.txt").write_text("no picture")
    (tmp_path / "photos/.hidden.png").write_text("no picture")
    spec = bag_spec(tmp_path / "photos", output={"write": "table", "path": str(tmp_path / "t.csv")})
    with pytest.warns(vwkit.SkippedItems):
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    said = accounts(run)
    assert said["items"]["listed"] == 8
    assert said["items"]["ok"] == 6
    assert said["items"]["ignored"] == 2
    assert sum(said["items"]["skipped"].values()) == 2
    local = said["stages"]["featurizer.local"]
    assert (local["unit"], local["in"], local["out"]) == ("images", 8, 6)
    assert local["skipped"] == said["items"]["skipped"]
    pixels = 6 * 96 * 72
    assert local["rows"] == pixels
    words = said["stages"]["featurizer.words"]
    assert (words["unit"], words["in"], words["out"]) == ("descriptors", pixels, pixels)
    assert said["stages"]["vectors"]["out"] == said["stages"]["index"]["out"] == 6
    assert said["outputs"] == [{"write": "table", "unit": "items", "rows": 8}]


@pytest.mark.parametrize("taken", [{"limit": 100}, {"sample": 100}])
def test_rows_that_are_not_wanted(tmp_path, taken):
    spec = vector_spec(tmp_path, index={"use": "exact"})
    spec["vectors"].update(taken)
    said = accounts(vwkit.Pipeline.from_dict(spec).run(tmp_path / "run"))
    assert said["items"]["rows left out"] == 500
    assert said["stages"]["index"]["in"] == 100


@pytest.mark.parametrize("limit", [None, 70])
def test_a_stream_that_nobody_counted_before(tmp_path, limit):
    """Rows of a compressed file are counted as they go by."""
    vwkit.write(tmp_path / "x.bvecs.gz", blobs(100))
    vectors = {"path": str(tmp_path / "x.bvecs.gz")}
    if limit:
        vectors["limit"] = limit
    spec = {
        "vwkit": 1,
        "vectors": vectors,
        "transform": {"use": "l2-norm"},
        "quantizer": {"use": "pq", "m": 2, "ks": 16},
        "clusterer": {"use": "lloyd", "k": 4, "iterations": 2},
        "output": {"write": "codes", "path": str(tmp_path / "c.npy")},
    }
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    said = accounts(run)["stages"]
    rows = limit or 100
    assert said["codes"]["in"] == rows
    assert said["codes"]["out"] == said["clusterer"]["out"] == rows
    assert run.manifest["counts"]["descriptors"] == rows


def test_pictures_that_are_not_wanted(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = bag_spec(tmp_path / "photos")
    spec["images"]["limit"] = 4
    said = accounts(vwkit.Pipeline.from_dict(spec).run(tmp_path / "run"))
    assert said["items"]["listed"] == 4
    assert said["items"]["left out"] == 2


def test_pixels_that_are_counted(tmp_path):
    photo_folder(tmp_path / "photos", groups=1)
    spec = {
        "vwkit": 1,
        "images": {"path": str(tmp_path / "photos")},
        "featurizer": {"use": "pixels"},
        "clusterer": {"use": "lloyd", "k": 4, "iterations": 2},
        "output": {"write": "labels", "path": str(tmp_path / "l.npy")},
    }
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    said = accounts(run)
    pixels = 2 * 96 * 72
    assert said["stages"]["colours"] == {"unit": "images", "in": 2, "out": 2, "rows": pixels}
    assert said["stages"]["labels"]["out"] == pixels
    colours = run.manifest["counts"]["colours"]
    assert said["stages"]["clusterer"]["in"] == said["stages"]["clusterer"]["out"] == colours
    assert said["outputs"][0]["rows"] == pixels


def test_after_adding_and_removing(tmp_path):
    photo_folder(tmp_path / "photos")
    (tmp_path / "photos/broken.png").write_bytes(b"none")
    spec = bag_spec(tmp_path / "photos", index={"use": "exact", "metric": "cosine"})
    with pytest.warns(vwkit.SkippedItems):
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    (tmp_path / "more").mkdir()
    for i in range(3):
        picture(60 + i).save(tmp_path / "more" / f"n{i}.png")
    (tmp_path / "more/bad.png").write_bytes(b"none")
    with pytest.warns(vwkit.SkippedItems):
        run.add(tmp_path / "more")
    run.remove(["g0/c0.png", "n1.png"])
    said = accounts(run)
    items = said["items"]
    assert (items["listed"], items["ok"], items["removed"]) == (11, 7, 2)
    assert sum(items["skipped"].values()) == 2
    local = said["stages"]["featurizer.local"]
    assert (local["in"], local["out"], local["removed"]) == (11, 7, 2)
    assert local["rows"] == said["stages"]["featurizer.words"]["out"] == 7 * 96 * 72
    assert said["stages"]["index"]["out"] == said["stages"]["vectors"]["out"] == 7


def test_reasons_are_counted_together():
    reasons = ["https://a/1.jpg: HTTP 404", "https://b/2.jpg: HTTP 404", "'x': torn", "torn"]
    assert reasons_of(reasons) == {"HTTP 404": 2, "torn": 2}
    many = reasons_of(f"reason {i}" for i in range(50))
    assert len(many) == 21
    assert sum(many.values()) == 50


# What is lost ------------------------------------------------------------------------------------


def lost(spec, folder, stage, match="lost"):
    """A run fails, names the stage, leaves no finished run, and its fault is not kept."""
    with pytest.raises(vwkit.BackendError, match=match) as raised:
        vwkit.Pipeline.from_dict(spec).run(folder)
    assert str(raised.value).startswith(stage)
    assert not (folder / "manifest.json").exists()
    (failed,) = [line for line in read_log(folder) if line["event"] == "run failed"]
    assert failed["message"] == str(raised.value)


def healed(spec, folder, monkeypatch):
    """Without the fault the run goes well, resumed too: nothing of it was kept."""
    monkeypatch.undo()
    run = vwkit.Pipeline.from_dict(spec).run(folder, resume=True)
    assert accounts(run)["items"]["listed"] == len(run.items)


@pytest.fixture
def patch():
    """A monkeypatch of its own, which may be undone."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_a_stage_that_writes_fewer_rows(tmp_path, patch):
    write = stage_arrays.write_stream

    def lossy(path, name, stream, **more):
        write(path, name, vwkit.Stream.from_array(stream.toarray()[:-1]), **more)

    patch.setattr("vwkit.flow.write_stream", lossy)
    spec = vector_spec(
        tmp_path,
        quantizer={"use": "pq", "m": 2, "ks": 16},
        output={"write": "codes", "path": str(tmp_path / "c.npy")},
    )
    lost(spec, tmp_path / "run", "codes", match="600 rows and it holds 599: 1 were lost")
    assert not (tmp_path / "c.npy").exists()
    healed(spec, tmp_path / "run", patch)


def test_words_that_are_fewer_than_descriptors(tmp_path, patch):
    photo_folder(tmp_path / "photos")
    write = stage_arrays.write_words

    def lossy(path, words, stream):
        less = stream.toarray()[:-5]
        offsets = np.minimum(stream.offsets, len(less))
        write(path, words, vwkit.Stream.from_array(less, offsets=offsets, kind=stream.kind))

    patch.setattr("vwkit.flow_images.write_words", lossy)
    lost(bag_spec(tmp_path / "photos"), tmp_path / "run", "featurizer.words", match="5 were lost")
    healed(bag_spec(tmp_path / "photos"), tmp_path / "run", patch)


def test_images_that_vanish_without_a_reason(tmp_path, patch):
    photo_folder(tmp_path / "photos")
    extract = extraction.extract

    def lossy(path, featurizer, key, items, hashes, *more):
        extract(path, featurizer, key, items[:-1], hashes[:-1], *more)

    patch.setattr("vwkit.flow_images.extract", lossy)
    spec = bag_spec(tmp_path / "photos")
    lost(spec, tmp_path / "run", "featurizer.local", match="6 images and it tells of 5")
    healed(spec, tmp_path / "run", patch)


def test_images_that_are_neither_used_nor_skipped(tmp_path, patch):
    photo_folder(tmp_path / "photos")
    (tmp_path / "photos/broken.png").write_bytes(b"none")
    write = extraction.write_artifact

    class Silent(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, [] if key == "skipped" else value)

    import contextlib

    @contextlib.contextmanager
    def lossy(path, manifest):
        with write(path, manifest) as draft:
            draft.manifest = Silent(draft.manifest)
            yield draft

    patch.setattr(extraction, "write_artifact", lossy)
    lost(
        bag_spec(tmp_path / "photos"),
        tmp_path / "run",
        "featurizer.local",
        match="7 images and it used or skipped 6",
    )


@vwkit.backend("forgetful")
class Forgetful(vwkit.Index):
    """Takes in all vectors but the last, and says how many it holds."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        self._held = np.array(vectors[:-1])

    def _size(self):
        return len(self._held)

    def _search(self, queries, k):
        return np.zeros((len(queries), 1), np.int64), np.zeros((len(queries), 1), np.float32)


def test_an_index_that_forgets(tmp_path):
    with registered(Forgetful):
        spec = vector_spec(tmp_path, index={"use": "forgetful"})
        with pytest.raises(vwkit.BackendError, match="forgetful.*600 vectors and holds 599"):
            vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        with pytest.raises(vwkit.BackendError, match="holds 599"):
            Forgetful().build(blobs())


def test_a_stage_in_the_cache_that_was_never_counted(tmp_path, patch):
    """Kept by an earlier vwkit, say: it is made anew, not taken."""
    spec = vector_spec(
        tmp_path,
        quantizer={"use": "pq", "m": 2, "ks": 16},
        output={"write": "codes", "path": str(tmp_path / "c.npy")},
    )
    write = stage_arrays.write_stream

    def lossy(path, name, stream, **more):
        write(path, name, vwkit.Stream.from_array(stream.toarray()[:-1]), **more)

    patch.setattr("vwkit.flow.write_stream", lossy)
    patch.setattr("vwkit.stages.account_of", lambda *some: None)
    patch.setattr("vwkit.stages.Stages._tell", lambda *some: None)
    patch.setattr("vwkit.pipeline.close_accounts", lambda *some: {})
    patch.setattr("vwkit.pipeline._check_output", lambda *some: None)
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    patch.undo()
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "again")
    assert run.manifest["stages"]["codes"]["from"] == "computed"
    assert len(np.load(tmp_path / "c.npy")) == 600


def test_items_that_are_not_written(tmp_path, patch):
    photo_folder(tmp_path / "photos")
    write = vwkit.pipeline.write_items
    patch.setattr("vwkit.pipeline.write_items", lambda path, items: write(path, items[:-1]))
    lost(bag_spec(tmp_path / "photos"), tmp_path / "run", "items.jsonl", match="6 items")


@pytest.mark.parametrize("output", ["codes", "labels", "words"])
def test_an_output_that_writes_fewer_rows(tmp_path, patch, output):
    spec = vector_spec(
        tmp_path,
        quantizer={"use": "pq", "m": 2, "ks": 16},
        clusterer={"use": "lloyd", "k": 5, "iterations": 2},
        output={"write": output, "path": str(tmp_path / ("w" if output == "words" else "o.npy"))},
    )
    if output == "words":
        write = WordsOutput._write

        def lossy(self, run, path):
            write(self, run, path)
            words = np.load(path / "words.npy")
            np.save(path / "words.npy", words[:-1])

        patch.setattr(WordsOutput, "_write", lossy)
    else:
        kind = {"codes": CodesOutput, "labels": LabelsOutput}[output]
        whole = kind._array
        patch.setattr(kind, "_array", lambda self, run: whole(self, run)[:-1])
    with pytest.raises(vwkit.BackendError, match=f"^{output}: .*1 were lost"):
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    (failed,) = [line for line in read_log(tmp_path / "run") if line["event"] == "run failed"]
    assert failed["stage"] == f"write {output}"
    path = tmp_path / ("w" if output == "words" else "o.npy")
    assert not path.exists()
    patch.undo()
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run", resume=True)
    assert path.exists()


def test_a_table_that_leaves_an_item_out(tmp_path, patch):
    from vwkit.outputs.table import TableOutput

    photo_folder(tmp_path / "photos")
    spec = bag_spec(
        tmp_path / "photos", output={"write": "table", "path": str(tmp_path / "t.json")}
    )
    tell = TableOutput._lines
    patch.setattr(TableOutput, "_lines", lambda self, run: list(tell(self, run))[:-1])
    with pytest.raises(vwkit.BackendError, match="table: the run has 6 items and .* held 5"):
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    patch.undo()
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run", resume=True)
    assert len(json.loads((tmp_path / "t.json").read_text())) == 6


# What files lose ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x.bvecs", lambda raw: raw + b"\x01"),
        ("x.bvecs", lambda raw: raw[:-1]),
        ("x.fvecs", lambda raw: raw[:-3]),
        ("x.fvecs", lambda raw: raw + b"\x00\x00"),
        ("x.npy", lambda raw: raw[:-1]),
        ("x.npy", lambda raw: raw + b"\x00"),
        ("x.bvecs.gz", lambda raw: raw[: len(raw) // 2]),
        ("x.bvecs.gz", lambda raw: raw[:-4]),
        ("x.bvecs.gz", lambda raw: raw + b"rubbish"),
        ("x.fbin", lambda raw: raw + b"\x00" * 4),
        ("x.fbin", lambda raw: raw[:-2]),
    ],
)
def test_a_file_with_too_much_or_too_little(tmp_path, name, change):
    data = blobs(200, 8, dtype=np.float32 if name in ("x.fvecs", "x.fbin") else np.uint8)
    path = tmp_path / name
    vwkit.write(path, data)
    path.write_bytes(change(path.read_bytes()))
    spec = {
        "vwkit": 1,
        "vectors": {"path": str(path)},
        "clusterer": {"use": "lloyd", "k": 4, "iterations": 1},
    }
    with pytest.raises(vwkit.DataError, match=name):
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
