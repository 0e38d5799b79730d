"""What the picture and the page of a dendrogram have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vwkit.outputs.tree import Shown, Tree, full_height, lowest_cut
from vwkit.report.clusters import images
from vwkit.types import Item

__all__ = ["COLOURS", "STEPS", "Drawing", "draw"]

#: Of clusters, in turn: Okabe and Ito's, darkened or lightened so that they show on any paper.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c2569b", "#b87a00", "#3a9bd9", "#8c6bb1", "#7d7d12")
_NAMES = 3
#: Places of the slider.
STEPS = 200
#: From this similarity of the top on the axis begins there, with so much of it left before.
_NEAR, _BEFORE = 0.5, 0.1


@dataclass(frozen=True)
class Drawing:
    """A tree with what is drawn of it.

    Attributes
    ----------
    tree, top : the whole tree, and the part of it that is drawn
    items : the items that its rows are
    labels : (n,) int32
        The cluster of each row in the run; −1 is in none.
    full : float
        The height that is similarity 0; above 0.
    similarity, cut : float
        Where the run cut the tree, also as a height.
    min_size : int
        Smaller groups are no cluster.
    side : int
        Of the leaves' pictures in pixels; 0 for none.
    """

    tree: Tree
    top: Shown
    items: Sequence[Item]
    labels: NDArray[Any]
    full: float
    similarity: float
    cut: float
    min_size: int
    side: int

    @property
    def low(self) -> float:
        """The similarity at which the axis begins.

        0, or below the top of the tree: farther below 0 where it is higher than that, or nearer to 1
        where all merges are there, so that they can be told apart.
        """
        top = 1 - self.tree.top / self.full
        near = top - _BEFORE * (1 - top)
        return min(near if top > _NEAR else min(0.0, top), self.similarity)

    @property
    def digits(self) -> int:
        """Decimals that tell places of the axis apart."""
        return max(3, math.ceil(-math.log10((1 - self.low) / STEPS or 1e-12)))

    def ticks(self) -> list[tuple[float, str]]:
        """Return similarities to mark on the axis, and how they are written."""
        if self.low == 0:
            return [(value, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
        values = [self.low + share * (1 - self.low) for share in (0, 0.5, 1)]
        return [(value, f"{value:.{self.digits}g}") for value in values]

    def across(self, height: float) -> float:
        """Return where a height is between the left edge (0) and the leaves (1)."""
        return (1 - max(height, 0.0) / self.full - self.low) / (1 - self.low)

    @property
    def leaves(self) -> int:
        """How many leaves are drawn."""
        return len(self.top.nodes)

    def count(self, leaf: int) -> int:
        """Return how many items a leaf stands for."""
        return int(self.tree.counts[self.top.nodes[leaf]])

    def members(self, leaf: int, most: int) -> list[Item]:
        """Return the first items that a leaf stands for."""
        return [self.items[row] for row in self.tree.below(self.top.nodes[leaf], most)]

    def firsts(self) -> Iterator[Item]:
        """Yield the first item of each leaf."""
        return (self.members(leaf, 1)[0] for leaf in range(self.leaves))

    def name(self, leaf: int) -> str:
        """Return what stands at a leaf."""
        found = [item.id for item in self.members(leaf, _NAMES)]
        count = self.count(leaf)
        if count == 1:
            return found[0]
        return f"{images(count)}: {', '.join(found)}{', …' if count > len(found) else ''}"

    def groups(self) -> list[int | None]:
        """Return the run's cluster that each leaf and merge lies in; None if in none or in several."""
        found: list[int | None] = []
        for node in self.top.nodes:
            said = self.labels[self.tree.below(node)]
            alike = said[0] >= 0 and bool((said == said[0]).all())
            found.append(int(said[0]) if alike else None)
        for left, right in self.top.merges:
            found.append(found[left] if found[left] == found[right] else None)
        return found


def draw(
    clusterer: Any, tree: Tree, top: Shown, items: Sequence[Item], labels: Any, side: int
) -> Drawing:
    """Put together what is drawn of a run's tree.

    A hierarchical clusterer may say its `diameter` (the height of similarity 0, unless its `scale` is
    the root), its `similarity` or `cut_height`, and its `min_size`; what it does not say is taken from
    the tree and the labels.
    """
    full = full_height(clusterer, tree.top)
    similarity = getattr(clusterer, "similarity", None)
    cut = getattr(clusterer, "cut_height", None)
    if cut is None:
        cut = lowest_cut(tree, labels) if similarity is None else (1 - similarity) * full
    if similarity is None:
        similarity = min(1.0, max(0.0, 1 - cut / full))
    return Drawing(
        tree, top, items, labels, full, float(similarity), float(cut),
        int(getattr(clusterer, "min_size", 1)), side,
    )  # fmt: skip
