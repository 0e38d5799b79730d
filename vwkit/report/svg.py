"""Small charts as inline SVG, coloured by the page's style so that they follow its dark mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vwkit.report.markup import Html, join, tag

__all__ = ["bar_chart", "compact", "line_chart"]

WIDTH, HEIGHT = 460, 270
RIGHT, TOP, BOTTOM = 26, 34, 52
#: Room for one letter of a tick, as large as on a phone.
LETTER = 9.4


@dataclass(frozen=True)
class _Axis:
    """One direction of a chart: values → pixels, and where its ticks are."""

    low: float
    high: float
    start: float
    stop: float
    ticks: Sequence[float]
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.stop - self.start)


def line_chart(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    dots: bool = True,
    y_zero: bool = False,
    whole_x: bool = False,
) -> Html:
    """Draw a line through points.

    Parameters
    ----------
    points : sequence of (x, y)
        Finite; with `log` positive. At least one.
    title : str
        What a screen reader says of the chart.
    x_label, y_label : str
        Under and beside the axes, with units.
    log : bool
        Whether both axes are logarithmic.
    dots : bool
        Whether to mark the points.
    y_zero : bool
        Whether the y axis begins at 0.
    whole_x : bool
        Whether x values are whole numbers, ticked at whole numbers only.
    """
    xs, ys = zip(*points, strict=True)
    up = _axis((*ys, 0.0) if y_zero else ys, HEIGHT - BOTTOM, TOP, log=log, most=5)
    across = _axis(xs, _left(up), WIDTH - RIGHT, log=log, whole=whole_x, tight=True)
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
    drawn = [tag("polyline", points=path, class_="line")]
    if dots and len(points) <= 60:
        drawn += [
            tag(
                "circle",
                tag("title", f"{x_label} {compact(x)}: {compact(y)}"),
                cx=f"{across(x):.1f}",
                cy=f"{up(y):.1f}",
                r=3.2,
                class_="dot",
            )
            for x, y in points
        ]
    return _chart(title, across, up, x_label, y_label, drawn)


def bar_chart(
    counts: Sequence[float], edges: Sequence[float], *, title: str, x_label: str, y_label: str
) -> Html:
    """Draw a histogram: `counts` bars between len(counts) + 1 `edges`."""
    up = _axis((*counts, 0.0), HEIGHT - BOTTOM, TOP, whole=True, most=5)
    across = _axis(edges, _left(up), WIDTH - RIGHT, tight=True)
    drawn = []
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        x, width = across(left) + 1, across(right) - across(left) - 2
        drawn.append(
            tag(
                "rect",
                tag("title", f"{compact(left)} to {compact(right)}: {compact(count)}"),
                x=f"{x:.1f}",
                y=f"{up(count):.1f}",
                width=f"{max(width, 0.5):.1f}",
                height=f"{up(0) - up(count):.1f}",
                class_="bar",
            )
        )
    return _chart(title, across, up, x_label, y_label, drawn)


def _chart(
    title: str, across: _Axis, up: _Axis, x_label: str, y_label: str, drawn: Iterable[Html]
) -> Html:
    left, bottom, right = across.start, HEIGHT - BOTTOM, WIDTH - RIGHT
    across_text, up_text = _texts(across), _texts(up)
    grid = [
        join(
            [
                tag("line", x1=left, x2=right, y1=f"{up(t):.1f}", y2=f"{up(t):.1f}", class_="grid"),
                tag("text", text, x=left - 8, y=f"{up(t):.1f}", dy="0.33em", class_="end"),
            ]
        )
        for t, text in zip(up.ticks, up_text, strict=True)
    ]
    foot = [
        join(
            [
                tag("line", x1=f"{across(t):.1f}", x2=f"{across(t):.1f}",
                    y1=bottom, y2=bottom + 5, class_="axis"),
                tag("text", text, x=f"{across(t):.1f}", y=bottom + 20, class_="mid"),
            ]
        )
        for t, text in zip(across.ticks, across_text, strict=True)
    ]  # fmt: skip
    return tag(
        "svg",
        tag("title", title),
        *grid,
        tag("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"),
        *foot,
        tag("text", x_label, x=(left + right) / 2, y=HEIGHT - 8, class_="mid label"),
        tag("text", y_label, x=0, y=16, class_="label"),
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=title,
        class_="chart",
    )  # fmt: skip


def _left(up: _Axis) -> float:
    return 14 + LETTER * max(len(text) for text in _texts(up))


# Axes ------------------------------------------------------------------------------------------


def _axis(
    values: Sequence[float],
    start: float,
    stop: float,
    *,
    log: bool = False,
    whole: bool = False,
    tight: bool = False,
    most: int = 7,
) -> _Axis:
    """Make an axis that holds all values; a `tight` one ends at them, not at round numbers."""
    low, high = float(min(values)), float(max(values))
    if log:
        return _log_axis(low, high, start, stop, tight)
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # flat: nothing to tell ticks apart by
        room = 1.0 if whole or low == 0 else abs(low) * 0.1
        low, high = (low - room if low > 0 or not whole else low), high + room
    step = _step(high - low, most)
    if whole:
        step = max(1.0, step)
    if not tight:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return _Axis(low, high, start, stop, [i * step for i in range(first, last + 1)])


def _log_axis(low: float, high: float, start: float, stop: float, tight: bool) -> _Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    every = max(1, math.ceil((last - first) / 6))
    ticks = [10.0**i for i in range(first, last + 1, every)]
    if tight and high > low:
        ticks = [tick for tick in ticks if tick <= high]
        return _Axis(10.0**first, high, start, stop, ticks, log=True)
    return _Axis(10.0**first, 10.0**last, start, stop, ticks, log=True)


def _step(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 5, 10, … that cuts a span into at most `most` parts."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(power * m for m in (1, 2, 5, 10, 20) if span / (power * m) <= most)


def _texts(axis: _Axis) -> list[str]:
    """Write an axis's ticks so that neighbours differ."""
    if axis.log or len(axis.ticks) < 2:
        return [compact(tick) for tick in axis.ticks]
    step = axis.ticks[1] - axis.ticks[0]
    largest = max(abs(tick) for tick in axis.ticks)
    if largest >= 1e13 or step < 1e-6:
        return [f"{tick:.2e}" for tick in axis.ticks]
    unit, suffix = _unit(largest)
    decimals = max(0, -math.floor(math.log10(step / unit) + 1e-9))
    return [f"{tick / unit:.{decimals}f}{suffix if tick else ''}" for tick in axis.ticks]


def _unit(value: float) -> tuple[float, str]:
    units: Sequence[tuple[float, str]] = ((1e9, "G"), (1e6, "M"), (1e4, "k"))
    for least, suffix in units:
        if value >= least:
            return (1e3 if suffix == "k" else least), suffix
    return 1.0, ""


def compact(value: float) -> str:
    """Write a number as people read it: 4 digits, k, M, G."""
    if not math.isfinite(value):
        return "-"
    unit, suffix = _unit(abs(value))
    shown = value / unit
    if shown == 0 or 1e-4 <= abs(shown) < 1e4:
        text = f"{shown:.4g}" if abs(shown) < 1000 else f"{shown:,.0f}"
        return text + suffix
    return f"{shown:.2e}{suffix}"
