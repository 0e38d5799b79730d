"""The suite of the featurizer role, readers included."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import vwkit
from vwkit.errors import (
    DataError,
    FormatError,
    ImageError,
    NotFittedError,
    ParameterError,
    UnsupportedError,
    VwkitError,
)
from vwkit.featurizer import Featurizer
from vwkit.jobs import Job, use_job
from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.testing.data import photo
from vwkit.testing.strategies import images as image_arrays
from vwkit.testing.suite import Answer, Suite, examples
from vwkit.types import Array, Features, Skipped

__all__ = ["FeaturizerTests"]


class FeaturizerTests(Suite, suite=True):
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

    role = Featurizer

    suffix: ClassVar[str | None] = None
    image_size: ClassVar[tuple[int, int]] = (48, 64)

    def write_file(self, folder: Path) -> tuple[Path, Array]:
        """Write a file that the reader under test should read; return it and its (n, d) numbers.

        By default `vwkit.write` does; a reader of another format brings its own.
        """
        path = folder / f"sample{self.suffix or '.' + self.backend.name}"
        numbers = np.random.default_rng(0).integers(0, 100, (37, 128))
        if self.backend.name == "oxford-sift":
            # Raw rows and twelve spare bytes; vwkit only reads this format.
            path.write_bytes(numbers.astype(np.uint8).tobytes() + bytes(12))
            return path, numbers.astype(np.uint8)
        for dtype in (np.float32, np.int32, np.uint8, np.int8):
            with contextlib.suppress(ParameterError, FormatError):
                vwkit.write(path, numbers.astype(dtype))
                return path, numbers.astype(dtype)
        pytest.skip(f"vwkit.write does not write {path.suffix} files; define write_file")

    # What the tests are made of

    @property
    def _is_reader(self) -> bool:
        return bool(self._make().consumes == "files")

    def _images(self) -> list[Array]:
        return [photo(seed, *self.image_size) for seed in range(4)]

    def _ready(self, **changes: Any) -> Any:
        made = self._make(**changes)
        return (
            made.fit([photo(seed, *self.image_size) for seed in range(10, 16)])
            if made.trainable
            else made
        )

    def _answer(self, fitted: Any) -> Answer:
        if self._is_reader:
            with tempfile.TemporaryDirectory() as folder:
                path, _ = self.write_file(Path(folder))
                return (np.array(fitted.read(path).toarray()),)
        return tuple(_dense(found) for found in fitted.extract(self._images()))

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        assert len(first) == len(second)
        for before, after in zip(first, second, strict=True):
            _assert_equal(before, after, exact, why)

    def _one(self, fitted: Any, image: Any) -> Any:
        """Return the Features of one image."""
        (found,) = fitted.features([image])
        assert isinstance(found, Features)
        self._check_features(fitted, found)
        return found

    def _check_features(self, fitted: Any, found: Features) -> None:
        vectors = _dense(found.vectors)
        assert vectors.ndim == 2
        assert vectors.shape[1] == fitted.dim, (
            f"{vectors.shape[1]} columns, but dim is {fitted.dim}"
        )
        assert fitted.local or len(vectors) == 1, (
            f"{len(vectors)} rows of a featurizer of whole images"
        )
        assert vectors.dtype.kind in "fui", f"vectors of {vectors.dtype}"
        assert np.isfinite(vectors).all()
        if found.keypoints is not None:
            assert found.keypoints.shape == (len(vectors), 5)
            assert found.keypoints.dtype == np.float32
            assert np.isfinite(found.keypoints).all()
            assert found.size is not None
            limits = np.array(found.size) + 2
            inside = (found.keypoints[:, :2] > -2).all() and (found.keypoints[:, :2] < limits).all()
            assert inside, "a keypoint lies outside the image"

    def _for_images(self) -> None:
        if self._is_reader:
            pytest.skip("it reads descriptor files")

    def _for_files(self) -> None:
        if not self._is_reader:
            pytest.skip("it reads images")

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
        images = [photo(i, height + 2 * (i % 3), width - 3 * (i % 4)) for i in range(7)]
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
                _assert_equal(
                    _dense(found.vectors),
                    _dense(alone.vectors),
                    self._exact(fitted),
                    f"for image {i} by itself",
                )
        different = {_dense(found.vectors).tobytes() for found in every}
        assert len(different) > 1, "seven different images gave equal vectors"

    def test_results_do_not_depend_on_the_batch(self) -> None:
        """An image's vectors are the same bytes alone and among any others.

        If this fails, check for padding to a common size and for statistics over the batch, or
        declare ``batch_invariant = False``.
        """
        self._for_images()
        fitted = self._ready()
        images = [*self._images(), photo(9, 30, 41)] * 3
        every = [_dense(found) for found in fitted.extract(images)]
        mixed = [_dense(found) for found in fitted.extract(images[::-1])][::-1]
        for i, (one, other) in enumerate(zip(every, mixed, strict=True)):
            _assert_equal(one, other, self._exact(fitted), f"for image {i} in another order")
            _assert_equal(one, every[i % 5], self._exact(fitted), f"for the repeated image {i}")

    @examples(10, image=image_arrays())
    def test_images_of_any_kind(self, image: NDArray[Any]) -> None:
        """Grey, transparent, 16-bit, flat, narrow and tiny images work.

        If this fails, check for a smallest size, and for an image without keypoints: that is (0, d).
        """
        self._for_images()
        fitted = self._shared()
        kept = image.copy()
        self._one(fitted, image)
        assert np.array_equal(image, kept), "the image was changed"

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
        """A path, a PIL image, an array, grey and 16 bits of the same picture give the same.

        If this fails, check that ``_extract`` reads ``image.rgb`` or ``image.gray``.
        """
        self._for_images()
        from PIL import Image as pillow

        fitted, picture = self._ready(), photo(2, *self.image_size)
        gray = np.ascontiguousarray(picture[:, :, 1])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            pillow.fromarray(picture).save(path)
            ways: dict[str, tuple[Any, Any]] = {
                "a path": (picture, path),
                "a path as text": (picture, str(path)),
                "a PIL image": (picture, pillow.fromarray(picture)),
                "16 bits": (picture, picture.astype(np.uint16) * np.uint16(257)),
                "grey": (np.repeat(gray[:, :, None], 3, axis=2), gray),
                "a read-only array": (picture, _read_only(picture)),
                "a strided array": (picture, np.asfortranarray(picture)),
            }
            for name, (plain, other) in ways.items():
                expected, found = self._one(fitted, plain), self._one(fitted, other)
                _assert_equal(
                    _dense(expected.vectors),
                    _dense(found.vectors),
                    self._exact(fitted),
                    f"for {name}",
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
            good = photo(1, *self.image_size)
            for bad in (broken, missing):
                with pytest.raises(ImageError, match=bad.name):
                    list(fitted.extract([good, bad, good]))
            given = [good, broken, good, missing]
            found = list(fitted.features(given, on_error="skip"))
        kinds = [isinstance(one, Features) for one in found]
        assert kinds == [True, False, True, False]
        assert all(isinstance(found[i], Skipped) and found[i].reason for i in (1, 3))

    def test_no_images(self) -> None:
        """No images give no results; a single image that is not in a list is refused.

        If this fails, check that ``features`` is the inherited one.
        """
        self._for_images()
        fitted = self._ready()
        assert list(fitted.extract([])) == []
        with pytest.raises(DataError, match="list"):
            list(fitted.extract("picture.png"))
        assert len(list(fitted.extract(iter(self._images())))) == 4

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
        training = [photo(seed, *self.image_size) for seed in range(10, 16)]
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

    def test_dim_is_known(self) -> None:
        """`dim` is the number of columns, and `kind` says what the vectors are.

        If this fails, check the property `dim`.
        """
        self._for_images()
        fitted = self._ready()
        assert isinstance(fitted.dim, int)
        assert fitted.dim >= 1
        assert isinstance(fitted.kind, str)
        assert fitted.kind
        for found in self._answer(fitted):
            assert found.shape[1] == fitted.dim

    # Tests with files

    def test_reads_what_was_written(self) -> None:
        """A reader gives the numbers of the file, as a Stream that can be read again.

        If this fails, check byte order, header, and the last rows.
        """
        self._for_files()
        reader = self._make()
        with self._file() as (path, expected):
            stream = reader.read(path)
            assert isinstance(stream, Stream)
            assert stream.dim == expected.shape[1]
            assert stream.dtype == expected.dtype
            for _ in range(2):
                assert np.array_equal(np.concatenate(list(stream)), expected)
            assert stream.rows == len(expected)
            assert np.array_equal(stream.take([0, 5, len(expected) - 1]), expected[[0, 5, -1]])
            pieces = list(reader.read(str(path)).rechunk(10))
            assert [len(piece) for piece in pieces] == [10, 10, 10, 7]
            assert np.array_equal(np.concatenate(pieces), expected)

    def test_wrong_files_are_refused(self) -> None:
        """A file of another kind, cut short, empty or missing is a clear error that names it.

        If this fails, check sizes before reading, and turn the library's errors into `FormatError`.
        """
        self._for_files()
        reader = self._make()
        with self._file() as (path, expected):
            content = path.read_bytes()
            # Three bytes short: no row of any of the formats ends there.
            for name, wrong in (
                ("short", content[:-3]),
                ("empty", b""),
                ("text", b"no numbers\n" * 7),
            ):
                bad = path.with_name(f"{name}{''.join(path.suffixes)}")
                bad.write_bytes(wrong)
                with pytest.raises(FormatError, match=name):
                    np.concatenate(list(reader.read(bad)))
            with pytest.raises(VwkitError, match="missing"):
                list(reader.read(path.with_name("missing" + path.suffix)))
            assert np.array_equal(np.concatenate(list(reader.read(path))), expected)

    def test_a_reader_takes_no_images(self) -> None:
        """Asking a reader for the features of images raises `UnsupportedError`.

        If this fails, check that ``features`` is the inherited one.
        """
        self._for_files()
        with pytest.raises(UnsupportedError, match="read"):
            list(self._make().extract(self._images()))

    @contextlib.contextmanager
    def _file(self) -> Iterator[tuple[Path, Array]]:
        with tempfile.TemporaryDirectory() as folder:
            yield self.write_file(Path(folder))


def _dense(vectors: Any) -> Array:
    return vectors.toarray() if isinstance(vectors, Sparse) else np.asarray(vectors)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    copied = array.copy()
    copied.flags.writeable = False
    return copied


def _assert_equal(one: Array, other: Array, exact: bool, why: str) -> None:
    assert one.shape == other.shape, f"shape {one.shape} and {other.shape} {why}"
    assert one.dtype == other.dtype
    if exact:
        assert np.array_equal(one, other), f"other vectors {why}"
    else:
        limit = 1e-3 * max(1.0, float(np.abs(one).max(initial=0)))
        assert np.abs(one - other).max(initial=0) <= limit, f"other vectors {why}"
