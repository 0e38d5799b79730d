"""The sharded index: shards, files, memory, growth, and builds that go on after a kill."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import vwkit
from tests.helpers import dump, tree, vector_spec
from vwkit.builtin import sharded, shelf
from vwkit.builtin.exact import Exact
from vwkit.errors import ArtifactError, DataError, ParameterError, UnsupportedError
from vwkit.exact_search import search_rows
from vwkit.inspecting import inspect_path
from vwkit.jobs import Job, ThreadedExecutor, use_job

ROWS = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
ASKED = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)


def made(**params):
    return vwkit.create("index", "sharded", **params)


def truth(rows=ROWS, k=7, **params):
    return vwkit.create("index", "exact", **params).build(rows).search(ASKED, k)


def same(found, expected):
    assert (found.ids == expected.ids).all()
    assert (found.distances == expected.distances).all()


def folders(folder):
    return sorted(path.name for path in folder.glob("shard_*"))


# Answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("params", [{"shards": 1}, {"shards": 7}, {"rows_per_shard": 61}, {}])
def test_the_answers_of_an_exact_index_are_the_same_bytes(metric, params, tmp_path):
    index = made(metric=metric, **params).build(ROWS)
    same(index.search(ASKED, 7), truth(metric=metric))
    index.save(tmp_path / "index")
    for threads in (1, 3):
        with use_job(Job(threads=threads)):
            same(vwkit.load(tmp_path / "index").search(ASKED, 7), truth(metric=metric))


def test_ties_go_to_the_lowest_row():
    rows = np.repeat(ROWS[:5], 40, axis=0)
    found = made(rows_per_shard=30).build(rows).search(rows[:1], 60)
    same_rows = truth_of = vwkit.create("index", "exact").build(rows).search(rows[:1], 60)
    assert (found.ids == truth_of.ids).all()
    assert found.ids[0, :40].tolist() == list(range(40))
    assert (found.distances == same_rows.distances).all()


def test_shards_are_nearly_equal_and_consecutive(tmp_path):
    for params, sizes in (
        ({"shards": 3}, [166, 167, 167]),
        ({"rows_per_shard": 100}, [100] * 5),
        ({"rows_per_shard": 99}, [83, 83, 84, 83, 83, 84]),
        ({"shards": 9000}, [1] * 500),
    ):
        index = made(**params).build(ROWS)
        assert np.diff(index._starts).tolist() == sizes
        assert max(sizes) <= params.get("rows_per_shard", max(sizes))


def test_the_metric_is_given_once():
    assert made().metric == "l2"
    assert made(metric="ip").nested.metric == "ip"
    assert made(index={"use": "exact", "metric": "cosine"}).metric == "cosine"
    assert made(index={"use": "inverted"}).metric == "cosine"
    assert made(metric="cosine", index={"use": "exact", "metric": "cosine"}).metric == "cosine"
    with pytest.raises(ParameterError, match="l2 here, and cosine in index; give it once"):
        made(metric="l2", index={"use": "exact", "metric": "cosine"})
    with pytest.raises(ParameterError, match="inverted does not offer it"):
        made(metric="l2", index={"use": "inverted", "metric": "cosine"})
    with pytest.raises(ParameterError, match="give it or shards, not both"):
        made(shards=2, rows_per_shard=2)
    with pytest.raises(ParameterError, match=r"it is built already, .* give {use: exact, …}"):
        made(index=vwkit.create("index", "exact").build(ROWS))


def test_shards_within_shards():
    inner = {"use": "sharded", "rows_per_shard": 20}
    index = made(index=inner, shards=3).build(ROWS)
    same(index.search(ASKED, 7), truth())


def test_rows_are_named_as_they_were_given():
    """What is wrong in the data is told by its row in all of them, not in a shard."""
    wrong = ROWS.astype(np.float64)
    wrong[431, 2] = 1e300
    with pytest.raises(DataError, match="row 431, column 2"):
        made(shards=5).build(wrong)
    wrong[431, 2] = np.nan
    with pytest.raises(DataError, match="row 431, column 2"):
        made(shards=5).build(wrong)


# Late parameters ---------------------------------------------------------------------------------


@vwkit.backend("slack")
class Slack(vwkit.Index):
    """Finds all neighbours, but answers with those of the first rows only: as many as `looks`."""

    late = frozenset({"looks"})
    looks: vwkit.Positive = 1000

    def _build(self, vectors):
        self._vectors = np.array(vectors)

    def _search(self, queries, k):
        rows, distances = search_rows(
            queries, self._vectors[: self.looks], min(k, self.looks), "l2"
        )
        return rows, distances


def test_late_parameters_of_the_nested_index_are_its_own(tmp_path):
    from vwkit.plugins import registered

    with registered(Slack):
        index = made(index={"use": "slack"}, shards=5).build(ROWS)
        assert index.late == {"looks"}
        assert sharded.Sharded.late == frozenset()
        same(index.search(ASKED, 7), truth())
        few = index.search(ASKED, 7, looks=1)
        assert set(few.ids.ravel()) == {0, 100, 200, 300, 400, -1}
        same(index.search(ASKED, 7), truth())
        index.looks = 1
        assert index.looks == index.nested.looks == 1
        same(index.search(ASKED, 7), few)
        index.save(tmp_path / "index")
        loaded = vwkit.load(tmp_path / "index")
        same(loaded.search(ASKED, 7), few)
        same(loaded.search(ASKED, 7, looks=1000), truth())
        with pytest.raises(ParameterError, match="greater than 0"):
            index.looks = 0
        with pytest.raises(ParameterError, match="greater than 0"):
            index.search(ASKED, 7, looks=0)
        with pytest.raises(ParameterError, match="its late parameters: looks"):
            index.search(ASKED, 7, look=1)
        with pytest.raises(ParameterError, match="no parameter look; did you mean looks"):
            index.look = 3


def test_a_run_does_not_build_again_for_a_late_parameter(tmp_path):
    hnswlib = pytest.importorskip("hnswlib")
    assert hnswlib
    spec = vector_spec(
        tmp_path, index={"use": "sharded", "shards": 3, "index": {"use": "hnsw", "ef": 50}}
    )
    first = vwkit.Pipeline.from_dict(spec).run(tmp_path / "one")
    spec["index"]["index"]["ef"] = 77
    second = vwkit.Pipeline.from_dict(spec).run(tmp_path / "two")
    assert second.manifest["stages"]["index"]["from"] == "cache"
    assert (first.index.ef, second.index.ef) == (50, 77)
    spec["index"]["index"]["M"] = 8
    third = vwkit.Pipeline.from_dict(spec).run(tmp_path / "three")
    assert third.manifest["stages"]["index"]["from"] == "computed"


# Files -------------------------------------------------------------------------------------------


def test_saved_shards_are_opened_when_they_are_searched(tmp_path, monkeypatch):
    made(shards=4).build(ROWS).save(tmp_path / "index")
    assert folders(tmp_path / "index")[0].startswith("shard_00000-")
    loaded = []
    real = shelf.load
    monkeypatch.setattr(shelf, "load", lambda folder: loaded.append(folder) or real(folder))
    index = vwkit.load(tmp_path / "index")
    assert loaded == []
    index.search(ASKED, 3, allowed=np.arange(130, 140))
    assert [folder.name[:11] for folder in loaded] == ["shard_00001"]
    same(index.search(ASKED, 7), truth())
    index.search(ASKED, 7)
    assert len(loaded) == 4  # what is mapped stays open


def test_unchanged_shards_are_not_written_again(tmp_path):
    made(rows_per_shard=100).build(ROWS).save(tmp_path / "one")
    index = vwkit.load(tmp_path / "one")
    index.remove([120, 130]).add(ROWS[:30])
    index.save(tmp_path / "two")
    one, two = folders(tmp_path / "one"), folders(tmp_path / "two")
    assert len(one) == 5
    assert len(two) == 6
    assert set(one) - set(two) == {one[1]}
    for name in set(one) & set(two):
        for path in (tmp_path / "one" / name).iterdir():
            assert path.stat().st_ino == (tmp_path / "two" / name / path.name).stat().st_ino
    # In its own place, too: what it has open stays what it is.
    again = vwkit.load(tmp_path / "two")
    before = again.search(ASKED, 7)
    again.remove(300).save(tmp_path / "two")
    assert len(folders(tmp_path / "two")) == 6
    left = np.isin(before.ids, 300)
    found = again.search(ASKED, 7)
    assert (found.ids[~left.any(axis=1)] == before.ids[~left.any(axis=1)]).all()
    same(vwkit.load(tmp_path / "two").search(ASKED, 7), found)


def test_damaged_and_foreign_shards_are_refused(tmp_path):
    made(shards=3).build(ROWS).save(tmp_path / "index")
    name = folders(tmp_path / "index")[1]
    file = next((tmp_path / "index" / name).glob("_vectors*"))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match="checksum does not match"):
        inspect_path(tmp_path / "index")
    index = vwkit.load(tmp_path / "index")  # nothing of it is read yet
    with pytest.raises(ArtifactError, match="checksum does not match"):
        index.search(ASKED, 3)
    # A shard of another build, under the right name and with the right checksums.
    made(shards=3).build(ROWS[:300]).save(tmp_path / "other")
    index = made(shards=3).build(ROWS)
    index._shelf.shards[1] = shelf.Shard(
        100, folder=tmp_path / "other" / folders(tmp_path / "other")[1]
    )
    index.save(tmp_path / "mixed")
    with pytest.raises(ArtifactError, match="not the shard that is needed"):
        vwkit.load(tmp_path / "mixed").search(ASKED, 3)
    (tmp_path / "gone").mkdir()
    made(shards=2).build(ROWS).save(tmp_path / "gone/index")
    index = vwkit.load(tmp_path / "gone/index")
    (tmp_path / "gone/index").rename(tmp_path / "gone/moved")
    with pytest.raises(ArtifactError, match="this shard of the index is gone"):
        index.search(ASKED, 3)


def test_it_travels_to_another_process():
    import pickle

    index = made(shards=3).build(ROWS)
    same(pickle.loads(pickle.dumps(index)).search(ASKED, 7), truth())


# Memory ------------------------------------------------------------------------------------------


def test_only_as_many_are_open_as_fit(tmp_path, monkeypatch):
    """Of indexes that are not mapped; those that are open already are searched first."""
    monkeypatch.setattr(Exact, "memory_mapped", False)
    made(shards=10).build(ROWS).save(tmp_path / "index")
    index = vwkit.load(tmp_path / "index")
    size = max(shard.bytes for _, shard in index._shelf)
    loaded = []
    real = shelf.load
    monkeypatch.setattr(shelf, "load", lambda folder: loaded.append(folder) or real(folder))
    with use_job(Job(memory=2 * 4 * size, threads=1)):
        same(index.search(ASKED, 7), truth())
        assert len(loaded) == 10
        assert 1 <= len(index._shelf._open) <= 4
        same(index.search(ASKED, 7), truth())
        assert len(loaded) <= 17


def test_shards_that_do_not_fit_lie_in_files_while_they_are_built(tmp_path):
    place = tmp_path / "work"
    with use_job(Job(memory=1 << 15, threads=1, folder=place)):
        index = made(rows_per_shard=50).build(ROWS)
        held = [shard for _, shard in index._shelf if shard.folder is None]
        assert len(held) < 3
        same(index.search(ASKED, 7), truth())
        index.remove(np.arange(0, 500, 9))
        assert len([shard for _, shard in index._shelf if shard.folder is None]) < 5
        left = np.delete(np.arange(500), np.arange(0, 500, 9))
        found = index.search(ASKED, 7)
        assert (found.ids == left[truth(ROWS[left]).ids]).all()
        index.save(tmp_path / "saved")
    del index
    assert not list(place.glob("vwkit-shards-*"))
    assert (vwkit.load(tmp_path / "saved").search(ASKED, 7).ids == found.ids).all()


def test_by_default_memory_decides_how_many():
    with use_job(Job(memory=8 * 8 * 4 * 50)):
        index = made().build(ROWS)
        assert len(index._shelf.shards) == 10
        index.add(ROWS[:120])
        assert len(index._shelf.shards) == 13
    assert len(made().build(ROWS)._shelf.shards) == 1


class Counted:
    """A Stream of rows that says how many of them are alive at the same time."""

    def __init__(self, rows):
        self.rows, self.read = rows, 0

    def stream(self):
        def chunks():
            for start in range(0, len(self.rows), 7):
                self.read += len(self.rows[start : start + 7])
                yield self.rows[start : start + 7]

        return vwkit.Stream(
            chunks, dim=self.rows.shape[1], dtype=self.rows.dtype, rows=len(self.rows)
        )


def test_a_stream_is_read_once_and_held_a_shard_at_a_time(monkeypatch):
    source = Counted((ROWS * 20).round().clip(0, 255).astype(np.uint8))
    sizes = []
    real = Exact._build

    def build(self, vectors):
        sizes.append((len(vectors), source.read))
        real(self, vectors)

    monkeypatch.setattr(Exact, "_build", build)
    index = made(rows_per_shard=60).build(source.stream())
    assert [size for size, _ in sizes] == np.diff(index._starts).tolist()
    for (_, read), stop in zip(sizes, index._starts[1:], strict=True):
        assert stop <= read < stop + 7  # nothing is read ahead
    assert source.read == 500
    same(index.search(ASKED, 7), truth(source.rows))


def test_data_larger_than_memory_are_built_within_it(tmp_path):
    """Anonymous memory stays far below the data: 26 MB of uint8, 102 MB as float32."""
    path = tmp_path / "rows.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.uint8, (200_000, 128))
    rng = np.random.default_rng(0)
    for start in range(0, len(rows), 50_000):
        rows[start : start + 50_000] = rng.integers(0, 256, (50_000, 128), np.uint8)
    del rows
    script = """
        import sys, numpy as np, vwkit
        from vwkit.stages import MemoryMeter, anonymous_memory
        rows = np.load(sys.argv[1], mmap_mode="r")
        asked = np.array(rows[::23_001], np.float32)
        # What is imported for the first one is not at stake.
        few = vwkit.create("index", "sharded", shards=2).build(rows[:9])
        few.save(sys.argv[2] + "/few")
        vwkit.load(sys.argv[2] + "/few").search(asked, 1)
        with vwkit.use_job(vwkit.Job(threads=1, memory=16 << 20, folder=sys.argv[2] + "/work")):
            base = anonymous_memory()
            with MemoryMeter(0.01) as meter:
                index = vwkit.create("index", "sharded").build(rows)
                index.save(sys.argv[2] + "/index")
            print(len(index._shelf.shards), meter.peak - base)
            del index
            base = anonymous_memory()
            with MemoryMeter(0.01) as meter:
                found = vwkit.load(sys.argv[2] + "/index").search(asked, 1)
            print(found.ids[:, 0].tolist(), meter.peak - base)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path), str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    shards, peak = map(int, told[0].split())
    assert shards > 10
    assert peak < 48 << 20
    ids, _, peak = told[1].rpartition(" ")
    assert ids == str(list(range(0, 200_000, 23_001)))
    assert int(peak) < 48 << 20


# Growth ------------------------------------------------------------------------------------------


def test_new_rows_fill_the_last_shard_and_then_new_ones():
    index = made(rows_per_shard=100).build(ROWS[:250])  # 83, 83, 84
    index.add(ROWS[250:260])
    assert np.diff(index._starts).tolist() == [83, 83, 94]
    index.add(ROWS[260:])
    assert np.diff(index._starts).tolist() == [83, 83, 100, 78, 78, 78]
    same(index.search(ASKED, 7), truth())


class Learns(Exact):
    """Needs ten rows to learn from."""

    def _build(self, vectors):
        if len(vectors) < 10:
            raise DataError("too few rows to learn from")
        super()._build(vectors)


def test_too_few_rows_for_a_shard_stay_with_the_last():
    from vwkit.plugins import registered

    cls = vwkit.backend("learns")(Learns)
    with registered(cls):
        index = made(index={"use": "learns"}, rows_per_shard=50).build(ROWS[:100])
        for start in range(100, 112, 4):
            index.add(ROWS[start : start + 4])
        assert np.diff(index._starts).tolist() == [50, 62]
        index.add(ROWS[112:150])
        assert np.diff(index._starts).tolist() == [50, 62, 38]
        same(index.search(ASKED, 7), truth(ROWS[:150]))


def test_an_addition_is_whole_or_not_at_all(monkeypatch):
    index = made(rows_per_shard=50).build(ROWS[:120])
    real = Exact._build
    calls = []

    def build(self, vectors):
        calls.append(len(vectors))
        if len(calls) == 3:
            raise MemoryError
        real(self, vectors)

    monkeypatch.setattr(Exact, "_build", build)
    with pytest.raises(MemoryError):
        index.add(ROWS[120:])
    assert len(index) == 120
    same(index.search(ASKED, 7), truth(ROWS[:120]))
    calls[:] = [0] * 9
    index.add(ROWS[120:])
    same(index.search(ASKED, 7), truth())


def test_a_shard_that_loses_all_its_rows_is_let_go(tmp_path):
    index = made(shards=5).build(ROWS).remove(np.arange(100, 200))
    index.save(tmp_path / "index")
    assert len(folders(tmp_path / "index")) == 4
    assert index.dead == 0
    for one in (index, vwkit.load(tmp_path / "index")):
        left = np.delete(np.arange(500), np.arange(100, 200))
        assert (one.search(ASKED, 7).ids == left[truth(ROWS[left]).ids]).all()
        one.remove(np.arange(400, 500)).add(ROWS[:3], ids=[1000, 1001, 1002])
        assert one.search(ROWS[:1], 2).ids.tolist() == [[0, 1000]]
        assert len(one) == 303


def test_what_the_nested_index_cannot_it_cannot():
    from vwkit.plugins import registered

    with registered(Slack):
        index = made(index={"use": "slack"}).build(ROWS)
        for ask in (lambda: index.add(ROWS), lambda: index.remove([1])):
            with pytest.raises(UnsupportedError, match="sharded cannot"):
                ask()
        with pytest.raises(UnsupportedError, match="filter"):
            index.search(ASKED, allowed=[1])


# Going on ----------------------------------------------------------------------------------------


def test_a_build_goes_on_with_the_shards_that_are_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded, "_WORTH_KEEPING", 0.0)
    real = Exact._build
    built = []

    def build(self, vectors):
        if len(built) == 3:
            raise KeyboardInterrupt
        built.append(len(vectors))
        real(self, vectors)

    place = tmp_path / "work"
    monkeypatch.setattr(Exact, "_build", build)
    with use_job(Job(folder=place)), pytest.raises(KeyboardInterrupt):
        made(shards=5).build(ROWS)
    kept = sorted(path.name for path in place.iterdir())
    assert len(kept) == 3
    # One of them is damaged since.
    file = next((place / kept[0]).glob("_vectors*"))
    file.write_bytes(file.read_bytes()[:-1])
    built[:] = [0] * 9
    with use_job(Job(folder=place)):
        made(shards=5).build(ROWS).save(tmp_path / "resumed")
    assert len(built) == 9 + 3
    # A shard without its manifest is no reason to stop, either.
    lost = min(path for path in place.iterdir() if path.is_dir())
    (lost / "manifest.json").unlink()
    built[:] = [0] * 9
    with use_job(Job(folder=place)):
        made(shards=5).build(ROWS).save(tmp_path / "resumed")
    assert len(built) == 9 + 1
    made(shards=5).build(ROWS).save(tmp_path / "whole")
    assert tree(tmp_path / "resumed") == tree(tmp_path / "whole")
    # Not where somebody wants a fresh start, and not of other rows or parameters.
    for job, rows in ((Job(folder=place, resumable=False), ROWS), (Job(folder=place), ROWS + 1)):
        expected, built[:] = truth(rows), [0] * 9
        with use_job(job):
            same(made(shards=5).build(rows).search(ASKED, 7), expected)
        assert len(built) == 9 + 5


def test_an_index_that_is_built_again_leaves_nothing_of_the_old_one(tmp_path, monkeypatch):
    """As k-means does in every iteration, with other centers."""
    monkeypatch.setattr(sharded, "_WORTH_KEEPING", 0.0)
    with use_job(Job(folder=tmp_path)):
        index = made(shards=5)
        for i in range(3):
            same(index.build(ROWS + i).search(ASKED, 7), truth(ROWS + i))
            assert len(list(tmp_path.glob("shard-*"))) == 5
    rows = (ROWS * 30).round().clip(0, 255).astype(np.uint8)
    plain, other = (
        vwkit.create("clusterer", "lloyd", k=20, iterations=4, assign=assign).fit(rows)
        for assign in ({"use": "exact"}, {"use": "sharded", "shards": 3})
    )
    assert (plain.centers == other.centers).all()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill-safety is promised on Linux")
def test_a_killed_run_ends_in_the_same_bytes(tmp_path):
    pytest.importorskip("hnswlib")
    rows = np.random.default_rng(0).integers(0, 256, (9000, 32), np.uint8)
    vwkit.write(tmp_path / "x.npy", rows)
    nested = {"use": "hnsw", "threads": 1, "ef_construction": 40}
    spec = {
        "vwkit": 1,
        "vectors": {"path": str(tmp_path / "x.npy")},
        "index": {"use": "sharded", "shards": 6, "index": nested},
    }
    path = dump(tmp_path / "spec.yaml", spec)
    script = (
        "import sys\n"
        "from vwkit.builtin import sharded\n"
        "sharded._WORTH_KEEPING = 0.0\n"
        "from vwkit.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )

    def command(out):
        run = ["run", str(path), "--out", str(tmp_path / out), "--resume", "--quiet"]
        return [sys.executable, "-c", script, *run]

    def environment(name):
        return {**os.environ, "VWKIT_CACHE": str(tmp_path / f"cache-{name}")}

    kills = 0
    for seen in (1, 4):
        process = subprocess.Popen(
            command("killed"), env=environment("killed"), stderr=subprocess.DEVNULL
        )
        kept = tmp_path / "killed/.run/checkpoints"
        while process.poll() is None:
            finished = [p for p in kept.glob("*/shard-*") if (p / "manifest.json").is_file()]
            if len(finished) >= seen:
                process.kill()
                kills += 1
                break
            time.sleep(0.002)
        process.wait(30)
    assert kills >= 1
    for name in ("killed", "whole"):
        subprocess.run(command(name), env=environment(name), check=True, capture_output=True)
    assert tree(tmp_path / "killed/index") == tree(tmp_path / "whole/index")
    assert not list((tmp_path / "killed/.run").glob("checkpoints/*"))


# Elsewhere ---------------------------------------------------------------------------------------


class Elsewhere(ThreadedExecutor):
    """Does as if it computed in other processes: everything is pickled on the way."""

    distributed = True

    def map(self, kernel, chunks, arrays):
        import pickle

        def there(*chunk, **more):
            chunk, more = pickle.loads(pickle.dumps((chunk, more)))
            return pickle.loads(pickle.dumps(kernel(*chunk, **more)))

        for one in chunks:
            yield there(*one, **arrays)


@pytest.mark.parametrize("source", ["file", "array"])
def test_shards_are_built_by_an_executor(tmp_path, source):
    rows = ROWS
    if source == "file":
        np.save(tmp_path / "rows.npy", ROWS)
        rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    with use_job(Job(folder=tmp_path / "work", executor=Elsewhere(1))):
        index = made(shards=4).build(rows)
        assert len(list((tmp_path / "work").glob("shard-*"))) == 4
        index.save(tmp_path / "there")
    made(shards=4).build(ROWS).save(tmp_path / "here")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")
    same(vwkit.load(tmp_path / "there").search(ASKED, 7), truth())


def test_a_worker_that_writes_where_nobody_sees_it(tmp_path, monkeypatch):
    class Lost(Elsewhere):
        def map(self, kernel, chunks, arrays):
            yield from ("shard-of-another-machine" for _ in chunks)

    job = Job(folder=tmp_path / "work", executor=Lost(1))
    with use_job(job), pytest.raises(vwkit.errors.RunError, match="all machines share"):
        made(shards=4).build(ROWS)


def test_paths_are_not_needed(tmp_path):
    """A run with a sharded index is searched after it was moved."""
    spec = vector_spec(tmp_path, index={"use": "sharded", "shards": 3})
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    assert isinstance(run.index, sharded.Sharded)
    found = run.search(np.zeros((1, 8)), 5)
    Path(tmp_path / "run").rename(tmp_path / "moved")
    same(vwkit.Run.open(tmp_path / "moved").search(np.zeros((1, 8)), 5), found)
