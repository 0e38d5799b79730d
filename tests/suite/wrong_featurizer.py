"""Featurizers and readers with one fault each."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image

import vwkit
from tests.suite.faults import fault
from tests.suite.right_featurizer import (
    AboveAverage,
    BrightSpots,
    MeanColour,
    Pairs,
    PairsTests,
)
from vwkit.errors import ImageError
from vwkit.image import open_image
from vwkit.testing import FeaturizerTests
from vwkit.types import Features

FAULTS = []
wrong = partial(fault, FAULTS, FeaturizerTests)


# Order and batches -----------------------------------------------------------------------------


@wrong("test_one_result_for_each_image", "other vectors|size")
class OtherOrder(MeanColour):
    """Sorts the images of a batch by size."""

    def _extract(self, images):
        return super()._extract(sorted(images, key=lambda one: one.size))


@wrong("test_results_do_not_depend_on_the_batch", "for the repeated image|for image")
class BatchNorm(MeanColour):
    """Subtracts the mean of the batch."""

    def _extract(self, images):
        found = super()._extract(images)
        mean = np.mean([one.vectors for one in found], axis=0)
        return [
            Features((one.vectors - mean * np.float32(0.1)).astype(np.float32)) for one in found
        ]


@wrong("test_results_do_not_depend_on_the_batch", "for image")
class RandomCrop(MeanColour):
    """Cuts a random part out of each image."""

    def _pixels(self, image):
        y, x = np.random.default_rng().integers(0, 8, 2)
        return image.rgb[y : y + 40, x : x + 50]


@wrong("test_one_result_for_each_image", "seven different images gave equal vectors")
class AlwaysTheFirst(MeanColour):
    """Keeps the vectors of the first image that it saw."""

    def _extract(self, images):
        if "_first" not in self.__dict__:
            self._first = super()._extract(images)[0].vectors
        return [Features(self._first) for _ in images]


@wrong("test_threads", "in one of 4 threads", keep=("thread_safe",))
class SharedBuffer(MeanColour):
    """Says that it is thread-safe, with one work space for all."""

    thread_safe = True
    batch_size = 1

    def _pixels(self, image):
        self._work = image.rgb
        time.sleep(0.002)
        return self._work


@wrong("test_threads", "in one of 4 threads")
class CountsThreads(MeanColour):
    """Lets the number of threads into its sums."""

    def _mean(self, pixels):
        return super()._mean(pixels) * np.float32(1 + 1e-3 * vwkit.job().threads)


@wrong("test_answers_stay_as_they_were", "changed by the next image")
class ReusesItsBuffer(MeanColour):
    """Computes into the same memory every time."""

    batch_size = 1

    def _mean(self, pixels):
        if "_work" not in self.__dict__:
            self._work = np.empty((1, 3), np.float32)
        self._work[:] = super()._mean(pixels)
        return self._work


# Images of all kinds ---------------------------------------------------------------------------


@wrong("test_images_of_any_kind", "out of bounds")
class NeedsSpots(BrightSpots):
    """Fails without keypoints."""

    def _found(self, image):
        found = super()._found(image)
        found.vectors[0]
        return found


@wrong("test_images_without_anything", "one per image")
class DropsEmptyImages(BrightSpots):
    """Leaves images without keypoints out."""

    def _extract(self, images):
        return [one for one in super()._extract(images) if len(one.vectors)]


@wrong("test_images_of_any_kind", "must return vectors of shape")
class CountsAlpha(MeanColour):
    """Gives four numbers for transparent images."""

    def _extract(self, images):
        plain = super()._extract(images)
        return [
            Features(np.hstack([found.vectors, [[1]]]).astype(np.float32))
            if one.alpha is not None
            else found
            for one, found in zip(images, plain, strict=True)
        ]


@wrong("test_images_of_any_kind", "too small")
class NeedsEightPixels(MeanColour):
    """Refuses narrow images."""

    def _pixels(self, image):
        if min(image.size) < 8:
            raise ValueError("too small")
        return super()._pixels(image)


@wrong("test_images_are_left_alone", "an image was changed: uint8")
class WritesIntoTheImage(MeanColour):
    """Equalises the caller's own array."""

    def _pixels(self, image):
        gray = image.gray
        if gray.flags.writeable:
            gray //= 2
        return super()._pixels(image)


@wrong("test_ways_to_give_an_image", "for grey")
class KnowsGrey(MeanColour):
    """Reads something that the image does not promise."""

    def _pixels(self, image):
        return image.rgb if image._pixels.ndim == 3 else image.rgb // 2


@wrong("test_ways_to_give_an_image", "for an opaque image with alpha")
class ReadsAlphaAsColour(MeanColour):
    """Takes four channels for three."""

    def _pixels(self, image):
        if image.alpha is None:
            return image.rgb
        every = image.rgba.ravel()
        return every[: len(every) - len(every) % 3]


@wrong("test_ways_to_give_an_image", "for 16 bits")
class CutsSixteenBits(MeanColour):
    """Converts arrays by itself, and cuts their upper byte off."""

    def features(self, images, on_error="raise"):
        if isinstance(images, list):
            images = [one.astype(np.uint8) // 2 if self._deep(one) else one for one in images]
        return super().features(images, on_error)

    def _deep(self, image):
        return isinstance(image, np.ndarray) and image.dtype == np.uint16


@wrong("test_orientation", "size|other vectors")
class OpensTheFile(MeanColour):
    """Opens the file by itself, and forgets how the camera was held."""

    def _extract(self, images):
        found = []
        for image in images:
            pixels = image.rgb
            if Path(image.source).is_file():
                pixels = np.asarray(PIL.Image.open(image.source).convert("RGB"))
            found.append(
                Features(self._mean(pixels[: len(pixels) // 2]), None, pixels.shape[1::-1])
            )
        return found


@wrong("test_a_file_that_changes", "for picture 1 in the same file")
class KeepsByName(MeanColour):
    """Keeps the vectors of a file by its name."""

    def _extract(self, images):
        kept = self.__dict__.setdefault("_by_name", {})
        found = []
        for image in images:
            vectors = super()._extract([image])[0].vectors
            if Path(image.source).is_file():
                vectors = kept.setdefault(image.source, vectors)
            found.append(Features(vectors))
        return found


# Keypoints -------------------------------------------------------------------------------------


@wrong("test_keypoints_lie_all_over_the_image", "x, y = |none of")
class SwapsXY(BrightSpots):
    """Gives row and column."""

    def _found(self, image):
        found = super()._found(image)
        found.keypoints[:, :2] = found.keypoints[:, 1::-1].copy()
        return found


@wrong("test_keypoints_lie_all_over_the_image", "none of")
class StaysSmall(BrightSpots):
    """Looks at the picture in half its size, and leaves the keypoints there."""

    def _found(self, image):
        found = super()._found(image)
        found.keypoints[:, :2] /= 2.5
        return found


@wrong("test_images_of_any_kind", "keypoints: float64")
class WideKeypoints(BrightSpots):
    """Gives float64 keypoints."""

    def _found(self, image):
        found = super()._found(image)
        return Features(found.vectors, found.keypoints.astype(np.float64))


# What is said of the vectors -------------------------------------------------------------------


@wrong("test_dim_is_known", "must return vectors of shape")
class DimLies(MeanColour):
    """Says that there are four numbers."""

    dim = 4


@wrong("test_dim_is_known", "vectors of float64, but dtype is float32")
class DtypeLies(MeanColour):
    """Gives float64 vectors."""

    def _mean(self, pixels):
        return super()._mean(pixels).astype(np.float64)


@wrong("test_fitting", "DID NOT RAISE|must define _fit")
class SaysTrainable(MeanColour):
    """Says that it learns, and does not."""

    trainable = True


@wrong("test_save_and_load", "after loading")
class ForgetsItsTraining(AboveAverage):
    """Saves nothing of what it learned."""

    def _state(self):
        return {"_mean": np.zeros(3)}


@wrong("test_unreadable_images", "DID NOT RAISE|StopIteration|of good, bad")
class SkipsInSilence(MeanColour):
    """Leaves unreadable images out, as if they had not been given."""

    def features(self, images, on_error="raise"):
        good = []
        for image in images:
            try:
                good.append(open_image(image))
            except ImageError:
                continue
        return super().features(good, on_error)


# Readers ---------------------------------------------------------------------------------------

reads = partial(fault, FAULTS, PairsTests)


@reads("test_reads_what_was_written", "35, 2|36")
class DropsTheLastRow(Pairs):
    """Reads all rows but the last."""

    def _stream(self, rows):
        return super()._stream(rows[:-1])


@reads("test_reads_what_was_written", "numbers differ|>f4")
class OtherByteOrder(Pairs):
    """Reads numbers back to front."""

    def _numbers(self):
        return ">f4"


@reads("test_reads_what_was_written", "rows in this pass|need at least one array")
class ReadsOnce(Pairs):
    """Gives its rows once."""

    def _stream(self, rows):
        left = [rows]
        return vwkit.Stream(
            lambda: [left.pop()] if left else [], dim=2, dtype=np.float32, rows=len(rows)
        )


@reads("test_wrong_files_are_refused", "DID NOT RAISE")
class ReadsCutFiles(Pairs):
    """Reads as many rows as there are, whatever the header says."""

    def _read(self, path):
        content = path.read_bytes()[8:]
        whole = content[: len(content) // 8 * 8]
        return self._stream(np.frombuffer(whole, "<f4").reshape(-1, 2))


@reads("test_wrong_files_are_refused", "FileNotFoundError|No such file")
class LetsErrorsOut(Pairs):
    """Lets the system's own errors out."""

    def _read(self, path):
        with path.open("rb"):
            return super()._read(path)


@wrong("test_one_result_for_each_image", "different images of the same size gave equal vectors")
class KeptBySize(MeanColour):
    """Keeps what it made of an image by the image's size."""

    _of_size = {}

    def _extract(self, images):
        fresh = super()._extract(images)
        return [
            self._of_size.setdefault(one.size, new) for one, new in zip(images, fresh, strict=True)
        ]


@wrong("test_keypoints_belong_to_their_vectors", "rows are mixed up")
class SortsKeypoints(BrightSpots):
    """Sorts the keypoints from left to right, and leaves the vectors as they are."""

    def _found(self, image):
        found = super()._found(image)
        order = np.lexsort(found.keypoints.T[::-1])
        return Features(found.vectors, found.keypoints[order])


@wrong("test_second_fit_replaces_the_first", "fitted twice")
class LearnsOn(AboveAverage):
    """Adds what it learns to what it has learned before."""

    def _fit(self, images):
        before = self.__dict__.get("_seen", [])
        super()._fit([*before, *images])
        self._seen = [*before, *images]

    def _state(self):
        self.__dict__.pop("_seen", None)
        return super()._state()


@wrong("test_all_images_are_learned_from", "of 6 images only the first was learned from")
class LearnsFromOne(AboveAverage):
    """Returns inside of its loop."""

    def _fit(self, images):
        super()._fit(images[:1])


@wrong("test_results_do_not_depend_on_the_batch", "by itself")
class PadsToTheLargest(MeanColour):
    """Makes the images of a batch equally large, by black."""

    def _extract(self, images):
        shape = np.max([one.rgb.shape for one in images], axis=0)
        padded = [np.zeros(shape, np.uint8) for _ in images]
        for canvas, one in zip(padded, images, strict=True):
            canvas[: one.rgb.shape[0], : one.rgb.shape[1]] = one.rgb
        return [Features(self._mean(canvas)) for canvas in padded]
