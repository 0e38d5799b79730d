"""One picture of many: a run's images, searches with what they found, or clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from vwkit.around import Output
from vwkit.base import Field, backend
from vwkit.errors import DataError, ParameterError, Problem
from vwkit.image import MAX_PIXELS
from vwkit.jobs import job
from vwkit.outputs.files import new_file
from vwkit.report.pictures import fitted, open_picture, spread
from vwkit.types import Item, Positive

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["Montage"]

_GAP = 4
_FRAME = 4
_PAPER = (255, 255, 255)
_QUERY = (204, 51, 17)
_WELL, _INK = (238, 239, 236), (29, 35, 39)


@backend("montage")
class Montage(Output):
    """A PNG of the run's images in a grid, in order, each fitted into a square.

    With ``mode: search`` each row is an image of the run, framed in red, and its nearest others,
    nearest first. With ``mode: clusters`` each row is a cluster, the largest first; a number in the
    last square says how many of its images are not shown. Images whose file is gone leave an empty
    square.
    """

    columns: Positive = Field(default=8, doc="Pictures in a row.")
    thumbnail: Positive = Field(default=160, doc="Side of each square in pixels.")
    items: Positive = Field(
        default=100,
        doc="At most this many pictures; where there are more, a spread over the whole run.",
    )
    mode: Literal["items", "search", "clusters"] = Field(
        default="items",
        doc="items: the run's images; search: images with their nearest others; clusters: a row for "
        "each cluster.",
    )

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Images, and an index to search or clusters."""
        return {"items": ("images",), "search": ("images", "index")}.get(
            self.mode, ("clustering of images",)
        )

    def __post_init__(self) -> None:
        if self.path.suffix.lower() != ".png":
            _refuse("path", f"a montage is a PNG; name it …{self.path.stem}.png")
        if self.mode == "search" and self.columns < 2:
            _refuse("columns", "a search needs 2 columns or more: the query and what was found")
        if self.mode == "clusters" and self.columns < 2:
            _refuse("columns", "clusters need 2 columns or more, to see what is alike")
        width, height = self._canvas(self.items)
        if width * height > MAX_PIXELS:
            _refuse(
                "thumbnail",
                f"{self.items} items make {width} by {height} pixels, more than {MAX_PIXELS:,}; "
                "take a smaller thumbnail or fewer items",
            )

    def _canvas(self, count: int) -> tuple[int, int]:
        """Return width and height of the whole picture in pixels."""
        columns = min(self.columns, count) if self.mode == "items" else self.columns
        rows = max(1, -(-count // self.columns))
        step = self.thumbnail + _GAP
        return columns * step + _GAP, rows * step + _GAP

    def _write(self, run: Any, path: Any) -> None:
        import PIL.Image

        rows: list[list[Item]] = _ROWS[self.mode](self, run)
        count = sum(len(row) for row in rows) if self.mode == "items" else len(rows) * self.columns
        canvas = PIL.Image.new("RGB", self._canvas(count), _PAPER)
        step, shown = self.thumbnail + _GAP, 0
        for done, row in enumerate(rows, 1):
            more = len(row) - self.columns  # than fit, in clusters only
            for column, item in enumerate(row[: self.columns]):
                place = (_GAP + column * step, _GAP + (done - 1) * step)
                if more > 0 and column == self.columns - 1:
                    canvas.paste(self._number(f"+{more + 1:,}"), place)
                    continue
                framed = self.mode == "search" and column == 0
                found = self._square(item, framed)
                if found is not None:
                    canvas.paste(found, place)
                    shown += 1
            job().progress(done, len(rows), "rows")
        if not rows:  # an empty picture would look like a mistake
            canvas.paste(self._number("none"), (_GAP, _GAP))
        elif shown == 0:
            raise DataError(
                f"{self.name}: none of the images can be read any more; nothing to show"
            )
        with new_file(path) as part:
            canvas.save(part, "PNG", optimize=True)

    def _images(self, run: Any) -> list[list[Item]]:
        items = [run.kept[i] for i in spread(len(run.kept), self.items)]
        return [items[i : i + self.columns] for i in range(0, len(items), self.columns)]

    def _searches(self, run: Any) -> list[list[Item]]:
        most = max(1, self.items // self.columns)
        queries = [run.kept[i] for i in spread(len(run.kept), most)]
        return [[query, *self._nearest(run, query)] for query in queries]

    def _clusters(self, run: Any) -> list[list[Item]]:
        most = max(1, self.items // self.columns)
        return [cluster.items for cluster in run.clusters[:most]]

    def _nearest(self, run: Any, query: Item) -> Iterator[Item]:
        found = run.search(query.id, self.columns).items[0]
        others = (item for item in found if item is not None and item.row != query.row)
        return (item for item, _ in zip(others, range(self.columns - 1), strict=False))

    def _number(self, text: str) -> Picture:
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFont

        square = PIL.Image.new("RGB", (self.thumbnail, self.thumbnail), _WELL)
        pen = PIL.ImageDraw.Draw(square)
        try:
            font = PIL.ImageFont.load_default(max(8, self.thumbnail // 5))
        except ImportError:  # a Pillow without FreeType
            font = PIL.ImageFont.load_default()
        left, top, right, bottom = pen.textbbox((0, 0), text, font)
        middle = ((self.thumbnail - left - right) / 2, (self.thumbnail - top - bottom) / 2)
        pen.text(middle, text, _INK, font)
        return square

    def _square(self, item: Item, framed: bool) -> Picture | None:
        import PIL.ImageOps

        picture = open_picture(item.path)
        if picture is None:
            return None
        border = _FRAME if framed else 0
        small = fitted(picture, max(1, self.thumbnail - 2 * border))
        small = PIL.ImageOps.expand(small, border, _QUERY)
        square = PIL.Image.new("RGB", (self.thumbnail, self.thumbnail), _PAPER)
        left, top = ((self.thumbnail - side) // 2 for side in small.size)
        square.paste(small, (left, top))
        return square


_ROWS: dict[str, Callable[[Montage, Any], list[list[Item]]]] = {
    "items": Montage._images,
    "search": Montage._searches,
    "clusters": Montage._clusters,
}


def _refuse(name: str, message: str) -> None:
    problem = Problem((name,), message)
    raise ParameterError(f"montage.{problem}", [problem])
