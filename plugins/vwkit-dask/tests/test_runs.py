"""Whole runs on processes: the same bytes as here, also when a worker is killed or Ctrl-C is pressed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import vwkit_dask.cluster
import yaml
from PIL import Image
from vwkit_dask.cluster import described

import vwkit
from vwkit.errors import Interrupted, RunError

LLOYD = {"use": "lloyd", "k": 40, "iterations": 4}


@pytest.fixture
def vectors(tmp_path) -> dict:
    rng = np.random.default_rng(0)
    middles = rng.integers(0, 200, (60, 16))
    rows = middles[rng.integers(0, 60, 6000)] + rng.integers(0, 55, (6000, 16))
    vwkit.write(tmp_path / "rows.bvecs", rows.astype(np.uint8))
    return {"vwkit": 1, "vectors": {"path": str(tmp_path / "rows.bvecs")}}


@pytest.fixture
def pictures(tmp_path) -> dict:
    rng = np.random.default_rng(1)
    (tmp_path / "pictures").mkdir()
    for i in range(11):
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3)).astype(np.uint8))
        small.resize((96, 96)).save(tmp_path / f"pictures/{i % 10}-{i}.png")
    (tmp_path / "pictures/broken.png").write_bytes(b"no picture")
    (tmp_path / "pictures/again.png").write_bytes((tmp_path / "pictures/3-3.png").read_bytes())
    return {"vwkit": 1, "images": {"path": str(tmp_path / "pictures")}}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a spec with a cache of its own; return all arrays that the run holds, as bytes."""

    def one(name: str, spec: dict, executor: dict | None = None, **asked) -> dict[str, bytes]:
        monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / f"cache-{name}"))
        if executor is not None:
            spec = {**spec, "run": {"threads": 2, "executor": {"use": "dask", **executor}}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vwkit.errors.SkippedItems)
            vwkit.Pipeline.from_dict(spec).run(tmp_path / name, **asked)
        files = sorted((tmp_path / name).rglob("*.npy"))
        return {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files}

    return one


SPECS = {
    "lloyd": {"clusterer": LLOYD},
    "an index assigns": {"clusterer": {**LLOYD, "assign": {"use": "exact"}}},
    "pca and labels of other rows": {
        "transform": [{"use": "pca", "dim": 8}],
        "clusterer": {**LLOYD, "train": {"rows": 2000}},
    },
    "pq": {"quantizer": {"use": "pq", "m": 4, "ks": 16}, "output": []},
    "sharded": {"index": {"use": "sharded", "shards": 3, "index": {"use": "exact"}}},
    "graph": {"clusterer": {"use": "graph-kmeans", "k": 60}},
    "a tree": {"clusterer": {"use": "tree", "branch": 4, "depth": 3, "beam": 2}},
    "codes": {
        "quantizer": {"use": "pq", "m": 4, "ks": 16},
        "clusterer": {"use": "graph-pqkmeans", "k": 60},
    },
}


@pytest.mark.parametrize("name", SPECS)
def test_runs_on_vectors(run, vectors, scheduler, name):
    if name in ("graph", "codes", "a tree") and importlib.util.find_spec("vwkit_numba") is None:
        pytest.skip("its clusterer is in another plugin: pip install ./plugins/vwkit-numba")
    spec = {**vectors, **SPECS[name]}
    here = run("here", spec)
    assert here
    assert run("there", spec, {"scheduler": scheduler, "workers": 2}) == here


@pytest.mark.parametrize("aggregate", ["bag-of-words", "vlad"])
def test_runs_on_pictures(run, pictures, scheduler, tmp_path, aggregate):
    pytest.importorskip("cv2")
    vocabulary = {**LLOYD, "k": 12}
    made = {"use": aggregate, "local": {"use": "sift"}, "vocabulary": vocabulary}
    spec = {**pictures, "featurizer": made, "index": {"use": "exact", "metric": "cosine"}}
    if aggregate == "bag-of-words":
        spec["index"] = {"use": "inverted"}
    here = run("here", spec)
    assert run("there", spec, {"scheduler": scheduler}) == here
    texts = [(tmp_path / name / "items.jsonl").read_text() for name in ("here", "there")]
    assert texts[0] == texts[1]
    assert "broken.png" in texts[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_its_own(run, vectors, tmp_path, workers, capfd):
    spec = {**vectors, "clusterer": LLOYD}
    here = run("here", spec)
    before, others = set(threading.enumerate()), set(_workers_of(os.getpid()))
    seen = []
    watched = {"progress": lambda *what: seen.append({*_workers_of(os.getpid())} - others)}
    assert run("there", spec, {"workers": workers}, **watched) == here
    assert max(map(len, seen)) == workers
    assert set(_workers_of(os.getpid())) <= others
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in left if not name.startswith("Dask-Offload")]
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_worker_is_killed_in_the_middle(run, vectors, cluster, scheduler):
    spec = {**vectors, "clusterer": LLOYD}
    here = run("here", spec)
    killed = []

    def kill(stage, done, *_):
        if stage == "clusterer" and done and not killed:
            nanny = next(iter(cluster.workers.values()))
            killed.append(nanny.process.pid)
            os.kill(killed[0], signal.SIGKILL)

    asked = {"scheduler": scheduler, "workers": 2}
    assert run("there", spec, asked, progress=kill) == here
    assert killed


def test_stopped_and_resumed_with_another_executor(run, vectors, scheduler, tmp_path):
    spec = {
        **vectors,
        "transform": [{"use": "pca", "dim": 8}],
        "clusterer": LLOYD,
    }
    here = run("here", spec)
    job = vwkit.Job(threads=2)

    def stop(stage, done, *_):
        if stage == "clusterer" and done:
            job.stop.set()

    job._progress = stop
    asked = {"scheduler": scheduler}
    with pytest.raises(Interrupted):
        run("there", spec, asked, job=job)
    assert run("there", spec, asked, resume=True) == here


class TestWhatIsWrong:
    def begun(self, **params):
        with vwkit.create("executor", "dask", patience=1.0, **params).ready(vwkit.Job()):
            pass

    def test_nobody_answers(self):
        with pytest.raises(RunError, match="no scheduler answers at tcp://127.0.0.1:9"):
            self.begun(scheduler="tcp://127.0.0.1:9")

    def test_no_such_file(self):
        with pytest.raises(RunError, match="no scheduler file nowhere.json"):
            self.begun(scheduler="nowhere.json")

    def test_too_few_workers(self, scheduler):
        with pytest.raises(RunError, match="2 of 3 workers came within 1 second"):
            self.begun(scheduler=scheduler, workers=3)

    def test_other_versions(self, scheduler, monkeypatch):
        mine = described()
        assert {"Python", "numpy", "vwkit", "dask"} <= mine.keys()
        monkeypatch.setattr(
            vwkit_dask.cluster, "_versions", lambda: {**mine, "numpy": "1.0", "none": "3"}
        )
        with pytest.raises(RunError, match=rf"numpy is 1\.0 here and {np.__version__} on tcp://"):
            self.begun(scheduler=scheduler)

    def test_a_worker_that_comes_later_with_another_version(self, scheduler, monkeypatch):
        """Those that are there were compared; whoever joins compares itself, before it computes."""
        executor = vwkit.create("executor", "dask", scheduler=scheduler, patience=60.0)
        with executor.ready(vwkit.Job()):
            executor._cluster.versions = {**described(), "numpy": "1.0"}
            job = vwkit.Job(executor=executor)
            with pytest.raises(RunError, match=r"numpy is 1\.0 where the run was begun") as caught:
                list(job.map(np.sum, np.zeros((20, 2)), rows=10))
        assert caught.value.exit_status == 1

    def test_a_map_outside_a_run(self):
        executor = vwkit.create("executor", "dask")
        with pytest.raises(RunError, match="not begun"):
            list(vwkit.Job(executor=executor).map(len, np.zeros((2, 2))))


def test_a_scheduler_that_others_began(tmp_path, vectors, run):
    """By a file, with workers of the command line; it stays, and when it goes, the run can resume."""
    file = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    plain = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    begun = [*plain, "--scheduler-file", str(file), "--port", "0", "--no-dashboard"]
    plain = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file)]
    each = [*plain, "--no-dashboard", "--nthreads", "2", "--memory-limit", "0", "--no-nanny"]
    spec = {**vectors, "clusterer": {**LLOYD, "iterations": 30, "tolerance": 0.0}}
    here = run("here", spec)
    processes = [subprocess.Popen(begun, **quiet)]
    try:
        processes.append(subprocess.Popen(each, **quiet))
        while not file.exists():
            assert processes[0].poll() is None
            time.sleep(0.05)
        asked = {"scheduler": str(file), "workers": 1, "patience": 30.0}
        assert run("there", spec, asked) == here

        def kill(stage, done, *_):
            if stage == "clusterer" and done:
                processes[0].kill()

        asked["patience"] = 1.0
        with pytest.raises(RunError, match=r"scheduler went away.*--resume") as caught:
            run("gone", spec, asked, progress=kill)
        assert caught.value.exit_status == 1  # not what could be known before
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_scheduler_that_comes_back(tmp_path, vectors, run):
    """All workers are gone with it; the run goes on from what it has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    plain = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    scheduler = [*plain, "--port", port, "--no-dashboard"]
    address = f"tcp://127.0.0.1:{port}"
    plain = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
    worker = [*plain, "--nthreads", "1", "--memory-limit", "0", "--no-nanny"]
    spec = {**vectors, "clusterer": {**LLOYD, "iterations": 30, "tolerance": 0.0}}
    here = run("here", spec)
    processes = []

    def begin():
        processes[:] = [subprocess.Popen(command, **quiet) for command in (scheduler, worker)]

    def end():
        for process in processes:
            process.kill()
            process.wait()

    again = []

    def restart(stage, done, *_):
        if stage == "clusterer" and done and not again:
            end()
            begin()
            again.append(done)

    begin()
    try:
        asked = {"scheduler": address, "workers": 1, "patience": 120.0}
        assert run("there", spec, asked, progress=restart) == here
        assert again
    finally:
        end()


def test_ctrl_c_ends_it_and_all_workers(tmp_path):
    # Noise takes hundreds of iterations.
    rows = np.random.default_rng(0).integers(0, 256, (40_000, 16)).astype(np.uint8)
    vwkit.write(tmp_path / "noise.bvecs", rows)
    spec = {
        "vwkit": 1,
        "vectors": {"path": "noise.bvecs"},
        "clusterer": {"use": "lloyd", "k": 200, "iterations": 5000, "tolerance": 0.0},
        "run": {"executor": {"use": "dask", "workers": 2}},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "vwkit", "run", "spec.yaml", "--out", "run"]
    told = tmp_path / "told.txt"
    with told.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, "VWKIT_CACHE": str(tmp_path / "cache")},
        )
    try:
        while not list((tmp_path / "run").rglob("step-*.npz")):
            assert process.poll() is None, told.read_text()
            time.sleep(0.05)
        assert len(_workers_of(process.pid)) == 2
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        assert process.wait(timeout=60) == 130, told.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "--resume" in told.read_text()
    assert "Traceback" not in told.read_text()
    assert "distributed" not in told.read_text()
    _wait_for_the_end(process.pid)


def test_workers_end_with_the_process_that_began_them(tmp_path):
    code = (
        "import sys, vwkit\n"
        "if __name__ == '__main__':\n"
        "    with vwkit.create('executor', 'dask', workers=1).ready(vwkit.Job()):\n"
        "        print('ready', flush=True)\n"
        "        sys.stdin.read()\n"
    )
    (tmp_path / "script.py").write_text(code)
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    _wait_for_the_end(process.pid)


def test_a_script_that_workers_would_run_again(tmp_path):
    (tmp_path / "script.py").write_text(
        "import vwkit\nwith vwkit.create('executor', 'dask', workers=1).ready(vwkit.Job()): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def _wait_for_the_end(group: int) -> None:
    """Wait until no process of a group is left."""
    ended = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < ended:
            os.killpg(group, 0)
            time.sleep(0.05)


def _workers_of(pid: int) -> list[int]:
    """Return the worker processes that a process began."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            line = (folder / "cmdline").read_bytes()
            if int(stat[1]) == pid and stat[0] != "Z" and b"spawn_main" in line:
                found.append(int(folder.name))
    return found
