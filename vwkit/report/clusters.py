"""Clusters of images to look at: how many of which size, and who is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vwkit.errors import UnsupportedError
from vwkit.report.markup import Html, join, tag
from vwkit.report.page import section, table
from vwkit.report.pictures import PATCH, Pictures
from vwkit.types import Item

if TYPE_CHECKING:
    from vwkit.run import Cluster

__all__ = [
    "cluster_section",
    "cluster_sizes",
    "has_clusters",
    "images",
    "size_table",
    "summary",
]

CLUSTERS = 12
_PICTURES = 8
_SIZES = 40


def has_clusters(run: Any) -> bool:
    """Tell whether a run grouped whole images, not descriptors."""
    try:
        return run.item_labels is not None
    except UnsupportedError:
        return False


def images(count: int) -> str:
    """Write a number of images."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def cluster_sizes(clusters: Iterable[Cluster]) -> list[tuple[int, int]]:
    """Return (images in a cluster, clusters of that size), the largest first."""
    return sorted(Counter(len(one.items) for one in clusters).items(), reverse=True)


def summary(clusters: Sequence[Cluster], unclustered: Sequence[Item]) -> str:
    """Say in a sentence what was found."""
    held = sum(len(one.items) for one in clusters)
    number = f"{len(clusters):,} cluster{'' if len(clusters) == 1 else 's'}"
    alone = f", {images(len(unclustered))} in none" if unclustered else ""
    return f"{images(held)} in {number}{alone}."


def size_table(sizes: Sequence[tuple[int, int]], links: dict[int, str] | None = None) -> Html:
    """Return the summary ``images : clusters``.

    Parameters
    ----------
    sizes : (images in a cluster, clusters of that size)
    links : dict of size to str, optional
        The element of the page that shows the first cluster of a size.
    """
    shown = sizes[:_SIZES]
    most = max((clusters for _, clusters in shown), default=1)
    rows = []
    for size, clusters in shown:
        bar = tag("i", style=f"width:{100 * clusters / most:.1f}%")
        anchor = (links or {}).get(size)
        name: object = f"{size:,}"
        if anchor is not None:
            name = tag("a", name, href=f"#{anchor}", aria_label=f"to the clusters of {size:,}")
        rows.append((name, f"{clusters:,}", tag("span", bar, class_="meter", aria_hidden="true")))
    left = sizes[_SIZES:]
    more = None
    if left:
        count = sum(clusters for _, clusters in left)
        more = tag("p", f"… and {count:,} clusters of fewer images.", class_="note")
    head = ("Images in a cluster", "Clusters", "")
    shown_table = table("Images : clusters", head, rows, numbers=(0, 1))
    return join([tag("div", shown_table, style="max-width:34rem"), more])


def cluster_section(run: Any, pictures: Pictures) -> Html:
    """Return how many clusters of which size there are, and a few pictures of the largest."""
    clusters, unclustered = run.clusters, run.unclustered
    lines = [_line(one, pictures) for one in clusters[:CLUSTERS]]
    more = len(clusters) - len(lines)
    rest = tag("p", f"… and {more:,} more clusters.", class_="note") if more > 0 else None
    sizes = size_table(cluster_sizes(clusters)) if clusters else None
    said = summary(clusters, unclustered)
    return section("Clusters of images", sizes, *lines, rest, note=said)


def _line(cluster: Cluster, pictures: Pictures) -> Html:
    name = f"Cluster {cluster.number}"
    stamps = [(pictures.stamp(item), item.id) for item in cluster.items[:_PICTURES]]
    shown = [
        tag("img", src=uri, alt=f"{name}: {of}", title=of, width=PATCH, height=PATCH)
        for uri, of in stamps
        if uri is not None
    ]
    return tag(
        "div",
        tag("div", tag("h3", name), tag("p", images(len(cluster.items)))),
        tag("div", *shown, class_="patches"),
        class_="word",
    )
