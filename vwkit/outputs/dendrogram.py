"""The tree of a hierarchical clustering, as a picture or as a page in which it can be cut anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import annotated_types

from vwkit.around import Output
from vwkit.base import Field, backend
from vwkit.errors import DataError, ParameterError, Problem
from vwkit.image import MAX_PIXELS
from vwkit.outputs.dendrogram_page import dendrogram_page
from vwkit.outputs.dendrogram_picture import canvas_size, dendrogram_picture
from vwkit.outputs.drawing import draw
from vwkit.outputs.files import new_file
from vwkit.outputs.tree import read_tree, shown
from vwkit.types import Positive

__all__ = ["Dendrogram"]

_PAGES = (".html", ".htm")
#: Above so many leaves, pictures are at most so large.
_SMALLER = ((40, 32), (150, 20))


@backend("dendrogram")
class Dendrogram(Output):
    """The tree of merges: a ``.png``, or an ``.html`` page with a slider that cuts it anew.

    Where the run has more images than `leaves`, the last merges are drawn, and a leaf stands for
    several images. The numbers of clusters of the page are those of the whole tree nevertheless.
    """

    needs = ("clustering of images", "hierarchical clusterer")

    leaves: Annotated[int, annotated_types.Ge(2), annotated_types.Le(5000)] = Field(
        default=150, doc="At most this many leaves, 2 to 5000."
    )
    thumbnail: Positive = Field(
        default=48, doc="Side of each leaf's picture in pixels, where there are few leaves."
    )
    pictures: int = Field(
        default=300, doc="Above so many leaves, they have no pictures; 0 for none at all."
    )

    def __post_init__(self) -> None:
        suffix = self.path.suffix.lower()
        if suffix != ".png" and suffix not in _PAGES:
            _refuse("path", "a dendrogram is a picture or a page; name it ….png or ….html")
        width, height = canvas_size(self.leaves, self._side(self.leaves))
        if suffix == ".png" and width * height > MAX_PIXELS:
            _refuse(
                "thumbnail",
                f"{self.leaves} leaves make {width} by {height} pixels, more than {MAX_PIXELS:,}; "
                "take a smaller thumbnail or fewer leaves",
            )

    def _side(self, leaves: int) -> int:
        """Return the side of the leaves' pictures: smaller for many leaves, 0 for too many."""
        if leaves > self.pictures:
            return 0
        return min([self.thumbnail, *(most for more, most in _SMALLER if leaves > more)])

    def _write(self, run: Any, path: Path) -> None:
        clusterer = run.clusterer
        labels = run.item_labels
        if getattr(clusterer, "tree", None) is None:
            raise DataError(f"{self.name}: {clusterer.name} kept no tree")
        tree = read_tree(clusterer.tree, len(labels))
        top = shown(tree, self.leaves)
        side = self._side(len(top.nodes))
        drawing = draw(clusterer, tree, top, run.kept, labels, side)
        with new_file(path) as part:
            if path.suffix.lower() == ".png":
                dendrogram_picture(drawing).save(part, "PNG", optimize=True)
            else:
                part.write_text(dendrogram_page(run, drawing), encoding="utf-8")


def _refuse(name: str, message: str) -> None:
    problem = Problem((name,), message)
    raise ParameterError(f"dendrogram.{problem}", [problem])
