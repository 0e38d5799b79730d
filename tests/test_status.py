"""What is known of a run from outside: `status`, its command and its metrics."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import vwkit
from tests.helpers import bag_spec, dump, photo_folder
from tests.observed_runs import events, progress_of, small_spec
from vwkit.jobs import Job
from vwkit.lock import locked
from vwkit.observing import status
from vwkit.observing.observer import observed
from vwkit.observing.progress import PROGRESS


def command(*words):
    return [sys.executable, "-m", "vwkit", *map(str, words)]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_run_is_known_to_be_dead(tmp_path):
    vwkit.write(tmp_path / "x.npy", np.random.default_rng(0).random((40_000, 16), np.float32))
    spec = small_spec(tmp_path)
    spec["clusterer"] = {"use": "lloyd", "k": 400, "iterations": 400, "tolerance": 0.0}
    dump(tmp_path / "s.yaml", spec)
    process = subprocess.Popen(
        command("run", tmp_path / "s.yaml", "--quiet", "--out", tmp_path / "run"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            said = progress_of(tmp_path / "run")
            if said is not None and said["done"]:
                break
            time.sleep(0.05)
        found = status(tmp_path / "run")
        assert (found["state"], found["alive"]) == ("running", True)
        assert str(process.pid) in found["held_by"]
        assert found["progress"]["stage"] == "clusterer"
    finally:
        process.kill()
        process.wait()
    found = status(tmp_path / "run")
    assert (found["state"], found["alive"]) == ("interrupted", False)
    assert f"process {process.pid}" in found["message"]
    assert "killed" in found["message"]
    assert events(tmp_path / "run", "run started")
    done = subprocess.run(
        command("status", tmp_path / "run", "--follow"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert "interrupted" in done.stdout
    assert " left" not in done.stdout  # nobody is at work
    assert "--resume" in done.stdout


@pytest.mark.parametrize("resume", [True, False])
def test_whoever_begins_is_seen_before_there_is_anything_to_tell(tmp_path, monkeypatch, resume):
    """A run that was killed is `interrupted` until somebody takes it up, and then no more."""
    spec = dump(tmp_path / "s.yaml", small_spec(tmp_path))
    folder = tmp_path / "run"
    with pytest.raises(vwkit.Interrupted):
        vwkit.Pipeline.from_file(spec).run(folder, progress=stop_at_once)
    path = folder / ".run" / PROGRESS
    path.write_text(path.read_text().replace('"interrupted"', '"running"'))  # as after a kill
    assert status(folder)["state"] == "interrupted"
    seen = []

    def look():
        found = status(folder)
        seen.append((found["state"], found["alive"], found["held_by"], found["progress"] is None))
        return found

    def watched(where, name, real):
        def call(*args, **more):
            look()
            return real(*args, **more)

        monkeypatch.setattr(where, name, call)

    from vwkit import pipeline
    from vwkit.cli.main import main
    from vwkit.cli.status import report

    watched(pipeline, "load", pipeline.load)  # the spec is not even read
    watched(pipeline, "check_budget", pipeline.check_budget)
    watched(pipeline.Pipeline, "_prepare", pipeline.Pipeline._prepare)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(spec), "--out", str(folder), "--quiet", *["--resume"] * resume])
    assert ended.value.code == 0
    named = f"process {os.getpid()} on {socket.gethostname()}"
    assert seen == [("starting", True, named, True)] * 3
    assert status(folder)["state"] == "finished"
    # From Python the data are looked at while the lock is held, too.
    shown = []
    monkeypatch.setattr(pipeline, "check_budget", lambda *_: shown.append(report(look())))
    seen.clear()
    made = vwkit.Pipeline.from_file(spec)
    seen.clear()
    made.run(folder, resume=True)
    assert seen == [("starting", True, named, True)] * 2
    assert shown[0].splitlines()[0] == f"{folder}: starting, by {named}"
    assert "the folder holds a finished run" in shown[0]


def stop_at_once(stage, done, *_):
    if done:
        raise vwkit.Interrupted("enough")


def test_a_spec_that_is_refused_leaves_the_run_interrupted(tmp_path, capsys):
    spec = dump(tmp_path / "s.yaml", small_spec(tmp_path))
    with pytest.raises(vwkit.Interrupted):
        vwkit.Pipeline.from_file(spec).run(tmp_path / "run", progress=stop_at_once)
    before = status(tmp_path / "run")
    dump(spec, {"vwkit": 1, "nonsense": 2})
    assert cli(capsys, "run", spec, "--out", tmp_path / "run", "--resume")[0] == 2
    after = status(tmp_path / "run")
    assert (after["state"], after["alive"]) == ("interrupted", False)
    assert after["progress"] == before["progress"]


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(vwkit.RunError, match="no such run folder"):
        status(tmp_path / "nowhere")
    with pytest.raises(vwkit.RunError, match="not a run folder"):
        status(tmp_path)


def test_a_run_without_its_inner_folder_is_finished(tmp_path):
    import shutil

    vwkit.Pipeline.from_dict(small_spec(tmp_path)).run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/.run")
    found = status(tmp_path / "run")
    assert (found["state"], found["progress"], found["complete"]) == ("finished", None, True)


def cli(capsys, *words):
    from vwkit.cli.main import _status

    code = _status([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command(tmp_path, capsys):
    photo_folder(tmp_path / "photos")
    (tmp_path / "photos/broken.png").write_bytes(b"none")
    with pytest.warns(vwkit.SkippedItems):
        vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos")).run(tmp_path / "run")
    code, out, _ = cli(capsys, "status", tmp_path / "run")
    assert code == 0
    assert out.startswith(f"{tmp_path}/run: finished\n  finished in ")
    assert "7 items, 6 ok, 1 skipped" in out
    assert "1 skipped: not an image" in out
    assert "broken.png" in out
    code, out, _ = cli(capsys, "status", tmp_path / "run", "--json")
    found = json.loads(out)
    assert (code, found["state"], found["manifest"]["counts"]["ok"]) == (0, "finished", 6)
    code, out, _ = cli(capsys, "status", tmp_path / "run", "--follow", "--json")
    assert (code, json.loads(out)["state"]) == (0, "finished")
    code, out, _ = cli(capsys, "status", "--schema")
    assert (code, json.loads(out)["type"]) == (0, "object")
    assert cli(capsys, "status")[0] == 2
    code, _, err = cli(capsys, "status", tmp_path / "nowhere")
    assert (code, err) == (2, f"error: {tmp_path}/nowhere: no such run folder\n")


def test_the_command_shows_a_run_at_work(tmp_path, capsys):
    from vwkit.cli.status import line, report

    with (
        locked(tmp_path / ".run/lock", tmp_path),
        observed(tmp_path / ".run", Job(), to_come=["codes", "clusterer", "index"]) as job,
    ):
        job.within("codes").note("stage started")
        job.within("codes").note("stage finished", seconds=2.0, **{"from": "cache"})
        work = job.within("clusterer")
        work.note("stage started")
        work.progress(1000, 4000, "rows", iteration=2.0, objective=51_234.5)
        job.note("item skipped", "evil\x1b[2Jname: torn", level="warning")
        job.observer._write()
        found = status(tmp_path)
        found["progress"].update(rate_now=100.0, eta_seconds=30.0)
        code, out, _ = cli(capsys, "status", tmp_path)
        assert code == 0
    assert line(found) == "clusterer: 1,000 of 4,000 rows (25 %), 100 rows/s, 30.0 s left"
    text = report(found)
    assert text.startswith(f"{tmp_path}: running, by process {os.getpid()} on ")
    assert "codes                         2.0 s (cache)" in text
    assert "iteration 2 objective 51,234.5" in text
    assert "still to come: index" in text
    assert "\x1b" not in text
    assert "evil\ufffd[2Jname" in text
    assert "--resume" not in text
    assert "25 %" in out


def test_following_until_it_fails(tmp_path, capsys):
    spec = small_spec(tmp_path)
    began = threading.Event()

    def told(stage, done, total, unit, values):
        if done:
            began.set()
            time.sleep(0.3)
            raise vwkit.DataError("the data went away")

    def work():
        with pytest.raises(vwkit.DataError):
            vwkit.Pipeline.from_dict(spec).run(tmp_path / "run", progress=told)

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(60)
    code, out, _ = cli(capsys, "status", tmp_path / "run", "--follow", "--every", "0.1")
    thread.join()
    assert code == 1
    assert "run: failed\n  the data went away" in out
    assert out.rstrip().endswith("go on: the same command with --resume")


def test_metrics(tmp_path, capsys):
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    vwkit.Pipeline.from_dict(small_spec(tmp_path)).run(tmp_path / "run")
    assert cli(capsys, "status", tmp_path / "run", "--metrics", tmp_path / "m.prom")[0] == 0
    found = {
        (sample.name, sample.labels.get("state") or sample.labels.get("status")): sample.value
        for family in text_string_to_metric_families((tmp_path / "m.prom").read_text())
        for sample in family.samples
    }
    assert found["vwkit_run_state", "finished"] == 1
    assert found["vwkit_run_state", "running"] == 0
    assert found["vwkit_run_items", "ok"] == 1
    code, _, err = cli(capsys, "status", tmp_path / "run", "--metrics", tmp_path / "no/m.prom")
    assert code == 2
    assert "cannot be written" in err


def test_metrics_of_a_run_at_work(tmp_path):
    pytest.importorskip("prometheus_client")
    from vwkit.observing.metrics import write_metrics

    (tmp_path / ".run").mkdir()
    with observed(tmp_path / ".run", Job()) as job:
        job.within("fit").progress(5, 10, "rows", objective=2.5)
        job.observer._write()
        write_metrics(status(tmp_path), tmp_path / "m.prom")
    text = (tmp_path / "m.prom").read_text()
    assert f'vwkit_stage_done{{run="{tmp_path}",stage="fit",unit="rows"}} 5.0' in text
    assert "vwkit_stage_objective" in text


def test_without_the_package_of_the_metrics(tmp_path, monkeypatch):
    from vwkit.observing.metrics import write_metrics

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(vwkit.UnsupportedError, match=r"vwkit\[metrics\]"):
        write_metrics({}, tmp_path / "m.prom")
