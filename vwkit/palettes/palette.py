"""A palette: colours with their shares, to look at, to apply and to keep in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import DataError, FormatError, ParameterError, RunError
from vwkit.palettes.colours import as_colours, check_space, colour_vectors, to_oklab
from vwkit.palettes.distinct import Distinct, distinct_colours
from vwkit.palettes.dithering import METHODS, Dither, dithered
from vwkit.palettes.nearest import nearest_colours, opaque
from vwkit.types import Array

__all__ = ["Palette"]

_FORMAT = 1
_LIMIT = 1 << 20


@dataclass(frozen=True, eq=False)
class Palette:
    """Colours that stand for those of pictures.

    Attributes
    ----------
    colours : (k, 3) or (k, 4) uint8
        sRGB, with opacity where the pictures have transparency. From dark to light, transparent
        ones first.
    counts : (k,) int64
        How many pixels have each.
    space : {"rgb", "lab", "oklab"}
        Where nearness is measured.

    Examples
    --------
    >>> import numpy as np
    >>> from vwkit.palettes import quantize
    >>> picture = np.zeros((2, 3, 3), np.uint8)
    >>> picture[0] = [255, 128, 0]
    >>> palette = quantize(picture, 2).palette
    >>> palette.hex, palette.shares.tolist()
    (['#000000', '#ff8000'], [0.5, 0.5])
    """

    colours: NDArray[np.uint8]
    counts: NDArray[np.int64]
    space: str = "lab"

    def __post_init__(self) -> None:
        as_colours(self.colours)
        check_space(self.space)
        if np.shape(self.counts) != (len(self.colours),):
            raise DataError(
                f"a palette needs a count for each of its {len(self.colours)} colours; "
                f"got shape {np.shape(self.counts)}"
            )

    def __len__(self) -> int:
        return len(self.colours)

    def __repr__(self) -> str:
        shown = ", ".join(self.hex[:8])
        more = ", …" if len(self) > 8 else ""
        return f"Palette({len(self)} colours in {self.space}: {shown}{more})"

    def _repr_html_(self) -> str:
        """Show swatches in Jupyter."""
        parts = "".join(
            f'<span title="{name} {share:.1%}" style="display:inline-block;width:30px;height:30px;'
            f'margin:1px;border-radius:4px;background:{name}"></span>'
            for name, share in zip(self.hex, self.shares.tolist(), strict=True)
        )
        return f'<div style="line-height:0">{parts}</div>'

    @property
    def hex(self) -> list[str]:
        """The colours as ``#rrggbb``, or ``#rrggbbaa`` where they are not opaque."""
        return [
            "#" + bytes(colour[:3] if len(colour) == 3 or colour[3] == 255 else colour).hex()
            for colour in self.colours
        ]

    @property
    def shares(self) -> NDArray[np.float64]:
        """What share of the pixels has each colour, (k,) float64."""
        return self.counts / max(1, int(self.counts.sum()))

    def nearest(self, colours: Array) -> NDArray[np.int64]:
        """Return which of the palette's colours is nearest to each, (n,) int64."""
        return nearest_colours(colours, self.colours, self.space)

    def apply(self, image: Any, dither: Dither = "none") -> NDArray[np.uint8 | np.uint16]:
        """Return which of the palette's colours each pixel of a picture takes.

        Parameters
        ----------
        image : path, PIL image, (h, w[, 3|4]) array, or what `distinct_colours` gave
        dither : {"none", "floyd-steinberg", "blue-noise"}

        Returns
        -------
        (h, w) uint8
            uint16 for a palette of more than 256 colours.

        Raises
        ------
        ImageError, ParameterError
        """
        if dither not in METHODS:
            raise ParameterError(f"unknown dithering {dither!r}; there are {', '.join(METHODS)}")
        counted = image if isinstance(image, Distinct) else distinct_colours(image)
        kind: Any = np.uint8 if len(self) <= 256 else np.uint16
        if dither == "none":
            indices: NDArray[Any] = self.nearest(counted.colours).astype(kind)[counted.inverse]
            return indices
        colours, own = counted.colours, self.colours
        if colours.shape[1] != own.shape[1]:
            colours, own = opaque(colours), opaque(own)
        vectors = colour_vectors(colours, self.space)
        centers = np.asarray(colour_vectors(own, self.space), np.float32)
        clear = colours[:, 3] == 0 if colours.shape[1] == 4 else None
        return dithered(vectors, counted.inverse, centers, dither, clear).astype(kind)

    def picture(self, indices: Array) -> NDArray[np.uint8]:
        """Return the picture that indices (h, w) stand for, (h, w, 3) or (h, w, 4) uint8."""
        found: NDArray[np.uint8] = self.colours[indices]
        return found

    # Files

    def save(self, path: str | Path) -> None:
        """Write the palette: ``.json``, ``.gpl`` (GIMP, Inkscape, Krita), ``.css``, or ``.png`` to see.

        Raises
        ------
        ParameterError
            Another ending.
        RunError
            The file cannot be written.
        """
        target = Path(path)
        texts: dict[str, Callable[[str], str]] = {
            ".json": self.to_json,
            ".gpl": self.to_gpl,
            ".css": self.to_css,
        }
        try:
            if target.suffix.lower() == ".png":
                from vwkit.palettes.swatches import swatches

                swatches(self).save(target, "PNG")
            elif target.suffix.lower() in texts:
                text = texts[target.suffix.lower()](target.stem)
                target.write_text(text, encoding="utf-8")
            else:
                raise ParameterError(f"{target}: a palette is written as .json, .gpl, .css or .png")
        except OSError as error:
            raise RunError(f"{target}: cannot be written: {error.strerror or error}") from None

    @classmethod
    def load(cls, path: str | Path) -> Palette:
        """Read a palette that was saved as ``.json``.

        Raises
        ------
        FormatError
            There is none in the file.
        """
        source = Path(path)
        try:
            if source.stat().st_size > _LIMIT:
                raise FormatError(f"{source}: too large for a palette")
            held = json.loads(source.read_text(encoding="utf-8"))
            if not 1 <= int(held["format"]) <= _FORMAT:
                raise FormatError(f"{source}: of a newer vwkit (format {held['format']})")
            space = str(held["space"])
            colours = np.array([_parsed(one["hex"]) for one in held["colours"]])
            counts = np.array([int(one["pixels"]) for one in held["colours"]], np.int64)
            if (colours[:, 3] == 255).all():
                colours = colours[:, :3]
            return cls(colours.astype(np.uint8), counts, space)
        except FileNotFoundError:
            raise FormatError(f"{source}: no such file") from None
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            ArithmeticError,
        ) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{source}: not a palette of vwkit ({error})") from None

    def to_json(self, name: str = "palette") -> str:
        """Return the palette as JSON: ``name``, ``space``, ``colours`` with hex, pixels and share."""
        listed = [
            {
                "hex": code,
                "rgb": colour[:3].tolist(),
                "alpha": round(int(colour[3]) / 255, 4) if len(colour) == 4 else 1.0,
                "pixels": int(count),
                "share": round(float(share), 6),
            }
            for code, colour, count, share in zip(
                self.hex, self.colours, self.counts, self.shares, strict=True
            )
        ]
        held = {"format": _FORMAT, "name": name, "space": self.space, "colours": listed}
        return json.dumps(held, indent=1, ensure_ascii=False) + "\n"

    def to_gpl(self, name: str = "palette") -> str:
        """Return the palette in the format of GIMP (opacity is only told in the names)."""
        lines = [
            f"{r:3d} {g:3d} {b:3d}\t{code} {share:.2%}"
            for (r, g, b), code, share in zip(
                self.colours[:, :3].tolist(), self.hex, self.shares.tolist(), strict=True
            )
        ]
        title = _line(name)
        return "\n".join(["GIMP Palette", f"Name: {title}", "Columns: 16", "#", *lines, ""])

    def to_css(self, name: str = "palette") -> str:
        """Return the palette as CSS variables: ``--colour-1``, ``--colour-2`` and so on."""
        title = _line(name).replace("*/", "* /")
        lines = [f"  --colour-{i}: {code};" for i, code in enumerate(self.hex, 1)]
        return "\n".join([f"/* {title} */", ":root {", *lines, "}", ""])


def _line(name: str) -> str:
    """Return a name on one line, without what cannot be written."""
    plain = name.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in plain)


def _parsed(code: Any) -> list[int]:
    text = str(code)
    values = list(bytes.fromhex(text.removeprefix("#")))
    if not text.startswith("#") or len(values) not in (3, 4):
        raise ValueError(f"{text!r} is no colour")
    return values if len(values) == 4 else [*values, 255]


def ordered(
    colours: NDArray[np.uint8], counts: Sequence[int] | NDArray[np.int64], space: str
) -> tuple[Palette, NDArray[np.int64]]:
    """Return a palette in its order, and where each colour went, (k,) int64.

    Transparent colours come first, so that the ``tRNS`` chunk of a PNG is short.
    """
    light = to_oklab(colours[:, :3])[:, 0]
    alpha = colours[:, 3] if colours.shape[1] == 4 else np.zeros(len(colours), np.uint8)
    order = np.lexsort((light, alpha))
    went = np.empty(len(order), np.int64)
    went[order] = np.arange(len(order))
    return Palette(colours[order], np.asarray(counts, np.int64)[order], space), went
