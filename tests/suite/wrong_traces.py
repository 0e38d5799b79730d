"""Indexes with one fault each that shows beside the answers: traces in the process and on the disk."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from functools import partial

import numpy as np

from tests.suite.faults import fault
from tests.suite.right_index import OnDisk, Plain
from vwkit.testing import IndexTests

FAULTS = []
wrong = partial(fault, FAULTS, IndexTests)


# The process -----------------------------------------------------------------------------------


@wrong("test_the_process_stays_as_it_was", "working directory: now '/'")
class GoesAway(OnDisk):
    """Changes into the folder, for a library that takes no path, and not back again."""

    def _save(self, folder):
        os.chdir(folder)
        super()._save(folder)
        os.chdir("/")


@wrong("test_the_process_stays_as_it_was", "environment: OMP_NUM_THREADS_OF_IT is now '1'")
class SetsVariable(Plain):
    """Limits a library's threads for all who come after it."""

    def _build(self, vectors):
        os.environ["OMP_NUM_THREADS_OF_IT"] = "1"
        super()._build(vectors)


@wrong("test_the_process_stays_as_it_was", "NumPy's errors: .* is now 'raise'")
class Raises(Plain):
    """Wants to know of divisions by zero, everywhere."""

    def _build(self, vectors):
        np.seterr(divide="raise", over="raise")
        super()._build(vectors)


@wrong("test_the_process_stays_as_it_was", "warning filters: now (also|first) .*RuntimeWarning")
class Silences(Plain):
    """Switches a library's warnings off, and all others."""

    def _search(self, queries, k, **options):
        warnings.simplefilter("ignore", RuntimeWarning)
        return super()._search(queries, k, **options)


@wrong("test_the_process_stays_as_it_was", "root logger: level is now 10")
class Logs(Plain):
    """Shows what it does by the root logger."""

    def _build(self, vectors):
        logging.getLogger().setLevel(logging.DEBUG)
        super()._build(vectors)


@wrong("test_the_process_stays_as_it_was", "handler of SIGINT")
class Uninterrupted(Plain):
    """Lets nobody stop it, now or later."""

    def _build(self, vectors):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        super()._build(vectors)


@wrong("test_the_process_stays_as_it_was", "sys.path: now also '/opt/its-library'")
class FindsLibrary(Plain):
    """Tells Python where its library is, again and again."""

    def _build(self, vectors):
        sys.path.insert(0, "/opt/its-library")
        super()._build(vectors)


# The disk --------------------------------------------------------------------------------------


@wrong("test_no_files_are_left", "left in the working directory: index.tmp.npy")
class WritesWhereItIs(OnDisk):
    """Writes a file in the working directory first, and copies it."""

    def _save(self, folder):
        np.save("index.tmp.npy", self._vectors)
        super()._save(folder)


@wrong("test_no_threads_or_open_files_are_left", "threads of Python after each")
class KeepsWaiting(Plain):
    """Starts a thread that waits for work and is never told that there will be none."""

    def _build(self, vectors):
        super()._build(vectors)
        threading.Thread(target=threading.Event().wait, args=(30,), daemon=True).start()


@wrong("test_no_threads_or_open_files_are_left", r"open files after each .*vectors\.npy")
class KeepsOpen(OnDisk):
    """Opens the file for a library that wants its number, and never closes it."""

    def _load(self, folder):
        super()._load(folder)
        self._number = os.open(folder / "vectors.npy", os.O_RDONLY)


@wrong("test_no_files_are_left", r"left in the temporary directory: its-.*\.npy")
class KeepsTemporary(OnDisk):
    """Never removes its temporary file."""

    def _unlink(self, name):
        os.rename(name, os.path.join(os.path.dirname(name), f"its-{os.path.basename(name)}"))


@wrong("test_saved_files_stay_as_they_are", "changed after loading: .*alive")
class RemovesForEver(OnDisk):
    """Maps what was saved for writing: what is removed from one that was loaded is gone for all."""

    _mode = "r+"


@wrong("test_saved_files_stay_as_they_are", "changed by loading them")
class LocksFolder(OnDisk):
    """Marks the folder as in use."""

    def _load(self, folder):
        (folder / "in-use.lock").write_text("", encoding="utf-8")
        super()._load(folder)


@wrong("test_library_is_a_distribution", "did you mean PyYAML")
class NamesModule(Plain):
    """Names the module, not the distribution."""

    library = "yaml"


@wrong("test_library_is_a_distribution", "names 'its-library', which is no installed distribution$")
class NamesNothing(Plain):
    """Names what is not there."""

    library = "its-library"


# Instances -------------------------------------------------------------------------------------


@wrong("test_instances_are_independent", "beside another one")
class OneForAll(Plain):
    """Keeps its vectors in a dictionary that is made in the class body."""

    _held = {}

    @property
    def _vectors(self):
        return self._held["vectors"]

    @_vectors.setter
    def _vectors(self, vectors):
        self._held["vectors"] = vectors
