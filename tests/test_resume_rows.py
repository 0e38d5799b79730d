"""Rows that are written one after the other outlive whoever writes them, and only good ones do."""

import errno
import os
import shutil

import numpy as np
import pytest

import vwkit
from tests.helpers import blobs, tree
from vwkit import growing_arrays, row_files
from vwkit.artifact import open_artifact, write_artifact
from vwkit.errors import ArtifactError, Interrupted
from vwkit.growing_arrays import GrowingArrays
from vwkit.jobs import Job, use_job
from vwkit.stage_arrays import write_stream
from vwkit.stream import Stream

ROWS = blobs(600, 8)
STEP = 50


@pytest.fixture(autouse=True)
def always_recorded(monkeypatch):
    monkeypatch.setattr(growing_arrays, "_EVERY", 0.0)
    monkeypatch.setattr(growing_arrays, "_SHARE", 0)


class Source:
    """A Stream of rows that counts what is computed of it, and may break off."""

    def __init__(self, fail_at=None, gz=False):
        self.computed, self.fail_at, self.gz = 0, fail_at, gz

    def stream(self):
        def chunks():
            for start in range(0, len(ROWS), STEP):
                yield ROWS[start : start + STEP]

        known = None if self.gz else len(ROWS)
        plain = Stream(chunks, dim=8, dtype=np.uint8, rows=known)
        return plain.map(self._shifted)

    def _shifted(self, chunk):
        if self.fail_at is not None and self.computed >= self.fail_at:
            raise Interrupted("enough")
        self.computed += len(chunk)
        return chunk + np.uint8(1)


def written(folder, source, *, flat=False):
    """Write the source as the stage would in a run, and return the artifact's bytes."""
    stream = source.stream()
    if flat:
        stream = stream.map(lambda chunk: np.ascontiguousarray(chunk[:, :1]), dim=1)
    with use_job(Job(folder=folder / "kept")):
        write_stream(folder / "stage", "codes", stream, flat=flat)
    return tree(folder / "stage")


def cut(folder, at):
    with pytest.raises(Interrupted):
        written(folder, Source(fail_at=at))


@pytest.mark.parametrize("at", [0, 1, STEP, 300, 550])
@pytest.mark.parametrize("gz", [False, True])
def test_only_what_is_missing_is_computed(tmp_path, at, gz):
    expected = written(tmp_path / "whole", Source())
    cut(tmp_path / "cut", at)
    source = Source(gz=gz)
    assert written(tmp_path / "cut", source) == expected
    done = -(-at // STEP) * STEP
    assert source.computed == len(ROWS) - done
    assert (open_artifact(tmp_path / "cut/stage").arrays()["codes"] == ROWS + 1).all()


def test_it_may_be_cut_again_and_again(tmp_path):
    expected = written(tmp_path / "whole", Source(), flat=True)
    for _ in range(3):
        with pytest.raises(Interrupted):
            written(tmp_path / "cut", Source(fail_at=120), flat=True)
    assert written(tmp_path / "cut", Source(), flat=True) == expected


def test_any_damage_is_found_and_costs_what_lies_behind(tmp_path):
    expected = written(tmp_path / "whole", Source())
    cut(tmp_path / "cut", 300)
    before = tree(tmp_path / "cut/kept")
    assert before.keys() == {"rows/codes.npy", "rows/journal"}
    rng = np.random.default_rng(0)
    for name, content in before.items():
        places = {0, len(content) - 1, *rng.integers(0, len(content), 40).tolist()}
        for place in sorted(places):
            shutil.rmtree(tmp_path / "cut/kept", ignore_errors=True)
            shutil.rmtree(tmp_path / "cut/stage", ignore_errors=True)
            for other, data in before.items():
                path = tmp_path / "cut/kept" / other
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            damaged = bytearray(content)
            damaged[place] ^= 0x10
            (tmp_path / "cut/kept" / name).write_bytes(damaged)
            source = Source()
            assert written(tmp_path / "cut", source) == expected, (name, place)
            assert len(ROWS) - 300 <= source.computed <= len(ROWS)
    # A flipped byte of the fourth block costs that and the next ones, not the first three.
    (tmp_path / "cut/kept/rows").mkdir(parents=True, exist_ok=True)
    for other, data in before.items():
        (tmp_path / "cut/kept" / other).write_bytes(data)
    damaged = bytearray(before["rows/codes.npy"])
    damaged[-1 - len(ROWS[300:]) * 8 - 2 * STEP * 8] ^= 1
    (tmp_path / "cut/kept/rows/codes.npy").write_bytes(damaged)
    source = Source()
    assert written(tmp_path / "cut", source) == expected
    assert source.computed == len(ROWS) - 150


@pytest.mark.parametrize("what", ["a journal that lies", "links", "a folder", "of another shape"])
def test_what_is_not_ours_is_not_taken_up(tmp_path, what):
    expected = written(tmp_path / "whole", Source())
    mine = tmp_path / "mine.txt"
    mine.write_text("keep me")
    rows = tmp_path / "cut/kept/rows"
    rows.mkdir(parents=True)
    if what == "a journal that lies":
        import json
        import zlib

        for said in (
            {
                "at": 10**15,
                "notes": [],
                "arrays": {"codes": {"rows": 10**15, "crc": 0, "dim": 8, "dtype": "|u1"}},
            },
            {
                "at": 50,
                "notes": [],
                "arrays": {"../../mine": {"rows": 0, "crc": 0, "dim": 8, "dtype": "|u1"}},
            },
            {
                "at": 50,
                "notes": [],
                "arrays": {"codes": {"rows": 0, "crc": 0, "dim": -8, "dtype": "|O"}},
            },
            {"at": 50, "notes": 7, "arrays": []},
            [],
        ):
            text = json.dumps(said).encode()
            (rows / "codes.npy").write_bytes(b"\x93NUMPY" + bytes(200))
            (rows / "journal").write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
            assert written(tmp_path / "cut", Source()) == expected
            shutil.rmtree(tmp_path / "cut/stage")
            rows.mkdir(exist_ok=True)
    elif what == "links":
        (rows / "journal").symlink_to(mine)
        (rows / "codes.npy").symlink_to(mine)
    elif what == "a folder":
        (rows / "journal").mkdir()
        (rows / "codes.npy").mkdir()
    else:
        with (
            write_artifact(tmp_path / "other", {}) as draft,
            pytest.raises(Interrupted),
            GrowingArrays(draft, Job(folder=rows.parent)) as kept,
        ):
            kept.array("codes", 3, np.float32)
            kept.append("codes", np.zeros((9, 3), np.float32))
            kept.step(9)
            raise Interrupted("enough")
        with pytest.raises(ArtifactError, match="of another shape; remove"):
            written(tmp_path / "cut", Source())
        shutil.rmtree(rows)
    assert written(tmp_path / "cut", Source()) == expected
    assert mine.read_text() == "keep me"


def test_a_new_run_begins_anew(tmp_path):
    cut(tmp_path / "cut", 300)
    source = Source()
    with use_job(Job(folder=tmp_path / "cut/kept", resumable=False)):
        write_stream(tmp_path / "cut/stage", "codes", source.stream())
    assert source.computed == len(ROWS)


def test_a_full_disk_is_told_at_the_beginning(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    source = Source()
    with pytest.raises(ArtifactError, match=r"codes takes 4,928 bytes there, and [0-9,]+ are free"):
        written(tmp_path / "cut", source)
    assert source.computed == 0
    monkeypatch.undo()
    assert written(tmp_path / "cut", source) == written(tmp_path / "whole", Source())


def test_a_file_system_that_cannot_set_room_aside(tmp_path, monkeypatch):
    expected = written(tmp_path / "whole", Source())

    def never(*_):
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", never, raising=False)
    assert written(tmp_path / "a", Source()) == expected
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(os, "link", never)
    assert written(tmp_path / "b", Source()) == expected


def test_a_disk_that_fills_up_later_leaves_what_was_good(tmp_path, monkeypatch):
    cut(tmp_path / "cut", 200)
    append = row_files.RowFile.append

    def full(self, rows):
        if self.rows >= 350:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(row_files.RowFile, "append", full)
        with pytest.raises(ArtifactError, match="cannot be written: No space left"):
            written(tmp_path / "cut", Source())
    source = Source()
    assert written(tmp_path / "cut", source) == written(tmp_path / "whole", Source())
    assert source.computed == 250


def test_a_kill_while_it_is_put_in_its_place_costs_no_row(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vwkit.artifact._commit", killed)
        with pytest.raises(KeyboardInterrupt):
            written(tmp_path / "cut", Source())
    source = Source()
    assert written(tmp_path / "cut", source) == written(tmp_path / "whole", Source())
    assert source.computed == 0


def test_without_a_folder_nothing_is_kept(tmp_path):
    with pytest.raises(Interrupted):
        write_stream(tmp_path / "stage", "codes", Source(fail_at=300).stream())
    assert list(tmp_path.iterdir()) == []


class TestSkipping:
    """Every Stream can be read from a row on: the same rows, cut at the same places."""

    @pytest.fixture(params=["array", "file", "gz", "map", "checked", "rechunk", "limit", "plain"])
    def stream(self, request, tmp_path):
        if request.param == "array":
            return Stream.from_array(ROWS, columns={"weights": np.arange(600.0)})
        if request.param in ("file", "gz"):
            vwkit.write(tmp_path / "x.bvecs", ROWS)
            if request.param == "gz":
                import gzip

                (tmp_path / "x.bvecs.gz").write_bytes(
                    gzip.compress((tmp_path / "x.bvecs").read_bytes())
                )
                return vwkit.read(tmp_path / "x.bvecs.gz")
            return vwkit.read(tmp_path / "x.bvecs")
        if request.param == "map":
            return Source().stream()
        if request.param == "checked":
            pca = vwkit.create("transform", "l2-norm")
            return pca.transform(Stream.from_array(ROWS.astype(np.float64)).rechunk(70))
        if request.param == "rechunk":
            return Source().stream().rechunk(70)
        if request.param == "limit":
            from vwkit.flow import _first

            return _first(Source().stream(), 333)
        return Stream(lambda: iter([ROWS[:7], ROWS[7:300], ROWS[300:]]), dim=8, dtype=np.uint8)

    def test_the_rest_is_what_it_was(self, stream):
        whole = np.concatenate(list(stream))
        ends = {0, *np.cumsum([len(chunk) for chunk in stream]).tolist()}
        for start in {0, 1, 49, 50, 70, 299, 332, len(whole) - 1, len(whole)}:
            rest = stream.from_row(start)
            chunks = list(rest)
            found = np.concatenate([whole[:start], *chunks])
            assert (found == whole).all()
            assert set((start + np.cumsum([len(chunk) for chunk in chunks])).tolist()) <= ends
            assert (np.concatenate([whole[:0], *rest.from_row(0)]) == whole[start:]).all()
            more = min(3, len(whole) - start)
            again = list(rest.from_row(more))
            assert (np.concatenate([whole[:0], *again]) == whole[start + more :]).all()
            if start < len(whole):
                assert (rest.take([0]) == whole[start]).all()
            for name, column in stream.columns.items():
                assert (rest.columns[name] == column[start:]).all()

    def test_rows_that_are_not_there(self, stream):
        stream.count()
        with pytest.raises(vwkit.DataError, match="was asked of a Stream"):
            stream.from_row(601)


def test_a_disk_that_is_full_at_the_very_end(tmp_path, monkeypatch):
    def full(self):
        self.file.close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(row_files.RowFile, "finish", full)
        with pytest.raises(ArtifactError, match="cannot be written: No space left"):
            written(tmp_path / "cut", Source())
    source = Source()
    assert written(tmp_path / "cut", source) == written(tmp_path / "whole", Source())
    assert source.computed == 0
