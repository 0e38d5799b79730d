"""Tests of what a featurizer learns from images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vwkit.errors import DataError, NotFittedError, UnsupportedError, VwkitError
from vwkit.jobs import Job, use_job
from vwkit.testing.featurizer_images import FeaturizerImages

__all__ = ["FeaturizerLearning"]


class FeaturizerLearning(FeaturizerImages, suite=True):
    """The part of `FeaturizerTests` about fitting."""

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
