"""Pipelines end to end: results, caching, resuming, what happens to bad input."""

import contextlib
import json
import os
import shutil
import threading

import numpy as np
import PIL.Image
import pytest

import vwkit
from tests.helpers import bag_spec, blobs, photo_folder, tree, vector_spec
from vwkit.around import Reranker
from vwkit.cache import Cache
from vwkit.outputs.words import read_words
from vwkit.plugins import registered
from vwkit.reference import bag_of_words as reference_bags


def origins(run):
    return {name: stage["from"] for name, stage in run.manifest["stages"].items()}


def test_vocabulary_from_vectors_equals_python(tmp_path):
    spec = vector_spec(
        tmp_path,
        clusterer={"use": "lloyd", "k": 12, "iterations": 5},
        output=[
            {"write": "vocabulary", "path": str(tmp_path / "v")},
            {"write": "words", "path": str(tmp_path / "w")},
            {"write": "labels", "path": str(tmp_path / "l.npy")},
        ],
    )
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    rows = vwkit.read(tmp_path / "x.npy").toarray()
    seed = vwkit.derive_seed(3, "clusterer")
    same = vwkit.create("clusterer", "lloyd", k=12, iterations=5, seed=seed).fit(rows)
    assert (run.clusterer.centers == same.centers).all()
    words, items = read_words(tmp_path / "w")
    assert (words.words == same.labels).all()
    assert [item.id for item in items] == ["x.npy"]
    assert (np.load(tmp_path / "l.npy") == same.labels).all()
    assert (vwkit.load(tmp_path / "v").encode(rows)[:, 0] == same.labels).all()


def test_codes_transform_train_and_index(tmp_path):
    spec = vector_spec(
        tmp_path,
        transform=[{"use": "pca", "dim": 4, "train": {"rows": 200}}, {"use": "l2-norm"}],
        quantizer={"use": "pq", "m": 2, "ks": 16},
        clusterer={"use": "lloyd", "k": 5, "train_rows": 100},
        index={"use": "exact"},
        output={"write": "codes", "path": str(tmp_path / "codes.npy")},
    )
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    rows = vwkit.read(tmp_path / "x.npy").toarray()
    for transform in run.transforms:
        rows = transform.transform(rows)
    codes = np.load(tmp_path / "codes.npy")
    assert (codes == run.quantizer.encode(rows)).all()
    assert codes.dtype == np.uint8
    assert len(run.clusterer.labels) == 100
    assert (run.words.words == run.clusterer.predict(rows)).all()
    assert (run.index.search(rows[:9], 1).distances < 1e-6).all()


def test_bags_of_words_equal_the_reference(tmp_path):
    truth = photo_folder(tmp_path / "photos")
    spec = bag_spec(
        tmp_path / "photos",
        evaluate={"protocol": "groups", "groundtruth": str(truth), "exclude_query": True},
    )
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    words = run.words
    parts = np.split(words.words, words.offsets[1:-1])
    expected = reference_bags.bag_of_words(parts, 12)
    assert np.allclose(run.vectors.toarray(), expected, atol=1e-6)
    found = run.search(run.items[0].id, 2)
    assert found.items[0][0].id == "g0/c0.png"
    assert found.items[0][1].id == "g0/c1.png"
    again = run.search(tmp_path / "photos/g0/c0.png", 2)
    assert (again.ids == found.ids).all()
    assert run.scores["mAP"] == pytest.approx(1.0)
    reopened = vwkit.Run.open(tmp_path / "run")
    assert reopened.scores == run.scores
    assert [item.id for item in reopened.items] == [
        f"g{g}/c{c}.png" for g in range(3) for c in range(2)
    ]
    assert reopened.items[0].size == (96, 72)


def test_sparse_bags_go_into_dense_indexes(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = bag_spec(tmp_path / "photos", index={"use": "exact", "metric": "cosine"})
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert run.search("g1/c0.png", 1).ids.tolist() == [[2]]


def test_sparse_bags_are_transformed(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = bag_spec(
        tmp_path / "photos",
        transform=[{"use": "pca", "dim": 3}, {"use": "l2-norm"}],
        index={"use": "exact"},
    )
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert run.index.dim == 3
    assert run.search("g1/c0.png", 1).distances[0, 0] < 1e-6
    wide = vwkit.Pipeline.from_dict({**spec, "run": {"memory": 100}})
    with pytest.raises(vwkit.DataError, match="do not fit"):
        wide.run(tmp_path / "wide")


def test_local_features_vote_for_items(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = {
        "vwkit": 1,
        "images": {"path": str(tmp_path / "photos"), "pattern": "*/c0.png"},
        "featurizer": {"use": "pixels"},
        "transform": {"use": "l2-norm"},
        "index": {"use": "exact"},
    }
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    found = run.search([tmp_path / "photos/g2/c0.png"], 2)
    assert found.items[0][0].id == "g2/c0.png"
    assert found.distances[0, 0] < found.distances[0, 1]


def test_a_second_run_repeats_nothing_and_a_change_only_what_depends_on_it(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = bag_spec(tmp_path / "photos")
    first = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert set(origins(first).values()) == {"computed"}
    second = vwkit.Pipeline.from_dict(spec).run(tmp_path / "other")
    assert set(origins(second).values()) == {"cache"}
    changed = vwkit.Pipeline.from_dict(spec, ["featurizer.weighting=tf"]).run(tmp_path / "third")
    assert {name for name, origin in origins(changed).items() if origin == "computed"} == {
        "featurizer",
        "vectors",
        "index",
    }
    for name in ("featurizer.local", "featurizer.vocabulary", "featurizer.words"):
        assert tree(first.path(name)) == tree(second.path(name)) == tree(changed.path(name))


def test_the_same_pipeline_runs_twice(tmp_path):
    photo_folder(tmp_path / "photos")
    pipeline = vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos"))
    pipeline.run(tmp_path / "a")
    assert set(origins(pipeline.run(tmp_path / "b")).values()) == {"cache"}


def test_features_are_cached_by_image(tmp_path, monkeypatch):
    photo_folder(tmp_path / "photos")
    seen = []
    pixels = vwkit.backends()["featurizer"]["pixels"]
    extract = pixels._extract
    monkeypatch.setattr(
        pixels, "_extract", lambda self, images: seen.extend(images) or extract(self, images)
    )
    spec = bag_spec(tmp_path / "photos")
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert len(seen) == 6
    shutil.move(tmp_path / "photos/g0", tmp_path / "photos/moved")
    shutil.copy(tmp_path / "photos/g1/c0.png", tmp_path / "photos/again.png")
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert len(seen) == 6
    assert len(run.items) == 7


def test_late_parameters_are_outside_the_key(tmp_path):
    if "hnsw" not in vwkit.backends()["index"]:
        pytest.skip("vwkit-hnswlib is not installed")
    spec = vector_spec(tmp_path, index={"use": "hnsw", "ef": 50})
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    run = vwkit.Pipeline.from_dict(spec, ["index.ef=60"]).run(tmp_path / "run")
    assert origins(run) == {"index": "cache"}


def test_bad_images_are_skipped_counted_and_listed(tmp_path):
    photo_folder(tmp_path / "photos")
    (tmp_path / "photos/broken.png").write_bytes(b"not a picture")
    spec = bag_spec(tmp_path / "photos")
    with pytest.warns(vwkit.SkippedItems, match="1 of 7"):
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert run.manifest["counts"]["skipped"] == 1
    broken = run.items[0]
    assert (broken.id, broken.status) == ("broken.png", "skipped")
    assert "not an image" in broken.reason
    assert run.search("g0/c0.png", 1).items[0][0].id == "g0/c0.png"
    with pytest.raises(vwkit.ImageError, match=r"broken\.png"):
        vwkit.Pipeline.from_dict({**spec, "run": {"on_error": "stop"}}).run(tmp_path / "stopped")
    with pytest.raises(vwkit.RunError, match="interrupted"):
        vwkit.Run.open(tmp_path / "stopped")


@pytest.mark.parametrize("content", ["nothing", "only broken"])
def test_a_folder_without_usable_images(tmp_path, content):
    (tmp_path / "photos").mkdir()
    if content == "only broken":
        (tmp_path / "photos/a.png").write_bytes(b"x")
    with pytest.raises(vwkit.DataError, match="images: no"):
        vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos")).run(tmp_path / "run")


def test_nan_is_told_with_its_place(tmp_path):
    rows = blobs(dtype=np.float32)
    rows[17, 3] = np.nan
    vwkit.write(tmp_path / "x.npy", rows)
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4})
    with pytest.raises(vwkit.DataError, match="row 17, column 3"):
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")


def interrupted_at(spec, folder, stage, step=1):
    """Run until the given step of a stage, then stop as Ctrl-C would."""
    stop = threading.Event()
    seen = []

    def watch(name, done, total, unit, values):
        if name == stage:
            seen.append(done)
            if len(seen) > step:
                stop.set()

    job = vwkit.Job(threads=2, progress=watch, stop=stop)
    with pytest.raises(vwkit.Interrupted):
        vwkit.Pipeline.from_dict(spec).run(folder, job=job)


@pytest.mark.parametrize(
    ("stage", "step"), [("clusterer", 0), ("clusterer", 2), ("clusterer", 4), ("quantizer", 1)]
)
def test_resuming_ends_in_the_same_bytes(tmp_path, monkeypatch, stage, step):
    spec = vector_spec(
        tmp_path,
        quantizer={"use": "pq", "m": 4, "ks": 16},
        clusterer={"use": "lloyd", "k": 12, "iterations": 6, "tolerance": 0.0},
        index={"use": "exact"},
        output={"write": "codes", "path": str(tmp_path / "codes.npy")},
    )
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache-a"))
    whole = vwkit.Pipeline.from_dict(spec).run(tmp_path / "whole")
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache-b"))
    interrupted_at(spec, tmp_path / "cut", stage, step)
    shutil.rmtree(tmp_path / "cache-b")
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "cut", resume=True)
    for name in ("quantizer", "codes", "clusterer", "index"):
        assert tree(whole.path(name)) == tree(run.path(name))
    assert (whole.folder / "items.jsonl").read_bytes() == (run.folder / "items.jsonl").read_bytes()


def test_resume_of_a_finished_run_restores_outputs(tmp_path):
    target = tmp_path / "v"
    spec = vector_spec(
        tmp_path,
        clusterer={"use": "lloyd", "k": 4},
        output={"write": "vocabulary", "path": str(target)},
    )
    first = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    before = tree(target)
    stamp = (first.folder / "manifest.json").stat().st_mtime_ns
    shutil.rmtree(target)
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run", resume=True)
    assert tree(target) == before
    assert (first.folder / "manifest.json").stat().st_mtime_ns == stamp


def test_resume_of_another_spec_names_the_keys(tmp_path):
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4})
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    other = vwkit.Pipeline.from_dict(spec, ["clusterer.k=5"])
    with pytest.raises(vwkit.RunError, match=r"clusterer\.k"):
        other.run(tmp_path / "run", resume=True)
    assert other.run(tmp_path / "run").clusterer.k == 5


def test_the_old_run_stays_until_the_new_one_is_complete(tmp_path):
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4, "tolerance": 0.0})
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    other = {**spec, "clusterer": {"use": "lloyd", "k": 7, "tolerance": 0.0}}
    interrupted_at(other, tmp_path / "run", "clusterer")
    assert vwkit.Run.open(tmp_path / "run").clusterer.k == 4
    assert vwkit.Pipeline.from_dict(other).run(tmp_path / "run", resume=True).clusterer.k == 7


def test_a_commit_cut_short_is_rolled_forward(tmp_path, monkeypatch):
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4})
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    rename = os.rename
    import pathlib

    for stop_at in range(6):
        calls = []

        def failing(self, target, calls=calls, stop_at=stop_at):
            if ".run/next/" in str(self) and str(target).startswith(str(tmp_path / "run/")):
                calls.append(self)
                if ".run" not in str(target) and len(calls) > stop_at:
                    raise KeyboardInterrupt
            rename(self, target)
            return pathlib.Path(target)

        other = vwkit.Pipeline.from_dict(spec, [f"clusterer.k={5 + stop_at}"])
        with monkeypatch.context() as patched:
            patched.setattr(pathlib.Path, "rename", failing)
            with contextlib.suppress(KeyboardInterrupt):
                other.run(tmp_path / "run")
        run = vwkit.Run.open(tmp_path / "run")
        assert run.clusterer.k in (4 + stop_at, 5 + stop_at)
        other.run(tmp_path / "run")


def test_a_folder_that_is_not_ours_is_not_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear")
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4})
    with pytest.raises(vwkit.RunError, match="not a run of vwkit"):
        vwkit.Pipeline.from_dict(spec).run(tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["diary.txt"]


def test_a_file_beside_the_stages_survives_the_next_run(tmp_path):
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4}, index={"use": "exact"})
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    (run.folder / "notes.txt").write_text("keep")
    del spec["index"]
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert (run.folder / "notes.txt").read_text() == "keep"
    assert not (run.folder / "index").exists()


def test_a_second_run_on_one_folder_is_refused(tmp_path):
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4})
    errors = []

    def second(*_):
        if not errors:
            with pytest.raises(vwkit.RunError) as caught:
                vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
            errors.append(str(caught.value))

    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run", progress=second)
    assert f"process {os.getpid()}" in errors[0]


def test_a_run_can_be_moved(tmp_path):
    photo_folder(tmp_path / "photos")
    vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos")).run(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "photos/g2")
    run = vwkit.Run.open(tmp_path / "elsewhere")
    found = run.search("g2/c1.png", 2)
    assert {item.id for item in found.items[0]} == {"g2/c0.png", "g2/c1.png"}


def test_a_damaged_cache_entry_is_computed_again(tmp_path):
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4})
    first = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    before = tree(first.path("clusterer"))
    shutil.rmtree(tmp_path / "run")
    for entry in Cache().entries():
        for file in entry.path.rglob("*.npy"):
            data = bytearray(file.read_bytes())
            data[-1] ^= 1
            file.write_bytes(bytes(data))
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert origins(run) == {"clusterer": "computed"}
    assert tree(run.path("clusterer")) == before


def test_a_cache_that_cannot_be_written_costs_one_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "file"))
    photo_folder(tmp_path / "photos")
    with pytest.warns(vwkit.CacheWarning) as caught:
        run = vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos")).run(tmp_path / "run")
    assert len(caught) == 1
    assert set(origins(run).values()) == {"computed"}


def test_cache_upkeep(tmp_path):
    spec = vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 4}, index={"use": "exact"})
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    cache = Cache()
    sizes = [entry.size for entry in cache.entries()]
    assert len(sizes) == 2
    assert cache.trim(max(sizes)) > 0
    assert len(list(cache.entries())) == 1
    cache.clear()
    assert list(cache.entries()) == []


def test_a_damaged_run_gives_one_clear_error(tmp_path):
    photo_folder(tmp_path / "photos")
    run = vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos")).run(tmp_path / "run")
    file = next(run.path("index").glob("_values-*.npy"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(vwkit.ArtifactError, match="make it again"):
        vwkit.Run.open(tmp_path / "run").search("g0/c0.png", 1)
    manifest = tmp_path / "run/manifest.json"
    text = json.loads(manifest.read_text())
    for bad in (
        {**text, "format": 99},
        {**text, "kind": "cat"},
        {**text, "stages": {"../x": {}}},
        [],
    ):
        manifest.write_text(json.dumps(bad))
        with pytest.raises(vwkit.ArtifactError):
            vwkit.Run.open(tmp_path / "run")


def test_official_oxford_layout(tmp_path):
    rows = blobs(rows=30, dim=128)
    (tmp_path / "renamed.bin").write_bytes(rows.tobytes() + b"\0" * 12)
    counts = {"oxc1_all_souls_000001": 12, "oxc1_bodleian_000002": 18}
    prose = "\n".join(["prose"] * 20)
    (tmp_path / "README2.txt").write_text(prose + "\n" + "\n".join(counts) + "\n")
    (tmp_path / "words").mkdir()
    for name, count in counts.items():
        lines = "\n".join(f"{i + 1} 1.0 2.0 0.1 0.0 0.1" for i in range(count))
        (tmp_path / f"words/{name}.txt").write_text(f"1.0\n{count}\n{lines}\n")
    spec = {
        "vwkit": 1,
        "vectors": {
            "use": "oxford-sift",
            "path": str(tmp_path / "renamed.bin"),
            "images": str(tmp_path / "README2.txt"),
            "counts": str(tmp_path / "words"),
        },
        "clusterer": {"use": "lloyd", "k": 4},
        "output": {"write": "words", "path": str(tmp_path / "out"), "text": True},
    }
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    words, items = read_words(tmp_path / "out")
    assert words.offsets.tolist() == [0, 12, 30]
    assert [item.id for item in items] == ["all_souls_000001.jpg", "bodleian_000002.jpg"]
    text = (tmp_path / "out/text/bodleian_000002.jpg.txt").read_text().split()
    assert text[0] == "18"
    assert [int(word) for word in text[1:]] == run.clusterer.labels[12:].tolist()


def test_image_ids_that_are_odd(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    names = ["ä ö.png", "a;b&c<d>.png", "z'\".png"]
    for i, name in enumerate(names):
        PIL.Image.fromarray(np.full((4, 4, 3), 40 * i, np.uint8)).save(folder / name)
    (folder / "loop").symlink_to(folder)
    spec = bag_spec(folder, featurizer={"use": "bag-of-words", "local": {"use": "pixels"},
                                        "vocabulary": {"use": "lloyd", "k": 3}})  # fmt: skip
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert [item.id for item in run.items] == sorted(names)


@vwkit.backend("backwards")
class Backwards(Reranker):
    """Turns the first matches round."""

    top: vwkit.Positive = vwkit.Field(default=2, doc="How many.")

    def _rerank(self, query, matches, features):
        assert query.vectors.shape[1] == features(int(matches.ids[0, 0])).vectors.shape[1]
        ids = matches.ids.copy()
        ids[:, : self.top] = ids[:, : self.top][:, ::-1]
        return vwkit.Matches(ids, matches.distances)


def test_rerankers_order_the_matches_anew(tmp_path):
    photo_folder(tmp_path / "photos")
    plain = vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos")).run(tmp_path / "plain")
    with registered(Backwards):
        spec = bag_spec(tmp_path / "photos", rerank=[{"use": "backwards", "top": 2}])
        run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
        for query in ("g1/c0.png", tmp_path / "photos/g1/c0.png"):
            assert (run.search(query, 3).ids[0, [1, 0]] == plain.search(query, 3).ids[0, :2]).all()


def test_a_run_of_vectors_is_searched_by_vectors(tmp_path):
    spec = vector_spec(tmp_path, transform={"use": "l2-norm"}, index={"use": "exact"})
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    rows = vwkit.read(tmp_path / "x.npy").toarray()[:5]
    found = run.search(rows, 2)
    assert found.items is None
    assert (found.distances[:, 0] < 1e-6).all()
