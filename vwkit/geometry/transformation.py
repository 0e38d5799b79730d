"""How one picture became another: the map, and the same in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.types import Array

__all__ = ["Transformation", "clipped_area", "corners", "inverse"]

Size = tuple[int, int]

# What is less than this does not show, or is within the error of an estimate.
_TURN, _SCALE, _STRETCH, _CUT = 1.0, 0.02, 0.04, 0.04
_ASLANT = 0.15


@dataclass(frozen=True, eq=False)
class Transformation:
    """What takes a picture to another one.

    Attributes
    ----------
    matrix : (2, 3) float64
        Takes x, y of the first picture to x, y of the second, in pixels; the first pixel's centre
        is 0, 0.
    size, other_size : (int, int)
        Width and height of the first and of the second picture.
    inliers : int
        Places where the pictures agree: different points of both whose descriptors and positions
        fit.
    matches : int
        Pairs of descriptors that were compared by position.
    share : float
        Inliers for each keypoint of the common part (of that picture that has fewer there), 0…1.
    """

    matrix: NDArray[np.float64]
    size: Size
    other_size: Size
    inliers: int
    matches: int
    share: float

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged (before it was turned)."""
        return bool(np.linalg.det(self.matrix[:, :2]) < 0)

    @property
    def scale(self) -> float:
        """How much longer a line is in the second picture, on average over directions."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def angle(self) -> float:
        """Degrees that the first picture was turned clockwise, in −180…180, after any mirroring."""
        linear = self.matrix[:, :2]
        if self.mirrored:
            linear = linear @ np.diag([-1.0, 1.0])
        # The rotation nearest to the linear part.
        turned = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
        return float(turned)

    @property
    def stretch(self) -> float:
        """How much more one direction is magnified than the one across it; 1 for none."""
        large, small = np.linalg.svd(self.matrix[:, :2], compute_uv=False)
        return float(large / small)

    @property
    def outline(self) -> NDArray[np.float64]:
        """Where the corners of the first picture lie in the second, (4, 2)."""
        from vwkit.geometry.fitting import apply

        return apply(self.matrix, corners(self.size))

    @property
    def kept(self) -> float:
        """Share of the first picture's area that is in the second, 0…1."""
        whole = abs(np.linalg.det(self.matrix[:, :2])) * self.size[0] * self.size[1]
        return float(min(1.0, clipped_area(self.outline, self.other_size) / whole))

    @property
    def covered(self) -> float:
        """Share of the second picture's area that shows the first, 0…1."""
        whole = self.other_size[0] * self.other_size[1]
        return float(min(1.0, clipped_area(self.outline, self.other_size) / whole))

    @property
    def inverse(self) -> Transformation:
        """The same from the second picture to the first."""
        return Transformation(
            inverse(self.matrix),
            self.other_size,
            self.size,
            self.inliers,
            self.matches,
            self.share,
        )

    @property
    def words(self) -> str:
        """What was done to the first picture to get the second, such as ``rotated 90° clockwise``."""
        said = [*self._turned(), *self._sized(), *self._cut()]
        return ", ".join(said) or "copy"

    def _turned(self) -> list[str]:
        angle = self.angle
        if self.mirrored:
            if abs(angle) > 180 - _TURN:
                return ["mirrored top to bottom"]
            return ["mirrored", *_rotation(angle)]
        return _rotation(angle)

    def _sized(self) -> list[str]:
        if self.stretch > 1 + _STRETCH:
            # How much longer a line is, in the first picture's own directions.
            _, sizes, axes = np.linalg.svd(self.matrix[:, :2])
            grown = axes.T @ np.diag(sizes) @ axes
            if abs(grown[0, 1]) < _ASLANT * (sizes[0] - sizes[1]):
                return [f"width {_times(grown[0, 0])}, height {_times(grown[1, 1])}"]
            return [*self._scaled(), f"stretched {_times(self.stretch)}"]
        return self._scaled()

    def _scaled(self) -> list[str]:
        return [f"scaled {_times(self.scale)}"] if abs(self.scale - 1) > _SCALE else []

    def _cut(self) -> list[str]:
        kept, framed = self.kept, self._framed()
        if kept < 1 - _CUT and framed < 1 - _CUT:
            return [f"overlap ({_percent(kept)} of it, {_percent(self.covered)} of the other)"]
        if kept < 1 - _CUT:
            return [f"crop (keeps {_percent(kept)})"]
        if framed < 1 - _CUT:
            return [f"part of a larger picture (fills {_percent(self.covered)})"]
        return []

    def _framed(self) -> float:
        """Share of the second picture inside the upright box around the first.

        A picture that is turned by 25 degrees leaves empty corners; those are nothing added.
        """
        box, limit = self.outline, np.array(self.other_size) - 0.5
        low = np.clip(box.min(axis=0), -0.5, limit)
        high = np.clip(box.max(axis=0), -0.5, limit)
        return float(np.prod(high - low) / (self.other_size[0] * self.other_size[1]))

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "words": self.words,
            "matrix": np.round(self.matrix, 6).tolist(),
            "mirrored": self.mirrored,
            "angle": round(self.angle, 2) + 0.0,  # no -0.0
            "scale": round(self.scale, 4),
            "stretch": round(self.stretch, 4),
            "kept": round(self.kept, 4),
            "covered": round(self.covered, 4),
            "inliers": self.inliers,
            "matches": self.matches,
            "share": round(self.share, 4),
        }


def _rotation(angle: float) -> list[str]:
    whole = round(abs(angle))
    if whole < _TURN:
        return []
    if whole == 180:
        return ["rotated 180°"]
    return [f"rotated {whole}° {'clockwise' if angle > 0 else 'counter-clockwise'}"]


def _times(factor: float) -> str:
    if abs(factor - 1) <= _SCALE:
        return "1×"
    digits = 3 if 1 <= factor < 1.1 else 2
    return f"{factor:.0f}×" if factor >= 10 else f"{factor:.{digits}g}×"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"


def corners(size: Size) -> NDArray[np.float64]:
    """Return the corners of a picture, (4, 2), clockwise from the top left.

    Pixels have an extent: the first one's centre is 0, 0, so the corner is at −0.5, −0.5.
    """
    right, bottom = size[0] - 0.5, size[1] - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])


def inverse(matrix: Array) -> NDArray[np.float64]:
    """Return the inverse of a (2, 3) map of the plane."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def clipped_area(polygon: Array, size: Size) -> float:
    """Return the area of a convex polygon's part inside a picture (Sutherland, Hodgman 1974).

    Parameters
    ----------
    polygon : (n, 2)
        In either direction round.
    size : (int, int)
        Width and height of the picture.
    """
    points = np.asarray(polygon, np.float64)
    sides = ((0, -0.5, 1), (0, size[0] - 0.5, -1), (1, -0.5, 1), (1, size[1] - 0.5, -1))
    for axis, limit, inward in sides:
        depth = inward * (points[:, axis] - limit)
        kept = []
        for i in range(len(points)):
            here, there = points[i - 1], points[i]
            if (depth[i - 1] >= 0) != (depth[i] >= 0):
                part = depth[i - 1] / (depth[i - 1] - depth[i])
                kept.append(here + part * (there - here))
            if depth[i] >= 0:
                kept.append(there)
        if len(kept) < 3:
            return 0.0
        points = np.array(kept)
    x, y = points.T
    return float(abs(np.add.reduce(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2)
