"""Outputs that are one array file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vwkit.around import Output
from vwkit.base import backend
from vwkit.codes import write_note
from vwkit.errors import UnsupportedError
from vwkit.formats import open_vectors, write_vectors
from vwkit.observing.accounts import held
from vwkit.outputs.files import new_file
from vwkit.sparse import Sparse
from vwkit.types import Array

__all__ = ["CodesOutput", "LabelsOutput", "VectorsOutput"]


class _ArrayOutput(Output):
    #: The run's stages that hold its rows: the first that there is.
    stages: ClassVar[tuple[str, ...]]

    def _array(self, run: Any) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must define _array")

    def _rows(self, run: Any) -> tuple[str, int] | None:
        rows = held(run, *self.stages)
        return None if rows is None else ("rows", rows)

    def _rows_written(self, path: Path) -> int | None:
        if path.suffix == ".npy":  # one number a row too, which is no table of vectors
            return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
        return open_vectors(path).rows

    def _write(self, run: Any, path: Path) -> None:
        array = self._array(run)
        with new_file(path) as part:
            if array.ndim == 1 or path.suffix == ".npy":
                with part.open("wb") as file:
                    np.save(file, array, allow_pickle=False)
            else:
                write_vectors(
                    part, [array], dim=array.shape[1], dtype=array.dtype, format=path.suffix[1:]
                )


@backend("codes")
class CodesOutput(_ArrayOutput):
    """The quantizer's code of every row, as an (n, m) ``.npy`` file.

    Beside it, ``codes.npy.json`` names the quantizer that decodes them.
    """

    needs = ("quantizer",)
    stages = ("codes",)

    def _array(self, run: Any) -> Array:
        codes: Array = run.arrays("codes")["codes"]
        return codes

    def _write(self, run: Any, path: Path) -> None:
        super()._write(run, path)
        with new_file(path.with_name(path.name + ".json")) as note:
            write_note(path, run.quantizer.identity, note)


@backend("labels")
class LabelsOutput(_ArrayOutput):
    """The cluster of every row, as an (n,) int32 ``.npy`` file."""

    needs = ("clusterer",)
    stages = ("labels", "clusterer")

    def _array(self, run: Any) -> Array:
        if run.has("labels"):
            labels: Array = run.arrays("labels")["labels"]
            return labels
        return np.asarray(run.clusterer.labels)


@backend("vectors")
class VectorsOutput(_ArrayOutput):
    """The features of every item or descriptor: ``.npy``, ``.fvecs`` or ``.bvecs`` by the name."""

    needs = ("images",)
    stages = ("colours", "vectors", "features")

    def _array(self, run: Any) -> Array:
        vectors = run.vectors
        if isinstance(vectors, Sparse):
            raise UnsupportedError("sparse vectors are not written as a table of numbers; "
                                   "run.vectors gives them in Python")  # fmt: skip
        array: Array = vectors
        return array
