"""What a run tells while it works: log, progress file, rates, and `status` from outside."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import vwkit
from tests.helpers import bag_spec, dump, photo_folder, picture, vector_spec
from vwkit.jobs import Job
from vwkit.lock import locked
from vwkit.observing import read_log, status
from vwkit.observing.listening import listening
from vwkit.observing.log import RunLog
from vwkit.observing.names import stage_names
from vwkit.observing.observer import note_skipped, observed
from vwkit.observing.progress import PROGRESS, SCHEMA, read_progress, write_progress
from vwkit.observing.rates import Rate
from vwkit.types import Item


def lines(folder):
    return list(read_log(folder))


def events(folder, *names):
    return [line for line in lines(folder) if line["event"] in names]


def small_spec(folder, **slots):
    return vector_spec(folder, clusterer={"use": "lloyd", "k": 6, "iterations": 3}, **slots)


# The log -----------------------------------------------------------------------------------------


def inner(folder):
    (folder / ".run").mkdir()
    return folder / ".run" / "log.jsonl"


def test_lines_are_plain_json(tmp_path):
    log = RunLog(inner(tmp_path), "abc")
    log.write("one", "hé\u202e\x1b[2J", stage="s", values={"n": np.int64(3), "x": np.float32(0.5)})
    log.write("two", level="warning", values={"bad": float("nan"), "path": tmp_path, "l": (1, 2)})
    log.close()
    raw = log.path.read_bytes()
    assert raw.isascii()
    first, second = lines(tmp_path)
    assert first["run"] == "abc"
    assert first["values"] == {"n": 3, "x": 0.5}
    assert first["message"] == "hé\u202e\x1b[2J"
    assert first["time"].endswith("Z")
    assert second["values"] == {"bad": None, "path": str(tmp_path), "l": [1, 2]}


def test_a_torn_line_costs_itself_alone(tmp_path):
    log = RunLog(inner(tmp_path), "abc")
    log.write("one")
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00Z", "level": "in')
    again = RunLog(log.path, "abc")
    again.write("two")
    again.close()
    assert [line["event"] for line in lines(tmp_path)] == ["one", "two"]


def test_what_is_no_line_of_ours_is_passed_over(tmp_path):
    inner(tmp_path).write_bytes(b'\xff\xfe\n[1]\n{"a": 1}\n' + b"[" * 100_000 + b"\n\n")
    assert lines(tmp_path) == []
    assert list(read_log(tmp_path / "nowhere")) == []


def test_a_full_disk_is_no_reason_to_fail(tmp_path, monkeypatch):
    log = RunLog(inner(tmp_path), "abc")
    log.write("one")
    write = os.write

    def half(file, text):
        return write(file, text[: len(text) // 2])

    monkeypatch.setattr(os, "write", half)
    log.write("torn")

    def full(file, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.write("lost")
    monkeypatch.setattr(os, "write", write)
    log.write("two")
    assert [line["event"] for line in lines(tmp_path)] == ["one", "two"]


def test_a_log_that_cannot_be_opened_is_left_out(tmp_path):
    inner(tmp_path).mkdir()
    log = RunLog(tmp_path / ".run/log.jsonl", "abc")
    log.write("one")
    log.close()
    assert lines(tmp_path) == []


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    inner(tmp_path).symlink_to(tmp_path / "mine.txt")
    log = RunLog(tmp_path / ".run/log.jsonl", "abc")
    log.write("one")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_it_does_not_grow_without_bound(tmp_path):
    log = RunLog(inner(tmp_path), "abc", largest=2000)
    for i in range(100):
        log.write("step", values={"i": i})
    sizes = {path.name: path.stat().st_size for path in (tmp_path / ".run").iterdir()}
    assert set(sizes) == {"log.jsonl", "log.1.jsonl"}
    assert max(sizes.values()) <= 2000
    kept = [line["values"]["i"] for line in lines(tmp_path)]
    assert kept == list(range(kept[0], 100))
    assert len(kept) > 10


def test_a_line_has_a_length(tmp_path):
    log = RunLog(inner(tmp_path), "abc")
    log.write("long", "x" * 100_000, values={str(i): "y" * 3000 for i in range(100)})
    (line,) = lines(tmp_path)
    assert line["message"].startswith("xxx")
    assert log.path.stat().st_size < 10_000


def test_threads_write_whole_lines(tmp_path):
    log = RunLog(inner(tmp_path), "abc")

    def work(name):
        for i in range(50):
            log.write("step", "m" * 500, values={"who": name, "i": i})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(tmp_path)) == 200


# Messages and warnings ---------------------------------------------------------------------------


def test_messages_and_warnings_are_heard_and_nobody_else_hears_more(caplog):
    log = logging.getLogger("vwkit")
    before = log.level, list(log.handlers), list(log.filters), warnings.showwarning
    heard = []
    with warnings.catch_warnings(record=True) as shown, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        with listening(lambda *said: heard.append(said)):
            log.debug("no")
            log.info("%d words", 3)
            log.warning("careful")
            log.info("%d %d", 1)  # its parts do not fit: whoever listens goes on
            warnings.warn("thin ice", UserWarning, stacklevel=1)
        log.info("too late")
    assert heard == [
        ("info", "message", "3 words"),
        ("warning", "message", "careful"),
        ("warning", "warning", "UserWarning: thin ice"),
    ]
    assert [record.getMessage() for record in caplog.records] == ["careful"]
    assert [str(one.message) for one in shown] == ["thin ice"]
    assert (log.level, log.handlers, log.filters, warnings.showwarning) == before


def test_two_runs_at_once_hear_their_own(monkeypatch):
    log, heard = logging.getLogger("vwkit"), {"a": [], "b": []}
    both = threading.Barrier(2, timeout=30)

    def work(name):
        with listening(lambda level, event, message: heard[name].append(message)):
            both.wait()
            log.info("of %s", name)
            both.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {"a": ["of a"], "b": ["of b"]}
    assert not log.isEnabledFor(logging.DEBUG)


# Rates -------------------------------------------------------------------------------------------


def test_a_rate_is_of_the_last_half_minute():
    rate = Rate(0.0)
    assert rate.now() is None
    for second in range(1, 101):
        rate.told(10 * second, 2000, float(second))
    for second in range(101, 201):
        rate.told(1000 + second - 100, 2000, float(second))
    assert rate.now() == pytest.approx(1.0, rel=0.02)
    assert rate.overall() == pytest.approx(1100 / 200)
    assert rate.seconds_left() == pytest.approx(900.0, rel=0.02)


def test_what_was_done_before_does_not_count():
    rate = Rate(0.0)
    rate.resumed(5.0)
    rate.told(1_000_000, 2_000_000, 6.0)
    assert rate.now() is None
    assert rate.seconds_left() is None
    rate.told(1_000_100, 2_000_000, 7.0)
    assert rate.now() == pytest.approx(100.0)
    assert rate.overall() == pytest.approx(100.0)
    assert rate.seconds_left() == pytest.approx(9999.0)


def test_another_pass_goes_on():
    rate = Rate(0.0)
    for at, done in ((1, 50), (2, 100), (3, 50), (4, 100)):
        rate.told(done, 100, float(at))
    assert rate.now() == pytest.approx(50.0)
    assert rate.seconds_left() == 0


def test_slow_work_has_a_rate_too():
    rate = Rate(0.0)
    rate.told(1, 10, 100.0)
    rate.told(2, 10, 200.0)
    assert rate.now() == pytest.approx(0.01)
    assert rate.seconds_left() == pytest.approx(800.0)


# The progress file -------------------------------------------------------------------------------


def progress_of(folder):
    return read_progress(folder / ".run" / PROGRESS)


def test_a_run_says_what_it_did(tmp_path):
    spec = small_spec(
        tmp_path,
        index={"use": "exact"},
        output={"write": "labels", "path": str(tmp_path / "l.npy")},
    )
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    said = progress_of(tmp_path / "run")
    assert said["state"] == "finished"
    assert said["stages_to_come"] == []
    done = {stage["name"]: stage["from"] for stage in said["stages_done"]}
    assert done == dict.fromkeys(("clusterer", "index", "report", "write labels"), "computed")
    assert said["pid"] == os.getpid()
    assert said["memory_peak"] >= said["memory_now"] > 0
    log = lines(tmp_path / "run")
    assert {line["run"] for line in log} == {said["run"]}
    assert log[0]["event"] == "run started"
    assert log[0]["values"]["pid"] == os.getpid()
    assert log[-1]["event"] == "run finished"
    assert log[-1]["values"]["seconds"] >= 0
    (stage,) = [line for line in events(tmp_path / "run", "stage finished") if
                line["stage"] == "clusterer"]  # fmt: skip
    assert stage["values"]["in"] == stage["values"]["out"] == 600
    assert stage["values"]["rate"] > 0
    assert stage["values"]["bytes"] > 600
    assert stage["values"]["peak_memory"] > 0
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "again")
    found = events(tmp_path / "again", "stage finished")
    assert [line["values"].get("from") for line in found[:2]] == ["cache", "cache"]
    assert found[0]["message"] == "found in the cache"


def test_the_file_is_what_its_schema_says(tmp_path):
    vwkit.Pipeline.from_dict(small_spec(tmp_path)).run(tmp_path / "run")
    schema = json.loads(SCHEMA.read_text())
    said = json.loads((tmp_path / "run/.run/progress.json").read_text())
    assert set(said) == set(schema["properties"]) == {*schema["required"], "lock"}
    assert all(schema["properties"][key].get("type") for key in schema["properties"])
    path = tmp_path / "p.json"
    for key in said:
        for value in (object, [[1]], {"x": {}}, True):
            changed = {**said, key: value}
            if value is object:
                del changed[key]
                if key == "lock":  # files of older versions have none
                    continue
            path.write_text(json.dumps(changed))
            assert read_progress(path) is None, (key, value)
    path.write_text(json.dumps({**said, "more": {"of": ["a", "newer", "vwkit"]}}))
    assert read_progress(path) is not None
    for text in ("", "[" * 100_000, '{"format": 99}', json.dumps({**said, "format": 2})):
        path.write_text(text)
        assert read_progress(path) is None


def test_how_far_a_stage_is(tmp_path):
    (tmp_path / ".run").mkdir()
    with observed(tmp_path / ".run", Job(), to_come=["features", "clusterer", "index"]) as job:
        work = job.within("clusterer")
        work.note("stage started")
        work.progress(0, None, "")
        for step in range(1, 4):
            work.progress(100 * step, 1000, "rows", iteration=float(step), objective=9.0 / step)
        part = work.within("slice-1")
        part.progress(0, None, "")
        job.observer._write()
        said = progress_of(tmp_path)
        assert (said["stage"], said["part"], said["done"]) == ("clusterer", "slice-1", 0)
        work.progress(400, 1000, "rows", iteration=4.0, objective=2.0)
        work.progress(500, 1000, "rows", iteration=5.0, objective=1.5)
        job.observer._write()
    # `said` of the end has no stage; look at what was written before it.
    said = job.observer.state
    assert said.state == "finished"
    document = [line for line in lines(tmp_path) if line["event"] == "progress"]
    assert document[0]["values"]["objective"] == 9.0


def test_the_file_tells_rate_and_objective(tmp_path):
    (tmp_path / ".run").mkdir()
    with observed(tmp_path / ".run", Job(), to_come=["clusterer", "index"]) as job:
        work = job.within("clusterer")
        work.note("stage started")
        for step in range(1, 4):
            work.progress(100 * step, 1000, "rows", iteration=float(step), objective=9.0 / step)
        job.observer._write()
        said = progress_of(tmp_path)
    assert said["state"] == "running"
    assert (said["stage"], said["part"]) == ("clusterer", None)
    assert (said["done"], said["total"], said["unit"]) == (300, 1000, "rows")
    assert said["objective"] == [9.0, 4.5, 3.0]
    assert said["values"] == {"iteration": 3.0, "objective": 3.0}
    assert said["stages_to_come"] == ["index"]
    assert said["rate_now"] > 0
    assert said["eta_seconds"] == pytest.approx(700 / said["rate_now"], rel=0.01)


def test_a_checkpoint_taken_up_does_not_count_for_the_rate(tmp_path):
    (tmp_path / ".run").mkdir()
    arrays = {"x": np.arange(3)}
    Job(folder=tmp_path / "kept").checkpoint(7, arrays)
    told = []
    job = Job(folder=tmp_path / "kept", progress=lambda *said: told.append(said), stage="fit")
    with observed(tmp_path / ".run", job) as watched:
        watched.note("stage started")
        assert watched.resume()[0] == 7
        watched.progress(700, 1000, "rows")
        assert watched.observer.state.rate.overall() is None
        time.sleep(0.01)
        watched.progress(701, 1000, "rows")
        assert 0 < watched.observer.state.rate.overall() <= 100
    assert told[0] == ("fit", 0, None, "", {"resumed": 7.0})
    assert [line["values"]["step"] for line in events(tmp_path, "checkpoint taken up")] == [7]


def test_a_damaged_checkpoint_is_told_of(tmp_path):
    (tmp_path / ".run").mkdir()
    with observed(tmp_path / ".run", Job(folder=tmp_path / "kept", stage="fit")) as job:
        job.checkpoint(1, {"x": np.arange(3)})
        assert job.observer.checkpoints == 1
        files = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
        for path in files:
            path.write_bytes(path.read_bytes()[:-30])
        assert job.resume() is None
    assert events(tmp_path, "checkpoint written")
    (dropped,) = events(tmp_path, "damaged checkpoint dropped")
    assert (dropped["level"], dropped["stage"]) == ("warning", "fit")


def test_a_file_that_cannot_be_written_is_left_out(tmp_path):
    write_progress(tmp_path / "no/such/folder/progress.json", {})
    (tmp_path / "progress.json").mkdir()
    write_progress(tmp_path / "progress.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_skipped_items_are_told_of_and_of_very_many_the_first(tmp_path):
    (tmp_path / ".run").mkdir()
    items = [Item(i, f"{i}.jpg", status="skipped", reason="torn") for i in range(5)]
    with observed(tmp_path / ".run", Job()) as job:
        note_skipped(job, [Item(9, "fine.jpg"), *items], at=3)
    told = events(tmp_path, "item skipped")
    assert [line["values"]["row"] for line in told] == [0, 1, 2]
    assert told[0]["values"]["reason"] == "torn"
    (more,) = events(tmp_path, "items skipped")
    assert more["message"].startswith("2 more")


# From the beginning to the end -------------------------------------------------------------------


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


# From outside ------------------------------------------------------------------------------------


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
