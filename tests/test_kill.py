"""A run that is killed at a random moment ends, resumed, in the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import vwkit
from tests.helpers import dump, tree

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


@pytest.mark.parametrize(("seed", "number"), [(1, "SIGKILL"), (2, "SIGKILL"), (3, "SIGTERM")])
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
        assert status in (0, -getattr(signal, number), 130 if number == "SIGTERM" else 0)
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
