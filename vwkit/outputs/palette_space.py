"""Pixels and palette as points in a colour space: data for the page, and a picture."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.hashing import row_uniform
from vwkit.palettes.colours import to_cielab, to_oklab
from vwkit.palettes.palette import Palette
from vwkit.types import Array

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["LABELS", "draw_space", "places_in", "space_data"]

#: Names of the axes to the right, to the back and up.
LABELS = {"rgb": ("R", "B", "G"), "lab": ("a*", "b*", "L*"), "oklab": ("a", "b", "L")}
_POINTS = 3000

_SIZE, _SCALE = 640, 2
_YAW, _PITCH = 0.62, 0.42
_PAPER, _LINE, _TEXT = (255, 255, 255), (205, 208, 204), (90, 100, 107)
_CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
_EDGES = [(i, j) for i in range(8) for j in range(i + 1, 8) if bin(i ^ j).count("1") == 1]


def places_in(rgb: NDArray[np.uint8], space: str) -> NDArray[np.float64]:
    """Return where colours are in a space's box of sides 1: right, back, up; (n, 3)."""
    if space == "rgb":
        return rgb[:, [0, 2, 1]] / 255
    if space == "oklab":
        lab = to_oklab(rgb)
        # What sRGB reaches: a and b from −0.32 to 0.28.
        return np.stack([0.5 + lab[:, 1] / 0.64, 0.5 + lab[:, 2] / 0.64, lab[:, 0]], axis=1)
    lab = to_cielab(rgb)
    return np.stack([0.5 + lab[:, 1] / 220, 0.5 + lab[:, 2] / 220, lab[:, 0] / 100], axis=1)


def _drawn(colours: Array, counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Draw some of the colours, as often as pixels have them, each at most once."""
    seen = np.flatnonzero(colours[:, 3] > 0) if colours.shape[1] == 4 else np.arange(len(colours))
    if len(seen) > _POINTS:
        race = -np.log(row_uniform(0, seen)) / counts[seen]
        seen = np.sort(seen[np.argpartition(race, _POINTS)[:_POINTS]])
    drawn: NDArray[np.uint8] = np.asarray(colours)[seen]
    return drawn


def space_data(colours: Array, counts: NDArray[np.int64], palette: Palette) -> dict[str, Any]:
    """Return what the page's script draws, as attributes of its canvas.

    Each point is six bytes, red, green, blue and its place in the space, and a seventh, its colour in
    the palette. The palette's colours are the same six bytes and the square root of their share.
    """
    some = _drawn(colours, counts)
    rgb = some[:, :3]
    if some.shape[1] != palette.colours.shape[1]:
        some = (
            rgb if palette.colours.shape[1] == 3 else np.c_[rgb, np.full(len(rgb), 255, np.uint8)]
        )
    nearest = palette.nearest(some).astype(np.uint8) if len(some) else np.zeros(0, np.uint8)
    own = palette.colours[:, :3]
    share = np.rint(255 * np.sqrt(palette.shares)).astype(np.uint8)
    return {
        "data_points": _packed(rgb, _bytes(rgb, palette.space), nearest),
        "data_centers": _packed(own, _bytes(own, palette.space), share),
        "data_axes": " ".join(LABELS[palette.space]),
        "data_space": {"rgb": "RGB", "lab": "CIELAB", "oklab": "Oklab"}[palette.space],
    }


def _bytes(rgb: NDArray[np.uint8], space: str) -> NDArray[np.uint8]:
    return np.rint(255 * np.clip(places_in(rgb, space), 0, 1)).astype(np.uint8)


def _packed(*columns: NDArray[np.uint8]) -> str:
    rows = np.column_stack(columns).astype(np.uint8)
    return base64.b64encode(np.ascontiguousarray(rows).tobytes()).decode("ascii")


# The picture -------------------------------------------------------------------------------------


def draw_space(colours: Array, counts: NDArray[np.int64], palette: Palette) -> Picture:
    """Draw pixels and palette in the palette's space, 640 by 640 pixels."""
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont

    side = _SIZE * _SCALE
    canvas = PIL.Image.new("RGB", (side, side), _PAPER)
    draw = PIL.ImageDraw.Draw(canvas)
    corners, depth = _projected(_CORNERS, side)
    behind = int(depth.argmax())
    for i, j in _EDGES:
        if behind in (i, j):
            draw.line([tuple(corners[i]), tuple(corners[j])], _LINE, 2 * _SCALE)
    rgb = _drawn(colours, counts)[:, :3]
    spots, depth = _projected(places_in(rgb, palette.space), side)
    radius = 2.2 * _SCALE
    for i in np.argsort(-depth, kind="stable"):
        _disc(draw, spots[i], radius, tuple(rgb[i].tolist()), None)
    for i, j in _EDGES:
        if behind not in (i, j):
            draw.line([tuple(corners[i]), tuple(corners[j])], _LINE, 2 * _SCALE)
    own = palette.colours[:, :3]
    shown = np.flatnonzero(palette.colours[:, 3] > 0) if palette.colours.shape[1] == 4 else None
    order = np.arange(len(own)) if shown is None else shown
    spots, depth = _projected(places_in(own, palette.space), side)
    few = len(own) <= 64
    for i in order[np.argsort(-depth[order], kind="stable")]:
        radius = _SCALE * ((5 if few else 3) + (17 if few else 9) * float(palette.shares[i]) ** 0.5)
        _disc(draw, spots[i], radius, tuple(own[i].tolist()), radius * 0.16 + _SCALE)
    font = PIL.ImageFont.load_default(15 * _SCALE)
    names = LABELS[palette.space]
    base = _CORNERS[0]
    for axis, name in enumerate(names):
        end = base.copy()
        end[axis] = 1
        (at,), _ = _projected((end + (end - base) * 0.07)[None], side)
        draw.text(tuple(at), name, _TEXT, font=font, anchor="mm")
    return canvas.resize((_SIZE, _SIZE), PIL.Image.Resampling.LANCZOS)


def _projected(
    places: NDArray[np.float64], side: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return pixels (n, 2) and depths (n,): the box turned and tilted, without perspective."""
    x, y, z = (places - 0.5).T
    right = x * np.cos(_YAW) - y * np.sin(_YAW)
    back = x * np.sin(_YAW) + y * np.cos(_YAW)
    up = z * np.cos(_PITCH) + back * np.sin(_PITCH)
    depth = back * np.cos(_PITCH) - z * np.sin(_PITCH)
    zoom = 0.56 * side
    return np.stack([side / 2 + zoom * right, side / 2 - zoom * up], axis=1), depth


def _disc(draw: Any, at: Array, radius: float, fill: Any, border: float | None) -> None:
    x, y = float(at[0]), float(at[1])
    if border is not None:
        # White and dark, to be seen on every colour.
        for grown, colour in ((border, (40, 44, 48)), (border / 2, (255, 255, 255))):
            r = radius + grown
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
