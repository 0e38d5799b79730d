"""Trials of the whole command: folders that cannot be written, two at once, full disks, strange names, kills."""

import contextlib
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
import pytest

import vwkit
from tests.helpers import blobs, dump, picture, tree
from tests.test_growing import colour_spec, photos
from vwkit import run_parts
from vwkit.observing import status

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="kill-safety is promised on Linux and macOS"
)
SEED = 11


def begin(folder, *words, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "vwkit", *map(str, words)],
        cwd=folder,
        env={**os.environ, "VWKIT_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def end(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait(process, what):
    """Wait until something is so, or the process has ended."""
    while process.poll() is None and not what():
        time.sleep(0.002)


@pytest.fixture
def vectors(tmp_path):
    np.save(tmp_path / "x.npy", blobs(3000, 8))
    clusterer = {"use": "lloyd", "k": 24, "iterations": 6, "train_rows": 1000}
    spec = {"vwkit": 1, "vectors": {"path": "x.npy"}, "clusterer": clusterer}
    return dump(tmp_path / "s.yaml", {**spec, "output": {"write": "labels", "path": "l.npy"}})


@pytest.fixture
def run(tmp_path):
    """A run that can grow, six pictures that it has and one that it has not."""
    folder = photos(tmp_path / "photos", 3)
    picture(99).save(tmp_path / "new.png")
    return vwkit.Pipeline.from_dict(colour_spec(folder)).run(tmp_path / "run")


@contextlib.contextmanager
def not_to_be_written(folder):
    """Take the right to write from everybody; who is root keeps it all the same."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


ASK = """
import contextlib, io, json, sys
from vwkit.cli.main import _status
said = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _status(words)
    said.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(said))
"""


def asked_without_rights(folder, *commands):
    """Return what commands say to somebody whom the rights of files bind."""
    # Root is bound by them, too, without the one capability that lets him pass.
    root = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    if root and (shutil.which("setpriv") is None or subprocess.call([*root, "true"])):
        pytest.skip("root cannot give up his rights here")
    done = subprocess.run(
        [*root, sys.executable, "-c", ASK, json.dumps([words.split() for words in commands])],
        cwd=folder,
        env={**os.environ, "VWKIT_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_that_may_only_be_read(run, tmp_path, vectors):
    """It is read as ever, and whatever would change it says so, at once and in one line."""
    reading = ["status run", "search run g0/c0.png -k 1", "inspect run"]
    writing = [
        "run s.yaml --out run --quiet",
        "run s.yaml --out run --quiet --resume",
        "add run new.png --quiet",
        "remove run g0/c0.png --quiet",
        "compact run --quiet",
        "report run",
    ]
    before = tree(run.folder)
    with not_to_be_written(run.folder):
        said = asked_without_rights(tmp_path, *reading, *writing)
    for code, out, err in said[: len(reading)]:
        assert (code, err) == (0, "")
        assert out
    for code, out, err in said[len(reading) :]:
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("error: ")
        assert "cannot be written: Permission denied" in err
    assert tree(run.folder) == before


def test_a_change_cut_short_in_a_folder_that_may_only_be_read(run, tmp_path):
    """Whoever may not put it right says so at once, and waits for nobody."""
    (run.folder / ".run/commit.json").write_text('{"new": [], "old": []}')
    began = time.monotonic()
    with not_to_be_written(run.folder):
        ((code, _, err),) = asked_without_rights(tmp_path, "search run g0/c0.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written: Permission denied" in err
    assert time.monotonic() - began < run_parts._PATIENCE


def test_of_two_that_begin_at_once_one_runs_and_names_itself_to_the_other(tmp_path, vectors):
    generator = random.Random(SEED)
    for number in range(3):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        words = ("run", "s.yaml", "--out", "run", "--quiet", *["--resume"] * (number % 2))
        first = begin(tmp_path, *words)
        if number:  # the others begin as the first one is at work, or is about to end
            wait(first, (tmp_path / "run/.run/lock").is_file)
            time.sleep(generator.uniform(0, 0.1))
        second = begin(tmp_path, *words)
        ends = {process.pid: end(process) for process in (first, second)}
        for process, other in ((first, second), (second, first)):
            code, out, err = ends[process.pid]
            if code:
                assert (code, out, err.count("\n")) == (2, "", 1), err
                assert f"in use by process {other.pid} on " in err
        assert sorted(code for code, _, _ in ends.values()) in ([0, 0], [0, 2])
        assert status(tmp_path / "run")["state"] == "finished"


def test_a_lock_whose_number_is_of_another_process_by_now(run, tmp_path):
    lock = run.folder / ".run/lock"
    lock.write_text(json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "id": "x"}))
    assert status(run.folder)["state"] == "finished"
    assert [item.id for item in run.add(tmp_path / "new.png")] == ["new.png"]


def test_killed_in_memory_and_gone_on_with_on_disk(tmp_path, vectors):
    """A run folder on another file system, moved while nothing runs."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no file system in memory here")
    vwkit.Pipeline.from_file(vectors).run(tmp_path / "whole")
    place = memory / f"vwkit-test-{os.getpid()}"
    try:
        process = begin(tmp_path, "run", "s.yaml", "--out", place / "run", "--quiet")
        wait(process, (place / "run/.run/next").is_dir)
        process.kill()
        end(process)
        shutil.move(place / "run", tmp_path / "run")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    code, _, err = end(begin(tmp_path, "run", "s.yaml", "--out", "run", "--quiet", "--resume"))
    assert (code, err) == (0, "")
    for name in ("clusterer", "labels"):
        assert tree(tmp_path / "run" / name) == tree(tmp_path / "whole" / name) != {}


def test_a_disk_that_is_full_and_made_larger(tmp_path, vectors):
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(how):
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", disk], capture_output=True, check=False
        ).returncode

    if os.geteuid() != 0 or mount("size=4096"):
        pytest.skip("mounting is not allowed here")
    try:
        for size in (4096, 16384, 24576):
            assert mount(f"remount,size={size}") == 0
            words = ("run", "s.yaml", "--out", "disk/run", "--quiet", "--resume")
            code, out, err = end(begin(tmp_path, *words))
            assert (code, out, err.count("\n")) == (1, "", 1), err
            assert err.startswith(f"error: {tmp_path}")
            assert "No space left on device" in err
            assert status(disk / "run")["state"] in ("interrupted", "failed")
        assert mount("remount,size=60000000") == 0
        code, _, err = end(begin(tmp_path, *words))
        assert (code, err) == (0, "")
        assert status(disk / "run")["state"] == "finished"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_clock_that_was_set_back(tmp_path, vectors):
    """Every file is of the future: what it holds decides, and not when it was written."""
    vwkit.Pipeline.from_file(vectors).run(tmp_path / "whole")

    shutil.rmtree(os.environ["VWKIT_CACHE"])

    def stop(stage, done, *_):
        if stage == "labels" and done:
            raise vwkit.Interrupted("enough")

    with pytest.raises(vwkit.Interrupted):
        vwkit.Pipeline.from_file(vectors).run(tmp_path / "run", progress=stop)
    for path in (tmp_path / "x.npy", *(tmp_path / "run").rglob("*")):
        os.utime(path, (4e9, 4e9))
    said = tmp_path / "run/.run/progress.json"
    said.write_text(said.read_text().replace('"20', '"21'))
    found = status(tmp_path / "run")
    assert (found["state"], found["seconds_since_update"]) == ("interrupted", 0.0)
    kept = (tmp_path / "run/.run/next/clusterer/manifest.json").stat().st_ino
    run = vwkit.Pipeline.from_file(vectors).run(tmp_path / "run", resume=True)
    assert run.path("clusterer").joinpath("manifest.json").stat().st_ino == kept
    assert tree(run.path("labels")) == tree(tmp_path / "whole/labels")
    assert status(tmp_path / "run")["state"] == "finished"


@pytest.mark.parametrize(
    "name",
    ["a b", "漢字 – ünï", "-x", "q'u\"o", "new\nline", "%s{0}[1]*?", "\udcff\udcfe", "x" * 255],
    ids=["space", "unicode", "dash", "quotes", "line", "pattern", "not UTF-8", "longest"],
)
def test_folders_of_any_name(run, tmp_path, name, capsys):
    from vwkit.cli.main import _status as command

    folder = tmp_path / "home" / name
    try:
        shutil.copytree(run.folder, folder)
    except OSError:
        pytest.skip("no such names on this file system")
    for words in [
        ("status", folder),
        ("search", folder, "g1/c0.png", "-k", "1"),
        ("add", folder, tmp_path / "new.png", "--quiet"),
        ("remove", folder, "g0/c0.png", "--quiet"),
        ("compact", folder, "--quiet"),
        ("report", folder),
    ]:
        assert command([str(word) for word in words]) == 0, (words, capsys.readouterr().err)
    opened = vwkit.Run.open(folder)
    assert next(item.id for item in opened.kept) == "g0/c1.png"
    assert opened.index.dead == 0
    # And a run begins, is stopped and goes on there.
    spec = colour_spec(tmp_path / "photos")
    vwkit.Pipeline.from_dict(spec).run(folder)
    vwkit.Pipeline.from_dict(spec).run(folder, resume=True)
    assert status(folder)["state"] == "finished"


def test_a_name_that_no_system_takes_is_one_line(tmp_path, vectors):
    for name in ("x" * 256, "/".join(["d" * 200] * 30)):
        code, out, err = end(begin(tmp_path, "run", "s.yaml", "--out", name, "--quiet"))
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("error: ")
        assert "name too long" in err.lower()


CHANGES = {
    "add": ("add", "run", "more", "--quiet", "--skip-existing"),
    "remove": ("remove", "run", "g0/c0.png", "g2/c1.png", "--quiet"),
    "compact": ("compact", "run", "--quiet"),
}


@pytest.mark.parametrize("verb", CHANGES)
def test_a_change_killed_at_a_random_moment(run, tmp_path, verb):
    (tmp_path / "more").mkdir()
    for i in range(6):
        picture(100 + i).save(tmp_path / "more" / f"n{i}.png")
    if verb == "compact":
        run.remove(["g0/c0.png", "g2/c1.png"])
    old, dead = [item.id for item in run.kept], run.index.dead
    saved = tmp_path / "saved"
    shutil.copytree(run.folder, saved)
    assert end(begin(tmp_path, *CHANGES[verb]))[0] == 0
    changed = vwkit.Run.open(run.folder)
    new, gone = [item.id for item in changed.kept], changed.index.dead
    generator = random.Random(SEED)
    for _ in range(2):
        shutil.rmtree(run.folder)
        shutil.copytree(saved, run.folder)
        lock = run.folder / ".run/lock"
        before = lock.read_bytes()
        process = begin(tmp_path, *CHANGES[verb])
        wait(process, lambda before=before, lock=lock: lock.read_bytes() != before)
        time.sleep(generator.uniform(0, 0.15))
        process.kill()
        end(process)
        after = vwkit.Run.open(run.folder)
        assert ([item.id for item in after.kept], after.index.dead) in ((old, dead), (new, gone))
        assert len(after.index) == len(after.kept)
        # It is done again, or was done; nothing is left of the one that was killed.
        if [item.id for item in after.kept] == old:
            assert end(begin(tmp_path, *CHANGES[verb]))[0] == 0
        vwkit.Run.open(run.folder).compact()
        assert [item.id for item in vwkit.Run.open(run.folder).kept] == new
        assert not list(run.folder.rglob("*.part*"))
        assert not (run.folder / ".run/next").exists()
        assert not (run.folder / ".run/parts").exists()
