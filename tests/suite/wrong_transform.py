"""Transforms with one fault each."""

from __future__ import annotations

from functools import partial

import numpy as np

import vwkit
from tests.suite.faults import fault
from tests.suite.right_transform import Backwards, Projected, Scaled, Standard, standardised
from vwkit.testing import TransformTests

FAULTS = []
wrong = partial(fault, FAULTS, TransformTests)
compared = {"reference": staticmethod(standardised)}


@wrong("test_rows_do_not_depend_on_each_other", "alone|order")
class ScalesTheBatch(Scaled):
    """Divides by the largest of the batch."""

    def _transform(self, vectors):
        return vectors / np.float32(np.abs(vectors).max(initial=1e-9))


@wrong("test_values", "NaN or infinity")
class DividesByZero(Scaled):
    """Divides by lengths that may be 0."""

    def _transform(self, vectors):
        with np.errstate(all="ignore"):
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@wrong("test_odd_data", "NaN or infinity")
class DividesByNoSpread(Standard):
    """Divides by the spread of equal rows."""

    def _fit(self, vectors):
        super()._fit(vectors)
        wide = vectors if isinstance(vectors, np.ndarray) else vectors.toarray()
        self._spread = wide.std(axis=0, dtype=np.float64)

    def _transform(self, vectors):
        with np.errstate(all="ignore"):
            return super()._transform(vectors)


@wrong("test_values", "not what `reference` gives", **compared)
class HalvesAll(Standard):
    """Is half of what it should be."""

    def _transform(self, vectors):
        return super()._transform(vectors) / np.float32(2)


@wrong("test_far_from_the_origin", "not what `reference` gives", **compared)
class CancelsTheVariance(Standard):
    """Takes the difference of the mean square and the squared mean, in float32."""

    def _fit(self, vectors):
        super()._fit(vectors)
        rows = vectors if isinstance(vectors, np.ndarray) else vectors.toarray()
        mean = rows.mean(axis=0, dtype=np.float32)
        self._spread = np.sqrt(np.abs((rows**2).mean(axis=0, dtype=np.float32) - mean**2))
        self._spread[self._spread == 0] = 1


@wrong("test_dtypes_and_layouts", "for a uint8 array", keep=("dtypes",))
class BytesOverflow(Backwards):
    """Doubles bytes in bytes."""

    def _transform(self, vectors):
        return super()._transform(vectors * vectors.dtype.type(2))


@wrong("test_dtypes_and_layouts", "for a float64 array|Fortran|strided", keep=())
class ReadsMemoryOrder(Scaled):
    """Reads the caller's memory as it lies there."""

    def transform(self, vectors):
        if isinstance(vectors, np.ndarray) and vectors.flags.f_contiguous and vectors.ndim == 2:
            vectors = vectors.ravel(order="K").reshape(vectors.shape)
        return super().transform(vectors)


@wrong("test_inputs_are_left_alone", "rows asked about were changed")
class WritesInPlace(Scaled):
    """Divides the caller's own array."""

    def _transform(self, vectors):
        vectors /= np.float32(self._largest)
        return vectors


@wrong("test_answers_stay_as_they_were", "earlier answer was changed")
class ReusesItsBuffer(Scaled):
    """Computes into the same memory every time."""

    def _transform(self, vectors):
        if getattr(self, "_work", np.empty((0, 0))).shape != vectors.shape:
            self._work = np.empty(vectors.shape, np.float32)
        return np.divide(vectors, np.float32(self._largest), out=self._work)


@wrong("test_values", "one row per row")
class DropsZeroRows(Scaled):
    """Leaves rows of zeros out."""

    def _transform(self, vectors):
        return super()._transform(vectors[vectors.any(axis=1)])


@wrong("test_many_rows", "another result")
class TransformsWholeBlocks(Scaled):
    """Works in blocks of 256 rows, and leaves the rest as they are."""

    def _transform(self, vectors):
        out = np.array(vectors)
        whole = len(vectors) - len(vectors) % 256 if len(vectors) >= 256 else len(vectors)
        out[:whole] /= np.float32(self._largest)
        return out


@wrong("test_save_and_load", "after loading")
class SavesNothing(Scaled):
    """Does not save what it learned."""

    def _state(self):
        return {}

    def _restore(self, state):
        self._largest = 1.0


@wrong("test_saved_folder_stands_alone", "No such file")
class KeepsThePath(Projected):
    """Saves where it was saved."""

    def _save(self, folder):
        super()._save(folder)
        (folder / "where.txt").write_text(str(folder.parent.parent / "saved"))

    def _load(self, folder):
        from pathlib import Path

        saved = Path((folder / "where.txt").read_text())
        super()._load(next(saved.glob("*/axes.npy"), saved / "No such file").parent)


@wrong("test_streams", "what `reference` gives", **compared)
class DropsTheLastChunk(Standard):
    """Learns from all chunks but the last."""

    def _chunks(self, vectors):
        chunks = list(vectors)
        return chunks[:-1] or chunks


@wrong("test_streams_are_lazy", "a Stream of 6 columns; its rows have 3")
class DimLies(Projected):
    """Says that the number of columns stays."""

    def _out_dim(self, dim):
        return dim


@wrong("test_streams_are_lazy", "read before anybody asked")
class ReadsAtOnce(Scaled):
    """Transforms a Stream when it is given."""

    def transform(self, vectors):
        if isinstance(vectors, vwkit.Stream):
            return vwkit.Stream.from_array(super().transform(vectors.toarray()))
        return super().transform(vectors)


@wrong("test_second_fit_replaces_the_first", "fitted twice")
class KeepsTheFirst(Scaled):
    """Never forgets the largest magnitude of an earlier fit."""

    def _fit(self, vectors):
        before = self.__dict__.get("_largest", 0.0)
        super()._fit(vectors)
        self._largest = max(before, self._largest)


@wrong("test_no_rows", "zero-size|empty")
class NeedsRows(Scaled):
    """Looks at the largest of what it is given."""

    def _transform(self, vectors):
        vectors.max()
        return super()._transform(vectors)


@wrong("test_unfitted_use_is_refused", "DID NOT RAISE")
class WorksTooEarly(Scaled):
    """Overrides the public method, and with it the checks."""

    def transform(self, vectors):
        return vectors if not self._fitted else super().transform(vectors)


@wrong("test_without_a_fit", "after fit|another result")
class LearnsInSecret(Backwards):
    """Says that it learns nothing, and counts how often it was fitted."""

    def fit(self, vectors):
        self.__dict__["_times"] = 2
        return super().fit(vectors)

    def _transform(self, vectors):
        found = super()._transform(vectors)
        return found * found.dtype.type(self.__dict__.get("_times", 1))


@wrong("test_same_bytes_with_any_threads", "threads")
class DependsOnThreads(Scaled):
    """Splits its sums over the threads."""

    def _transform(self, vectors):
        return super()._transform(vectors) * np.float32(1 + 1e-6 * vwkit.job().threads)


@wrong("test_kind_of_the_rows", "kind is")
class HidesItself(Backwards):
    """Does not say that descriptors were transformed."""

    def transform(self, vectors):
        found = super().transform(vectors)
        if isinstance(vectors, vwkit.Stream):
            found.kind = vectors.kind
        return found


@wrong("test_rows_do_not_depend_on_each_other", "for row 0 four times")
class DropsConstants(Scaled):
    """Leaves out the columns that say nothing, of what it is given."""

    def _transform(self, vectors):
        found = super()._transform(vectors)
        return found[:, np.ptp(found, axis=0) > 0] if len(found) > 1 else found
