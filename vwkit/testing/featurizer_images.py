"""Tests of a featurizer with pictures of any kind, and given in any way."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vwkit.errors import DataError, ImageError
from vwkit.testing.asking import dense
from vwkit.testing.checks import examples
from vwkit.testing.data import Picture
from vwkit.testing.featurizer_answers import FeaturizerAnswers, pillow
from vwkit.testing.reader import assert_equal
from vwkit.testing.strategies import pictures
from vwkit.types import Features, Skipped

__all__ = ["FeaturizerImages"]


class FeaturizerImages(FeaturizerAnswers, suite=True):
    """The part of `FeaturizerTests` about images."""

    @examples(10, image=pictures())
    def test_images_of_any_kind(self, image: Picture) -> None:
        """Grey, transparent, 16-bit, flat, narrow and tiny images work.

        If this fails, check for a smallest size, and for an image without keypoints: that is (0, d).
        """
        self._for_images()
        fitted = self._shared()
        self._one(fitted, image.make())

    def test_images_are_left_alone(self) -> None:
        """Arrays that are handed in are the same afterwards.

        If this fails, check for operators such as ``*=`` and ``out=`` on ``image.rgb`` or
        ``image.gray``: they may be the caller's own array.
        """
        self._for_images()
        fitted = self._ready()
        for form in ("rgb", "gray", "alpha"):
            for deep in (False, True):
                recipe = Picture(self._seed(7), *self.image_size, form, deep)
                given = recipe.make()
                self._one(fitted, given)
                same = np.array_equal(given, recipe.make())
                assert same, f"an image was changed: {given.dtype} of shape {given.shape}"

    def test_images_without_anything(self) -> None:
        """A flat image gives (0, d) or rows, a single pixel too; one row where it is not local.

        If this fails, check what the library returns when it finds no keypoint.
        """
        self._for_images()
        fitted = self._ready()
        shapes = ((40, 50, 3), (1, 1), (1, 1, 3), (2, 3, 4), (1, 200), (200, 2, 3))
        for shape in shapes:
            for value in (0, 128, 255):
                self._one(fitted, np.full(shape, value, np.uint8))
        self._one(fitted, np.full((9, 9), 40_000, np.uint16))

    def test_ways_to_give_an_image(self) -> None:
        """A path, a PIL image, an array, grey, opaque, 16 bits of the same picture give the same.

        If this fails, check that ``_extract`` reads ``image.rgb`` or ``image.gray``.
        """
        self._for_images()
        fitted, picture = self._ready(), self._photo(2)
        gray = np.ascontiguousarray(picture[:, :, 1])
        flat = picture // 64 * 64  # 64 colours, so that a palette holds them all
        opaque = np.full((*gray.shape, 1), 255, np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            path, palette = Path(folder) / "picture.png", Path(folder) / "palette.png"
            pillow().fromarray(picture).save(path)
            pillow().fromarray(flat).quantize(256).save(palette)
            ways: dict[str, tuple[Any, Any]] = {
                "a path": (picture, path),
                "a path as text": (picture, str(path)),
                "a PIL image": (picture, pillow().fromarray(picture)),
                "a PNG with a palette": (np.array(pillow().open(palette).convert("RGB")), palette),
                "16 bits": (picture, picture.astype(np.uint16) * np.uint16(257)),
                "grey": (np.repeat(gray[:, :, None], 3, axis=2), gray),
                "an opaque image with alpha": (picture, np.concatenate([picture, opaque], axis=2)),
                "a read-only array": (picture, _read_only(picture)),
                "a strided array": (picture, np.asfortranarray(picture)),
            }
            for name, (plain, other) in ways.items():
                expected, found = self._one(fitted, plain), self._one(fitted, other)
                exact = self._exact(fitted)
                assert_equal(dense(expected.vectors), dense(found.vectors), exact, f"for {name}")

    def test_orientation(self) -> None:
        """A photograph taken with the camera turned is the upright picture.

        If this fails, check that ``_extract`` reads ``image.rgb`` or ``image.gray``, which are
        upright, and does not open ``image.source`` by itself.
        """
        self._for_images()
        fitted, picture = self._ready(), self._photo(3)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "turned.png"
            exif = pillow().Exif()
            exif[0x0112] = 6  # the camera was turned, and the picture is to be turned back
            pillow().fromarray(picture).save(path, exif=exif)
            upright = np.ascontiguousarray(np.rot90(picture, -1))
            expected, found = self._one(fitted, upright), self._one(fitted, path)
        height, width = upright.shape[:2]
        assert found.size == (width, height), (
            f"size is {found.size}; upright the picture is {width} wide and {height} high"
        )
        exact = self._exact(fitted)
        assert_equal(dense(expected.vectors), dense(found.vectors), exact, "for a turned picture")

    def test_a_file_that_changes(self) -> None:
        """A file that is written anew gives the vectors of its new picture.

        If this fails, check for vectors that are kept by the file's name.
        """
        self._for_images()
        fitted = self._ready()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            for seed in (4, 5):
                picture = self._photo(seed)
                pillow().fromarray(picture).save(path)
                expected, found = self._one(fitted, picture), self._one(fitted, path)
                assert_equal(
                    dense(expected.vectors),
                    dense(found.vectors),
                    self._exact(fitted),
                    f"for picture {seed - 4} in the same file",
                )

    def test_unreadable_images(self) -> None:
        """An unreadable image raises `ImageError` naming it, or becomes `Skipped` in its place.

        If this fails, check that ``features`` and ``extract`` are the inherited ones.
        """
        self._for_images()
        fitted = self._ready()
        with tempfile.TemporaryDirectory() as folder:
            broken, missing = Path(folder) / "broken.jpg", Path(folder) / "missing.png"
            broken.write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
            good = self._photo(1)
            for bad in (broken, missing):
                with pytest.raises(ImageError, match=bad.name):
                    list(fitted.extract([good, bad, good]))
            given = [good, broken, good, missing]
            found = list(fitted.features(given, on_error="skip"))
        kinds = [isinstance(one, Features) for one in found]
        assert kinds == [True, False, True, False], f"of good, bad, good, bad: {kinds}"
        for one in (found[1], found[3]):
            assert isinstance(one, Skipped), f"Skipped is needed; got {one!r}"
            assert one.reason, "Skipped without a reason"

    def test_no_images(self) -> None:
        """No images give no results; a single image that is not in a list is refused.

        If this fails, check that ``features`` is the inherited one.
        """
        self._for_images()
        fitted = self._ready()
        nothing = list(fitted.extract([]))
        assert nothing == [], f"no images gave {nothing}"
        with pytest.raises(DataError, match="list"):
            list(fitted.extract("picture.png"))
        count = len(list(fitted.extract(iter(self._images()))))
        assert count == 4, f"4 images from an iterator gave {count} results"


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    copied = array.copy()
    copied.flags.writeable = False
    return copied
