"""Quantizers with one fault each."""

from __future__ import annotations

from functools import partial

import numpy as np

import vwkit
from tests.suite.faults import fault
from tests.suite.right_quantizer import PlainPQ, Residual, Steps, TurnedPQ
from vwkit.reference import lloyd
from vwkit.reference import pq as reference
from vwkit.testing import QuantizerTests

FAULTS = []
wrong = partial(fault, FAULTS, QuantizerTests)


# Codes -----------------------------------------------------------------------------------------


@wrong("test_codes", "dtype uint8; got .* int64")
class WideCodes(PlainPQ):
    """Gives int64 codes."""

    def _encode(self, vectors):
        return super()._encode(vectors).astype(np.int64)


@wrong("test_wide_codes", "dtype uint16; got .* uint8")
class AlwaysBytes(PlainPQ):
    """Gives bytes, however many codewords there are."""

    def _encode(self, vectors):
        return super()._encode(vectors).astype(np.uint8)


@wrong("test_wide_codes", "nearest codeword's")
class PassesThroughBytes(PlainPQ):
    """Gives the right dtype, after the wrong one."""

    def _encode(self, vectors):
        codes = super()._encode(vectors)
        return codes.astype(np.uint8).astype(codes.dtype)


@wrong("test_codes", "nearest codeword")
class SwapsSlices(PlainPQ):
    """Looks slices up in each other's codebook."""

    def _encode(self, vectors):
        return np.ascontiguousarray(super()._encode(vectors)[:, ::-1])


@wrong("test_codes", "nearest codeword")
class ForgetsTheRotation(TurnedPQ):
    """Encodes turned vectors, decodes without turning back."""

    def _decode(self, codes):
        return PlainPQ._decode(self, codes)


@wrong("test_codes", "codewords of|codes of shape")
class SaysProduct(Residual):
    """Is additive and says that it has slices."""

    structure = "product"


@wrong("test_far_from_the_origin", "nearest codeword's")
class Cancels(PlainPQ):
    """Expands the square in float32."""

    def _encode(self, vectors):
        width, codes = self.codebook.shape[2], []
        for j, book in enumerate(self.codebook):
            x = vectors[:, j * width : (j + 1) * width].astype(np.float32)
            table = (x**2).sum(axis=1)[:, None] - 2 * x @ book.T + (book**2).sum(axis=1)
            codes.append(table.argmin(axis=1))
        return np.stack(codes, axis=1).astype(np.uint8)


@wrong("test_encoding_does_not_depend_on_other_rows", "a row alone gets another code")
class EncodesTheBatch(PlainPQ):
    """Centres what it encodes by the mean of the batch."""

    def _encode(self, vectors):
        if len(vectors) == 0:
            return super()._encode(vectors)
        moved = vectors - vectors.mean(axis=0) + self.codebook.mean(axis=1).ravel()
        return super()._encode(moved.astype(np.float32))


@wrong("test_encoding_does_not_depend_on_other_rows", "other codes from a Stream")
class OtherForStreams(PlainPQ):
    """Scales each chunk of a Stream by its largest number."""

    def encode(self, vectors):
        if not isinstance(vectors, vwkit.Stream):
            return super().encode(vectors)
        largest = np.abs(self.codebook).max()

        def one(chunk):
            return self._encode((chunk * largest / np.abs(chunk).max()).astype(np.float32))

        return vectors.map(one, dim=self.m, dtype=np.uint8)


@wrong("test_encoding_does_not_depend_on_other_rows", "read before anybody asked")
class ReadsAtOnce(PlainPQ):
    """Encodes a Stream when it is given."""

    def encode(self, vectors):
        if isinstance(vectors, vwkit.Stream):
            return vwkit.Stream.from_array(super().encode(vectors.toarray()))
        return super().encode(vectors)


@wrong("test_encoding_does_not_depend_on_other_rows", "offsets were lost")
class LosesOffsets(PlainPQ):
    """Makes a new Stream, without what belongs to the rows."""

    def encode(self, vectors):
        found = super().encode(vectors)
        if isinstance(found, vwkit.Stream):
            return vwkit.Stream(found.chunks, dim=found.dim, dtype=found.dtype)
        return found


@wrong("test_codes_of_the_nearest_codewords", "codes of the nearest codeword is")
class LooksAtHalf(PlainPQ):
    """Looks at every second codeword only, and does not declare it."""

    def _encode(self, vectors):
        return 2 * reference.encode(vectors, self.codebook[:, ::2])


@wrong("test_many_rows", "other codes|other vectors")
class EncodesWholeBlocks(PlainPQ):
    """Encodes whole blocks of 256 rows, and leaves the rest 0."""

    def _encode(self, vectors):
        codes = super()._encode(vectors)
        if len(vectors) >= 256:
            codes[len(vectors) - len(vectors) % 256 :] = 0
        return codes


@wrong("test_deterministic_encoding", "other codes the second time")
class Dithers(PlainPQ):
    """Adds noise before it looks a codeword up."""

    def _encode(self, vectors):
        noise = np.random.default_rng().normal(0, 50, vectors.shape)
        return super()._encode((vectors + noise).astype(np.float32))


# Decoding --------------------------------------------------------------------------------------


@wrong("test_round_trip", "do not come back|follow")
class DecodesNext(PlainPQ):
    """Decodes to the codeword behind the right one."""

    def _decode(self, codes):
        return super()._decode((codes + 1) % self.ks)


@wrong("test_codes", "decode does not follow the codebook")
class DecodesWhole(PlainPQ):
    """Decodes to whole numbers."""

    def _decode(self, codes):
        return np.round(super()._decode(codes))


@wrong("test_codes", "decode does not follow the codebook")
class AddsTwice(Residual):
    """Adds the first codeword twice."""

    def _decode(self, codes):
        return super()._decode(codes) + self.codebook[0][codes[:, 0]]


@wrong("test_bad_codes_are_refused", "DID NOT RAISE")
class ClipsBadCodes(PlainPQ):
    """Takes a code out of range for the last one."""

    def decode(self, codes):
        if isinstance(codes, np.ndarray) and codes.dtype.kind in "iu":
            codes = np.clip(codes, 0, self.ks - 1)
        return super().decode(codes)


@wrong("test_answers_stay_as_they_were", "earlier answer was changed")
class ReusesItsBuffer(PlainPQ):
    """Decodes into the same memory every time."""

    def _decode(self, codes):
        found = super()._decode(codes)
        if getattr(self, "_work", np.empty((0, 0))).shape != found.shape:
            self._work = np.empty(found.shape, np.float32)
        self._work[:] = found
        return self._work


# Learning --------------------------------------------------------------------------------------


@wrong("test_distortion", "distortion")
class BarelyTrained(PlainPQ):
    """Takes any rows as codewords."""

    def _fit(self, vectors):
        self.codebook = self._first_rows(vectors)


@wrong("test_distortion", "distortion")
class FirstRowsOnly(PlainPQ):
    """Learns from the first third of the rows."""

    def _fit(self, vectors):
        super()._fit(vectors[: max(self.ks, len(vectors) // 3)])


@wrong("test_few_rows", "NaN or infinity in the codebook")
class NaNCodewords(PlainPQ):
    """Divides by the size of an empty cluster."""

    def _fit(self, vectors):
        super()._fit(vectors)
        if len(np.unique(vectors, axis=0)) < self.ks:
            self.codebook[:, -1] = np.nan


@wrong("test_codes", "codebook is float32; got float64")
class WideCodebook(PlainPQ):
    """Keeps float64 codewords."""

    def _fit(self, vectors):
        super()._fit(vectors)
        self.codebook = self.codebook.astype(np.float64)


@wrong("test_same_seed_same_answer", "with the same seed")
class IgnoresTheSeed(PlainPQ):
    """Draws from the system's entropy."""

    deterministic = False

    def _rng_seed(self):
        return int(np.random.default_rng().integers(1 << 30))


@wrong("test_another_seed_draws_other_numbers", "the same answer")
class AlwaysTheSameSeed(PlainPQ):
    """Has a seed, and draws with another."""

    def _rng_seed(self):
        return int(np.random.default_rng(seed=12).integers(1 << 30))


@wrong("test_global_random_state_is_left_alone", "NumPy's global")
class ShufflesGlobally(PlainPQ):
    """Shuffles the rows with NumPy's global generator."""

    def _fit(self, vectors):
        np.random.shuffle(np.arange(len(vectors)))  # noqa: NPY002
        super()._fit(vectors)


@wrong("test_streams", "chunks|nearest")
class DropsTheLastChunk(Steps):
    """Learns from all chunks but the last."""

    def _chunks(self, vectors):
        chunks = list(vectors)
        return chunks[:-1] or chunks


@wrong("test_same_bytes_with_any_threads", "threads")
class DependsOnThreads(PlainPQ):
    """Starts otherwise on more threads."""

    def _rng_seed(self):
        return self.seed + vwkit.job().threads


@wrong("test_inputs_are_left_alone", "data were changed by fitting")
class TurnsInPlace(TurnedPQ):
    """Writes the turned vectors over the caller's."""

    def _fit(self, vectors):
        super()._fit(vectors)
        vectors[:] = vectors @ self.rotation


@wrong("test_save_and_load", "after loading|has no attribute")
class ForgetsToSaveTheRotation(TurnedPQ):
    """Saves the codebook only, and turns nothing when it is loaded."""

    def _state(self):
        return {"codebook": self.codebook}

    def _restore(self, state):
        super()._restore(state)
        self.rotation = np.eye(self._dim, dtype=np.float32)


@wrong("test_distortion", "distortion")
class OneCodebookForAll(PlainPQ):
    """Learns the codewords of the first slice, and uses them for all."""

    def _fit(self, vectors):
        width = vectors.shape[1] // self.m
        first = reference.train(vectors[:, :width], 1, self.ks, self.seed, 12)
        self.codebook = np.repeat(first, self.m, axis=0).astype(np.float32)


@wrong("test_distortion", "distortion")
class EncodesOnlyTheFirst(Residual):
    """Finds the first code, and takes 0 for the others."""

    def _encode(self, vectors):
        codes = np.zeros((len(vectors), self.m), np.uint8)
        codes[:, 0] = lloyd.assign(vectors, self.codebook[0])
        return codes


@wrong("test_dimensions_that_do_not_divide", r"vectors of shape \(60, 5\) come back as \(60, 4\)")
class DropsColumns(PlainPQ):
    """Leaves out the columns that are too many for equal slices."""

    def _whole(self, vectors):
        return np.ascontiguousarray(vectors[:, : vectors.shape[1] // self.m * self.m])

    def _fit(self, vectors):
        super()._fit(self._whole(vectors))

    def _encode(self, vectors):
        return super()._encode(self._whole(vectors))


@wrong("test_second_fit_replaces_the_first", "codeword|fitted twice")
class OldTables(PlainPQ):
    """Keeps its tables for encoding from the first fit, where they fit."""

    def _encode(self, vectors):
        book = self.__dict__.setdefault("_book", self.codebook)
        if book.shape != self.codebook.shape:
            book = self._book = self.codebook
        return reference.encode(vectors, book)

    def _state(self):
        return {"codebook": self.codebook}
