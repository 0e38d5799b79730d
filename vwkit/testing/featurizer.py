"""The suite of the featurizer role, readers included."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from vwkit.errors import (
    DataError,
    ImageError,
    NotFittedError,
    UnsupportedError,
    VwkitError,
)
from vwkit.jobs import Job, use_job
from vwkit.testing.asking import Answer, ask, dense
from vwkit.testing.checks import examples
from vwkit.testing.comparing import all_finite
from vwkit.testing.data import Picture, photo, textured
from vwkit.testing.reader import ReaderSuite, assert_equal
from vwkit.testing.strategies import pictures
from vwkit.types import Array, Features, Skipped

__all__ = ["FeaturizerTests"]


class FeaturizerTests(ReaderSuite, suite=True):
    """The conformance suite of a featurizer or a reader; see `vwkit.testing`.

    Attributes
    ----------
    suffix : str
        For a reader: the ending of the files that `write_file` writes; by default a dot and the
        reader's name.
    image_size : (int, int)
        Height and width of the pictures to fit on and to compare (48, 64); larger ones make slow
        featurizers slow.

    Examples
    --------
    >>> from vwkit.builtin.pixels import Pixels
    >>> from vwkit.testing import FeaturizerTests
    >>> class TestPixels(FeaturizerTests):
    ...     backend = Pixels
    """

    image_size: ClassVar[tuple[int, int]] = (48, 64)

    # What the tests are made of

    def _photo(self, seed: int) -> NDArray[np.uint8]:
        return photo(self._seed(seed), *self.image_size)

    def _images(self) -> list[Array]:
        return [self._photo(seed) for seed in range(4)]

    def _questions(self) -> list[Array]:
        return self._images()

    def _training(self) -> list[Array]:
        return [self._photo(seed) for seed in range(10, 16)]

    def _ready(self, **changes: Any) -> Any:
        return self._trained(self._make(**changes))

    def _trained(self, made: Any) -> Any:
        return made.fit(self._training()) if made.trainable else made

    def _another(self) -> Any:
        made = self._make()
        if made.trainable:
            made.fit([self._photo(seed) for seed in range(20, 26)])
        self._answer(made)
        if not self._is_reader:
            list(made.extract([self._photo(seed) for seed in range(30, 34)]))
        return made

    def _ready_from(self, folder: Path) -> Any:
        made = self._make()
        if not made.trainable:
            return made
        paths = [folder / f"{i}.png" for i in range(6)]
        for path, picture in zip(paths, self._training(), strict=True):
            _pillow().fromarray(picture).save(path)
        return made.fit(paths)

    def _answer(self, fitted: Any) -> Answer:
        if self._is_reader:
            with tempfile.TemporaryDirectory() as folder:
                path, _ = self.write_file(Path(folder))
                return (np.array(fitted.read(path).toarray()),)
        return ask(fitted, self._questions())

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        __tracebackhide__ = True
        assert len(first) == len(second), f"{len(second)} results instead of {len(first)} {why}"
        for i, (before, after) in enumerate(zip(first, second, strict=True)):
            assert_equal(before, after, exact, f"for image {i} {why}")

    def _one(self, fitted: Any, image: Any) -> Any:
        """Return the Features of one image."""
        __tracebackhide__ = True
        (found,) = fitted.features([image])
        assert isinstance(found, Features), f"Features are needed; got {found!r}"
        self._check_features(fitted, found)
        return found

    def _check_features(self, fitted: Any, found: Features) -> None:
        __tracebackhide__ = True
        vectors = dense(found.vectors)
        assert vectors.ndim == 2, f"vectors of shape {vectors.shape}"
        assert vectors.shape[1] == fitted.dim, (
            f"{vectors.shape[1]} columns, but dim is {fitted.dim}"
        )
        assert fitted.local or len(vectors) == 1, (
            f"{len(vectors)} rows of a featurizer of whole images"
        )
        assert vectors.dtype.kind in "fui", f"vectors of {vectors.dtype}"
        all_finite(vectors, "vectors")
        if found.keypoints is not None:
            form = f"{found.keypoints.dtype} of shape {found.keypoints.shape}"
            assert form == f"float32 of shape {(len(vectors), 5)}", f"keypoints: {form}"
            all_finite(found.keypoints, "keypoints")
            assert found.size is not None, "keypoints without the size of the image"
            limits = np.array(found.size) + 2
            places = found.keypoints[:, :2]
            outside = places[~((places > -2) & (places < limits)).all(axis=1)]
            assert not len(outside), (
                f"a keypoint at x, y = {outside[:1]} in an image of {found.size} (width, height)"
            )

    def _for_images(self) -> None:
        if self._is_reader:
            pytest.skip("it reads descriptor files")

    def _exact(self, fitted: Any) -> bool:
        return bool(fitted.batch_invariant or fitted.deterministic)

    # Tests with images

    def test_one_result_for_each_image(self) -> None:
        """Each image gives its own result, in order, with true `dim`, dtype and size.

        If this fails, check that ``_extract`` returns the list in the order of its images.
        """
        self._for_images()
        fitted = self._ready()
        height, width = self.image_size
        images = [photo(self._seed(i), height + 2 * (i % 3), width - 3 * (i % 4)) for i in range(7)]
        for threads in (1, 2):
            with use_job(Job(threads=threads)):
                every = list(fitted.features(images))
            assert len(every) == len(images), f"{len(every)} results for {len(images)} images"
            for i, (found, image) in enumerate(zip(every, images, strict=True)):
                self._check_features(fitted, found)
                assert found.size == (image.shape[1], image.shape[0]), (
                    f"image {i}: size {found.size}"
                )
                alone = self._one(fitted, image)
                assert_equal(
                    dense(found.vectors),
                    dense(alone.vectors),
                    self._exact(fitted),
                    f"for image {i} by itself",
                )
        different = {dense(found.vectors).tobytes() for found in every}
        assert len(different) > 1, "seven different images gave equal vectors"
        alike = {dense(found).tobytes() for found in fitted.extract(self._images())}
        assert len(alike) > 1, "different images of the same size gave equal vectors"

    def test_results_do_not_depend_on_the_batch(self) -> None:
        """An image's vectors are the same bytes alone and among any others.

        If this fails, check for padding to a common size and for statistics over the batch, or
        declare ``batch_invariant = False``.
        """
        self._for_images()
        fitted = self._ready()
        images = [*self._images(), photo(self._seed(9), 30, 41)] * 3
        every = [dense(found) for found in fitted.extract(images)]
        mixed = [dense(found) for found in fitted.extract(images[::-1])][::-1]
        for i, (one, other) in enumerate(zip(every, mixed, strict=True)):
            assert_equal(one, other, self._exact(fitted), f"for image {i} in another order")
            assert_equal(one, every[i % 5], self._exact(fitted), f"for the repeated image {i}")
        for i, image in enumerate(images[:5]):
            (alone,) = map(dense, fitted.extract([image]))
            assert_equal(every[i], alone, self._exact(fitted), f"for image {i} by itself")

    def test_threads(self) -> None:
        """Many images in many threads give what they give one after the other.

        If this fails, check for work space on ``self``, or do not declare ``thread_safe``.
        """
        self._for_images()
        fitted = self._ready()
        images = [self._photo(seed % 5) for seed in range(16)]
        found = []
        for threads in (1, 4):
            with use_job(Job(threads=threads)):
                found.append([dense(one) for one in fitted.extract(images)])
        for i, (one, other) in enumerate(zip(*found, strict=True)):
            assert_equal(one, other, self._exact(fitted), f"for image {i} in one of 4 threads")

    def test_answers_stay_as_they_were(self) -> None:
        """Vectors that were given do not change when another image is asked about.

        If this fails, check for work space that is kept on ``self`` and returned, or for a view of
        a wrapped library's memory: return a new array, or a copy.
        """
        self._for_images()
        fitted = self._ready()
        given = [dense(found) for found in fitted.extract([self._photo(0)])]
        kept = [found.copy() for found in given]
        list(fitted.extract([self._photo(1)]))
        for found, before in zip(given, kept, strict=True):
            assert np.array_equal(found, before), "earlier vectors were changed by the next image"

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

    def _shared(self) -> Any:
        """Return a fitted featurizer that is kept from one example to the next."""
        ready = self.__dict__.get("_kept")
        if ready is None:
            ready = self.__dict__["_kept"] = self._ready()
        return ready

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
            _pillow().fromarray(picture).save(path)
            _pillow().fromarray(flat).quantize(256).save(palette)
            ways: dict[str, tuple[Any, Any]] = {
                "a path": (picture, path),
                "a path as text": (picture, str(path)),
                "a PIL image": (picture, _pillow().fromarray(picture)),
                "a PNG with a palette": (np.array(_pillow().open(palette).convert("RGB")), palette),
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
            exif = _pillow().Exif()
            exif[0x0112] = 6  # the camera was turned, and the picture is to be turned back
            _pillow().fromarray(picture).save(path, exif=exif)
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
                _pillow().fromarray(picture).save(path)
                expected, found = self._one(fitted, picture), self._one(fitted, path)
                assert_equal(
                    dense(expected.vectors),
                    dense(found.vectors),
                    self._exact(fitted),
                    f"for picture {seed - 4} in the same file",
                )

    def test_keypoints_belong_to_their_vectors(self) -> None:
        """Row i of the keypoints says where row i of the vectors comes from.

        Two images are alike in their left halves: at the keypoints that both have there, vectors
        are more alike than at others.

        If this fails, check for keypoints that are sorted, or left out, without their vectors.
        """
        self._for_images()
        fitted = self._ready()
        if not fitted.local:
            pytest.skip("it gives one vector per image")
        one, other = textured(self._seed(8), 96, 128), textured(self._seed(9), 96, 128)
        other[:, :64] = one[:, :64]
        held = [self._one(fitted, image) for image in (one, other)]
        if held[0].keypoints is None or held[1].keypoints is None:
            pytest.skip("it tells no keypoints")
        tables = [
            {tuple(row.tolist()): i for i, row in enumerate(found.keypoints)} for found in held
        ]
        # At places with several vectors the last one counts, in both.
        both = sorted(row for row in tables[0] if row in tables[1] and row[0] < 48)
        if len(both) < 8:
            pytest.skip("too few keypoints are in both images")
        rows = [
            dense(found.vectors).astype(np.float64)[[table[row] for row in both]]
            for found, table in zip(held, tables, strict=True)
        ]
        own = np.linalg.norm(rows[0] - rows[1], axis=1)
        turned = np.linalg.norm(rows[0] - np.roll(rows[1], len(both) // 2, axis=0), axis=1)
        assert np.median(own) <= np.median(turned) / 2, (
            f"at {len(both)} keypoints that two images share, their vectors are {np.median(own):.4g} "
            f"apart, and those of different keypoints {np.median(turned):.4g}: rows are mixed up"
        )

    def test_keypoints_lie_all_over_the_image(self) -> None:
        """Keypoints are x, y in pixels of the image as it was given.

        If this fails, check for x and y that are interchanged, and for an image that is made
        smaller first: its keypoints must be made larger again.
        """
        self._for_images()
        fitted = self._ready()
        if not fitted.local:
            pytest.skip("it gives one vector per image")
        for height, width in ((60, 180), (180, 60)):
            found = self._one(fitted, photo(self._seed(6), height, width))
            if found.keypoints is None or len(found.keypoints) < 8:
                continue
            x, y = found.keypoints[:, :2].max(axis=0)
            all_over = bool(x > width / 2 and y > height / 2)
            assert all_over, (
                f"none of {len(found.keypoints)} keypoints lies beyond x = {x}, y = {y} in an "
                f"image that is {width} wide and {height} high"
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

    def test_fitting(self) -> None:
        """What is trainable learns from images, once more if asked; what is not refuses.

        If this fails, check the ability ``trainable``.
        """
        self._for_images()
        made = self._make()
        if not made.trainable:
            with pytest.raises(UnsupportedError, match="nothing to learn"):
                made.fit(self._images())
            return
        training = self._training()
        kept = [image.copy() for image in training]
        with pytest.raises(NotFittedError):
            list(made.extract(training))
        with pytest.raises(DataError, match="once"):
            made.fit(image for image in training)
        with pytest.raises(DataError, match="at least 1"):
            made.fit([])
        assert made.fit(training) is made, "fit returns the featurizer"
        for before, after in zip(kept, training, strict=True):
            assert np.array_equal(before, after), "an image was changed by fitting"
        self._answer(made)

    def test_second_fit_replaces_the_first(self) -> None:
        """Fitting again forgets what was learned from the first images.

        If this fails, check that nothing kept from the first fit is used in the second.
        """
        self._for_images()
        if not self._make().trainable:
            pytest.skip("it has nothing to learn")
        change = self._on_one_thread()
        with use_job(Job(threads=1)):
            fresh = self._make(**change).fit(self._training())
            again = self._make(**change).fit([self._photo(seed) for seed in range(20, 26)])
            self._answer(again)
            again.fit(self._training())
            if fresh.deterministic or self._offers("seed"):
                one, two = self._answer(fresh), self._answer(again)
                self._assert_same(one, two, fresh.deterministic, "fitted twice")

    def test_all_images_are_learned_from(self) -> None:
        """What is learned from several images is not what the first of them alone would teach.

        If this fails, check for a loop or a library's call that ends with the first image.
        """
        self._for_images()
        if not self._make().trainable:
            pytest.skip("it has nothing to learn")
        images = self._training()

        def learned(some: list[NDArray[np.uint8]]) -> list[bytes]:
            return [part.tobytes() for part in self._answer(self._make().fit(some))]

        try:
            first, last = learned(images[:1]), learned(images[-1:])
        except VwkitError:
            pytest.skip("one image is not enough")
        # Learning what is the same everywhere, such as a size, one image is as good as many.
        several = first == last or first != learned(images) or last != learned(images[::-1])
        assert several, f"of {len(images)} images only the first was learned from"

    def test_dim_is_known(self) -> None:
        """`dim` is the number of columns, `dtype` their type, and `kind` says what they are.

        If this fails, check the properties `dim` and `dtype`.
        """
        self._for_images()
        fitted = self._ready()
        dim, kind = fitted.dim, fitted.kind
        assert isinstance(dim, int), f"dim is a whole number; got {dim!r}"
        assert dim >= 1, f"dim is {dim}"
        assert isinstance(kind, str), f"kind is a text; got {kind!r}"
        assert kind, "kind is empty"
        for found in self._answer(fitted):
            assert found.shape[1] == dim, f"{found.shape[1]} columns, but dim is {dim}"
            assert found.dtype == fitted.dtype, (
                f"vectors of {found.dtype}, but dtype is {fitted.dtype}"
            )


def _pillow() -> Any:
    from PIL import Image

    return Image


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    copied = array.copy()
    copied.flags.writeable = False
    return copied
