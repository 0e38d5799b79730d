"""Saved folders: whole or refused, replaced at one point in time, and nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

import vwkit
from vwkit import artifact
from vwkit.artifact import open_artifact, write_artifact
from vwkit.manifests import own_sha256, text_of

ROWS = np.random.default_rng(0).integers(0, 256, (30, 4)).astype(np.uint8)


@pytest.fixture
def saved(tmp_path) -> Path:
    """An artifact with children: a bag of words over pixels, over a vocabulary of Lloyd."""
    lloyd = vwkit.create("clusterer", "lloyd", k=5).fit(ROWS)
    lookup = vwkit.create("index", "exact")
    vocabulary = vwkit.create("quantizer", "vocabulary", clusterer=lloyd, lookup=lookup)
    vocabulary.save(tmp_path / "saved")
    return tmp_path / "saved"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sealed(manifest: dict) -> str:
    """Write a manifest as an attacker would: whatever it says, its own checksum is right."""
    manifest = {key: value for key, value in manifest.items() if key != "sha256"}
    manifest["sha256"] = own_sha256(manifest)
    return text_of(manifest)


def reseal(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    path.write_text(sealed({**json.loads(path.read_text()), **changes}))


class TestDamage:
    def test_any_changed_byte_of_any_file(self, saved):
        rng = np.random.default_rng(1)
        files = [path for path in sorted(saved.rglob("*")) if path.is_file()]
        assert len(files) >= 8
        for path in files:
            whole = path.read_bytes()
            for place in {0, len(whole) - 1, *rng.integers(0, len(whole), 25).tolist()}:
                for flip in (1, 0x20, 0x80):
                    damaged = bytearray(whole)
                    damaged[place] ^= flip
                    path.write_bytes(damaged)
                    with pytest.raises(vwkit.ArtifactError, match=r"saved"):
                        vwkit.load(saved)
            path.write_bytes(whole)
        vwkit.load(saved)

    @pytest.mark.parametrize("change", ["truncate", "empty", "longer", "delete", "folder", "link"])
    def test_any_other_change_of_any_file(self, saved, change, tmp_path):
        for path in [path for path in sorted(saved.rglob("*")) if path.is_file()]:
            whole = path.read_bytes()
            path.unlink()
            if change == "truncate":
                path.write_bytes(whole[:-1])
            elif change == "empty":
                path.write_bytes(b"")
            elif change == "longer":
                path.write_bytes(whole + b" ")
            elif change == "folder":
                path.mkdir()
            elif change == "link":  # the right bytes, but who knows for how long
                (tmp_path / "elsewhere").write_bytes(whole)
                path.symlink_to(tmp_path / "elsewhere")
            with pytest.raises(vwkit.ArtifactError):
                vwkit.load(saved)
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(whole)
        vwkit.load(saved)

    def test_a_missing_or_foreign_folder(self, tmp_path):
        with pytest.raises(vwkit.ArtifactError, match="no such folder"):
            vwkit.load(tmp_path / "nowhere")
        with pytest.raises(vwkit.ArtifactError, match=r"no manifest\.json"):
            vwkit.load(tmp_path)
        for text in (
            "",
            "{",
            "[]",
            "null",
            '{"format": 1}',
            '{"format": "1"}',
            "[" * 99_999,
            "1" * 9999,
        ):
            (tmp_path / "manifest.json").write_text(text)
            with pytest.raises(vwkit.ArtifactError):
                vwkit.load(tmp_path)
        (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
        with pytest.raises(vwkit.ArtifactError):
            vwkit.load(tmp_path)

    def test_a_huge_manifest_is_not_read(self, tmp_path):
        with (tmp_path / "manifest.json").open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(vwkit.ArtifactError, match="not a manifest"):
            vwkit.load(tmp_path)

    def test_a_newer_format_is_refused_by_its_number(self, saved):
        for text in (sealed({"format": 7}), '{"format": 7, "unheard": "of"}'):
            (saved / "manifest.json").write_text(text)
            with pytest.raises(vwkit.ArtifactError, match=r"format 7.*newer vwkit.*up to format 1"):
                vwkit.load(saved)


class TestHostile:
    @pytest.mark.parametrize(
        "name",
        [
            "../secret",
            "/etc/passwd",
            "a/../../secret",
            "..",
            ".",
            "",
            "a\\..\\b",
            "a\0b",
            "x" * 5000,
            "\ud800",
            "//server/share",
            "link/secret",
        ],
    )
    def test_names_that_lead_out_of_the_folder(self, saved, name, tmp_path):
        secret = tmp_path / "secret"
        secret.write_bytes(b"secret")
        (saved / "link").symlink_to(tmp_path)
        entry = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
        manifest = json.loads((saved / "manifest.json").read_text())
        reseal(saved, files={**manifest["files"], name: entry})
        with pytest.raises(vwkit.ArtifactError):
            vwkit.load(saved)
        reseal(
            saved, files=manifest["files"], children={"clusterer": {"folder": name, "sha256": ""}}
        )
        with pytest.raises(vwkit.ArtifactError):
            vwkit.load(saved)
        reseal(saved, children={}, native=name)
        with pytest.raises(vwkit.ArtifactError):
            vwkit.load(saved)

    @pytest.mark.parametrize(
        "changes",
        [
            {"files": []},
            {"files": {"a": 1}},
            {"files": {"a": {"bytes": "1", "sha256": "x"}}},
            {"arrays": {"a": "not-a-file"}},
            {"arrays": [1]},
            {"children": 3},
            {"children": {"clusterer": "x"}},
            {"native": 5},
            {"role": None},
            {"role": "nothing"},
            {"name": ["vocabulary"]},
            {"params": 5},
            {"params": {"unheard": "of"}},
            {"params": {"clusterer": {"use": "lloyd", "k": "many"}}},
            {"identity": 3},
            {"core": [1]},
            {"format": 0},
            {"format": True},
        ],
    )
    def test_manifests_that_make_no_sense(self, saved, changes):
        reseal(saved, **changes)
        try:
            vwkit.load(saved)
        except vwkit.VwkitError as error:
            assert "\n" not in str(error)
        else:
            assert set(changes) <= {"identity", "core", "params"}

    def _with_array(self, folder: Path, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        name = f"a-{digest[:16]}.npy"
        (folder / name).write_bytes(content)
        files = {name: {"sha256": digest, "bytes": len(content)}}
        reseal(folder, files=files, arrays={"a": name}, children={})

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }",
            "{'descr': [('a', '<f4', (9999999999,))], 'fortran_order': False, 'shape': (9,), }",
            "__import__('os')",
            "{",
            "(" * 200,
        ],
    )
    def test_array_headers_that_lie(self, saved, header):
        text = header.encode() + b" " * (117 - len(header)) + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 16
        self._with_array(saved, content)
        with pytest.raises(vwkit.ArtifactError, match="not a readable array"):
            open_artifact(saved).arrays()

    def test_no_pickle_is_opened(self, saved, tmp_path):
        np.save(tmp_path / "pickled.npy", np.array([object()]), allow_pickle=True)
        self._with_array(saved, (tmp_path / "pickled.npy").read_bytes())
        with pytest.raises(vwkit.ArtifactError, match="pickle|object"):
            open_artifact(saved).arrays()


class TestContent:
    def test_arrays_of_any_shape_come_back(self, tmp_path):
        arrays = {
            "scalar": np.array(3.5),
            "empty": np.zeros((0, 4), np.uint8),
            "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
            "strided": np.arange(20)[::3],
            "large": np.zeros((1 << 19, 4), np.uint8),
        }
        with write_artifact(tmp_path / "a", {}) as draft:
            for name, array in arrays.items():
                draft.array(name, array)
        found = open_artifact(tmp_path / "a").arrays()
        assert list(found) == sorted(arrays) or set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)
        assert isinstance(found["large"], np.memmap)
        assert not found["large"].flags.writeable
        assert found["scalar"].flags.writeable

    def test_saving_twice_gives_the_same_bytes(self, saved, tmp_path):
        vwkit.load(saved).save(tmp_path / "elsewhere" / "again")
        again = tree(tmp_path / "elsewhere" / "again")
        assert again == tree(saved)
        text = b"".join(again.values())
        assert str(tmp_path).encode() not in text
        assert os.uname().nodename.encode() not in text

    def test_saving_over_itself_changes_nothing(self, saved):
        before = tree(saved)
        backend = vwkit.load(saved)
        backend.save(saved)
        assert tree(saved) == before
        assert backend.encode(ROWS).tolist() == vwkit.load(saved).encode(ROWS).tolist()

    def test_native_files(self, tmp_path):
        def save(folder):
            (folder / "deep").mkdir()
            (folder / "deep" / "b").write_bytes(b"2")
            (folder / "a").write_bytes(b"1")

        with write_artifact(tmp_path / "a", {}) as draft:
            draft.native(save)
        native = open_artifact(tmp_path / "a").native
        assert tree(native) == {"a": b"1", "deep/b": b"2"}
        (native / "deep" / "b").write_bytes(b"3")
        with pytest.raises(vwkit.ArtifactError, match="checksum"):
            open_artifact(tmp_path / "a")

    def test_names_of_any_script(self, tmp_path):
        with write_artifact(tmp_path / "Wörter 語", {"params": {"path": "caf\udce9"}}) as draft:
            draft.array("a", np.zeros(3))
        assert open_artifact(tmp_path / "Wörter 語").manifest["params"]["path"] == "caf\udce9"


class TestReplacing:
    def test_what_is_not_an_artifact_is_not_overwritten(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "thesis.tex").write_text("ten years of work")
        (tmp_path / "file").write_text("x")
        index = vwkit.create("index", "exact").build(ROWS)
        with pytest.raises(vwkit.ArtifactError, match="not a vwkit artifact"):
            index.save(tmp_path / "folder")
        with pytest.raises(vwkit.ArtifactError, match="in the way"):
            index.save(tmp_path / "file")
        with pytest.raises(vwkit.ArtifactError, match="cannot be written"):
            index.save(tmp_path / "file" / "below")
        assert tree(tmp_path) == {"file": b"x", "folder/thesis.tex": b"ten years of work"}
        (tmp_path / "empty").mkdir()
        index.save(tmp_path / "empty")
        vwkit.load(tmp_path / "empty")

    def test_nothing_is_left_when_the_block_fails(self, saved, tmp_path):
        before = tree(tmp_path)
        for target in (saved, tmp_path / "new"):
            with pytest.raises(KeyError, match="mine"), write_artifact(target, {}) as draft:
                draft.array("a", np.zeros(100))
                raise KeyError("mine")
        assert tree(tmp_path) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]

    def test_a_replaced_artifact_holds_only_the_new_files(self, saved, tmp_path):
        index = vwkit.create("index", "exact").build(ROWS)
        index.save(saved)
        index.save(tmp_path / "fresh")
        assert tree(saved) == tree(tmp_path / "fresh")

    @pytest.mark.parametrize("function", ["rename", "replace", "fsync"])
    @pytest.mark.parametrize("kill", [False, True])
    def test_cut_short_anywhere_the_old_or_the_new_is_whole(
        self, saved, tmp_path, monkeypatch, function, kill
    ):
        old = tree(saved)
        index = vwkit.create("index", "exact").build(ROWS)
        index.save(tmp_path / "fresh")
        new = tree(tmp_path / "fresh")
        shutil.rmtree(tmp_path / "fresh")
        real = getattr(os, function)
        calls = outcomes = 0
        for stop in range(1, 50):
            calls = 0

            def failing(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls >= stop if kill else calls == stop:  # noqa: B023
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(os, function, failing)
                if kill:  # a killed process cleans nothing up either
                    patch.setattr(artifact, "_remove_stale", lambda *args, **kwargs: None)
                    patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
                try:
                    index.save(saved)
                except vwkit.ArtifactError as error:
                    assert "No space left on device" in str(error)
                    failed = True
                else:
                    failed = False
            held = tree(saved)
            vwkit.load(saved)
            if kill:
                assert held["manifest.json"] in (old["manifest.json"], new["manifest.json"])
            else:
                assert held in (old, new)
                assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]
            if not failed:
                break
            outcomes += 1
            for path in tmp_path.iterdir():
                shutil.rmtree(path)
            saved.mkdir()
            for name, content in old.items():
                (saved / name).parent.mkdir(exist_ok=True)
                (saved / name).write_bytes(content)
        assert outcomes >= 1

    def test_leftovers_of_a_killed_replacement_go_with_the_next_open(self, saved):
        before = tree(saved)
        left = saved / f"_vectors-{'0' * 16}.npy"
        left.write_bytes(b"half")
        folder = saved / f"clusterer-{'0' * 16}"
        folder.mkdir()
        mine = saved / "notes.txt"
        mine.write_bytes(b"not vwkit's")
        vwkit.load(saved)
        assert left.exists()  # somebody may be replacing it right now
        for path in (left, folder):
            os.utime(path, (1, 1))
        os.utime(mine, (1, 1))
        vwkit.load(saved)
        assert tree(saved) == {**before, "notes.txt": b"not vwkit's"}
        assert not folder.exists()

    def test_the_old_one_can_be_read_until_the_new_one_is_complete(self, saved):
        manifest = (saved / "manifest.json").read_bytes()
        with write_artifact(saved, {}) as draft:
            draft.array("a", np.zeros(9))
            assert (saved / "manifest.json").read_bytes() == manifest
            vwkit.load(saved)
        assert open_artifact(saved).arrays()["a"].shape == (9,)

    def test_a_loaded_backend_survives_its_replacement(self, tmp_path):
        rows = np.random.default_rng(1).random((70_000, 4)).astype(np.float32)
        vwkit.create("index", "exact").build(rows).save(tmp_path / "a")
        held = vwkit.load(tmp_path / "a")
        vwkit.create("index", "exact").build(ROWS).save(tmp_path / "a")
        assert held.search(rows[-1:], 1).ids.tolist() == [[69_999]]

    def test_a_folder_that_cannot_be_written(self, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            raise PermissionError(errno.EACCES, "Permission denied")

        index = vwkit.create("index", "exact").build(ROWS)
        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
        with pytest.raises(vwkit.ArtifactError, match="a: cannot be written: Permission denied"):
            index.save(tmp_path / "a")
        assert list(tmp_path.iterdir()) == []

    def test_readers_beside_a_writer(self, tmp_path):
        target = tmp_path / "a"
        indexes = [
            vwkit.create("index", "exact").build(np.full((5, 2), value, np.float32))
            for value in range(4)
        ]
        indexes[0].save(target)
        done = threading.Event()
        problems: list[BaseException] = []

        def read():
            while not done.is_set():
                try:
                    vwkit.load(target)
                except vwkit.ArtifactError:
                    pass  # it was replaced while it was read
                except BaseException as error:
                    problems.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for turn in range(40):
            indexes[turn % 4].save(target)
        done.set()
        reader.join()
        assert problems == []
        vwkit.load(target)


@pytest.mark.parametrize("rows", [1, 200])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, rows):
    """While rows are added, or when what was kept back is written at the end."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))
    try:
        with (
            pytest.raises(vwkit.ArtifactError, match="art: cannot be written: File too large"),
            write_artifact(tmp_path / "art", {"role": "x", "name": "y"}) as draft,
        ):
            growing = draft.growing("a", 64, np.float32)
            for _ in range(rows):
                growing.append(np.zeros((1, 64), np.float32))
            growing.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["a limit", "no block left"])
def test_a_library_that_does_not_say_that_it_could_not_write(tmp_path, monkeypatch, how):
    import resource
    import types

    if how == "a limit":
        monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 100))
    else:
        full = types.SimpleNamespace(f_blocks=10, f_bfree=0, f_bavail=0)
        monkeypatch.setattr(os, "statvfs", lambda folder: full)

    def save(folder):
        (folder / "index").write_bytes(bytes(100))

    with (
        pytest.raises(
            vwkit.ArtifactError, match="cannot be written: (File too large|No space left)"
        ),
        write_artifact(tmp_path / "a", {}) as draft,
    ):
        draft.native(save)
    assert list(tmp_path.iterdir()) == []
