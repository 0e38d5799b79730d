"""What the tests of a featurizer are made of: pictures, and a check of what it gives."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from vwkit.testing.asking import Answer, ask, dense
from vwkit.testing.comparing import all_finite
from vwkit.testing.data import photo
from vwkit.testing.reader import ReaderSuite, assert_equal
from vwkit.types import Array, Features

__all__ = ["FeaturizerAnswers", "pillow"]


class FeaturizerAnswers(ReaderSuite, suite=True):
    """Helpers of `FeaturizerTests`."""

    image_size: ClassVar[tuple[int, int]] = (48, 64)

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
            pillow().fromarray(picture).save(path)
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

    def _shared(self) -> Any:
        """Return a fitted featurizer that is kept from one example to the next."""
        ready = self.__dict__.get("_kept")
        if ready is None:
            ready = self.__dict__["_kept"] = self._ready()
        return ready


def pillow() -> Any:
    """Return Pillow's module of images."""
    from PIL import Image

    return Image
