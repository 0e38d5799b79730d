"""Outputs that are one array file or a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vwkit.around import Output
from vwkit.base import Field, backend
from vwkit.codes import write_note
from vwkit.errors import UnsupportedError
from vwkit.formats import write_vectors
from vwkit.outputs.files import new_file
from vwkit.sparse import Sparse
from vwkit.types import Array, Positive

__all__ = ["CodesOutput", "LabelsOutput", "TableOutput", "VectorsOutput"]


class _ArrayOutput(Output):
    stage: ClassVar[str]

    def _array(self, run: Any) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must define _array")

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

    def _array(self, run: Any) -> Array:
        if run.has("labels"):
            labels: Array = run.arrays("labels")["labels"]
            return labels
        return np.asarray(run.clusterer.labels)


@backend("vectors")
class VectorsOutput(_ArrayOutput):
    """The features of every item or descriptor: ``.npy``, ``.fvecs`` or ``.bvecs`` by the name."""

    needs = ("images",)

    def _array(self, run: Any) -> Array:
        vectors = run.vectors
        if isinstance(vectors, Sparse):
            raise UnsupportedError("sparse vectors are not written as a table of numbers; "
                                   "run.vectors gives them in Python")  # fmt: skip
        array: Array = vectors
        return array


@backend("table")
class TableOutput(Output):
    """One CSV line per item: id, status, size, and its nearest other items with distances."""

    needs = ("images",)

    neighbours: Positive = Field(
        default=5, doc="How many nearest items to list, where there is an index."
    )

    def _write(self, run: Any, path: Path) -> None:
        with new_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["row", "id", "status", "width", "height", "reason", "nearest"])
            for item in run.items:
                near = ""
                if item.status == "ok" and run.has("index"):
                    found = run.search(item.id, self.neighbours + 1)
                    near = "; ".join(
                        f"{other.id} {distance:.4f}"
                        for other, distance in zip(found.items[0], found.distances[0], strict=True)
                        if other is not None and other.row != item.row
                    )
                width, height = item.size or ("", "")
                table.writerow(
                    [item.row, item.id, item.status, width, height, item.reason or "", near]
                )
