"""The transformation that most of some correspondences agree on.

A keypoint knows its place, scale and direction, so a single correspondence is a whole hypothesis: a
similarity (Philbin, Chum, Isard, Sivic, Zisserman 2007, "Object retrieval with large vocabularies
and fast spatial matching"). All of them are tried, nothing is drawn at random. The best are improved
by least squares over those that agree (Chum, Matas, Kittler 2003, "Locally optimized RANSAC").
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vwkit.types import Array

__all__ = ["Model", "apply", "estimate", "fit_affine", "fit_similarity", "hypotheses", "score"]

Model = Literal["similarity", "affine"]

_HYPOTHESES = 256  # the clearest correspondences; more add time, not transformations
_IMPROVED = 3
# A keypoint's own direction and scale are off by some degrees and percent; so a hypothesis is
# forgiven this share of the distance from the keypoint that it comes from.
_LOOSE = 0.1
#: How far a correspondence's own scale (as a factor) and direction (degrees) may be off.
SCALE_OFF, ANGLE_OFF = 2.0, 40.0
#: An affine map that stretches one direction more than this over the other is no copy.
STRETCH = 3.0
_STEPS = (4.0, 2.0, 1.0, 1.0, 1.0, 1.0)  # tolerance while improving


def apply(matrix: Array, points: Array) -> NDArray[np.float64]:
    """Return the images of points under a transformation.

    Parameters
    ----------
    matrix : (2, 3)
    points : (n, 2)
        x, y.

    Returns
    -------
    (n, 2) float64
    """
    p = np.asarray(points, np.float64)
    x, y = p[:, 0], p[:, 1]
    (a, b, c), (d, e, f) = np.asarray(matrix, np.float64)
    return np.column_stack([a * x + b * y + c, d * x + e * y + f])


def hypotheses(a: Array, b: Array) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Return the similarity that each pair of keypoints stands for.

    Points are complex numbers x + iy, so that a similarity is z → c·z + t.

    Parameters
    ----------
    a, b : (n, 5)
        Keypoints x, y, scale, angle, response; row i of one corresponds to row i of the other. Where
        scales are not positive, pairs of correspondences are taken instead of single ones.

    Returns
    -------
    c, t : (h,) complex128
    """
    za, zb = _complex(a), _complex(b)
    if scaled(a) and scaled(b):
        a, b = a[:_HYPOTHESES], b[:_HYPOTHESES]
        turn = np.radians(b[:, 3].astype(np.float64) - a[:, 3])
        factor = b[:, 2].astype(np.float64) / a[:, 2]
        c = np.asarray(factor * np.exp(1j * turn), np.complex128)
        return c, zb[: len(c)] - c * za[: len(c)]
    # Each with those 1, 2, 4, … places further on.
    rows: list[NDArray[np.int64]] = []
    others: list[NDArray[np.int64]] = []
    step = 1
    while step < len(a) and len(rows) * len(a) < _HYPOTHESES:
        rows.append(np.arange(len(a) - step))
        others.append(np.arange(step, len(a)))
        step *= 2
    if not rows:
        return np.zeros(0, np.complex128), np.zeros(0, np.complex128)
    i, j = np.concatenate(rows)[:_HYPOTHESES], np.concatenate(others)[:_HYPOTHESES]
    apart = za[j] - za[i]
    usable = (apart != 0) & (zb[j] != zb[i])
    i, j, apart = i[usable], j[usable], apart[usable]
    c = (zb[j] - zb[i]) / apart
    return c, zb[i] - c * za[i]


def score(
    a: Array, b: Array, c: Array, t: Array, tolerance: Any, *, loose: float = 0.0
) -> NDArray[np.bool_]:
    """Tell which correspondences agree with which similarities.

    A correspondence agrees if `b` lies within `tolerance` of where the similarity takes `a`, and if
    the keypoints' own scales and directions differ by what the similarity says, to within a factor
    of 2 and 40 degrees.

    Parameters
    ----------
    a, b : (n, 5)
        Keypoints that correspond, row by row.
    c, t : (h,) complex
        The similarities z → c·z + t.
    tolerance : (h,)
        In pixels of the second picture.
    loose : float
        Share of the distance between a keypoint and the one that a hypothesis comes from (hypothesis
        i from correspondence i) that is added to the tolerance.

    Returns
    -------
    (h, n) bool
    """
    za, zb = _complex(a), _complex(b)
    off = np.abs(c[:, None] * za + (t[:, None] - zb))
    allowed = np.broadcast_to(np.asarray(tolerance, np.float64)[:, None], off.shape)
    if loose:
        allowed = allowed + loose * np.abs(c)[:, None] * np.abs(za - za[: len(c), None])
    agrees: NDArray[np.bool_] = off <= allowed
    if scaled(a) and scaled(b):
        own = np.log(b[:, 2].astype(np.float64) / a[:, 2])
        agrees &= np.abs(own - np.log(np.abs(c))[:, None]) <= np.log(SCALE_OFF) + 1e-9
        turn = b[:, 3].astype(np.float64) - a[:, 3] - np.degrees(np.angle(c))[:, None]
        agrees &= np.abs((turn + 180) % 360 - 180) <= ANGLE_OFF
    return agrees


def estimate(
    a: Array, b: Array, tolerance: Any, *, model: Model = "affine"
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Find the transformation of the plane that most correspondences agree on.

    Parameters
    ----------
    a, b : (n, 5)
        Keypoints x, y, scale, angle, response that correspond, row by row, clearest first.
    tolerance : callable
        Takes scales (h,) and returns how many pixels of the second picture a correspondence may be
        off, (h,).
    model : "similarity" or "affine"

    Returns
    -------
    matrix : (2, 3) float64
        Takes x, y of the first picture to the second.
    agrees : (n,) bool
        The correspondences that agree with it.

    Or None, if no three correspondences agree.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(a) < 3:
        return None
    c, t = hypotheses(a, b)
    if not len(c):
        return None
    near = tolerance(np.abs(c))
    loose = _LOOSE if scaled(a) and scaled(b) else 0.0
    agrees = score(a, b, c, t, near, loose=loose)
    order = np.argsort(-agrees.sum(axis=1), kind="stable")
    best: tuple[NDArray[np.float64], NDArray[np.bool_]] | None = None
    tried: list[NDArray[np.bool_]] = []
    for one in order:
        if len(tried) == _IMPROVED:
            break
        if any((agrees[one] == before).all() for before in tried):
            continue
        tried.append(agrees[one])
        found = _improved(a, b, agrees[one], tolerance, model)
        if found is not None and (best is None or found[1].sum() > best[1].sum()):
            best = found
    return best


def _improved(
    a: Array, b: Array, agrees: NDArray[np.bool_], tolerance: Any, model: Model
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    best: tuple[NDArray[np.float64], NDArray[np.bool_]] | None = None
    for factor in _STEPS:
        matrix = None
        # Affine only once there are enough that agree: it follows noise more easily.
        if model == "affine" and factor == 1.0:
            matrix = fit_affine(a[agrees], b[agrees])
        if matrix is None:
            matrix = fit_similarity(a[agrees], b[agrees])
        if matrix is None:
            break
        scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        if not scale > 0:
            break
        allowed = float(tolerance(np.array([scale]))[0]) * factor
        now = _agreeing(a, b, matrix, allowed)
        if factor == 1.0:
            if best is None or now.sum() > best[1].sum():
                best = matrix, now
            elif (now == best[1]).all() or now.sum() < best[1].sum():
                break
        agrees = now
        if agrees.sum() < 3:
            break
    return best if best is not None and best[1].sum() >= 3 else None


def _agreeing(a: Array, b: Array, matrix: Array, allowed: float) -> NDArray[np.bool_]:
    off = apply(matrix, a[:, :2]) - b[:, :2]
    agrees: NDArray[np.bool_] = np.hypot(off[:, 0], off[:, 1]) <= allowed
    if scaled(a) and scaled(b):
        linear = matrix[:, :2]
        grown = np.sqrt(abs(np.linalg.det(linear)))
        agrees &= np.abs(np.log(b[:, 2] / a[:, 2] / grown)) <= np.log(SCALE_OFF) + 1e-9
        angle = np.radians(a[:, 3])
        turned = linear @ np.stack([np.cos(angle), np.sin(angle)])
        turn = np.degrees(np.arctan2(turned[1], turned[0])) - b[:, 3]
        agrees &= np.abs((turn + 180) % 360 - 180) <= ANGLE_OFF
    return agrees


def fit_similarity(a: Array, b: Array) -> NDArray[np.float64] | None:
    """Return the similarity (2, 3) of least squared error, or None where all points are one.

    Parameters
    ----------
    a, b : (n, 2 or more)
        x, y first.
    """
    if len(a) < 2:
        return None
    za, zb = _complex(a), _complex(b)
    ma, mb = za.mean(), zb.mean()
    za, zb = za - ma, zb - mb
    below = np.add.reduce(np.abs(za) ** 2)
    if not below > 0:
        return None
    c = np.add.reduce(np.conj(za) * zb) / below
    if c == 0:
        return None
    t = mb - c * ma
    return np.array([[c.real, -c.imag, t.real], [c.imag, c.real, t.imag]])


def fit_affine(a: Array, b: Array) -> NDArray[np.float64] | None:
    """Return the affine map (2, 3) of least squared error, or None where it is not well determined.

    That is where points are fewer than four or nearly on a line, where the map turns the plane over
    (mirrored pictures are compared as such), or where it stretches one direction more than three
    times over the other.

    Parameters
    ----------
    a, b : (n, 2 or more)
        x, y first.
    """
    if len(a) < 4:
        return None
    pa, pb = np.asarray(a, np.float64)[:, :2], np.asarray(b, np.float64)[:, :2]
    ma, mb = pa.mean(axis=0), pb.mean(axis=0)
    pa, pb = pa - ma, pb - mb
    spread = _products(pa, pa)
    low, high = np.linalg.eigvalsh(spread)
    if not low > 1e-3 * high:
        return None
    linear = np.linalg.solve(spread, _products(pa, pb)).T
    large, small = np.linalg.svd(linear, compute_uv=False)
    if np.linalg.det(linear) <= 0 or not large < STRETCH * small:
        return None
    return np.column_stack([linear, mb - linear @ ma])


def _products(a: Array, b: Array) -> NDArray[np.float64]:
    """Return aᵀ·b of (n, 2) points, summed in a fixed order."""
    return np.array([[np.add.reduce(a[:, i] * b[:, j]) for j in (0, 1)] for i in (0, 1)])


def _complex(points: Array) -> NDArray[np.complex128]:
    return np.asarray(points[:, 0], np.float64) + 1j * np.asarray(points[:, 1], np.float64)


def scaled(points: Array) -> bool:
    """Tell whether keypoints have scales to speak of."""
    return bool((points[:, 2] > 0).all())
