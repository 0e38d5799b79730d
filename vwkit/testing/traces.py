"""Tests of what a backend leaves behind: in the process, on the disk, and in what was saved."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import vwkit
from vwkit.testing import settings
from vwkit.testing.suite import Suite

__all__ = ["Traces"]


class Traces(Suite, suite=True):
    """The part of all suites about traces."""

    def _change(self, loaded: Any) -> None:
        """Change what was loaded, where the role allows it."""

    def test_the_process_stays_as_it_was(self) -> None:
        """Fitting, asking, saving and loading change no setting that all code shares.

        These are the working directory, environment variables, warning filters, NumPy's handling of
        floating-point errors, the root logger, the handler of Ctrl-C and the module path. What a
        library sets when it is first imported does not count.

        If this fails, check for a setting that is switched and not switched back: use
        ``np.errstate`` and ``warnings.catch_warnings``, give a library its options as arguments, and
        never ``os.chdir``.
        """
        with settings.kept(), settings.written_variables() as written:
            self._all_there_is()  # the first time libraries are imported
        with settings.elsewhere(written, move=_may_move(self.params)) as before:
            self._all_there_is()
            changed = settings.changed(before)
        assert not changed, f"changed for all code of the process: {'; '.join(changed)}"

    def test_no_files_are_left(self) -> None:
        """Nothing stays in the working directory or in the folder for temporary files.

        If this fails, check for a temporary file whose name is not unlinked when it is no longer
        needed, and for one that is not written into the folder that ``_save`` is given.
        """
        with contextlib.ExitStack() as stack:
            first, work, temporary, place = (
                Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(4)
            )
            move = _may_move(self.params)
            with contextlib.chdir(first) if move else contextlib.nullcontext():
                self._all_there_is()  # what is imported now may keep files of its own
            stack.enter_context(mock.patch.object(tempfile, "tempdir", str(temporary)))
            names = ("TMPDIR", "TEMP", "TMP")
            stack.enter_context(mock.patch.dict(os.environ, dict.fromkeys(names, str(temporary))))
            if move:
                stack.enter_context(contextlib.chdir(work))
            self._all_there_is(place / "saved")
            gc.collect()
            for where, folder in (("working", work), ("temporary", temporary)):
                left = sorted(str(one.relative_to(folder)) for one in folder.rglob("*"))
                assert not left, f"left in the {where} directory: {', '.join(left[:5])}"

    def test_no_threads_or_open_files_are_left(self) -> None:
        """Threads and open files do not grow in number with every backend that was used and dropped.

        What a library opens once and keeps for all does not count.

        If this fails, check for a thread or a pool that is not stopped, and for a file that is
        opened without ``with``, and is still referred to when the backend is gone.
        """
        self._all_there_is(collect=False)  # the first time: pools and files that serve for all
        # Collecting takes long in a large process, and is only needed where something stays.
        for collect in (False, True):
            threads, files, new = self._left_each_time(collect)
            if not _grows(threads) and not _grows(files):
                return
        assert not _grows(threads), (
            f"threads of Python after each of three times that one was made, used and dropped: {threads}"
        )
        assert not _grows(files), (
            f"open files after each of three times that one was made, used and dropped: {files}"
            f"{'; among them ' if new else ''}{', '.join(new[:5])}"
        )

    def _left_each_time(self, collect: bool) -> tuple[list[int], list[int], list[str]]:
        """Return how many threads and files there are after each time, and what files are new."""
        found = []
        for _ in range(3):
            self._all_there_is(collect=collect)
            found.append((threading.active_count(), settings.open_files()))
        new = sorted(set(found[-1][1].values()) - set(found[0][1].values()))
        return [count for count, _ in found], [len(names) for _, names in found], new

    def test_saved_files_stay_as_they_are(self) -> None:
        """Loading, asking and changing what was loaded write nothing into the saved folder.

        If this fails, check for memory maps that are opened in mode ``r+``: take ``r``, and copy
        what is to be changed.
        """
        fitted = self._ready()
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "saved"
            fitted.save(place)
            before = _files(place)
            loaded = vwkit.load(place)
            assert _files(place) == before, "the saved files were changed by loading them"
            self._answer(loaded)
            self._change(loaded)
            now = _files(place)
            del loaded
            gc.collect()
            changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            assert not changed, f"saved files were changed after loading: {', '.join(changed)}"

    def test_library_is_a_distribution(self) -> None:
        """``library`` names what is installed, so that its version is part of the cache's key.

        If this fails, check for the name of a module: ``library`` is the name that ``pip install``
        takes.
        """
        name = self.backend.library
        if not name:
            return
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            homes = importlib.metadata.packages_distributions().get(name.replace("-", "_"), [])
            meant = f"; did you mean {' or '.join(sorted(set(homes)))}?" if homes else ""
            pytest.fail(f"library names {name!r}, which is no installed distribution{meant}")

    def _all_there_is(self, place: Path | None = None, *, collect: bool = True) -> None:
        fitted = self._ready()
        self._answer(fitted)
        with contextlib.ExitStack() as stack:
            if place is None:
                place = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "saved"
            fitted.save(place)
            loaded = vwkit.load(place)
            self._answer(loaded)
            self._change(loaded)
            del loaded
            if collect:
                gc.collect()


def _grows(counts: list[int]) -> bool:
    return all(after > before for before, after in itertools.pairwise(counts))


def _files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content of every file and when it was written."""
    return {
        str(one.relative_to(folder)): (one.read_bytes(), one.stat().st_mtime_ns)
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }


def _may_move(params: Mapping[str, Any]) -> bool:
    """Tell whether all works in another working directory: files and modules are found there."""
    return "" not in sys.path and not _has_relative_paths(params)


def _has_relative_paths(value: Any) -> bool:
    """Tell whether parameters name files relative to the working directory."""
    if isinstance(value, Mapping):
        return any(map(_has_relative_paths, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_relative_paths, value))
    if isinstance(value, (str, Path)):
        return bool(str(value)) and not Path(value).is_absolute() and Path(value).exists()
    return False
