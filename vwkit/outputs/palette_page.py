"""The page of pictures in few colours: before and after, the palette, its colours in space, numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.image import open_image
from vwkit.outputs.palette_space import draw_space, space_data
from vwkit.palettes.palette import Palette
from vwkit.palettes.swatches import chequered
from vwkit.report.colours import SWATCHES, palette_strip, swatch_list
from vwkit.report.markup import Html, tag
from vwkit.report.page import page, section, table
from vwkit.report.pictures import spread
from vwkit.report.sections import lead, title

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from vwkit.outputs.palette import PaletteOutput, Written

__all__ = ["comparison", "write_page"]

#: Pictures that are shown before and after, and rows of the table, at most.
_SHOWN, _ROWS = 12, 500
_WIDTH, _SMALL, _TINY = 900, 720, 320
_HALF = 340
_DITHERS = {
    "none": "no dithering",
    "floyd-steinberg": "Floyd–Steinberg dithering",
    "blue-noise": "blue-noise dithering",
}


def write_page(
    run: Any,
    output: PaletteOutput,
    written: Sequence[Written],
    total: dict[str, Any],
    seen: Any,
    palette: Palette,
    folder: Path,
    path: Path,
) -> None:
    """Write the page; `seen` has the colours and counts that are drawn in space."""
    shown = [written[i] for i in spread(len(written), _SHOWN)]
    many = len(written) > 1
    name = title(run) if many else written[0].item.id
    colours = _colours(len(palette))
    size = _WIDTH if len(shown) == 1 else _SMALL
    cases = [_case(one, folder, size, strip=many and not output.shared) for one in shown]
    said = f"{_DITHERS[output.dither].capitalize()}. Move the line to compare."
    if many and len(shown) < len(written):
        said = f"{len(shown)} of {len(written):,} pictures. {said}"
    whose = (
        "One palette for all pictures."
        if many and output.shared
        else f"Of {written[0].item.id}; each picture has its own."
        if many
        else None
    )
    body = [
        section(
            "Original and result",
            tag("div", *cases, class_="cases" if many else None),
            note=said,
        ),
        section("The palette", palette_strip(palette), swatch_list(palette), note=whose),
        _space(seen, palette),
        _numbers(written, total),
        _files(written, shared=output.shared),
    ]
    text = page(
        f"{name} in {colours}",
        lead(run),
        body,
        top=_tiles(written, total, palette),
        style=SWATCHES + _resource("palette.css"),
        script=_resource("palette.js"),
    )
    path.write_text(text, encoding="utf-8")


def _resource(name: str) -> str:
    return resources.files("vwkit.outputs").joinpath(name).read_text(encoding="utf-8")


# Numbers -----------------------------------------------------------------------------------------


def _tiles(written: Sequence[Written], total: dict[str, Any], palette: Palette) -> Html:
    one = written[0] if len(written) == 1 else None
    tiles: list[tuple[str, str, str | None]] = []
    if one is None:
        tiles.append(("Pictures", f"{len(written):,}", None))
    before = None if one is None else f"of {one.colours:,}"
    tiles.append(("Colours", f"{len(palette):,}", before))
    share = total["share_of_original"]
    tiles += [
        ("File size", size_text(total["bytes"]), f"was {size_text(total['original_bytes'])}"),
        ("Of the original", _percent(share), None),
        (
            "Bits per pixel",
            f"{total['bits_per_pixel']:.2f}",
            f"was {total['original_bits_per_pixel']:.2f}",
        ),
        ("PSNR", psnr_text(total["psnr"]), "mean" if one is None else None),
        ("ΔE", f"{total['delta_e_2000']:.2f}", "mean CIEDE2000"),
    ]
    return tag(
        "dl",
        *(
            tag(
                "div",
                tag("dt", name),
                tag("dd", value, None if small is None else tag("small", small)),
                class_="tile best" if name == "Colours" else "tile",
            )
            for name, value, small in tiles
        ),
        class_="tiles",
    )


def size_text(count: int) -> str:
    """Write bytes as people read them."""
    if count >= 1_000_000:
        return f"{count / 1e6:.2f} MB"
    return f"{count / 1e3:.1f} kB" if count >= 1000 else f"{count} B"


def psnr_text(value: float | None) -> str:
    """Write a PSNR; None is lossless."""
    return "lossless" if value is None else f"{value:.2f} dB"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def _numbers(written: Sequence[Written], total: dict[str, Any]) -> Html:
    rows = [_row(one.item.id, one.colours, one.palette, one.measured) for one in written[:_ROWS]]
    if len(written) > 1:
        rows.append(_row(f"all {len(written):,}", None, None, total))
    head = ("Picture", "Pixels", "Colours", "Bytes", "of original", "Bits per pixel", "PSNR",
            "ΔE 2000", "ΔE 76")  # fmt: skip
    left = len(written) - _ROWS
    more = f"… and {left:,} more; measures.json has them all." if left > 0 else None
    note = (
        "ΔE is the mean difference over all pixels, 1 is about what is just noticed: CIEDE2000, and "
        "the distance in CIELAB (CIE76). PSNR is of the sRGB values. Where there is transparency, both "
        "are the mean of what is seen on black and on white."
    )
    shown = table("Measurements", head, rows, numbers=range(1, 9))
    return section("Measured", shown, tag("p", more, class_="note") if more else None, note=note)


def _row(
    name: str, before: int | None, palette: Palette | None, measured: dict[str, Any]
) -> tuple[object, ...]:
    used = "" if palette is None else f"{before:,} → {int((palette.counts > 0).sum())}"
    return (
        name,
        f"{measured['width']} × {measured['height']}" if "width" in measured else "",
        used,
        f"{measured['original_bytes']:,} → {measured['bytes']:,}",
        _percent(measured["share_of_original"]),
        f"{measured['original_bits_per_pixel']:.2f} → {measured['bits_per_pixel']:.2f}",
        psnr_text(measured["psnr"]),
        f"{measured['delta_e_2000']:.2f}",
        f"{measured['delta_e_76']:.2f}",
    )


def _files(written: Sequence[Written], *, shared: bool) -> Html:
    names = ["palette"] if shared else [written[0].file.removesuffix(".png") + ".palette"]
    found = [
        ("the pictures, PNG-8", ", ".join(one.file for one in written[:3])
         + (", …" if len(written) > 3 else "")),
        ("the palette", ", ".join(f"{names[0]}.{kind}" for kind in ("json", "gpl", "css", "png"))),
        ("the colours in space", "colours.png"),
        ("original and result", "comparison.png"),
        ("all numbers", "measures.json"),
    ]  # fmt: skip
    rows = [(what, tag("span", name, class_="id")) for what, name in found]
    return section("Files", table("Files", ("What", "In this folder"), rows))


# Colours -----------------------------------------------------------------------------------------


def _space(seen: Any, palette: Palette) -> Html:
    data = space_data(seen.colours, seen.counts, palette)
    space = data["data_space"]
    picture = draw_space(seen.colours, seen.counts, palette)
    canvas = tag(
        "canvas",
        tag("p", "This plot needs a browser that can draw."),
        role="img",
        aria_label=f"The pixels as points and the palette as discs in {space}. "
        "Arrow keys turn it, plus and minus zoom.",
        tabindex="0",
        **data,
    )
    radios: list[Html] = []
    if palette.space != "rgb":
        for value, name in (("space", space), ("rgb", "RGB")):
            box = tag("input", type="radio", name="mode", value=value, checked=value == "space")
            radios.append(tag("label", box, name))
    mapped = tag("label", tag("input", type="checkbox"), "pixels in the palette's colours")
    controls = tag("div", *radios, mapped, class_="controls")
    plain = tag("noscript", tag("img", src=_uri(picture, "PNG"), alt=f"Colours in {space}"))
    note = (
        f"Points are colours of the pixels, as many as occur often; discs are the palette, larger "
        f"where more pixels are, in {space}. Drag to turn; with the keyboard, arrow keys, + and −."
    )
    return section(
        "Colours in space", tag("div", canvas, plain, controls, class_="space"), note=note
    )


# Pictures ----------------------------------------------------------------------------------------


def _case(one: Written, folder: Path, most: int, *, strip: bool) -> Html:
    before, after = (_shown(open_image(path), most) for path in (one.item.path, folder / one.file))
    longest = max(one.measured["width"], one.measured["height"])
    small = longest <= _TINY
    # Reduced, it has more colours than a palette holds; else it is the very file.
    result = _uri(after, "JPEG") if longest > most else _embedded(folder / one.file)
    kind = "small" if small else None
    width, height = before.size
    where = f"{one.item.id} in {_colours(_used(one))}"
    slider = tag(
        "input", type="range", min=0, max=100, value=50, step="any",
        aria_label=f"How much of the original of {one.item.id} is shown",
    )  # fmt: skip
    box = tag(
        "div",
        tag("img", src=_uri(before, "JPEG"), alt=f"{one.item.id}, the original", class_=kind,
            width=width, height=height),
        tag("div", tag("img", src=result, alt=where, class_=kind, width=width,
                       height=height), class_="after"),
        tag("span", "original", class_="left"),
        tag("span", f"{_colours(_used(one))}", class_="right-end"),
        slider,
        class_="compare",
        style=None if width >= _TINY else f"max-width:{_TINY}px",
    )  # fmt: skip
    said = (
        f"{one.item.id}: {size_text(one.measured['bytes'])}, {psnr_text(one.measured['psnr'])}, "
        f"ΔE {one.measured['delta_e_2000']:.2f}"
    )
    below = palette_strip(one.palette) if strip else None
    return tag("div", tag("h3", said), box, below, class_="case")


def _shown(image: Any, most: int) -> Picture:
    """Return a picture no larger than `most`; what is not changed keeps its palette."""
    import PIL.Image

    opaque = image.alpha is None
    picture = PIL.Image.fromarray(image.rgb if opaque else image.rgba)
    if max(picture.size) > most:
        picture.thumbnail((most, most), PIL.Image.Resampling.LANCZOS)
    return picture


def _uri(picture: Picture, kind: str) -> str:
    """Return a picture as a ``data:`` URI; JPEG is for those without opacity."""
    buffer = io.BytesIO()
    if kind == "JPEG" and picture.mode == "RGB":
        picture.save(buffer, "JPEG", quality=90)
    else:
        picture.save(buffer, "PNG", optimize=True)
        kind = "PNG"
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"


def _used(one: Written) -> int:
    return int((one.palette.counts > 0).sum())


def _colours(count: int) -> str:
    return f"{count:,} colour" + ("" if count == 1 else "s")


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def comparison(one: Written, folder: Path) -> Picture:
    """Draw original and result beside each other, above the palette by shares."""
    import PIL.Image

    before, after = (_shown(open_image(path), _HALF) for path in (one.item.path, folder / one.file))
    pictures = [_plain(np.asarray(picture)) for picture in (before, after)]
    height, width = pictures[0].shape[:2]
    gap, strip = 8, 40
    canvas = np.full((height + gap + strip, 2 * width + gap, 3), 255, np.uint8)
    canvas[:height, :width], canvas[:height, width + gap :] = pictures
    ends = np.rint(np.cumsum(one.palette.shares) * canvas.shape[1]).astype(int)
    colours = one.palette.colours
    for i, (start, stop) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        wide = np.broadcast_to(colours[i], (strip, max(0, stop - start), colours.shape[1]))
        canvas[height + gap :, start:stop] = _plain(np.ascontiguousarray(wide))
    return PIL.Image.fromarray(canvas)


def _plain(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels if pixels.shape[2] == 3 else chequered(pixels)
