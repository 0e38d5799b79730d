"""A run that is killed at a random moment ends, resumed, in the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import vwkit
from tests.helpers import bag_spec, dump, photo_folder, tree
from vwkit.cli.signals import stopping

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="kill-safety is promised on Linux and macOS"
)


def command(folder, *more):
    return [sys.executable, "-m", "vwkit", "run", "s.yaml", "--quiet", "--out", str(folder), *more]


@pytest.fixture
def work(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (60_000, 16), dtype=np.uint8)
    vwkit.write(tmp_path / "x.bvecs", rows)
    spec = {
        "vwkit": 1,
        "vectors": {"path": "x.bvecs"},
        "quantizer": {"use": "pq", "m": 4, "ks": 32, "train_rows": 20_000, "iterations": 8},
        "clusterer": {"use": "lloyd", "k": 128, "iterations": 12, "tolerance": 0.0},
        "index": {"use": "exact"},
        "output": [{"write": "codes", "path": "codes.npy"}, {"write": "vocabulary", "path": "v"}],
    }
    dump(tmp_path / "s.yaml", spec)
    return tmp_path


def environment(work, name):
    return {**os.environ, "VWKIT_CACHE": str(work / name)}


def result(work, out):
    return {**tree(out, skip=(".run", "manifest.json", "report.html")), **tree(work / "v")}


@pytest.mark.parametrize(("seed", "number"), [(1, "SIGKILL"), (2, "SIGINT"), (3, "SIGTERM")])
def test_killed_and_resumed(work, seed, number):
    started = time.monotonic()
    subprocess.run(command("whole"), cwd=work, env=environment(work, "a"), check=True)
    seconds = time.monotonic() - started
    expected = result(work, work / "whole")
    generator = random.Random(seed)
    for _ in range(3):
        process = subprocess.Popen(
            command("cut", "--resume"),
            cwd=work,
            env=environment(work, "b"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(generator.uniform(0.1, 0.9) * seconds)
        process.send_signal(getattr(signal, number))
        status = process.wait(30)
        # 0: it was done before the signal came; minus the signal: Python was still starting.
        assert status in (0, -getattr(signal, number), 0 if number == "SIGKILL" else 130)
    done = subprocess.run(
        command("cut", "--resume"),
        cwd=work,
        env=environment(work, "b"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert result(work, work / "cut") == expected


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A spec of photos, and what it makes in peace."""
    folder = tmp_path_factory.mktemp("photos")
    photo_folder(folder / "photos")
    output = [{"write": "words", "path": "out/words"}, {"write": "index", "path": "out/index"}]
    spec = bag_spec("photos", output=output)
    dump(folder / "s.yaml", spec)
    done = harm(folder, "whole", "a", {"count": str(folder / "count")})
    assert done.returncode == 0, done.stderr
    made = tree(folder / "whole", skip=(".run", "manifest.json", "report.html"))
    out = tree(folder / "out")
    return folder, made, out, json.loads((folder / "count").read_text())[0]


def harm(folder, out, cache, task):
    arguments = ["run", "s.yaml", "--quiet", "--resume", "--out", out]
    root = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.harmed", json.dumps([arguments, task])],
        cwd=folder,
        env={**os.environ, "VWKIT_CACHE": str(folder / cache), "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_killed_at_an_operation_of_the_file_system(photos, monkeypatch, share):
    """`python -m benchmarks faults` does the same at length."""
    folder, made, out, count = photos
    name = f"cut-{share}"
    shutil.rmtree(folder / "out")
    killed = harm(folder, name, name + "-cache", {"kill": round(share * count)})
    assert killed.returncode == -signal.SIGKILL
    monkeypatch.setenv("VWKIT_CACHE", str(folder / (name + "-cache")))
    vwkit.Pipeline.from_file(folder / "s.yaml").run(folder / name, resume=True)
    assert tree(folder / name, skip=(".run", "manifest.json", "report.html")) == made
    assert tree(folder / "out") == out


DEAF = """
import os, signal, sys, threading
from vwkit.cli.signals import stopping

stop, never = threading.Event(), threading.Lock()
never.acquire()
with stopping(stop, "told", grace=eval(sys.argv[1])):
    for name in sys.argv[2:]:
        os.kill(os.getpid(), getattr(signal, name))
        if name != sys.argv[-1]:
            stop.wait(30)
    never.acquire()  # as in a library that does not come back
"""


@pytest.mark.parametrize(
    ("grace", "signals"),
    [("0.1", ["SIGINT"]), ("0.1", ["SIGTERM"]), ("None", ["SIGINT", "SIGTERM"]), ("1e6", ["SIGTERM", "SIGINT"])],
)  # fmt: skip
def test_work_that_does_not_listen_is_left_all_the_same(grace, signals):
    done = subprocess.run(
        [sys.executable, "-c", DEAF, grace, *signals],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        "told",
        "interrupted; what was recorded is kept, run again with --resume to continue",
    ]


@pytest.fixture
def interruptible():
    """Ctrl-C raises, whoever started the tests: a shell's background work ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_work_that_listens_ends_by_itself(capsys, interruptible):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = threading.Event()
    with stopping(stop, "told", grace=1e6):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(30)
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not [one for one in threading.enumerate() if one.name == "vwkit-signals"]
    assert capsys.readouterr().err == "told\n"
    with pytest.raises(KeyboardInterrupt):  # as ever
        signal.raise_signal(signal.SIGINT)
