"""Palettes: pictures in few colours, without a spec.

    from vwkit.palettes import quantize
    made = quantize("talos.jpg", 16)
    made.save("talos.png")

What is done, function by function: `distinct_colours` counts each colour once, `colour_vectors` puts
them into a colour space, a clusterer finds centers, `fit_palette` makes them a palette of that many
8-bit colours, `nearest_colours` assigns, `write_png8` writes, `psnr` and `delta_e` measure.
"""

from __future__ import annotations

from vwkit.palettes.colours import SPACES, colour_vectors, vector_colours
from vwkit.palettes.distinct import Distinct, distinct_colours
from vwkit.palettes.measures import delta_e, psnr
from vwkit.palettes.nearest import colour_distances, nearest_colours
from vwkit.palettes.palette import Palette
from vwkit.palettes.png8 import write_png8
from vwkit.palettes.quantizing import Quantized, fit_palette, make_palette, quantize

__all__ = [
    "SPACES",
    "Distinct",
    "Palette",
    "Quantized",
    "colour_distances",
    "colour_vectors",
    "delta_e",
    "distinct_colours",
    "fit_palette",
    "make_palette",
    "nearest_colours",
    "psnr",
    "quantize",
    "vector_colours",
    "write_png8",
]
