"""SIFT keypoints and descriptors, by OpenCV."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.errors import ParameterError, PluginError
from vwkit.image import Image
from vwkit.jobs import job
from vwkit.types import Array, Features

__all__ = ["Sift", "vwkit_backends"]

# OpenCV keeps five to six float copies of the picture per octave; more layers than this is a typo.
_MOST_LAYERS = 32


@vwkit.backend("sift")
class Sift(vwkit.Featurizer):
    """Scale-invariant keypoints with 128 numbers each, of the grey picture.

    Lowe 2004, "Distinctive image features from scale-invariant keypoints". Keypoints come
    strongest first (ties by x, y, scale, angle), so the first rows are the best rows; a place with
    two dominant directions gives two keypoints. Coordinates, scales and the image's size are those
    of the picture as given, also when it was shrunk first.

    Vectors are (n, 128) uint8, with ``root`` float32 of length 1: the same bytes as the transform
    ``root-sift`` makes of the uint8 ones. Keypoints are (n, 5) float32.

    Examples
    --------
    >>> import numpy as np, vwkit
    >>> y, x = np.mgrid[0:64, 0:64]
    >>> blob = (255 * np.exp(-((x - 30) ** 2 + (y - 20) ** 2) / 50)).astype(np.uint8)
    >>> found = next(vwkit.create("featurizer", "sift", upright=True).features([blob]))
    >>> found.vectors.shape, found.vectors.dtype, found.keypoints[0, :2].round(1).tolist()
    ((1, 128), dtype('uint8'), [30.0, 20.0])
    """

    library = "opencv-python-headless"
    requires = ("cv2",)
    license = "Apache-2.0"
    choose = "buildings, paintings, covers, anything with texture that is to be found again and matched point by point."
    local = True
    dtypes = ("uint8",)
    deterministic = True
    thread_safe = True

    root: bool = vwkit.Field(
        default=False, doc="Whether to give RootSIFT (float32) instead of SIFT (uint8)."
    )
    max_keypoints: vwkit.Positive | None = vwkit.Field(
        default=None, doc="Keep only so many keypoints of a picture, the strongest; all by default."
    )
    max_side: vwkit.Positive = vwkit.Field(
        default=1600, doc="A picture with a longer side is shrunk to it first (area interpolation)."
    )
    upright: bool = vwkit.Field(
        default=False,
        doc="Whether to take every patch upright (angle 0) instead of along its gradient.",
    )
    nOctaveLayers: Annotated[int, annotated_types.Gt(0), annotated_types.Le(_MOST_LAYERS)] = (
        vwkit.Field(default=3, doc="Layers in each octave.")
    )
    contrastThreshold: Annotated[float, annotated_types.Ge(0)] = vwkit.Field(
        default=0.04, doc="Leave out keypoints of less contrast; larger gives fewer."
    )
    edgeThreshold: Annotated[float, annotated_types.Gt(0)] = vwkit.Field(
        default=10.0, doc="Leave out keypoints that lie on an edge; larger gives more."
    )
    sigma: Annotated[float, annotated_types.Gt(0), annotated_types.Le(16)] = vwkit.Field(
        default=1.6, doc="Blur of the first layer, in pixels."
    )

    def __post_init__(self) -> None:
        if self.max_side > np.iinfo(np.int16).max:
            # OpenCV's remapping counts pixels in 16 bits.
            raise ParameterError(f"sift.max_side: at most 32,767 pixels; got {self.max_side}")

    @property
    def dim(self) -> int:
        """4 by 4 cells of 8 directions."""
        return 128

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, with `root` float32."""
        return np.dtype(np.float32 if self.root else np.uint8)

    @property
    def kind(self) -> str:
        """``"sift"``, with `root` the same as SIFT behind the transform ``root-sift``."""
        return "sift+root-sift" if self.root else "sift"

    def _extract(self, images: list[Image]) -> list[Features]:
        with _opencv_threads(job().threads):
            return [self._features_of(image) for image in images]

    def _features_of(self, image: Image) -> Features:
        cv2 = _cv2()

        small = _shrunk(image.gray, self.max_side)
        # An object of its own: those of OpenCV are not meant for two threads at once.
        sift: Any = cv2.SIFT_create(
            0 if self.upright else self.max_keypoints or 0,
            self.nOctaveLayers,
            float(self.contrastThreshold),
            float(self.edgeThreshold),
            float(self.sigma),
            cv2.CV_8U,
            # Without it every coordinate is off by a quarter of a pixel.
            True,
        )
        if self.upright:
            found, vectors = self._upright(sift, small)
        else:
            found, vectors = sift.detectAndCompute(small, None)
        if vectors is None or not len(found):
            return Features(self._finished(np.zeros((0, 128), np.uint8)), _table(()), image.size)
        keypoints = _table(found)
        # nfeatures keeps everything as strong as the last one kept: cut those ties here.
        order = _strongest_first(keypoints)[: self.max_keypoints]
        keypoints = keypoints[order]
        _scale_back(keypoints, small.shape, image.size)
        return Features(self._finished(vectors[order]), keypoints, image.size)

    def _mirrored(self, features: Features) -> Features | None:
        """Return what the mirrored picture gives: the same numbers in another order.

        A descriptor's 4 by 4 cells lie around the keypoint's direction, and so do the 8 directions
        in each. In a mirror that frame turns over: rows of cells and directions run backwards.
        (Upright ones lie along the picture's own axes, of which the horizontal one turns over.) What
        OpenCV finds in the mirrored picture differs for the few keypoints that depend on which
        pixels a smaller octave is made of.
        """
        if features.keypoints is None or features.size is None:
            return None
        cells = features.vectors.reshape(-1, 4, 4, 8)
        directions = np.arange(8)
        points = features.keypoints.copy()
        points[:, 0] = features.size[0] - 1 - points[:, 0]
        if self.upright:
            cells = cells[:, :, ::-1][..., (4 - directions) % 8]
        else:
            cells = cells[:, ::-1][..., -directions % 8]
            points[:, 3] = (180 - points[:, 3]) % 360
        return Features(np.ascontiguousarray(cells).reshape(-1, 128), points, features.size)

    def _upright(self, sift: Any, gray: NDArray[np.uint8]) -> tuple[list[Any], Any]:
        """Detect, forget the directions, and describe each place once."""
        found = list(sift.detect(gray, None))
        for keypoint in found:
            keypoint.angle = 0.0
        table = _table(found)
        _, first = np.unique(table, axis=0, return_index=True)
        kept = first[_strongest_first(table[first])][: self.max_keypoints]
        chosen = [found[index] for index in kept]
        if not chosen:
            return [], None
        described, vectors = sift.compute(gray, chosen)
        return list(described), vectors

    def _finished(self, vectors: NDArray[np.uint8]) -> Array:
        if not self.root:
            return vectors
        # Arandjelović and Zisserman 2012; in float64 so that the bytes are those of `root-sift`.
        total = vectors.sum(axis=1, keepdims=True, dtype=np.float64)
        total[total == 0] = 1
        rooted: NDArray[np.float32] = np.sqrt(vectors / total).astype(np.float32)
        return rooted


def _cv2() -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise PluginError(
            f"featurizer sift: needs OpenCV ({error}): pip install opencv-python-headless"
        ) from None


def _table(keypoints: Any) -> NDArray[np.float32]:
    """Return x, y, scale, angle, response of OpenCV's keypoints, (n, 5)."""
    rows = [(*one.pt, one.size, one.angle, one.response) for one in keypoints]
    return np.array(rows, np.float32).reshape(-1, 5)


def _strongest_first(table: NDArray[np.float32]) -> NDArray[np.intp]:
    """Order keypoints whatever order OpenCV's threads found them in."""
    x, y, scale, angle, response = table.T
    return np.lexsort((angle, scale, y, x, -response))


def _shrunk(gray: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    cv2 = _cv2()

    height, width = gray.shape
    longest = max(height, width)
    if longest <= max_side:
        return gray
    size = (max(1, round(width * max_side / longest)), max(1, round(height * max_side / longest)))
    small: NDArray[np.uint8] = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return small


def _scale_back(
    keypoints: NDArray[np.float32], small: tuple[int, ...], size: tuple[int, int]
) -> None:
    """Put keypoints of the shrunk picture where they are in the original, in place."""
    across, down = size[0] / small[1], size[1] / small[0]
    if across == 1 and down == 1:
        return
    # The first pixel's centre is 0, its left edge -0.5: edges fall on edges.
    keypoints[:, 0] = (keypoints[:, 0] + 0.5) * across - 0.5
    keypoints[:, 1] = (keypoints[:, 1] + 0.5) * down - 0.5
    keypoints[:, 2] *= float(np.sqrt(across * down))


_guard = threading.Lock()
_inside = 0
_before = 0


@contextlib.contextmanager
def _opencv_threads(threads: int) -> Iterator[None]:
    """Hold OpenCV to the job's threads; its setting is the process's, so the last one resets it."""
    global _inside, _before
    cv2 = _cv2()

    with _guard:
        if not _inside:
            _before = cv2.getNumThreads()
            cv2.setNumThreads(threads)
        _inside += 1
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if not _inside:
                cv2.setNumThreads(_before)


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `sift`."""
    return [Sift]
