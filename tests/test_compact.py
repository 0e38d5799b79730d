"""Compacting: what removed items left in an index goes for good, and a kill loses nothing."""

import json
import logging
import shutil

import numpy as np
import pytest

import vwkit
from tests.dying import Dying
from tests.helpers import picture, tree
from tests.test_growing import answers, bag_spec, colour_spec, photos
from vwkit.builtin.exact import Exact
from vwkit.cli.main import main
from vwkit.errors import RunError, UnsupportedError
from vwkit.lock import locked


def names(run):
    return [item.id for item in run.kept]


@pytest.fixture
def run(tmp_path):
    folder = photos(tmp_path / "photos", 4)
    return vwkit.Pipeline.from_dict(colour_spec(folder)).run(tmp_path / "run")


SPECS = {
    "exact": {},
    "sharded": {"index": {"use": "sharded", "rows_per_shard": 3}},
    "inverted": {},
    "hnsw": {"index": {"use": "hnsw"}},
    "usearch of 16 bits": {"index": {"use": "usearch", "dtype": "f16"}},
}


@pytest.mark.parametrize("kind", SPECS)
def test_what_was_removed_is_gone_and_nothing_else(tmp_path, kind):
    if kind.startswith(("hnsw", "usearch")):
        pytest.importorskip("hnswlib" if kind == "hnsw" else "usearch")
    folder = photos(tmp_path / "photos", 6)
    made = bag_spec(folder) if kind == "inverted" else colour_spec(folder, **SPECS[kind])
    run = vwkit.Pipeline.from_dict(made).run(tmp_path / "run")
    gone = ["g0/c0.png", "g1/c1.png", "g3/c0.png", "g3/c1.png", "g5/c1.png"]
    run.remove(gone)
    assert run.index.dead == run.manifest["counts"]["dead"] > 0
    dead, before, rows = run.index.dead, answers(run), [item.row for item in run.items]
    listed = run.index.ids.tolist()
    done = run.compact()
    assert done.dead == dead
    for opened in (run, vwkit.Run.open(run.folder)):
        assert opened.index.dead == 0
        assert "dead" not in opened.manifest["counts"]
        assert opened.index.ids.tolist() == listed
        assert answers(opened) == before
        assert [item.row for item in opened.items] == rows
        assert [item.id for item in opened.items if item.status == "removed"] == gone
    assert run.manifest["changes"] == [{"removed": 5}, {"compacted": dead}]
    assert run.manifest["accounts"]["stages"]["index"]["out"] == 7
    assert run.compact() == vwkit.run.Compacted(0, done.after, done.after)
    # And it grows again: rows go on, ids may come back.
    assert [item.row for item in run.add(folder / "g0/c0.png")] == [12]
    assert run.search("g0/c0.png", 1).ids.tolist() == [[12]]


def test_the_index_takes_less_room(tmp_path):
    """Of 3,000 vectors of which 2,000 were removed, a third is left, in memory and in files."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 32)).astype(np.float32)
    for params in ({}, {"index": {"use": "exact"}, "shards": 4}):
        index = vwkit.create("index", "sharded" if params else "exact", **params).build(rows)
        index.remove(np.arange(3000)[np.arange(3000) % 3 > 0])
        index.save(tmp_path / "before")
        index.compact().save(tmp_path / "after")
        sizes = [
            sum(path.stat().st_size for path in (tmp_path / name).rglob("*") if path.is_file())
            for name in ("before", "after")
        ]
        assert sizes[1] < 0.4 * sizes[0]
        shutil.rmtree(tmp_path / "before")
        shutil.rmtree(tmp_path / "after")


def test_an_error_on_the_way_leaves_the_index_as_it_was():
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    for name, params in (("exact", {}), ("sharded", {"shards": 3})):
        index = vwkit.create("index", name, **params).build(rows)
        index.remove(np.arange(0, 60, 2))
        found = index.search(rows, 5)

        def failing(self, kept, at=rows):
            self._vectors = None
            raise MemoryError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Exact, "_compact", failing)
            with pytest.raises(MemoryError):
                index.compact()
        assert index.dead == 30
        again = index.search(rows, 5)
        assert (again.ids == found.ids).all()
        assert index.compact().dead == 0
        assert (index.search(rows, 5).ids == found.ids).all()


def test_many_removals_are_worth_a_word(run, caplog):
    with caplog.at_level(logging.WARNING, "vwkit"):
        run.remove(["g0/c0.png", "g1/c0.png"])
        assert not caplog.records
        run.remove("g2/c0.png")
    (record,) = caplog.records
    assert "3 removed items still take room in the index, which holds 5 others" in record.message
    assert "vwkit compact" in record.message


def test_the_command(run, capsys):
    def said(*args):
        with pytest.raises(SystemExit) as ended:
            main([*args, str(run.folder), "--quiet"])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert said("compact") == "nothing to let go of: the index holds no removed items\n"
    run.remove("g0/c0.png")
    assert said("compact").startswith("1 removed items let go of; the run folder took ")
    run.reopen()
    run.remove("g1/c0.png")
    with pytest.raises(SystemExit):
        main(["compact", str(run.folder), "--quiet", "--json"])
    done = json.loads(capsys.readouterr().out)
    assert done["dead"] == 1
    assert done["before"] > 0 < done["after"]


def test_who_may_compact(run, tmp_path):
    before = tree(run.folder, skip=(".run",))
    assert run.compact().dead == 0
    assert tree(run.folder, skip=(".run",)) == before
    with locked(run.folder / ".run/lock", run.folder), pytest.raises(RunError, match="in use by"):
        run.compact()
    plain = {
        key: value for key, value in colour_spec(tmp_path / "photos").items() if key != "index"
    }
    other = vwkit.Pipeline.from_dict(plain).run(tmp_path / "plain")
    with pytest.raises(UnsupportedError, match="has no index"):
        other.compact()


def test_killed_at_any_step_it_is_the_old_run_or_the_new(tmp_path, monkeypatch):
    """Every rename, link and removal may be the last thing that happens."""
    made = photos(tmp_path / "photos", 3)
    spec = colour_spec(made, index={"use": "sharded", "rows_per_shard": 2})
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    run.remove(["g0/c0.png", "g2/c1.png"])
    before, kept, folder = answers(run), names(run), run.folder
    ends = set()
    for _ in Dying(monkeypatch, folder).every(lambda: vwkit.Run.open(folder).compact()):
        after = vwkit.Run.open(folder)
        assert names(after) == kept
        assert answers(after) == before
        assert len(after.index) == 4
        ends.add(after.index.dead)
        # And it can be changed again.
        assert after.compact().dead in (0, 2)
        assert after.index.dead == 0
        assert not (folder / ".run/next").exists()
        assert not (folder / ".run/parts").exists()
    assert ends == {0, 2}
    assert vwkit.Run.open(folder).index.dead == 0


def test_shards_without_removed_rows_are_left_alone(tmp_path):
    folder = photos(tmp_path / "photos", 4)
    spec = colour_spec(folder, index={"use": "sharded", "rows_per_shard": 2})
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")

    def shards():
        return {path.name for path in (run.folder / "index").glob("shard_*")}

    first = shards()
    assert len(first) == 4
    run.remove(["g1/c0.png", "g3/c0.png", "g3/c1.png"])
    second = shards()
    assert len(second) == 3  # one held nothing else
    assert len(first & second) == 2
    assert run.index.dead == 1
    assert run.compact().dead == 1
    third = shards()
    assert len(third) == 3
    assert len(third & second) == 2
    picture(77).save(tmp_path / "new.png")
    run.add(tmp_path / "new.png")
    assert len(shards() & third) >= 2
