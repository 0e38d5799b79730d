"""Clusters of photos as a page to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vwkit.around import Output
from vwkit.base import Field, backend
from vwkit.errors import ParameterError, Problem
from vwkit.jobs import job
from vwkit.outputs.files import new_file
from vwkit.report.clusters import cluster_sizes, images, size_table, summary
from vwkit.report.markup import Html, join, tag
from vwkit.report.page import page, section
from vwkit.report.searches import picture
from vwkit.report.sections import lead, title
from vwkit.report.thumbnails import thumbnails
from vwkit.types import Item, Positive

if TYPE_CHECKING:
    from vwkit.run import Cluster

__all__ = ["Gallery"]

#: Of a page's bytes: pictures may take the most of them, names of what is not shown the rest.
_FOR_PICTURES = 0.8
#: Markup around a picture and around a name, about.
_FRAME, _MARK = 300, 12

_STYLE = """
.cluster{content-visibility:auto;contain-intrinsic-size:auto 320px;scroll-margin-top:8px}
.names{columns:280px;column-gap:32px;margin:8px 0 0;padding:0;list-style:none;font-size:.86rem;
color:var(--soft)}
.names li{overflow-wrap:anywhere;unicode-bidi:isolate;break-inside:avoid;margin:0 0 2px}
a{color:var(--blue)}
td a{display:inline-block;min-width:3em}
.back{font-size:.86rem;margin:8px 0 0}
"""


@backend("gallery")
class Gallery(Output):
    """One HTML page with the photos by cluster, the largest cluster first.

    The page is one file with small pictures in it. However many photos there are, its size is
    bounded: a large cluster shows its first photos and lists the names of others, and the page tells
    how many it leaves out. Where there are more photos than `items`, each cluster shows fewer.
    """

    needs = ("clustering of images",)

    thumbnail: Positive = Field(default=180, doc="Longer side of each picture in pixels.")
    per_cluster: Positive = Field(default=24, doc="At most this many pictures of one cluster.")
    clusters: Positive = Field(default=500, doc="At most this many clusters, the largest ones.")
    items: Positive = Field(default=1000, doc="At most this many pictures in all.")
    unclustered: bool = Field(
        default=True, doc="Whether to show photos that are in no cluster, too, at the end."
    )
    megabytes: Positive = Field(default=20, doc="At most this large a file, about.")

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in (".html", ".htm"):
            problem = Problem(("path",), f"a gallery is a page; name it …{self.path.stem}.html")
            raise ParameterError(f"gallery.{problem}", [problem])

    def _write(self, run: Any, path: Path) -> None:
        every: list[Cluster] = run.clusters
        shown = every[: self.clusters]
        groups: list[Sequence[Item]] = [one.items for one in shown]
        if self.unclustered and run.unclustered:
            groups.append(run.unclustered)
        counts = shares([len(items) for items in groups], self.per_cluster, self.items)
        pictures = self._pictures(groups, counts)
        names = _Names(int(self.megabytes * 1e6 * (1 - _FOR_PICTURES)))
        parts = [_cluster(one, made, names) for one, made in zip(shown, pictures, strict=False)]
        left = every[len(shown) :]
        if left:
            text = f"… and {len(left):,} more clusters, of {images(len(left[0].items))} at most."
            parts.append(tag("p", text, class_="note"))
        if len(groups) > len(shown):
            parts.append(_alone(groups[-1], pictures[-1], names))
        links: dict[int, str] = {}
        for one in shown:
            links.setdefault(len(one.items), _anchor(one))
        sizes = size_table(cluster_sizes(every), links) if every else None
        said = f"{summary(every, run.unclustered)} {self._shown(run, pictures)}"
        top = section("Images : clusters", sizes, note=said)
        text = page(f"Clusters of {title(run)}", lead(run), [top, *parts], style=_STYLE)
        with new_file(path) as part:
            part.write_text(text, encoding="utf-8")

    def _pictures(
        self, groups: Sequence[Sequence[Item]], counts: Sequence[int]
    ) -> list[list[str | None]]:
        """Return the pictures of each group, as many as fit into the page."""
        room = int(self.megabytes * 1e6 * _FOR_PICTURES)
        wanted = [
            (i, item)
            for i, (items, count) in enumerate(zip(groups, counts, strict=True))
            for item in items[:count]
        ]
        found: list[list[str | None]] = [[] for _ in groups]
        made = thumbnails((item for _, item in wanted), self.thumbnail)
        for done, ((i, item), uri) in enumerate(zip(wanted, made, strict=False), 1):
            room -= len(uri or "") + 3 * len(item.id) + _FRAME
            if room < 0:
                break
            found[i].append(uri)
            job().progress(done, len(wanted), "pictures")
        return found

    def _shown(self, run: Any, pictures: Sequence[Sequence[str | None]]) -> str:
        count = sum(map(len, pictures))
        size = sum(len(uri or "") for group in pictures for uri in group)
        gone = sum(uri is None for group in pictures for uri in group)
        said = f"This page shows {count:,} of {images(len(run.kept))} ({_bytes(size)} of pictures)"
        if gone:
            said += f"; of {gone:,} the file is no longer there or cannot be read"
        return f"{said}."


def shares(sizes: Sequence[int], most: int, total: int) -> list[int]:
    """Return how many of each group to show: all alike, within `most` of a group and `total`.

    Examples
    --------
    >>> shares([50, 3, 2], most=24, total=1000)
    [24, 3, 2]
    >>> shares([50, 3, 2], most=24, total=9)
    [4, 3, 2]
    >>> shares([2, 2, 2], most=24, total=2)
    [1, 1, 0]
    """
    low, high = 0, most
    while low < high:  # the largest number that each may show
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if sum(min(middle, n) for n in sizes) <= total else (low, middle - 1)
        )
    found = [min(low, n) for n in sizes]
    left = total - sum(found)
    for i, n in enumerate(sizes):
        if left and low < most and n > low:
            found[i], left = found[i] + 1, left - 1
    return found


class _Names:
    """Lists of names, as long as there is room for them."""

    def __init__(self, room: int) -> None:
        self._room = room

    def listed(self, items: Sequence[Item]) -> Html | None:
        """Return ``… and 240 more``, to open, with their names."""
        if not items:
            return None
        said = f"… and {len(items):,} more"
        named: list[Html] = []
        for item in items:
            line = tag("li", item.id)
            self._room -= len(line.encode()) + _MARK
            if self._room < 0:
                break
            named.append(line)
        if not named:
            return tag("p", f"{said}.", class_="note")
        left = len(items) - len(named)
        rest = tag("p", f"… and {left:,} more, not listed.", class_="note") if left else None
        return tag("details", tag("summary", said), tag("ul", *named, class_="names"), rest)


def _anchor(cluster: Cluster) -> str:
    return f"cluster-{cluster.number}"


def _cluster(cluster: Cluster, pictures: Sequence[str | None], names: _Names) -> Html:
    heading = tag("h2", f"Cluster {cluster.number} · {images(len(cluster.items))}")
    shown = _list(cluster.items, pictures, names)
    return tag("section", heading, shown, class_="cluster", id=_anchor(cluster))


def _alone(items: Sequence[Item], pictures: Sequence[str | None], names: _Names) -> Html:
    heading = tag("h2", f"In no cluster · {images(len(items))}")
    return tag("section", heading, _list(items, pictures, names), class_="cluster", id="alone")


def _list(items: Sequence[Item], pictures: Sequence[str | None], names: _Names) -> Html:
    listed = [
        picture(None, uri, item.id, _says(item)) for item, uri in zip(items, pictures, strict=False)
    ]
    shown = tag("ul", *listed, class_="pictures") if listed else None
    return join([shown, names.listed(items[len(listed) :])])


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _says(item: Item) -> str | None:
    return "{} × {}".format(*item.size) if item.size else None
