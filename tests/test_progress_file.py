"""The progress file of a run: what it says of its stages, their rates and checkpoints."""

import json
import os
import time

import numpy as np
import pytest

import vwkit
from tests.observed_runs import events, lines, progress_of, small_spec
from vwkit.jobs import Job
from vwkit.observing.observer import note_skipped, observed
from vwkit.observing.progress import SCHEMA, read_progress, write_progress
from vwkit.observing.rates import Rate
from vwkit.types import Item

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
