"""The functions of FLANN's library, by pyflann's declarations of them."""

from __future__ import annotations

import ctypes
import importlib
import os
import struct
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vwkit_flann_archive import AUTOTUNED, KDTREE, KMEANS, LINEAR, Reader
from vwkit_flann_trees import KDTrees, KMeansTree

from vwkit.errors import ArtifactError, BackendError, PluginError
from vwkit.types import Array

__all__ = ["Part"]

_EUCLIDEAN = 1
# Type of distance, random numbers and messages are global to the library.
_building = threading.Lock()


class Part:
    """One index of the library, freed with the last reference to it.

    Not pyflann's own class: that one does not look at what the functions return, and hands out
    memory that was never written to where a search failed or found too little.
    """

    def __init__(self, handle: int, vectors: Array) -> None:
        self._handle = handle
        self._vectors = vectors  # the library points into them
        library = _flann()
        free = library.flann.free_index[np.float32]
        params = library.FLANNParameters()
        closing = weakref.finalize(self, free, handle, ctypes.byref(params))
        closing.atexit = False

    @classmethod
    def built(cls, vectors: Array, options: dict[str, Any]) -> Part:
        """Build what `options` say.

        Raises
        ------
        BackendError
            The library could not.
        """
        library, params = _flann(), _params(options)
        speedup = ctypes.c_float(0)
        with _building:
            library.flannlib.flann_set_distance_type(_EUCLIDEAN, 0)
            handle = library.flann.build_index[np.float32](
                vectors, *vectors.shape, ctypes.byref(speedup), ctypes.byref(params)
            )
        if not handle:
            raise BackendError(
                f"flann could not build {options['algorithm']} of {len(vectors):,} vectors"
            )
        return cls(handle, vectors)

    @classmethod
    def loaded(cls, tree: KDTrees | KMeansTree, vectors: Array) -> Part:
        """Hand over a tree that `tree.wrong` found nothing in.

        Raises
        ------
        ArtifactError
            The library does not take it.
        """
        library = _flann()
        try:
            with tempfile.NamedTemporaryFile(prefix="vwkit-flann-") as file:
                tree.write(file, *vectors.shape)
                file.flush()
                with _building:
                    library.flannlib.flann_log_verbosity(0)
                    library.flannlib.flann_set_distance_type(_EUCLIDEAN, 0)
                    handle = library.flann.load_index[np.float32](
                        os.fsencode(file.name), vectors, *vectors.shape
                    )
        except OSError as error:
            raise ArtifactError(
                f"{tempfile.gettempdir()}: no room for flann's trees ({error.strerror}), which it "
                "reads from a file; name another folder by TMPDIR"
            ) from None
        if not handle:
            raise ArtifactError("flann does not take the saved trees; make the index again")
        return cls(handle, vectors)

    def trees(self, folder: Path) -> tuple[KDTrees | KMeansTree | None, int | None]:
        """Return the trees, None for `linear`, and for `autotuned` the checks that it found best.

        The library writes them to a file in `folder`, which is gone afterwards.

        Raises
        ------
        OSError
            There is no room for it.
        """
        with tempfile.NamedTemporaryFile(prefix=".vwkit-flann-", dir=folder) as file:
            with _building:
                _flann().flann.save_index[np.float32](self._handle, os.fsencode(file.name))
            held, checks = Reader(file), None
            if held.algorithm == AUTOTUNED:
                # Four numbers that it was tuned by, what it chose, and how many checks that needs.
                _, checks = struct.unpack("=16x i i", held.take(24))
                held.end()
                held = Reader(file)
            kinds: dict[int, type[KDTrees | KMeansTree]] = {KDTREE: KDTrees, KMEANS: KMeansTree}
            made = None
            if held.algorithm != LINEAR:
                made = kinds[held.algorithm].read(held, *self._vectors.shape)
            held.end()
        return made, checks

    def search(
        self, queries: Array, k: int, options: dict[str, Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and squared distances; what was not found has the distance infinity."""
        library, params = _flann(), _params(options)
        rows = np.zeros((len(queries), k), np.int32)
        distances = np.full((len(queries), k), np.inf, np.float32)
        library.flannlib.flann_set_distance_type(_EUCLIDEAN, 0)
        failed = library.flann.find_nearest_neighbors_index[np.float32](
            self._handle, queries, len(queries), rows, distances, k, ctypes.byref(params)
        )
        if failed:
            raise BackendError(f"flann could not search for {k} neighbours")
        found = rows.astype(np.int64)
        # Behind the last one found it leaves numbers from anywhere.
        found[np.isinf(distances)] = -1
        return found, distances


def _flann() -> Any:
    try:
        return importlib.import_module("pyflann_ibeis.flann_ctypes")
    except (ImportError, OSError) as error:
        raise PluginError(
            f"index flann: needs the library pyflann_ibeis ({error}): pip install pyflann-ibeis"
        ) from None


def _params(options: dict[str, Any]) -> Any:
    params = _flann().FLANNParameters()
    params.update({"log_level": "none", **options})
    return params
