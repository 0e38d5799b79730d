"""Colours to look at: of a run that clusters pixels, and of palettes."""

from __future__ import annotations

from typing import Any

import numpy as np

from vwkit.palettes.colours import vector_colours
from vwkit.palettes.palette import Palette, ordered
from vwkit.report.markup import Html, tag
from vwkit.report.page import section
from vwkit.report.words import word_counts

__all__ = ["SWATCHES", "colour_section", "palette_strip", "swatch_list"]

_MANY, _MOST = 64, 256

#: What a page with colours needs.
SWATCHES = """
.strip{display:flex;height:56px;border-radius:9px;overflow:hidden;margin:12px 0 0;
border:1px solid var(--line)}
.strip i{display:block;flex-basis:0;min-width:0}
.swatches{display:grid;grid-template-columns:repeat(auto-fill,minmax(92px,1fr));gap:10px;
list-style:none;margin:16px 0 0;padding:0}
.swatches i{display:block;height:54px;border-radius:8px;border:1px solid var(--line)}
.swatches li{font-size:.8rem;line-height:1.35;color:var(--soft);font-variant-numeric:tabular-nums}
.swatches b{color:var(--ink);font-weight:600;display:block;margin-top:4px;
font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
.swatches.many{grid-template-columns:repeat(auto-fill,minmax(64px,1fr));gap:8px}
.swatches.many i{height:34px}.swatches.many li{font-size:.68rem}
@media (max-width:640px){.swatches{grid-template-columns:repeat(4,1fr)}
.swatches.many{grid-template-columns:repeat(5,1fr)}.strip{height:40px}}
"""


def colour_section(run: Any) -> Html | None:
    """Return the colours that a run found in its pixels, or None where it did not look for any."""
    if not (run.has("colours") and run.has("clusterer") and run.clusterer.has_centers):
        return None
    counted, model = run.counted, run.clusterer
    k = len(model.centers)
    if len(model.labels) == len(counted.colours):
        counts = np.zeros(k, np.int64)
        inside = model.labels >= 0
        np.add.at(counts, model.labels[inside], counted.counts[inside])
    else:
        labels = run.arrays("labels")["labels"] if run.has("labels") else model.labels
        counts = word_counts(labels, k)
    most = np.sort(np.argsort(-counts, kind="stable")[:_MOST])
    colours = vector_colours(np.asarray(model.centers)[most], counted.space)
    palette = ordered(colours, counts[most], counted.space)[0]
    note = f"{k:,} clusters of {int(counted.counts.sum()):,} pixels in {len(counted.colours):,} colours"
    if k > _MOST:
        note += f"; the {_MOST} that most pixels are in"
    return section("Colours", palette_strip(palette), swatch_list(palette), note=f"{note}.")


def palette_strip(palette: Palette) -> Html:
    """Return the colours side by side, each as wide as its share."""
    parts = (
        tag(
            "i",
            style=f"flex-grow:{share:.6f};background:{code}",
            title=f"{code} {share:.2%}",
        )
        for code, share in zip(palette.hex, palette.shares.tolist(), strict=True)
    )
    return tag("div", *parts, class_="strip", role="img", aria_label="Colours by their shares")


def swatch_list(palette: Palette) -> Html:
    """Return a square for each colour, with its code and share."""
    shares = palette.shares.tolist()
    parts = (
        tag(
            "li",
            tag("i", style=f"background:{code}"),
            tag("b", code),
            _share(share),
        )
        for code, share in zip(palette.hex, shares, strict=True)
    )
    many = "swatches many" if len(palette) > _MANY else "swatches"
    return tag("ul", *parts, class_=many)


def _share(share: float) -> str:
    return (
        f"{share:.1%}".replace("%", " %") if share >= 0.001 else f"{share:.2%}".replace("%", " %")
    )
