"""The suite of the featurizer role, readers included."""

from __future__ import annotations

import numpy as np
import pytest

from vwkit.jobs import Job, use_job
from vwkit.testing.asking import dense
from vwkit.testing.data import photo, textured
from vwkit.testing.featurizer_learning import FeaturizerLearning
from vwkit.testing.reader import assert_equal

__all__ = ["FeaturizerTests"]


class FeaturizerTests(FeaturizerLearning, suite=True):
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
