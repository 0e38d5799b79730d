"""What a run tells from its beginning to its end, however it ends."""

import logging
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import vwkit
from tests.helpers import bag_spec, photo_folder, picture, vector_spec
from tests.observed_runs import events, lines, progress_of, small_spec
from vwkit.jobs import Job
from vwkit.lock import locked
from vwkit.observing import status
from vwkit.observing.names import stage_names
from vwkit.observing.observer import observed


@pytest.mark.parametrize("kind", ["vectors", "codes", "bags", "pixels", "palette", "trained"])
def test_the_names_that_are_expected_come(tmp_path, kind):
    from vwkit.counted import counts_pixels, keeps_pixels

    photo_folder(tmp_path / "photos", groups=2)
    pixels = {
        "vwkit": 1,
        "images": {"path": str(tmp_path / "photos")},
        "featurizer": {"use": "pixels"},
        "clusterer": {"use": "lloyd", "k": 4, "iterations": 2},
    }
    lloyd = {"use": "lloyd", "k": 4, "iterations": 2}
    spec = {
        "vectors": small_spec(tmp_path, transform=[{"use": "l2-norm"}]),
        "codes": vector_spec(
            tmp_path,
            quantizer={"use": "pq", "m": 2, "ks": 16},
            output={"write": "codes", "path": str(tmp_path / "c.npy")},
        ),
        "bags": bag_spec(tmp_path / "photos"),
        "pixels": pixels,
        "palette": {**pixels, "output": {"write": "palette", "path": str(tmp_path / "p")}},
        "trained": vector_spec(tmp_path, clusterer={**lloyd, "train_rows": 100}),
    }[kind]
    pipeline = vwkit.Pipeline.from_dict(spec)
    colours = counts_pixels(pipeline.spec)
    names = stage_names(
        pipeline.spec, colours=colours, pixels=colours and keeps_pixels(pipeline.spec)
    )
    pipeline.run(tmp_path / "run")
    done = [stage["name"] for stage in progress_of(tmp_path / "run")["stages_done"]]
    assert done == names


def test_an_interrupted_run_and_its_resumption_are_one_run(tmp_path):
    stop = threading.Event()

    def told(stage, done, total, unit, values):
        if stage == "clusterer" and done:
            stop.set()

    spec = small_spec(tmp_path, transform={"use": "pca", "dim": 3})
    pipeline = vwkit.Pipeline.from_dict(spec)
    with pytest.raises(vwkit.Interrupted):
        pipeline.run(tmp_path / "run", job=Job(progress=told, stop=stop))
    found = status(tmp_path / "run")
    assert (found["state"], found["alive"], found["complete"]) == ("interrupted", False, False)
    assert found["progress"]["stage"] == "clusterer"
    assert [line["event"] for line in found["problems"]] == ["run interrupted"]
    pipeline.run(tmp_path / "run", resume=True)
    first, second = events(tmp_path / "run", "run started", "run resumed")
    assert (first["event"], second["event"]) == ("run started", "run resumed")
    assert first["run"] == second["run"]
    assert second["values"]["attempt"] == 2
    done = progress_of(tmp_path / "run")["stages_done"]
    assert done[0]["from"] == "folder"
    manifest = vwkit.Run.open(tmp_path / "run").manifest
    # What it took to compute it, not to find it again.
    took = [line for line in events(tmp_path / "run", "stage finished")
            if line["stage"] == "transform[0]"]  # fmt: skip
    assert manifest["stages"]["transform[0]"]["seconds"] == took[0]["values"]["seconds"]
    pipeline.run(tmp_path / "run")
    assert progress_of(tmp_path / "run")["run"] != first["run"]


def test_a_failed_run_says_why(tmp_path):
    rows = np.ones((40, 4), np.float32)
    rows[30, 1] = np.nan
    vwkit.write(tmp_path / "x.npy", rows)
    with pytest.raises(vwkit.DataError) as raised:
        vwkit.Pipeline.from_dict(small_spec(tmp_path)).run(tmp_path / "run")
    found = status(tmp_path / "run")
    assert found["state"] == "failed"
    assert "row 30" in found["message"]
    assert "row 30" in str(raised.value)
    (failed,) = events(tmp_path / "run", "run failed")
    assert failed["values"]["error"] == "DataError"
    assert "traceback" not in failed["values"]


def test_a_fault_of_ours_leaves_its_traceback(tmp_path, monkeypatch):
    def broken(self, data, weights):
        raise RuntimeError("a bug")

    monkeypatch.setattr(vwkit.backends()["clusterer"]["lloyd"], "_fit", broken)
    with pytest.raises(RuntimeError):
        vwkit.Pipeline.from_dict(small_spec(tmp_path)).run(tmp_path / "run")
    (failed,) = events(tmp_path / "run", "run failed")
    assert "in broken" in failed["values"]["traceback"]


def test_nothing_is_written_into_a_run_that_somebody_holds(tmp_path):
    pipeline = vwkit.Pipeline.from_dict(small_spec(tmp_path))
    pipeline.run(tmp_path / "run")
    before = (tmp_path / "run/.run/log.jsonl").read_bytes()
    with locked(tmp_path / "run/.run/lock", tmp_path / "run"):
        with pytest.raises(vwkit.RunError):
            pipeline.run(tmp_path / "run")
        assert status(tmp_path / "run")["state"] == "starting"
    assert (tmp_path / "run/.run/log.jsonl").read_bytes() == before
    assert status(tmp_path / "run")["state"] == "finished"


def test_a_refused_resumption_changes_nothing_of_what_is_known(tmp_path):
    vwkit.Pipeline.from_dict(small_spec(tmp_path)).run(tmp_path / "run")
    before = progress_of(tmp_path / "run")
    other = vwkit.Pipeline.from_dict(small_spec(tmp_path), ["clusterer.k=5"])
    with pytest.raises(vwkit.RunError, match=r"clusterer\.k"):
        other.run(tmp_path / "run", resume=True)
    assert progress_of(tmp_path / "run") == before


def test_messages_warnings_and_skipped_items_of_a_run(tmp_path):
    photo_folder(tmp_path / "photos")
    (tmp_path / "photos/broken.png").write_bytes(b"none")
    with pytest.warns(vwkit.SkippedItems):
        vwkit.Pipeline.from_dict(bag_spec(tmp_path / "photos")).run(tmp_path / "run")
    (skipped,) = events(tmp_path / "run", "item skipped")
    assert skipped["stage"] == "featurizer.local"
    assert skipped["values"]["id"] == "broken.png"
    warned = events(tmp_path / "run", "warning")
    assert any("1 of 7 items were skipped" in line["message"] for line in warned)


def test_added_and_removed_items_are_told_of(tmp_path):
    photo_folder(tmp_path / "photos")
    run = vwkit.Pipeline.from_dict(
        bag_spec(tmp_path / "photos", index={"use": "exact", "metric": "cosine"})
    ).run(tmp_path / "run")
    picture(50).save(tmp_path / "new.png")
    run.add(tmp_path / "new.png")
    said = progress_of(tmp_path / "run")
    assert (said["verb"], said["state"]) == ("add", "finished")
    names = [stage["name"] for stage in said["stages_done"]]
    assert names == ["featurizer.local", "featurizer.words", "vectors", "index"]
    run.remove("new.png")
    told = events(tmp_path / "run", "run started", "add started", "add finished", "remove finished")
    assert len(told) == 4
    found = status(tmp_path / "run")
    assert (found["state"], found["complete"]) == ("finished", True)


def test_a_backend_may_note_things(tmp_path, monkeypatch):
    lloyd = vwkit.backends()["clusterer"]["lloyd"]
    fit = lloyd._fit

    def telling(self, data, weights):
        vwkit.job().note("cells merged", "two were one", cells=2)
        logging.getLogger("vwkit").info("said by the way")
        return fit(self, data, weights)

    monkeypatch.setattr(lloyd, "_fit", telling)
    vwkit.Pipeline.from_dict(small_spec(tmp_path)).run(tmp_path / "run")
    (line,) = events(tmp_path / "run", "cells merged")
    assert (line["stage"], line["values"]) == ("clusterer", {"cells": 2})
    (line,) = events(tmp_path / "run", "message")
    assert (line["stage"], line["message"]) == ("clusterer", "said by the way")
    Job().note("outside a run", "nothing happens")


def test_a_backend_that_tells_nonsense_still_runs(tmp_path):
    (tmp_path / ".run").mkdir()
    with observed(tmp_path / ".run", Job()) as job:
        job.progress("much", None, "rows")
        job.progress(np.int64(3), np.float64(9), "rows", objective=np.float32("nan"))
        job.progress(4, 9, "rows", objective="low")
        job.note("stage finished", odd=object(), deep={"a": [np.arange(3)]})
        job.observer._write()
    assert progress_of(tmp_path)["state"] == "finished"


def test_no_room_for_a_thread(tmp_path, monkeypatch):
    def none_left(self):
        raise RuntimeError("can't start new thread")

    (tmp_path / ".run").mkdir()
    monkeypatch.setattr(threading.Thread, "start", none_left)
    with observed(tmp_path / ".run", Job()) as job:
        job.within("fit").progress(5, 10, "rows")
    assert progress_of(tmp_path)["state"] == "finished"


def test_a_process_that_must_end_at_once_says_so(tmp_path):
    """A library that computes for long and never looks up, and somebody who asked twice."""
    script = f"""
import signal, threading, time
from pathlib import Path
from vwkit.cli.signals import stopping
from vwkit.jobs import Job
from vwkit.observing.observer import observed
with stopping(threading.Event()), observed(Path({str(tmp_path / ".run")!r}), Job()) as job:
    job.within("fit").progress(1, 10, "rows")
    print("ready", flush=True)
    time.sleep(60)
"""
    (tmp_path / ".run").mkdir()
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.stdout.close()
    said = progress_of(tmp_path)
    assert (said["state"], said["stage"]) == ("interrupted", "fit")
    assert "at once" in said["message"]
    assert [line["event"] for line in lines(tmp_path)][-1] == "run interrupted"
