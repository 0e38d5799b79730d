"""Pictures in the colours of a palette, as PNG files, with what that costs them."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.around import Output
from vwkit.base import Field, backend, create
from vwkit.counted import at_most
from vwkit.errors import DataError
from vwkit.image import open_image
from vwkit.jobs import job
from vwkit.outputs.files import new_folder
from vwkit.palettes.colours import colour_vectors
from vwkit.palettes.distinct import Distinct, distinct_colours
from vwkit.palettes.dithering import Dither
from vwkit.palettes.measures import measures
from vwkit.palettes.palette import Palette
from vwkit.palettes.png8 import write_png8
from vwkit.palettes.quantizing import palette_of_centers, recounted
from vwkit.types import Array, Item

__all__ = ["PaletteOutput", "Written"]

_MOST = 256
_PAGE, _SPACE, _COMPARISON = "palette.html", "colours.png", "comparison.png"
_FORMATS = ("json", "gpl", "css", "png")
_ICC_LIMIT = 1 << 20


@dataclass(frozen=True, eq=False)
class Written:
    """One picture that was written.

    Attributes
    ----------
    item : Item
    file : str
        Its name below the folder.
    palette : Palette
        With the counts of this picture.
    colours : int
        Distinct colours of the original.
    measured : dict
        Sizes in pixels and bytes, bits per pixel, PSNR and colour differences.
    """

    item: Item
    file: str
    palette: Palette
    colours: int
    measured: dict[str, Any]


@backend("palette")
class PaletteOutput(Output):
    """The pictures in the colours of the palette that was clustered: a folder of PNG-8 files.

    With the palette (``palette.json``, ``.gpl`` for GIMP, ``.css``, ``.png``), what it costs
    (``measures.json``: bytes, bits per pixel, PSNR, ΔE), the colours in space (``colours.png``),
    original beside result (``comparison.png``), and all of it to look at in ``palette.html``.
    """

    needs = ("images", "clustering of pixels")
    writes = "folder"
    every_row = False

    dither: Dither = Field(
        default="none", doc="none, floyd-steinberg (error diffusion) or blue-noise (a mask)."
    )
    shared: bool = Field(
        default=True,
        doc="Whether all pictures share the palette of the clusterer; if not, a clusterer like it "
        "makes one for each picture.",
    )

    def _objection(self, spec: Any) -> str | None:
        clusterer = spec.clusterer
        if clusterer is None:
            return None
        if not clusterer.has_centers:
            return f"palette needs centers, and {clusterer.name} has none; take lloyd"
        k = getattr(clusterer, "k", None)
        if isinstance(k, int) and k > _MOST:
            return f"palette: a PNG-8 holds at most {_MOST} colours; the clusterer has k = {k}"
        return None

    def _write(self, run: Any, path: Path) -> None:
        from vwkit.outputs.palette_page import comparison, write_page
        from vwkit.outputs.palette_space import draw_space

        counted, space = run.counted, run.featurizer.space
        shared = None
        if self.shared:
            centers = np.asarray(run.clusterer.centers)
            if len(centers) > _MOST:
                raise DataError(
                    f"palette: a PNG-8 holds at most {_MOST} colours; the clusterer found "
                    f"{len(centers)}"
                )
            shared = palette_of_centers(
                centers, counted.colours, counted.counts, len(centers), space
            )[0]
        with new_folder(path) as folder:
            names = _Names(shared is not None)
            written = list(self._pictures(run, folder, names, shared))
            total = _total(written)
            held = {
                "dither": self.dither,
                "shared": self.shared,
                "space": space,
                "pictures": [_listed(one) for one in written],
                "total": total,
            }
            text = json.dumps(held, indent=1, ensure_ascii=False)
            (folder / "measures.json").write_text(_writable(text) + "\n", encoding="utf-8")
            palette = shared or written[0].palette
            seen = counted if shared else distinct_colours(written[0].item.path)
            if shared is not None:
                for kind in _FORMATS:
                    shared.save(folder / f"palette.{kind}")
            draw_space(seen.colours, seen.counts, palette).save(folder / _SPACE, "PNG")
            comparison(written[0], folder).save(folder / _COMPARISON, "PNG", optimize=True)
            write_page(run, self, written, total, seen, palette, folder, folder / _PAGE)

    def _pictures(
        self, run: Any, folder: Path, names: _Names, shared: Palette | None
    ) -> Iterator[Written]:
        kept = run.kept
        for done, item in enumerate(kept):
            job().progress(done, len(kept), "pictures")
            counted = distinct_colours(item.path)
            palette, nearest = self._palette(run, counted, shared)
            if self.dither == "none":
                indices = nearest.astype(np.uint8)[counted.inverse]
                pairs = counted.colours, palette.colours[nearest], counted.counts
            else:
                indices = palette.apply(counted, self.dither).astype(np.uint8)
                pairs = _pairs(counted, indices, palette)
            name = names.of(item.id)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_png8(target, indices, palette.colours, icc=_profile(item.path))
            own = recounted(palette, indices)
            if shared is None:
                for kind in _FORMATS:
                    own.save(target.with_name(f"{target.stem}.palette.{kind}"))
            h, w = counted.inverse.shape
            measured = {**_sizes(item.path, target, w, h), **measures(*pairs)}
            yield Written(item, name, own, len(counted.colours), measured)
        job().progress(len(kept), len(kept), "pictures")

    def _palette(
        self, run: Any, counted: Distinct, shared: Palette | None
    ) -> tuple[Palette, NDArray[np.int64]]:
        if shared is not None:
            return shared, shared.nearest(counted.colours)
        settings = dict(run.spec["clusterer"])
        made: Any = create("clusterer", settings.pop("use"), **settings)
        clusterer: Any = at_most(made, len(counted.colours))
        space = run.featurizer.space
        rows = colour_vectors(counted.colours, space)
        if clusterer.supports_weights:
            clusterer.fit(rows, counted.counts)
        else:
            clusterer.fit(np.repeat(rows, counted.counts, axis=0))
        centers = clusterer.centers
        return palette_of_centers(centers, *counted[:2], len(centers), space)


class _Names:
    """Gives every picture a file of its own, below the folder, under a name like its own."""

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self._taken = {"measures.json", _PAGE, _SPACE, _COMPARISON}
        if shared:
            self._taken |= {f"palette.{kind}" for kind in _FORMATS}

    def of(self, item: str) -> str:
        """Return ``talos.png`` for ``talos.jpg``, ``talos.jpg.png`` if that is taken, and so on."""
        parts = [part for part in PurePosixPath(item).parts if part not in ("/", "..", ".")]
        whole = PurePosixPath(*(parts or ["picture"]))
        stems = itertools.chain(
            [whole.stem, whole.name], (f"{whole.name}-{number}" for number in itertools.count(2))
        )
        for stem in stems:
            files = [f"{stem}.png"]
            if not self._shared:
                files += [f"{stem}.palette.{kind}" for kind in _FORMATS]
            # Some systems do not tell cases apart.
            wanted = {whole.with_name(file).as_posix().casefold() for file in files}
            if not wanted & self._taken:
                self._taken |= wanted
                return whole.with_name(files[0]).as_posix()
        raise AssertionError  # names never end


def _pairs(
    counted: Distinct, indices: NDArray[np.uint8], palette: Palette
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return original colours, what stands for them, and how often: of a dithered picture."""
    found: dict[str, Array] = {"key": np.zeros(0, np.int64), "count": np.zeros(0, np.int64)}
    step = max(1, (1 << 22) // indices.shape[1])
    for top in range(0, len(indices), step):
        key = counted.inverse[top : top + step].astype(np.int64) * len(palette)
        key += indices[top : top + step]
        own, often = np.unique(key, return_counts=True)
        keys, place = np.unique(np.concatenate([found["key"], own]), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, place, np.concatenate([found["count"], often]))
        found = {"key": keys, "count": counts}
    colour, index = np.divmod(found["key"], len(palette))
    return counted.colours[colour], palette.colours[index], found["count"]


def _profile(path: Any) -> bytes | None:
    """Return the colour profile of a picture, where it belongs to the colours as they are read."""
    import PIL.Image

    with contextlib.suppress(Exception), PIL.Image.open(path) as picture:
        profile = picture.info.get("icc_profile")
        if isinstance(profile, bytes) and len(profile) <= _ICC_LIMIT and profile[16:20] == b"RGB ":
            return profile
    return None


def _sizes(original: Any, target: Path, width: int, height: int) -> dict[str, Any]:
    before, after = Path(original).stat().st_size, target.stat().st_size
    return {
        "width": width,
        "height": height,
        "original_bytes": before,
        "bytes": after,
        "original_bits_per_pixel": round(8 * before / (width * height), 4),
        "bits_per_pixel": round(8 * after / (width * height), 4),
        "share_of_original": round(after / before, 4),
    }


def _listed(one: Written) -> dict[str, Any]:
    return {
        "id": one.item.id,
        "file": one.file,
        "original_colours": one.colours,
        "colours": int((one.palette.counts > 0).sum()),
        "lossless": one.measured["psnr"] is None,
        **one.measured,
    }


def _total(written: list[Written]) -> dict[str, Any]:
    """Return sums and means over all pictures; None for the PSNR of lossless ones alone."""
    before, after = (
        sum(one.measured[key] for one in written) for key in ("original_bytes", "bytes")
    )
    pixels = sum(one.measured["width"] * one.measured["height"] for one in written)
    lossy = [one.measured["psnr"] for one in written if one.measured["psnr"] is not None]
    means = {
        key: float(np.mean([one.measured[key] for one in written]))
        for key in ("delta_e_76", "delta_e_2000")
    }
    return {
        "pictures": len(written),
        "original_bytes": before,
        "bytes": after,
        "original_bits_per_pixel": round(8 * before / pixels, 4),
        "bits_per_pixel": round(8 * after / pixels, 4),
        "share_of_original": round(after / before, 4),
        "psnr": float(np.mean(lossy)) if lossy else None,
        **means,
    }


def _writable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def opened_pair(one: Written, folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a picture before and after, (h, w, 3) or (h, w, 4) uint8 each."""
    before, after = open_image(one.item.path), open_image(folder / one.file)
    if before.alpha is None and after.alpha is None:
        return before.rgb, after.rgb
    return before.rgba, after.rgba
