"""Chunks that are computed elsewhere: what a job asks of an executor, and that it changes no byte."""

from __future__ import annotations

import operator
import os
import pickle
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest

import vwkit
from vwkit import kernels
from vwkit.around import Executor
from vwkit.artifact import open_artifact
from vwkit.base import backend
from vwkit.builtin import image_work
from vwkit.extraction import extract
from vwkit.jobs import Job, use_job
from vwkit.row_readers import Behind, Computed, MappedFile, mapped_file, rows_of
from vwkit.stage_arrays import write_stream
from vwkit.types import Item

ROWS = np.arange(6000, dtype=np.float32).reshape(-1, 2)


@backend("pretending")
class Pretending(Executor):
    """Does what an executor on other machines does, in this process."""

    distributed = True

    def _begin(self, job):
        self.calls = []

    def _map(self, kernel, chunks, arrays):
        self.calls.append((kernel, chunks))
        if chunks.reader is None:
            yield from (kernel(*chunk, **arrays) for chunk in chunks)
            return
        results = []
        for start, stop in chunks.spans:
            cut = [one[start:stop] for one in chunks.aligned]
            results.append(kernel(chunks.reader.read(start, stop), *cut, **arrays))
            chunks.done(stop)
        if chunks.combine is None:
            yield from results
        elif chunks.split is None:
            # Not from the left on: neighbours may come together in any order.
            yield from [reduce(lambda b, a: chunks.combine(a, b), reversed(results))]
        else:
            rows, sums = zip(*map(chunks.split, results), strict=True)
            yield from [*rows, reduce(chunks.combine, reversed(sums))]


@pytest.fixture
def executor():
    made = Pretending()
    with made.ready(Job()):
        yield made


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


def doubled(chunk):
    return chunk * 2


def whole(chunk, *aligned):
    return int(chunk.sum()) + sum(int(one.sum()) for one in aligned)


class TestReaders:
    def test_a_mapped_file_reads_its_rows_anywhere(self, mapped):
        for array, start in ((mapped, 0), (mapped[100:], 100), (np.asarray(mapped)[7:90], 7)):
            reader = pickle.loads(pickle.dumps(mapped_file(array)))
            assert np.array_equal(reader.read(3, 50), ROWS[start + 3 : start + 50])

    @pytest.mark.parametrize("array", [ROWS, ROWS[:, 1:], np.zeros(3)])
    def test_what_lies_in_memory_has_none(self, array):
        assert mapped_file(array) is None

    def test_columns_and_steps_of_a_map_have_none(self, mapped):
        assert mapped_file(mapped[:, 1:]) is None
        assert mapped_file(mapped[::2]) is None

    @pytest.mark.parametrize("other", [ROWS[:10], ROWS + 1])
    def test_a_file_that_another_took_the_place_of(self, mapped, tmp_path, other):
        reader = mapped_file(mapped)
        np.save(tmp_path / "other.npy", other)
        (tmp_path / "other.npy").replace(tmp_path / "rows.npy")
        with pytest.raises(vwkit.errors.DataError, match="is not the file any more"):
            reader.read(0, 1)
        assert mapped_file(mapped) is None
        os.remove(tmp_path / "rows.npy")
        assert mapped_file(mapped) is None
        with pytest.raises(vwkit.errors.DataError, match="is not here"):
            MappedFile(**{**vars(reader)}).read(0, 1)

    def test_single_rows(self, mapped):
        wanted = np.array([0, 6, 7, 700, 2999])
        plain = mapped_file(mapped)
        # What is computed is made in whole chunks, the same as in a pass over all rows.
        sizes = []
        lazy = Computed(plain, lambda chunk: sizes.append(len(chunk)) or chunk * 2)
        assert np.array_equal(rows_of(plain, wanted, 7, 3000), ROWS[wanted])
        assert np.array_equal(rows_of(lazy, wanted, 7, 3000), ROWS[wanted] * 2)
        assert sizes == [7, 7, 7, 4]

    def test_of_others(self, mapped):
        reader = Behind(Computed(mapped_file(mapped), doubled), 10)
        assert np.array_equal(reader.read(5, 9), ROWS[15:19] * 2)

    def test_a_lazy_stream_has_the_reader_of_its_rows(self, mapped):
        stream = vwkit.Stream.from_array(mapped).rechunk(700).map(doubled)
        assert stream.spans[-1] == (2800, 3000)
        assert np.array_equal(stream.reader.read(10, 20), ROWS[10:20] * 2)
        rest = stream.from_row(1400)
        assert np.array_equal(rest.reader.read(0, 5), ROWS[1400:1405] * 2)
        # Chunks would begin elsewhere.
        assert stream.from_row(1401).spans is None
        assert vwkit.Stream.from_array(ROWS).map(doubled).spans is None


class TestJob:
    def test_only_an_executor_elsewhere_is_told_of_readers(self, executor, mapped):
        seen = []

        class Here:
            def map(self, kernel, chunks, arrays):
                seen.append(chunks)
                return iter([])

        list(Job(executor=Here()).map(whole, mapped))
        assert (seen[0].reader, seen[0].spans) == (None, None)
        list(Job().using(executor).map(whole, mapped, rows=2000))
        assert executor.calls[0][1].spans == [(0, 2000), (2000, 3000)]

    def test_threads_need_not_combine(self, mapped):
        found = list(Job().map(whole, mapped, rows=1000, combine=operator.add))
        assert len(found) == 3
        assert sum(found) == ROWS.sum()

    def test_here_is_in_this_process(self, executor):
        local, away = Job(threads=3, stage="a"), Job(threads=3, stage="a").using(executor)
        assert local.here() is local
        assert away.distributed
        assert not away.here().distributed
        assert (away.here().threads, away.here().stage) == (3, "a")
        assert away.here().stop is away.stop

    def test_progress_and_stopping_without_iterating(self, executor, mapped):
        told = []
        job = Job(progress=lambda *what: told.append(what[1])).using(executor)
        list(job.map(whole, mapped, rows=1000, unit="rows", combine=operator.add))
        assert told == [1000, 2000, 3000]
        job.stop.set()
        with pytest.raises(vwkit.errors.Interrupted):
            list(job.map(whole, mapped, rows=1000, combine=operator.add))


class TestPartials:
    def test_merging_is_exact_in_any_order(self):
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(900, 3)).astype(np.float32)
        centers, weights = rows[:40], rng.random(900)
        asked = {"centers": centers, "scale": 40, "weight_scale": 40}
        true = kernels.assign_and_accumulate(rows, weights, **asked)
        cuts = [0, 1, 5, 300, 301, 900]
        parts = [
            kernels.assign_and_accumulate(rows[i:j], weights[i:j], **asked)
            for i, j in pairwise(cuts)
        ]
        for found in (
            reduce(kernels.merge, parts),
            reduce(lambda b, a: kernels.merge(a, b), reversed(parts)),
        ):
            for name in ("labels", "used", "sums", "counts"):
                assert getattr(found, name).tobytes() == getattr(true, name).tobytes()
        labels, sums = kernels.split(true)
        assert not len(labels.used)
        assert not len(sums.labels)
        again = kernels.merge(labels, sums)
        assert again.sums.tobytes() == true.sums.tobytes()
        assert again.labels.tobytes() == true.labels.tobytes()


LLOYD = {"k": 25, "iterations": 6}
FITS = {
    "lloyd": ("clusterer", "lloyd", LLOYD),
    "an index assigns": ("clusterer", "lloyd", {**LLOYD, "assign": {"use": "exact"}}),
    "pca": ("transform", "pca", {"dim": 1}),
    "pq": ("quantizer", "pq", {"m": 2, "ks": 16}),
}


class TestFits:
    @pytest.mark.parametrize("name", FITS)
    @pytest.mark.parametrize("dtype", ["float32", "uint8"])
    def test_same_files(self, executor, tmp_path, name, dtype):
        role, use, params = FITS[name]
        rows = np.random.default_rng(0).integers(0, 256, (4000, 6)).astype(dtype)
        np.save(tmp_path / "x.npy", rows)
        data = np.load(tmp_path / "x.npy", mmap_mode="r")
        states = []
        for job in (Job(threads=2), Job(threads=2).using(executor)):
            with use_job(job):
                states.append(vwkit.create(role, use, **params).fit(data)._state())
        assert executor.calls
        assert states[0].keys() == states[1].keys()
        for key, array in states[0].items():
            assert array.tobytes() == states[1][key].tobytes(), key

    @pytest.mark.parametrize("assign", [None, {"use": "exact"}])
    def test_weights_and_empty_clusters(self, executor, tmp_path, assign):
        rng = np.random.default_rng(3)
        rows = np.repeat(rng.integers(0, 9, (60, 2)), 20, axis=0).astype(np.float32)
        weights = rng.integers(0, 3, len(rows)).astype(np.float64)
        np.save(tmp_path / "x.npy", rows)
        data = np.load(tmp_path / "x.npy", mmap_mode="r")
        start = np.concatenate([rows[:1], np.full((30, 2), 1e4, np.float32)])  # most stay empty
        made = []
        for job in (Job(threads=2), Job(threads=2).using(executor)):
            with use_job(job):
                one = vwkit.create("clusterer", "lloyd", k=31, init=start, assign=assign)
                made.append(one.fit(data, weights))
        assert made[0].centers.tobytes() == made[1].centers.tobytes()
        assert made[0].labels.tobytes() == made[1].labels.tobytes()
        assert made[0].objective == made[1].objective

    def test_a_stopped_pq_goes_on(self, executor, tmp_path, monkeypatch):
        monkeypatch.setattr("vwkit.jobs._CHECKPOINT_SHARE", 0)
        rows = np.random.default_rng(0).integers(0, 256, (600, 6)).astype(np.uint8)
        true = vwkit.create("quantizer", "pq", m=3, ks=16).fit(rows)
        job = Job(folder=tmp_path / "kept").using(executor)
        job._progress = lambda stage, done, *_: done == 1 and job.stop.set()
        with use_job(job), pytest.raises(vwkit.errors.Interrupted):
            for _ in range(2):
                vwkit.create("quantizer", "pq", m=3, ks=16).fit(rows)
        again = Job(folder=tmp_path / "kept").using(executor)
        told = []
        again._progress = lambda stage, done, *_: told.append(done)
        with use_job(again):
            found = vwkit.create("quantizer", "pq", m=3, ks=16).fit(rows)
        assert 1 not in told
        assert found.codebook.tobytes() == true.codebook.tobytes()


class TestImagesOfWords:
    """A bag of words and VLAD are made where the rows are; no image is cut."""

    def made(self, use, dtype, tmp_path, monkeypatch):
        monkeypatch.setattr(image_work, "_IMAGES_AT_ONCE", 3)
        monkeypatch.setattr(image_work, "_DESCRIPTORS_AT_ONCE", 50)
        monkeypatch.setattr(image_work, "_TASKS", 2)
        rng = np.random.default_rng(0)
        offsets = np.append(0, np.cumsum(rng.integers(0, 40, 60)))
        dim = 128 if dtype == "uint8" else 3
        rows = rng.integers(0, 256, (offsets[-1], dim)).astype(dtype)
        clusterer = vwkit.create("clusterer", "lloyd", k=9).fit(rows)
        local = {"use": "sift"} if dtype == "uint8" else {"use": "pixels"}
        made = vwkit.create("featurizer", use, local=local, vocabulary=clusterer)
        np.save(tmp_path / "rows.npy", rows)
        np.save(tmp_path / "words.npy", made.words.encode(rows)[:, 0].astype(np.uint32))
        files = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("words", "rows")]
        return made, offsets, files

    @staticmethod
    def bytes_of(made, words, offsets, rows):
        made.learn(words, offsets)
        parts = list(made.aggregate(words, offsets, rows))
        if made.name == "vlad":
            return np.concatenate(parts).tobytes(), len(parts)
        arrays = [np.concatenate([getattr(p, n) for p in parts]) for n in ("indices", "data")]
        lengths = np.concatenate([np.diff(part.indptr) for part in parts])
        return [one.tobytes() for one in (*arrays, lengths, made._idf)], len(parts)

    @pytest.mark.parametrize("use", ["bag-of-words", "vlad"])
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_same_bytes(self, executor, tmp_path, monkeypatch, use, dtype):
        if dtype == "uint8":
            pytest.importorskip("cv2")
        made, offsets, (words, rows) = self.made(use, dtype, tmp_path, monkeypatch)
        expected, parts = self.bytes_of(made, words, offsets, rows)
        assert parts > 10
        with use_job(Job(threads=1)):
            assert self.bytes_of(made, words, offsets, rows)[0] == expected
        given, plain = [], image_work._computed

        def seen(first, *task, **shared):
            given.append(type(first))
            return plain(first, *task, **shared)

        monkeypatch.setattr(image_work, "_computed", seen)
        with use_job(Job(threads=2).using(executor)):
            assert self.bytes_of(made, words, offsets, rows)[0] == expected
            assert set(given) == {int}  # workers read what lies in files
            assert len(given) < 2 * parts  # several spans for each
            given.clear()
            assert self.bytes_of(made, np.array(words), offsets, np.array(rows))[0] == expected
            assert set(given) == {np.ndarray}

    def test_each_image_is_as_by_itself(self, tmp_path, monkeypatch):
        made, offsets, (words, _) = self.made("bag-of-words", "float32", tmp_path, monkeypatch)
        made.learn(words, offsets)
        together = [one for part in made.aggregate(words, offsets) for one in part.toarray()]
        monkeypatch.setattr(image_work, "_IMAGES_AT_ONCE", 1)
        alone = [part.toarray()[0] for part in made.aggregate(words, offsets)]
        assert np.array_equal(together, alone)
        counts = [len(set(words[a:b])) for a, b in pairwise(offsets)]
        assert [np.count_nonzero(one) for one in together] <= counts

    def test_labels_stay_here(self, tmp_path, monkeypatch):
        made, offsets, (words, rows) = self.made("vlad", "float32", tmp_path, monkeypatch)
        made.learn(words, offsets)
        light = made._light()
        assert len(light.vocabulary.labels) == 0
        assert len(made.vocabulary.labels) == len(rows)
        sent = pickle.loads(pickle.dumps(light))
        assert np.array_equal(sent.vocabulary.predict(rows), made.vocabulary.labels)


class TestStages:
    def test_lazy_streams_are_computed_elsewhere(self, executor, mapped, tmp_path):
        stream = vwkit.Stream.from_array(mapped).rechunk(700).map(doubled)
        job = Job(folder=tmp_path / "kept").using(executor)
        with use_job(job):
            write_stream(tmp_path / "a", "rows", stream)
            write_stream(tmp_path / "b", "rows", vwkit.Stream.from_array(mapped))
        assert len(executor.calls) == 1  # what is there already is not sent around
        for name, rows in (("a", ROWS * 2), ("b", ROWS)):
            assert np.array_equal(open_artifact(tmp_path / name).arrays()["rows"], rows)

    def test_images(self, executor, tmp_path):
        from PIL import Image

        from vwkit.cache import Cache

        rng = np.random.default_rng(0)
        items = []
        for row in range(20):
            path = tmp_path / f"{row}.png"
            Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(path)
            items.append(Item(row, path.name, str(path)))
        (tmp_path / "4.png").write_bytes(b"nothing")
        hashes = [f"hash-{item.row % 17}" for item in items]
        featurizer = vwkit.create("featurizer", "colour-histogram")
        arrays = []
        for name, job in (("here", Job()), ("there", Job().using(executor))):
            cache = Cache(tmp_path / f"cache-{name}")
            for again in ("first", "again"):
                out = tmp_path / name / again
                out.parent.mkdir(exist_ok=True)
                with use_job(job):
                    extract(out, featurizer, "key", items, hashes, cache, "skip")
                files = sorted(out.rglob("*.npy"))
                arrays.append({path.name: path.read_bytes() for path in files})
            cache.close()
        assert arrays[0]
        assert all(one == arrays[0] for one in arrays)
        cache = Cache(tmp_path / "cache-none")
        os.remove(items[9].path)
        with use_job(Job().using(executor)), pytest.raises(vwkit.errors.RunError, match="9.png"):
            extract(tmp_path / "gone", featurizer, "other", items, hashes, cache, "skip")
