"""Runs that were cut short: gone on with in place, in another place, beside somebody else's."""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

import vwkit
from tests.helpers import bag_spec, blobs, dump, photo_folder, tree
from vwkit import growing_arrays
from vwkit.artifact import open_artifact, write_artifact
from vwkit.builtin.pixels import Pixels
from vwkit.cache import Cache
from vwkit.extraction import extract
from vwkit.items import find_images
from vwkit.lock import holder, locked
from vwkit.observing import status
from vwkit.planning.hits import Hits


@pytest.fixture(autouse=True)
def always_recorded(monkeypatch):
    monkeypatch.setattr(growing_arrays, "_EVERY", 0.0)
    monkeypatch.setattr(growing_arrays, "_SHARE", 0)


class Stop:
    """Told of progress, it ends the work at the n-th word from a stage."""

    def __init__(self, stage, after=0):
        self.job = vwkit.Job(threads=1, progress=self)
        self.stage, self.left = stage, after

    def __call__(self, stage, done, total, unit, values):
        if stage == self.stage and done:
            self.left -= 1
            if self.left < 0:
                raise vwkit.Interrupted("enough")


def cut(path, folder, stage, after=0):
    with pytest.raises(vwkit.Interrupted):
        vwkit.Pipeline.from_file(path).run(folder, job=Stop(stage, after).job)


SLOTS = {
    "vectors": {"path": "data/x.npy"},
    "transform": [{"use": "pca", "dim": 4}],
    "quantizer": {"use": "pq", "m": 2, "ks": 8, "iterations": 3},
    "clusterer": {"use": "lloyd", "k": 12, "iterations": 4, "train_rows": 300},
    "index": {"use": "exact"},
    "output": [{"write": "codes", "path": "made/codes.npy"}, {"write": "labels", "path": "l.npy"}],
}
STAGES = ("transform[0]", "quantizer", "codes", "clusterer", "labels", "index")


def vectors(folder):
    (folder / "data").mkdir(parents=True)
    (folder / "made").mkdir()
    np.save(folder / "data/x.npy", blobs(600, 8))
    return dump(folder / "s.yaml", {"vwkit": 1, "seed": 5, **SLOTS})


def made(folder):
    """Return the bytes of all that a run makes."""
    parts = {name: tree(folder / "run" / name) for name in STAGES}
    outputs = {name: (folder / name).read_bytes() for name in ("made/codes.npy", "l.npy")}
    return {**parts, **outputs, "items.jsonl": (folder / "run/items.jsonl").read_bytes()}


@pytest.mark.parametrize("stage", ["codes", "labels", "clusterer", "write codes"])
def test_a_copied_folder_goes_on_in_another_place(tmp_path, monkeypatch, stage):
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache-a"))
    spec = vectors(tmp_path / "here")
    vwkit.Pipeline.from_file(spec).run(tmp_path / "here/run")
    expected = made(tmp_path / "here")
    shutil.rmtree(tmp_path / "here")
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache-b"))
    spec = vectors(tmp_path / "here")
    if stage == "write codes":
        vwkit.Pipeline.from_file(spec).run(tmp_path / "here/run")
        (tmp_path / "here/made/codes.npy").unlink()
    else:
        cut(spec, tmp_path / "here/run", stage)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    shutil.rmtree(tmp_path / "cache-b")
    run = vwkit.Pipeline.from_file(tmp_path / "there/s.yaml").run(
        tmp_path / "there/run", resume=True
    )
    found = made(tmp_path / "there")
    # Items name their file by its absolute path, as the manifest, the spec and the report do.
    moved = str(tmp_path / "there").encode(), str(tmp_path / "here").encode()
    found["items.jsonl"] = found["items.jsonl"].replace(*moved)
    assert found == expected
    origins = {name: stage["from"] for name, stage in run.manifest["stages"].items()}
    assert set(origins.values()) == {"computed"}
    assert not (tmp_path / "here").exists()


def test_inputs_may_lie_elsewhere_and_budgets_may_differ(tmp_path):
    spec = vectors(tmp_path / "here")
    cut(spec, tmp_path / "run", "codes")
    started = (tmp_path / "run/.run/next/quantizer/manifest.json").stat().st_mtime_ns
    (tmp_path / "disk").mkdir()
    (tmp_path / "here/data/x.npy").rename(tmp_path / "disk/x.npy")
    changed = {**SLOTS, "vectors": {"path": str(tmp_path / "disk/x.npy")}}
    changed["run"] = {"threads": 2, "memory": "1GB"}
    dump(spec, {"vwkit": 1, "seed": 5, **changed})
    run = vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True)
    assert run.path("quantizer").joinpath("manifest.json").stat().st_mtime_ns == started
    # A finished run is not looked into again: an input in another place could be another one.
    back = {**changed, "vectors": {"path": "data/x.npy"}}
    dump(spec, {"vwkit": 1, "seed": 5, **back})
    shutil.copy(tmp_path / "disk/x.npy", tmp_path / "here/data/x.npy")
    with pytest.raises(vwkit.RunError, match=r"these keys differ: vectors\.path"):
        vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True)
    changed["seed"] = 6
    with pytest.raises(vwkit.RunError, match=r"these keys differ: .*seed"):
        vwkit.Pipeline.from_file(dump(spec, {"vwkit": 1, **changed})).run(
            tmp_path / "run", resume=True
        )


def test_other_data_in_the_same_place_are_seen(tmp_path):
    spec = vectors(tmp_path / "here")
    cut(spec, tmp_path / "run", "codes")
    np.save(tmp_path / "here/data/x.npy", blobs(600, 8, seed=1))
    run = vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True)
    other = vwkit.Pipeline.from_file(spec).run(tmp_path / "other")
    assert tree(run.path("codes")) == tree(other.path("codes"))


class TestExtraction:
    """Images that are done stay done, with a cache or without."""

    @pytest.fixture
    def photos(self, tmp_path):
        photo_folder(tmp_path / "photos")
        (tmp_path / "photos/g1/broken.png").write_bytes(b"nothing")
        return tmp_path / "photos"

    def test_it_goes_on_without_a_cache(self, tmp_path, photos, monkeypatch):
        monkeypatch.setattr("vwkit.extraction._IMAGES_AT_ONCE", 2)
        items = find_images(photos)
        hashes = [f"hash-{item.row}" for item in items]
        seen = []
        real = Pixels._extract
        monkeypatch.setattr(
            Pixels, "_extract", lambda self, images: seen.extend(images) or real(self, images)
        )

        class NoCache:
            def features(self, *_):
                return None

            def keep_features(self, *_):
                pass

        def extracted(folder, stop=None):
            job = vwkit.Job(threads=1, folder=folder / "kept") if stop is None else stop
            with vwkit.use_job(job):
                extract(
                    folder / "stage", vwkit.create("featurizer", "pixels"), "key", items, hashes,
                    NoCache(), "skip",
                )  # fmt: skip
            return tree(folder / "stage")

        expected = extracted(tmp_path / "whole")
        assert len(seen) == 6
        for after in range(3):
            stop = Stop("", after)
            stop.job.folder = tmp_path / str(after) / "kept"
            seen.clear()
            with pytest.raises(vwkit.Interrupted):
                extracted(tmp_path / str(after), stop.job)
            assert extracted(tmp_path / str(after)) == expected
            assert len(seen) == 6

    @pytest.mark.filterwarnings("ignore::vwkit.errors.SkippedItems")
    def test_bags_of_words_cut_while_they_are_made(self, tmp_path, photos, monkeypatch):
        monkeypatch.setattr("vwkit.builtin.image_work._IMAGES_AT_ONCE", 2)
        monkeypatch.setattr("vwkit.extraction._IMAGES_AT_ONCE", 2)
        spec = dump(tmp_path / "s.yaml", bag_spec(photos))
        monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache-a"))
        whole = vwkit.Pipeline.from_file(spec).run(tmp_path / "whole")
        monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache-b"))
        names = list(whole.manifest["stages"])
        for stage in ("featurizer.local", "featurizer.words", "vectors"):
            cut(spec, tmp_path / stage, stage)
            shutil.rmtree(tmp_path / "cache-b")
            run = vwkit.Pipeline.from_file(spec).run(tmp_path / stage, resume=True)
            for name in names:
                assert tree(run.path(name)) == tree(whole.path(name)), (stage, name)
            shutil.rmtree(tmp_path / "cache-b")


class TestTheLock:
    """One process at a time, which is named; nobody waits for one that is gone."""

    def test_whoever_comes_second_is_told_who_is_there(self, tmp_path):
        spec = vectors(tmp_path / "here")
        photo_folder(tmp_path / "photos")
        run = vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos")).run(tmp_path / "run")
        with locked(tmp_path / "run/.run/lock", tmp_path / "run"):
            named = f"in use by process {os.getpid()} on "
            for use in (
                lambda: vwkit.Pipeline.from_file(spec).run(tmp_path / "run"),
                lambda: vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True),
                lambda: run.add([tmp_path / "photos/g0/c0.png"], ids=["more"]),
                lambda: run.remove([run.items[0].id]),
            ):
                with pytest.raises(vwkit.RunError, match=named):
                    use()
        assert [item.id for item in run.remove([run.items[0].id])] == ["g0/c0.png"]

    def test_a_lock_file_that_was_left_or_copied_holds_nobody_up(self, tmp_path):
        spec = vectors(tmp_path / "here")
        code = (
            "import sys, os, signal, pathlib\n"
            "from vwkit.lock import locked\n"
            "with locked(pathlib.Path(sys.argv[1]), pathlib.Path('x')):\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        path = tmp_path / "run/.run/lock"
        subprocess.run([sys.executable, "-c", code, str(path)], check=False)
        assert "pid" in path.read_text()
        with locked(path, tmp_path):  # somebody works in a folder while it is copied
            shutil.copytree(tmp_path / "run", tmp_path / "copy")
            vwkit.Pipeline.from_file(spec).run(tmp_path / "copy")
        vwkit.Pipeline.from_file(spec).run(tmp_path / "run")

    def test_whoever_only_looks_keeps_nobody_out(self, tmp_path):
        path = tmp_path / "lock"
        path.touch()
        file = path.open()
        fcntl.flock(file, fcntl.LOCK_SH)  # as `holder` does
        leaving = threading.Timer(0.02, file.close)
        leaving.start()
        try:
            with locked(path, tmp_path):
                assert holder(path).name == f"process {os.getpid()} on {socket.gethostname()}"
        finally:
            leaving.join()

    def test_a_lock_file_that_holds_nonsense(self, tmp_path):
        spec = vectors(tmp_path / "here")
        path = tmp_path / "run/.run/lock"
        path.parent.mkdir(parents=True)
        for content in (b"", b"\xff\xfe", b"[1]", b'{"pid": "x"}', bytes(1 << 16)):
            path.write_bytes(content)
            vwkit.Pipeline.from_file(spec).run(tmp_path / "run")


class TestLeftovers:
    """What a killed process was writing goes away, and nothing else."""

    def test_parts_of_a_run(self, tmp_path):
        spec = vectors(tmp_path / "here")
        cut(spec, tmp_path / "run", "codes")
        left = tmp_path / "run/.run/next/.codes.abcd1234.part"
        left.mkdir()
        (left / "codes.part").write_bytes(bytes(100))
        inside = tmp_path / "run/.run/next/quantizer/.manifest.json.abcd1234.part.json"
        inside.write_bytes(b"half")
        report = tmp_path / "run/.report.html.abcd1234.part.html"
        report.write_bytes(b"half")
        vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True)
        assert not list((tmp_path / "run").rglob("*.part*"))
        assert not (tmp_path / "run/.run/next").exists()
        assert not (tmp_path / "run/.run/checkpoints").exists()

    def test_parts_beside_an_artifact(self, tmp_path):
        dead = tmp_path / ".model.abcd1234.part"
        others = [tmp_path / name for name in (".model.abcd1234.party", ".models.abcd1234.part")]
        pipe = tmp_path / ".model.abcd5678.part"
        with write_artifact(tmp_path / "model", {}) as draft:
            for folder in (dead, *others):
                folder.mkdir()
                (folder / "a.npy").write_bytes(b"x")
            os.mkfifo(pipe)
            with write_artifact(tmp_path / "model", {}):
                pass
            assert draft.folder.exists()  # somebody writes there
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == sorted(["model", *(folder.name for folder in others)])

    def test_where_there_are_no_locks_age_tells(self, tmp_path, monkeypatch):
        import fcntl

        def none(*_):
            raise OSError(errno.ENOLCK, "no locks here")

        monkeypatch.setattr(fcntl, "flock", none)
        old, young = (tmp_path / f".model.{name}.part" for name in ("abcd1234", "abcd5678"))
        for folder in (old, young):
            folder.mkdir()
        os.utime(old, (1e9, 1e9))
        with write_artifact(tmp_path / "model", {}):
            pass
        assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "model"]


@pytest.mark.parametrize(
    "name", ["state.json", "checkpoints/stages.json", "checkpoints/*/rows/journal", "next/*/*"]
)
def test_any_damage_of_an_unfinished_run_is_mended(tmp_path, monkeypatch, name):
    spec = vectors(tmp_path / "here")
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache-a"))
    vwkit.Pipeline.from_file(spec).run(tmp_path / "here/run")
    expected = made(tmp_path / "here")
    shutil.rmtree(tmp_path / "here/run")
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache-b"))
    cut(spec, tmp_path / "here/run", "labels")
    shutil.copytree(tmp_path / "here/run", tmp_path / "kept")
    generator = np.random.default_rng(0)
    files = [path for path in (tmp_path / "kept/.run").glob(name) if path.is_file()]
    assert files
    for path in files:
        shutil.rmtree(tmp_path / "cache-b", ignore_errors=True)
        shutil.rmtree(tmp_path / "here/run")
        shutil.copytree(tmp_path / "kept", tmp_path / "here/run")
        content = bytearray(path.read_bytes())
        content[generator.integers(len(content))] ^= 0x04
        (tmp_path / "here/run" / path.relative_to(tmp_path / "kept")).write_bytes(content)
        vwkit.Pipeline.from_file(spec).run(tmp_path / "here/run", resume=True)
        assert made(tmp_path / "here") == expected, path


def test_damage_of_a_finished_run_is_told_wherever_it_is(tmp_path):
    spec = vectors(tmp_path / "here")
    nested = {**SLOTS, "index": {"use": "sharded", "shards": 2, "index": {"use": "exact"}}}
    dump(spec, {"vwkit": 1, "seed": 5, **nested})
    run = vwkit.Pipeline.from_file(spec).run(tmp_path / "run")
    files = [file for stage in STAGES for file in run.path(stage).rglob("*") if file.is_file()]
    files.append(run.folder / "items.jsonl")
    assert any(file.parent.parent.parent == run.folder for file in files)  # within another
    for path in files:
        whole = path.read_bytes()
        content = bytearray(whole)
        content[len(content) // 2] ^= 0x04
        path.write_bytes(content)
        with pytest.raises(vwkit.ArtifactError, match=re.escape(str(path.parent))):
            vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True)
        path.write_bytes(whole)
    copy = run.folder / "spec.yaml"
    whole = copy.read_bytes()
    copy.write_bytes(whole.replace(b"k: 12", b"k: 13"))
    vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True)
    assert copy.read_bytes() == whole  # the manifest has it, too


def test_a_changed_letter_of_the_spec_that_was_begun_is_damage_and_no_other_spec(tmp_path):
    spec = vectors(tmp_path / "here")
    cut(spec, tmp_path / "run", "labels")
    state = tmp_path / "run/.run/state.json"
    state.write_text(state.read_text().replace('"seed": 5', '"seed": 7'))
    run = vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True)
    assert run.spec["seed"] == 5


_STRANGE = {
    "link": lambda path, target: path.symlink_to(target),
    "pipe": lambda path, target: os.mkfifo(path),
    "folder": lambda path, target: (path / "in").mkdir(parents=True),
}


@pytest.mark.parametrize("kind", _STRANGE)
@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "log.jsonl",
        "progress.json",
        "state.json",
        "state.json.part",
        "outputs.json.part",
        "commit.json.part",
        "checkpoints/stages.json",
        "checkpoints/stages.json.part",
        "next/items.jsonl",
        "next/manifest.json",
        "next/report.html",
        "next/spec.yaml",
        "next",
        "checkpoints",
    ],
)
def test_nothing_strange_in_a_copied_run_is_followed_or_waited_for(tmp_path, kind, name):
    spec = vectors(tmp_path / "here")
    cut(spec, tmp_path / "run", "codes")
    others = tmp_path / "others"
    (others / "x").mkdir(parents=True)
    (others / "file").write_text("precious")
    path = tmp_path / "run/.run" / name
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    _STRANGE[kind](path, others if name in ("next", "checkpoints") else others / "file")
    status(tmp_path / "run")
    vwkit.Pipeline.from_file(spec).run(tmp_path / "run", resume=True)
    assert status(tmp_path / "run")["state"] == "finished"
    assert tree(others) == {"file": b"precious"}
    assert (others / "x").is_dir()


@pytest.mark.parametrize("kind", [*_STRANGE, "endless", "long"])
def test_a_plan_of_a_strange_run_folder_follows_and_waits_for_nothing(tmp_path, kind):
    ledger = tmp_path / "run/.run/checkpoints/stages.json"
    ledger.parent.mkdir(parents=True)
    told = json.dumps({"index": {"key": "abc"}})
    ledger.write_text(told)
    assert Hits(Cache(tmp_path / "cache"), tmp_path / "run")._earlier == json.loads(told)
    (tmp_path / "other").write_text(told)
    ledger.unlink()
    if kind == "endless":
        ledger.symlink_to("/dev/zero")
    elif kind == "long":
        ledger.write_text(told)
        os.truncate(ledger, 1 << 40)  # it takes no room
    else:
        _STRANGE[kind](ledger, tmp_path / "other")
    assert Hits(Cache(tmp_path / "cache"), tmp_path / "run")._earlier == {}


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless"])
def test_a_manifest_that_is_no_file_is_not_waited_for(tmp_path, kind):
    vwkit.Pipeline.from_file(vectors(tmp_path / "here")).run(tmp_path / "run")
    manifest = tmp_path / "run/manifest.json"
    manifest.unlink()
    if kind == "endless":
        manifest.symlink_to("/dev/zero")
    else:
        _STRANGE[kind](manifest, None)
    with pytest.raises(vwkit.ArtifactError, match="not the manifest of a run"):
        vwkit.Run.open(tmp_path / "run")
    assert not status(tmp_path / "run")["complete"]


def test_the_state_says_what_spec_it_is_of(tmp_path):
    spec = vectors(tmp_path / "here")
    cut(spec, tmp_path / "run", "codes")
    state = json.loads((tmp_path / "run/.run/state.json").read_text())
    assert state["spec"]["clusterer"]["k"] == 12


def test_outputs_of_an_earlier_run_are_not_taken_for_those_of_this_one(tmp_path):
    spec = vectors(tmp_path / "here")
    folder = tmp_path / "here/run"
    vwkit.Pipeline.from_file(spec).run(folder)
    other = {**SLOTS, "quantizer": {"use": "pq", "m": 4, "ks": 8, "iterations": 3}}
    dump(spec, {"vwkit": 1, "seed": 5, **other})
    with pytest.raises(ZeroDivisionError):  # cut between the run and its outputs

        def killed(self, *_):
            raise ZeroDivisionError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vwkit.pipeline.Pipeline._write_outputs", killed)
            vwkit.Pipeline.from_file(spec).run(folder)
    assert np.load(tmp_path / "here/made/codes.npy").shape == (600, 2)
    pending = folder / ".run/outputs.json"
    whole = pending.read_bytes()
    for content in (whole, whole.replace(b"1", b"3", 1), b"nothing"):
        pending.write_bytes(content)
        np.save(tmp_path / "here/made/codes.npy", np.zeros((600, 2), np.uint8))
        np.save(tmp_path / "here/l.npy", np.zeros(600, np.int32))
        run = vwkit.Pipeline.from_file(spec).run(folder, resume=True)
        assert (
            np.load(tmp_path / "here/made/codes.npy")
            == open_artifact(run.path("codes")).arrays()["codes"]
        ).all()
        assert (np.load(tmp_path / "here/l.npy") != 0).any()
        assert not pending.exists()


@pytest.mark.parametrize("where", ["run", "cache"])
def test_damage_in_an_artifact_within_a_stage_is_mended(tmp_path, monkeypatch, where):
    photo_folder(tmp_path / "photos")
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))
    spec = dump(tmp_path / "s.yaml", bag_spec(tmp_path / "photos"))
    whole = vwkit.Pipeline.from_file(spec).run(tmp_path / "whole")
    folder = tmp_path / "cut"
    if where == "run":
        shutil.rmtree(tmp_path / "cache")
        cut(spec, folder, "vectors")
        shutil.rmtree(tmp_path / "cache")
        (path,) = (folder / ".run/next/featurizer").glob("vocabulary-*/centers-*")
    else:
        (path,) = (tmp_path / "cache/stages").glob("*/*/vocabulary-*/centers-*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # the cache may share it
    path.write_bytes(content)
    run = vwkit.Pipeline.from_file(spec).run(folder, resume=where == "run")
    for name in run.manifest["stages"]:
        assert tree(run.path(name)) == tree(whole.path(name)), name


def test_what_was_being_put_into_the_cache_goes_with_the_next_trim(tmp_path):
    cache = Cache(tmp_path)
    old = [tmp_path / "stages/ab/abc.1.part", tmp_path / "features/f/ab/abc.1.part"]
    young = tmp_path / "stages/ab/abd.1.part"
    for path in (old[0], young):
        path.mkdir(parents=True)
        (path / "x").write_bytes(b"1")
    old[1].parent.mkdir(parents=True)
    old[1].write_bytes(b"1")
    for path in old:
        os.utime(path, (1e9, 1e9))
    assert list(cache.entries()) == []
    cache.trim(1 << 30)
    assert [path.exists() for path in (*old, young)] == [False, False, True]
