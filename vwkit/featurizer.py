"""The featurizer role: images → vectors."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from vwkit.base import Backend
from vwkit.errors import BackendError, DataError, ImageError, ParameterError, UnsupportedError
from vwkit.image import Image, open_image
from vwkit.jobs import job
from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.types import Array, Features, Skipped

if TYPE_CHECKING:
    from typing import Self

    from vwkit.formats.remote import Place

__all__ = ["Featurizer", "Reader"]


class Featurizer(Backend):
    """Turns images into vectors.

    An author writes `_extract` and sets `dim`; a trainable one also writes `_fit`.
    """

    role: ClassVar[str] = "featurizer"
    #: ``images``, or ``files`` for a reader of descriptor files.
    consumes: ClassVar[str] = "images"
    #: Whether an image has many vectors; otherwise it has exactly one.
    local: ClassVar[bool] = False
    #: Whether it must be fitted on images first.
    trainable: ClassVar[bool] = False
    #: Whether an image's vectors are the same bytes whatever else is in the batch.
    batch_invariant: ClassVar[bool] = True
    #: Images handed to `_extract` at once.
    batch_size: ClassVar[int] = 1
    #: Whether `_extract` may run in several threads at once.
    thread_safe: ClassVar[bool] = False

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        raise NotImplementedError(f"{type(self).__name__} must define dim")

    @property
    def kind(self) -> str:
        """What the vectors are, for those who must not mix them up."""
        return self.name

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the vectors."""
        return np.dtype(self.dtypes[0])

    def _needs_fit(self) -> bool:
        return self.trainable

    def _extract(self, images: list[Image]) -> list[Features]:
        """Return the features of each image, in order."""
        raise NotImplementedError(f"{type(self).__name__} must define _extract")

    def _fit(self, images: Sequence[Any]) -> None:
        """Learn from images."""
        raise NotImplementedError(f"{type(self).__name__} must define _fit")

    def _mirrored(self, features: Features) -> Features | None:
        """Return what the mirrored picture (left and right exchanged) would give, if that is known.

        Some descriptors of a mirrored patch are those of the patch in another order; then nothing
        needs to be extracted again. By default it is not known.
        """
        return None

    def mirrored(self, image: Any, features: Features | None = None) -> Features:
        """Return the features of the mirrored image: left and right exchanged.

        Parameters
        ----------
        image : path, PIL image or array
        features : Features, optional
            Those of the image as it is, where they are known: then, if the backend can tell, the
            image is not looked at again.

        Raises
        ------
        ImageError
            It cannot be read.
        """
        found = None if features is None else self._mirrored(features)
        if found is not None:
            return found
        opened = open_image(image)
        pixels = opened.rgb if opened.alpha is None else opened.rgba
        (turned,) = self.features([np.ascontiguousarray(pixels[:, ::-1])])
        if not isinstance(turned, Features):  # pragma: no cover - features() has raised
            raise ImageError(turned.reason)
        return turned

    def fit(self, images: Iterable[Any]) -> Self:
        """Learn from images; a second call replaces the first.

        Raises
        ------
        UnsupportedError
            There is nothing to learn.
        DataError
            No images, or a generator (learning reads them more than once).
        """
        if not self.trainable:
            raise UnsupportedError(f"{self.name} has nothing to learn: call extract() at once")
        if isinstance(images, Iterator):
            raise DataError("images: a generator can be read only once; pass a list")
        listed = _listed(images)
        if not listed:
            raise DataError("images: none were given; at least 1 is needed")
        self._fitted = False
        self._fit(listed)
        self._fitted = True
        return self

    def extract(self, images: Iterable[Any]) -> Iterator[Any]:
        """Yield the (n_i, d) vectors of each image, in order.

        Parameters
        ----------
        images : iterable of paths, PIL images or (h, w[, 3|4]) arrays

        Raises
        ------
        ImageError
            At the first image that cannot be read.
        """
        for found in self.features(images):
            if isinstance(found, Features):
                yield found.vectors

    def vectors(self, images: Iterable[Any]) -> Any:
        """Return one vector per image, (n, d): an array, or a Sparse for sparse vectors.

        Raises
        ------
        UnsupportedError
            It is local: images have many vectors, or none.
        ImageError
            At the first image that cannot be read.
        """
        if self.local:
            raise UnsupportedError(f"{self.name} is local (many vectors per image): call extract()")
        return stacked(self.extract(images), self.dim)

    def features(
        self, images: Iterable[Any], on_error: Literal["raise", "skip"] = "raise"
    ) -> Iterator[Features | Skipped]:
        """Yield vectors, keypoints and size of each image, in order.

        Images are decoded in parallel, a little ahead.

        Parameters
        ----------
        images : iterable of paths, PIL images or arrays
        on_error : "raise" or "skip"
            Whether an unreadable image ends the work or yields `Skipped`.
        """
        if on_error not in ("raise", "skip"):
            raise ParameterError(f"on_error must be 'raise' or 'skip'; got {on_error!r}")
        if self._needs_fit():
            self._need_fitted()
        if self.consumes == "files":
            raise UnsupportedError(f"{self.name} reads descriptor files: call read(path)")
        return self._features(_listed(images), on_error)

    def _features(self, images: Iterable[Any], on_error: str) -> Iterator[Features | Skipped]:
        current = job()
        lock = threading.Lock()
        size = self.batch_size if self.batch_invariant else 1

        def work(batch: Sequence[Any]) -> list[Features | Skipped]:
            opened: list[Image | ImageError] = []
            for image in batch:
                try:
                    opened.append(open_image(image))
                except ImageError as error:
                    opened.append(error)
            good = [image for image in opened if isinstance(image, Image)]
            with contextlib.nullcontext() if self.thread_safe else lock:
                found = iter(self._extracted(good))
            return [
                next(found) if isinstance(image, Image) else Skipped(str(image)) for image in opened
            ]

        for found in _ahead(work, _batches(images, size), current.threads):
            current.check()
            for one in found:
                if isinstance(one, Skipped) and on_error == "raise":
                    raise ImageError(one.reason)
                yield one

    def _extracted(self, images: list[Image]) -> list[Features | Skipped]:
        if not images:
            return []
        try:
            return list(self._checked(self._extract(images), images))
        except ImageError as error:
            if len(images) == 1:
                return [Skipped(str(error))]
            # One image that the backend refuses must not take its batch with it.
            return [found for image in images for found in self._extracted([image])]

    def _checked(self, found: Any, images: list[Image]) -> list[Features]:
        if not isinstance(found, list) or len(found) != len(images):
            raise BackendError(
                f"{self.name}._extract must return a list of {len(images)} Features, one per image"
            )
        for one, image in zip(found, images, strict=True):
            if not isinstance(one, Features):
                raise BackendError(
                    f"{self.name}._extract must return Features; got {type(one).__name__}"
                )
            vectors = one.vectors
            shape: tuple[int, ...] = getattr(vectors, "shape", ())
            if len(shape) != 2 or shape[1] != self.dim or (not self.local and shape[0] != 1):
                rows = "n" if self.local else "1"
                raise BackendError(
                    f"{self.name}._extract must return vectors of shape ({rows}, {self.dim}) for "
                    f"{image.source}; got {shape}"
                )
            if one.keypoints is not None and one.keypoints.shape != (shape[0], 5):
                raise BackendError(
                    f"{self.name}._extract must return keypoints of shape ({shape[0]}, 5) for "
                    f"{image.source}; got {one.keypoints.shape}"
                )
            if not isinstance(vectors, Sparse) and vectors.dtype.kind == "f":
                bad = ~np.isfinite(vectors)
                if bad.any():
                    raise BackendError(f"{self.name}._extract gave NaN for {image.source}")
        return [
            Features(one.vectors, one.keypoints, one.size or image.size)
            for one, image in zip(found, images, strict=True)
        ]


class Reader(Featurizer):
    """A featurizer that reads descriptor files: `read` gives a Stream."""

    consumes: ClassVar[str] = "files"
    local: ClassVar[bool] = True
    #: Whether `_read` also takes a `vwkit.formats.remote.RemotePlace`, a file that is read in parts.
    reads_urls: ClassVar[bool] = False

    def _read(self, path: Any) -> Stream:
        """Open a descriptor file, given as a `Path`."""
        raise NotImplementedError(f"{type(self).__name__} must define _read")

    def read(self, path: str | Place) -> Stream:
        """Open a descriptor file as a Stream; text that begins like a URL is read from there.

        Raises
        ------
        UnsupportedError
            It is at a URL, and this reader reads local files only.
        FormatError
            Not in this format, or truncated; the text names file and row.
        """
        from vwkit.formats.remote import RemotePlace, place_of

        place = place_of(path)
        if isinstance(place, RemotePlace) and not self.reads_urls:
            raise UnsupportedError(
                f"{place}: {self.name} reads files on this machine only; give its sha256 too, and it "
                "is fetched whole"
            )
        return self._read(place)


def _listed(images: Any) -> Any:
    if isinstance(images, (str, Path, np.ndarray)) and not (
        isinstance(images, np.ndarray) and images.ndim == 4
    ):
        raise DataError("images: a list of images is needed; put a single image into a list, too")
    if not isinstance(images, Iterable):
        raise DataError(f"images: a list of images is needed; got {type(images).__name__}")
    return images if isinstance(images, Iterator) else list(images)


def _batches(images: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(images)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _ahead(work: Any, batches: Iterable[Any], threads: int) -> Iterator[Any]:
    """Do the work on threads, a bounded number of batches ahead, and yield in order."""
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(threads, "vwkit-images") as pool:
        try:
            for batch in batches:
                # With the current job, which belongs to the context.
                waiting.append(pool.submit(contextvars.copy_context().run, work, batch))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def stacked(features: Iterable[Any], dim: int) -> Array | Sparse:
    """Put one-per-image vectors below each other."""
    parts = list(features)
    if parts and isinstance(parts[0], Sparse):
        return Sparse.stack(parts, dim)
    return np.concatenate(parts) if parts else np.empty((0, dim), np.float32)
