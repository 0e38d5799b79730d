"""Whether two pictures show the same, and how one became the other."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError
from vwkit.geometry.fitting import Model, apply, estimate
from vwkit.geometry.matching import match_descriptors
from vwkit.geometry.transformation import Size, Transformation, inverse
from vwkit.jobs import job, one_blas_thread
from vwkit.types import Array, Features

__all__ = ["align", "align_many", "compare", "copy_of", "strongest"]

#: Measured on copies of real photographs; see docs/near-duplicates.md.
INLIERS, SHARE, OVERLAP = 10, 0.35, 0.5
RATIO, TOLERANCE, KEYPOINTS = 0.8, 0.001, 1000
# A first look takes so many keypoints, and so many places must agree for a second one.
_FIRST, _SEEN = 300, 4
# Keypoints of a small picture are not placed more exactly than this, in pixels. More lets small
# copies of other photos of the same thing in.
_PIXELS = 1.0


def compare(
    a: Features,
    b: Features,
    *,
    mirrored: Features | None = None,
    inliers: int = INLIERS,
    share: float = SHARE,
    overlap: float = OVERLAP,
    ratio: float = RATIO,
    tolerance: float = TOLERANCE,
    keypoints: int = KEYPOINTS,
) -> Transformation | None:
    """Tell how the second picture came of the first, or None if they are no copies of each other.

    Parameters
    ----------
    a, b : Features
        Local features with keypoints and sizes.
    mirrored : Features, optional
        What was found in the mirrored first picture; with it, mirrored copies are found, too.
    inliers : int
        Places that must agree.
    share : float
        Inliers for each keypoint of the common part, at least. A copy repeats most of them; another
        photo of the same thing only few.
    overlap : float
        The common part must be at least this share of one of the two pictures.
    ratio, tolerance, keypoints
        See `align`.

    Returns
    -------
    Transformation or None

    Raises
    ------
    DataError
        The features have no keypoints or no size.
    """
    best: Transformation | None = None
    for turned_over, features in ((False, a), (True, mirrored)):
        if features is None:
            continue
        aligned = align(features, b, ratio=ratio, tolerance=tolerance, keypoints=keypoints)
        found = copy_of(aligned, turned_over, inliers=inliers, share=share, overlap=overlap)
        if found is not None and (best is None or found.inliers > best.inliers):
            best = found
    return best


def copy_of(
    found: Transformation | None,
    mirrored: bool = False,
    *,
    inliers: int = INLIERS,
    share: float = SHARE,
    overlap: float = OVERLAP,
) -> Transformation | None:
    """Return how one picture became the other if an alignment says that it did, else None.

    Parameters
    ----------
    found : Transformation or None
        From `align`.
    mirrored : bool
        Whether the first picture's features were those of its mirror image; what comes out begins
        at the picture itself.
    inliers, share, overlap
        See `compare`.
    """
    if found is None or found.inliers < inliers or found.share < share:
        return None
    if mirrored:
        found = _unmirrored(found)
    return found if max(found.kept, found.covered) >= overlap else None


def align(
    a: Features,
    b: Features,
    *,
    ratio: float = RATIO,
    tolerance: float = TOLERANCE,
    keypoints: int = KEYPOINTS,
    model: Model = "affine",
) -> Transformation | None:
    """Find the transformation that most keypoints of two pictures agree on, however few.

    Parameters
    ----------
    a, b : Features
        Local features with keypoints and sizes.
    ratio : float
        See `match_descriptors`.
    tolerance : float
        How far a keypoint may be off, as a share of the pictures' diagonal (one pixel, where that is
        more).
    keypoints : int
        Only so many keypoints of each picture are compared, those of the largest response.
    model : "similarity" or "affine"

    Returns
    -------
    Transformation or None
        None where no three agree.

    Raises
    ------
    DataError
        The features have no keypoints or no size.
    """
    points, vectors, size = strongest(a, keypoints)
    others, other_vectors, other_size = strongest(b, keypoints)
    pairs = match_descriptors(vectors, other_vectors, ratio=ratio)
    left, right = points[pairs[:, 0]], others[pairs[:, 1]]
    reach = tolerance * float(np.hypot(*size)), tolerance * float(np.hypot(*other_size))

    def allowed(scale: NDArray[np.float64]) -> NDArray[np.float64]:
        # In pixels of the second picture; the coarser one says how exact places are.
        widest: NDArray[np.float64] = np.maximum(reach[0] * scale, reach[1])
        return np.maximum(widest, _PIXELS * np.maximum(1.0, scale))

    found = estimate(left, right, allowed, model=model)
    if found is None:
        return None
    matrix, agrees = found
    inliers = min(_places(left[agrees]), _places(right[agrees]))
    common = min(
        _common(points, matrix, others, other_size), _common(others, inverse(matrix), points, size)
    )
    return Transformation(
        matrix, size, other_size, inliers, len(pairs), min(1.0, inliers / max(1, common))
    )


def align_many(
    a: Features,
    others: Iterable[Features],
    *,
    ratio: float = RATIO,
    tolerance: float = TOLERANCE,
    keypoints: int = KEYPOINTS,
    model: Model = "affine",
    quick: bool = False,
) -> Iterator[Transformation | None]:
    """Align one picture with many, on the threads of the job; in order, a few at a time.

    Parameters
    ----------
    a : Features
    others : iterable of Features
        May be lazy: it is read a little ahead.
    ratio, tolerance, keypoints, model
        See `align`.
    quick : bool
        Whether to give up (None) where hardly any of the other picture's very strongest keypoints
        agree; most pictures that have nothing in common are told by that.
    """
    current = job()
    one = Features(*_part(strongest(a, keypoints)))
    settings: Any = {
        "ratio": ratio, "tolerance": tolerance, "keypoints": keypoints, "model": model
    }  # fmt: skip

    def work(other: Features) -> Transformation | None:
        current.check()
        if quick and other.keypoints is not None and len(other.keypoints) > 2 * _FIRST:
            few = Features(*_part(strongest(other, _FIRST)))
            seen = align(one, few, **settings)
            if seen is None or seen.inliers < _SEEN:
                return None
        return align(one, other, **settings)

    if current.threads == 1:
        yield from map(work, others)
        return
    waiting: deque[Future[Transformation | None]] = deque()
    # Threads of BLAS on top of these would only wait for each other.
    pool = ThreadPoolExecutor(current.threads, "vwkit-geometry", initializer=one_blas_thread)
    with one_blas_thread(), pool:
        try:
            for other in others:
                waiting.append(pool.submit(contextvars.copy_context().run, work, other))
                if len(waiting) > 2 * current.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _part(found: tuple[Array, Array, Size]) -> tuple[Array, Array, Size]:
    points, vectors, size = found
    return vectors, points, size


def strongest(features: Features, keypoints: int) -> tuple[Array, Array, Size]:
    """Return keypoints (n, 5) and descriptors (n, d) of the largest response, and the size.

    Raises
    ------
    DataError
        There are no keypoints or no size.
    """
    points, vectors = features.keypoints, features.vectors
    if points is None or features.size is None:
        raise DataError(
            "pictures are compared by keypoints, and these features have none; take a local "
            "featurizer that gives keypoints, such as sift"
        )
    if len(points) > keypoints:
        kept = np.sort(np.argsort(-points[:, 4], kind="stable")[:keypoints])
        points, vectors = points[kept], vectors[kept]
    return np.asarray(points), np.asarray(vectors), features.size


def _places(points: Array) -> int:
    """Count different places: one keypoint may be there several times, in several directions."""
    return len(np.unique(np.rint(points[:, :2]), axis=0))


def _common(points: Array, matrix: Array, others: Array, size: Size) -> int:
    """Count the places of one picture that could be seen in the other one."""
    moved = apply(matrix, points[:, :2])
    seen = ((moved >= -0.5) & (moved <= np.array(size) - 0.5)).all(axis=1)
    # What is smaller there than anything that was found there is no keypoint there.
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    seen &= points[:, 2] * scale >= others[:, 2].min()
    return _places(points[seen])


def _unmirrored(found: Transformation) -> Transformation:
    """Return the transformation of the picture itself from that of its mirror image."""
    width = found.size[0]
    mirror = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])
    linear = found.matrix[:, :2] @ mirror[:, :2]
    moved = found.matrix[:, :2] @ mirror[:, 2] + found.matrix[:, 2]
    return Transformation(
        np.column_stack([linear, moved]),
        found.size,
        found.other_size,
        found.inliers,
        found.matches,
        found.share,
    )
