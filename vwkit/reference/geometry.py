"""Two pictures compared by keypoints, one correspondence after the other.

Lowe 2004, "Distinctive image features from scale-invariant keypoints", section 7.1; Philbin, Chum,
Isard, Sivic, Zisserman 2007, "Object retrieval with large vocabularies and fast spatial matching".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["affine", "agrees", "match", "shared_area", "similarity"]


def match(a: ArrayLike, b: ArrayLike, ratio: float = 0.8) -> list[tuple[int, int]]:
    """Pair descriptors that are each other's clear choice.

    Parameters
    ----------
    a, b : (n, d) and (m, d) numbers
    ratio : float

    Returns
    -------
    list of (row of a, row of b)
        Clearest first, by the quotient of the squared distances to the nearest and the next nearest
        row of `b`; then by row. Of several rows of `a` with the same row of `b` the nearest is kept.
    """
    rows, others = np.asarray(a, np.float64), np.asarray(b, np.float64)
    held: dict[int, tuple[float, int, float]] = {}
    for i, row in enumerate(rows):
        distances = [float(((row - other) ** 2).sum()) for other in others]
        if not distances:
            continue
        near = distances.index(min(distances))
        rest = distances[:near] + distances[near + 1 :]
        next_one = min(rest) if rest else math.inf
        quotient = distances[near] / next_one if next_one > 0 else 1.0
        if quotient < ratio**2 and (near not in held or distances[near] < held[near][0]):
            held[near] = (distances[near], i, quotient)
    order = sorted((quotient, i, near) for near, (_, i, quotient) in held.items())
    return [(i, near) for _, i, near in order]


def similarity(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return the similarity that takes one keypoint to another, (2, 3).

    Parameters
    ----------
    a, b : x, y, scale, angle (degrees), …
    """
    x, y, size, angle = np.asarray(a, np.float64)[:4]
    u, v, other_size, other_angle = np.asarray(b, np.float64)[:4]
    turn, grown = math.radians(other_angle - angle), other_size / size
    linear = grown * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return np.column_stack([linear, np.array([u, v]) - linear @ np.array([x, y])])


def agrees(matrix: ArrayLike, a: ArrayLike, b: ArrayLike, tolerance: float) -> bool:
    """Tell whether a keypoint lies where a similarity takes another one, with its scale and angle.

    Within `tolerance` pixels, a factor of 2 and 40 degrees.

    Parameters
    ----------
    matrix : (2, 3)
    a, b : x, y, scale, angle (degrees), …
    tolerance : float
    """
    m = np.asarray(matrix, np.float64)
    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if math.dist(m[:, :2] @ one[:2] + m[:, 2], other[:2]) > tolerance:
        return False
    grown = math.hypot(m[0, 0], m[1, 0])
    if not 0.5 <= other[2] / (one[2] * grown) <= 2:
        return False
    turn = other[3] - one[3] - math.degrees(math.atan2(m[1, 0], m[0, 0]))
    return bool(abs((turn + 180) % 360 - 180) <= 40)


def affine(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return the affine map (2, 3) of least squared error from points `a` (n, 2) to `b` (n, 2)."""
    points = np.column_stack([np.asarray(a, np.float64), np.ones(len(np.asarray(a)))])
    solved, *_ = np.linalg.lstsq(points, np.asarray(b, np.float64), rcond=None)
    found: NDArray[np.float64] = solved.T
    return found


def shared_area(
    matrix: ArrayLike, size: tuple[int, int], other: tuple[int, int], steps: int = 200
) -> float:
    """Return about which share of a picture lies inside another one, by trying many places.

    Parameters
    ----------
    matrix : (2, 3)
        Takes the picture to the other one.
    size, other : (int, int)
        Width and height of both.
    steps : int
        Places across and down.
    """
    m = np.asarray(matrix, np.float64)
    inside = 0
    for i in range(steps):
        for j in range(steps):
            place = np.array([(i + 0.5) / steps * size[0], (j + 0.5) / steps * size[1]]) - 0.5
            u, v = m[:, :2] @ place + m[:, 2]
            inside += -0.5 <= u <= other[0] - 0.5 and -0.5 <= v <= other[1] - 0.5
    return inside / steps**2
