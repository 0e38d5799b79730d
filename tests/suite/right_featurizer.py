"""Featurizers and readers that are right, some of them unusual."""

from __future__ import annotations

import numpy as np

import vwkit
from vwkit.errors import FormatError
from vwkit.featurizer import Reader
from vwkit.image import open_image
from vwkit.testing import FeaturizerTests
from vwkit.types import Features


@vwkit.backend("mean-colour")
class MeanColour(vwkit.Featurizer):
    """One vector per image, several images at a time."""

    batch_size = 3
    deterministic = True
    dim = 3

    def _extract(self, images):
        return [Features(self._mean(self._pixels(one))) for one in images]

    def _pixels(self, image):
        return image.rgb

    def _mean(self, pixels):
        mean = pixels.reshape(-1, 3).mean(axis=0, keepdims=True, dtype=np.float64)
        return mean.astype(np.float32)


@vwkit.backend("bright-spots")
class BrightSpots(vwkit.Featurizer):
    """A vector for each pixel that is brighter than its neighbours; often there is none."""

    local = True
    deterministic = True
    thread_safe = True
    dim = 2

    def _extract(self, images):
        return [self._found(image) for image in images]

    def _found(self, image):
        gray = np.pad(image.gray.astype(np.int64), 1)
        middle = gray[1:-1, 1:-1]
        spot = (middle > gray[:-2, 1:-1] + 9) & (middle > gray[2:, 1:-1] + 9)
        y, x = np.nonzero(spot & (middle > gray[1:-1, :-2]) & (middle > gray[1:-1, 2:]))
        points = np.zeros((len(x), 5), np.float32)
        points[:, 0], points[:, 1], points[:, 2] = x, y, 3
        vectors = np.stack([middle[y, x], middle[y, x] - gray[y, x + 1]], axis=1)
        return Features(vectors.astype(np.float32), points)


@vwkit.backend("rows-of-pixels")
class RowsOfPixels(vwkit.Featurizer):
    """Many vectors per image, and no keypoints: a histogram of every row of pixels, as bytes."""

    local = True
    dim = 4
    dtypes = ("uint8",)

    def _extract(self, images):
        bins = [(one.gray // 64)[:, :, None] == np.arange(4) for one in images]
        shares = [(255 * one.mean(axis=1)).astype(np.uint8) for one in bins]
        return [Features(share) for share in shares]


@vwkit.backend("colour-words")
class ColourWords(vwkit.Featurizer):
    """Sparse: how often each of 512 colours occurs."""

    deterministic = True
    dim = 512

    def _extract(self, images):
        found = []
        for one in images:
            r, g, b = (one.rgb // 32).reshape(-1, 3).astype(np.int64).T
            counts = np.bincount(64 * r + 8 * g + b, minlength=512).astype(np.float32)
            found.append(Features(vwkit.Sparse.from_dense(counts[None])))
        return found


@vwkit.backend("above-average")
class AboveAverage(vwkit.Featurizer):
    """Trainable: how an image differs from the mean of those that it was fitted on."""

    trainable = True
    deterministic = True
    dim = 3

    def _fit(self, images):
        means = [image.rgb.reshape(-1, 3).mean(axis=0) for image in map(open_image, images)]
        self._mean = np.mean(means, axis=0)

    def _extract(self, images):
        means = [image.rgb.reshape(-1, 3).mean(axis=0, keepdims=True) for image in images]
        return [Features((mean - self._mean).astype(np.float32)) for mean in means]


@vwkit.backend("wobbling")
class Wobbling(MeanColour):
    """Its last digits depend on the batch, which it declares."""

    batch_invariant = False
    deterministic = False

    def _extract(self, images):
        found = super()._extract(images)
        return [Features(one.vectors * np.float32(1 + 1e-6 * len(images))) for one in found]


@vwkit.backend("pairs")
class Pairs(Reader):
    """Reads a format of its own: the mark PAIR, the number of rows, and pairs of float32."""

    dim = 2

    def _read(self, path):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise FormatError(f"{path}: {error.strerror}") from None
        rows = int.from_bytes(content[4:8], "little")
        if content[:4] != b"PAIR" or len(content) < 8 or len(content) != 8 + 8 * rows:
            raise FormatError(f"{path}: no file of pairs, or cut short")
        return self._stream(np.frombuffer(content, self._numbers(), offset=8).reshape(-1, 2))

    def _numbers(self):
        return "<f4"

    def _stream(self, rows):
        return vwkit.Stream.from_array(rows)


class PairsTests(FeaturizerTests):
    """A reader of an own format writes the file that it is tested with."""

    def write_file(self, folder):
        rows = np.random.default_rng(0).normal(0, 9, (37, 2)).astype("<f4")
        path = folder / "sample.pairs"
        path.write_bytes(b"PAIR" + len(rows).to_bytes(4, "little") + rows.tobytes())
        return path, rows
