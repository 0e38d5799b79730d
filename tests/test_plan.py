"""Plans of the specs that come with vwkit: the stages, keys and rows of the runs that follow."""

import json
import re

import numpy as np
import pytest

import vwkit
import vwkit.testing
from tests.helpers import blobs, photo_folder, picture, vector_spec
from tests.test_docs import SMALLER, script
from vwkit.cli.main import main
from vwkit.cli.new import jobs
from vwkit.counted import counts_pixels, keeps_pixels
from vwkit.observing.names import stage_names
from vwkit.planning import measuring
from vwkit.planning.making import make_plan
from vwkit.planning.table import table, time_text

QUICK = {"seconds": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    script("make_data").make(folder)
    for job, text in jobs().items():
        (folder / f"{job}.yaml").write_text(text)
    return folder


def pipeline_of(path, overrides=()):
    try:
        return vwkit.Pipeline.from_file(path, overrides)
    except vwkit.SpecError as error:
        missing = set(re.findall(r"it comes with the package (\S+?):", str(error)))
        if not missing:
            raise
        pytest.skip(" and ".join(sorted(missing)))


@pytest.mark.parametrize("job", sorted(jobs()))
def test_a_plan_has_the_stages_of_the_run_and_finds_them_afterwards(data, job):
    few = [*SMALLER.get(job, ()), "evaluate=", "rerank="]
    if job == "palette":
        few.append("output=")  # then every pixel is told its colour
    pipeline = pipeline_of(data / f"{job}.yaml", few)
    before = make_plan(pipeline.spec, **QUICK)
    colours = counts_pixels(pipeline.spec)
    expected = stage_names(
        pipeline.spec, colours=colours, pixels=colours and keeps_pixels(pipeline.spec)
    )
    # A plan says nothing of what comes after the stages.
    assert [stage.name for stage in before.stages] == expected[: expected.index("report")]
    for stage in before.stages:
        assert not stage.note or stage.note.startswith("rows: "), stage
        assert stage.cached in ("no", "unknown"), stage
        for what in (stage.seconds, stage.cpu_seconds, stage.memory, stage.disk):
            assert what is not None, stage
            assert 0 <= what < 1e12
    run = pipeline.run(data / "runs" / job)
    assert all(one["cpu_seconds"] >= 0 for one in run.manifest["stages"].values())
    after = make_plan(pipeline.spec, **QUICK)
    made = {name: one["key"] for name, one in run.manifest["stages"].items()}
    assert {stage.name: stage.key for stage in after.stages} == made
    assert [stage.name for stage in after.stages] == list(made)
    assert {stage.cached for stage in after.stages} == {"yes"}
    assert after.calibrated < before.calibrated
    assert after.total("seconds") < 1
    # What the plan said of rows, against what there is.
    if "descriptors" in run.manifest["counts"]:
        counted = next(
            s for s in before.stages if s.rows and s.name not in ("source", "featurizer")
        )
        told, true = counted.rows, run.manifest["counts"]["descriptors"]
        if job != "oxford5k":
            assert 0.5 < told / true < 2


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """What was measured beside other work would be measured again when there is less of it."""
    monkeypatch.setattr(measuring, "busy", lambda: 0.0)


@pytest.fixture
def vectors(tmp_path):
    return vector_spec(tmp_path, clusterer={"use": "lloyd", "k": 12})


def test_the_table_and_the_json_tell_the_same(tmp_path, vectors, capsys):
    path = tmp_path / "spec.json.yaml"
    path.write_text(json.dumps(vectors))

    def printed(*options):
        with pytest.raises(SystemExit) as caught:
            main(["plan", str(path), "--seconds", "0", *options])
        assert caught.value.code in (0, None)
        return capsys.readouterr().out

    lines = printed().splitlines()
    assert re.split(r"  +", lines[0]) == [
        "stage", "backend", "rows", "memory", "disk", "time", "cpu", "cached",
    ]  # fmt: skip
    assert lines[1].split()[:3] == ["clusterer", "lloyd", "600"]
    assert lines[2].startswith("altogether")
    told = json.loads(printed("--json"))
    assert told["calibration_seconds"] == 0
    (stage,) = told["stages"]
    assert (stage["name"], stage["backend"], stage["rows"]) == ("clusterer", "lloyd", 600)
    assert set(stage) == {
        "name", "backend", "rows", "dim", "seconds", "cpu_seconds", "memory", "disk", "least", "cached", "hits",
        "of", "key", "note",
    }  # fmt: skip
    assert told["total"]["memory"] == stage["memory"] > told["base_memory"] > 1 << 20
    assert told["budget_stated"] is False
    changed = json.loads(printed("--json", "--set", "clusterer.k=7", "--set", "run.memory=1GB"))
    assert changed["stages"][0]["key"] != stage["key"]
    assert (changed["budget"], changed["budget_stated"]) == (10**9, True)


def test_a_plan_runs_nothing(tmp_path, vectors):
    pipeline = vwkit.Pipeline.from_dict(vectors)
    make_plan(pipeline.spec, **QUICK)
    assert not pipeline.spec.clusterer._fitted
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy"}


def test_measuring_again_is_asked_for(vectors):
    spec = vwkit.Pipeline.from_dict(vectors).spec
    assert make_plan(spec, **QUICK).calibrated > 0
    assert make_plan(spec, **QUICK).calibrated == 0
    assert make_plan(spec, fresh=True, **QUICK).calibrated > 0


def test_pictures_that_were_looked_at_before_are_told(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = {
        "vwkit": 1,
        "images": {"path": str(tmp_path / "photos")},
        "featurizer": {"use": "colour-histogram"},
        "index": {"use": "exact"},
    }
    vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    picture(99).save(tmp_path / "photos" / "new.png")
    plan = make_plan(vwkit.Pipeline.from_dict(spec).spec, **QUICK)
    features = next(stage for stage in plan.stages if stage.name == "features")
    assert (features.hits, features.of, features.cached) == (6, 7, "some")
    assert any("6 of 7" in line for line in table(plan))


def test_rows_of_a_compressed_file_are_told_from_its_beginning(tmp_path):
    path = tmp_path / "x.bvecs.gz"
    rng = np.random.default_rng(0)
    vwkit.write(path, rng.integers(0, 256, (20_000, 16)).astype(np.uint8))
    spec = {"vwkit": 1, "vectors": {"path": str(path)}, "clusterer": {"use": "lloyd", "k": 5}}
    plan = make_plan(vwkit.Pipeline.from_dict(spec).spec, **QUICK)
    assert 0.8 < plan.stages[0].rows / 20_000 < 1.25
    assert "compressed" in plan.stages[0].note


def test_words_of_other_pictures_and_fewer_rows(tmp_path):
    photo_folder(tmp_path / "photos")
    spec = {
        "vwkit": 1,
        "images": {"path": str(tmp_path / "photos")},
        "featurizer": {
            "use": "vlad",
            "local": {"use": "pixels"},
            "vocabulary": {"use": "lloyd", "k": 12, "iterations": 3, "train_rows": 500},
        },
        "index": {"use": "exact"},
    }
    pipeline = vwkit.Pipeline.from_dict(spec)
    plan = make_plan(pipeline.spec, **QUICK)
    rows = {stage.name: stage.rows for stage in plan.stages}
    assert rows["featurizer.vocabulary"] == 500
    assert rows["featurizer.words"] == 6 * 96 * 72
    assert plan.stages[-1].dim == 36
    run = pipeline.run(tmp_path / "run")
    after = make_plan(pipeline.spec, **QUICK)
    assert {stage.name: stage.key for stage in after.stages} == {
        name: one["key"] for name, one in run.manifest["stages"].items()
    }


def test_other_rows_of_a_clusterer_that_labels_all_in_the_end(tmp_path):
    vwkit.write(tmp_path / "other.npy", blobs(300, seed=5))
    spec = vector_spec(
        tmp_path,
        transform=[{"use": "l2-norm"}],
        clusterer={"use": "lloyd", "k": 12, "train": {"path": str(tmp_path / "other.npy")}},
    )
    pipeline = vwkit.Pipeline.from_dict(spec)
    rows = {stage.name: stage.rows for stage in make_plan(pipeline.spec, **QUICK).stages}
    assert rows == {"transform[0]": None, "clusterer": 300, "labels": 600}
    run = pipeline.run(tmp_path / "run")
    assert {stage.name: stage.key for stage in make_plan(pipeline.spec, **QUICK).stages} == {
        name: one["key"] for name, one in run.manifest["stages"].items()
    }


def test_times_as_text():
    assert [time_text(n) for n in (0.004, 0.5, 12, 59.4, 300, 86_400)] == [
        "0.004 s", "0.5 s", "12 s", "59 s", "5.0 min", "24.0 h",
    ]  # fmt: skip


def test_pictures_to_be_fetched_are_counted_and_not_fetched(tmp_path):
    lines = [json.dumps({"url": f"http://127.0.0.1:9/{i}.jpg"}) for i in range(30)]
    (tmp_path / "list.jsonl").write_text("\n".join(lines) + "\n")
    spec = {
        "vwkit": 1,
        "images": {
            "urls": str(tmp_path / "list.jsonl"),
            "cache": str(tmp_path / "cache"),
            "limit": 20,
            "allow_private": True,
        },
        "featurizer": {"use": "colour-histogram"},
        "index": {"use": "exact"},
    }
    plan = make_plan(vwkit.Pipeline.from_dict(spec).spec, **QUICK)
    assert plan.stages[0].rows == 20
    assert "fetched" in plan.stages[0].note
    assert [stage.name for stage in plan.stages] == ["images", "featurizer", "features", "index"]
    assert plan.stages[2].rows == 20
    assert plan.stages[2].seconds is None
    assert not (tmp_path / "cache").exists()


def test_a_featurizer_that_learns_from_pictures_is_told_as_not_known(tmp_path):
    @vwkit.backend("learned")
    class Learned(vwkit.Featurizer):
        """Learns one number."""

        trainable = True
        dim = 4

        def _fit(self, images):
            self._mean = np.zeros(4)

        def _extract(self, images):
            return [vwkit.Features(np.ones((1, 4), np.float32)) for _ in images]

    photo_folder(tmp_path / "photos")
    with vwkit.testing.registered(Learned):
        spec = {
            "vwkit": 1,
            "images": {"path": str(tmp_path / "photos")},
            "featurizer": {"use": "learned"},
            "index": {"use": "exact"},
        }
        plan = make_plan(vwkit.Pipeline.from_dict(spec).spec, **QUICK)
    assert "not tried out" in plan.stages[0].note
    assert plan.stages[1].seconds is None
    assert any("?" in line for line in table(plan))
