"""Runs, matches and clusters as notebooks show them: small pieces of HTML, complete in themselves.

A notebook shows what ``_repr_html_`` returns. It may be shown on any page, so everything is escaped,
styled in place, and there is no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vwkit.report.clusters import cluster_sizes, has_clusters, images, summary
from vwkit.report.markup import Html, join, tag
from vwkit.report.searches import distance_text
from vwkit.report.sections import lead
from vwkit.report.thumbnails import thumbnails
from vwkit.types import Item, Matches

if TYPE_CHECKING:
    from vwkit.run import Cluster

__all__ = ["cluster_html", "clusters_html", "matches_html", "run_html"]

#: What is shown at most: a notebook keeps all of it in its file.
_QUERIES, _RESULTS = 8, 8
_CLUSTERS, _MEMBERS = 8, 8
_ITEMS = 8
_SIDE = 88
_SIZES = 6

_BOX = "font:13px/1.4 system-ui,sans-serif;margin:4px 0;max-width:900px"
_ROW = "display:flex;flex-wrap:wrap;gap:6px;margin:2px 0 8px"
_CELL = f"width:{_SIDE + 8}px;overflow:hidden"
_FRAME = (
    f"width:{_SIDE + 8}px;height:{_SIDE + 8}px;display:flex;align-items:center;justify-content:center;"
    "background:rgba(128,128,128,.12);border-radius:5px"
)
_PICTURE = f"max-width:{_SIDE}px;max-height:{_SIDE}px;margin:0"
_NAME = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap;unicode-bidi:isolate;opacity:.75"
_SOFT = "opacity:.75"


def run_html(run: Any) -> Html:
    """Return a run in short: what was done, what came out, and a few of its images."""
    counts = run.manifest["counts"]
    said = [images(counts["ok"]) if run.has("featurizer") else None]
    said += [f"{counts[key]:,} {key}" for key in ("descriptors", "words") if key in counts]
    if counts.get("skipped"):
        said.append(f"{counts['skipped']:,} skipped")
    score = (run.scores or {}).get("mAP")
    if isinstance(score, (int, float)):
        said.append(f"mAP {score:.3f}")
    parts: list[object] = [
        tag("div", tag("b", "Run "), tag("code", run.folder)),
        tag("div", Html(lead(run).replace("→", " → "))),
        tag("div", join((one for one in said if one is not None), between=" · "), style=_SOFT),
    ]
    if has_clusters(run):
        parts.append(clusters_html(run.clusters, run.unclustered, most=3))
    elif run.has("featurizer"):
        parts.append(_row((item, None) for item in run.kept[:_ITEMS]))
    return _box(*parts)


def matches_html(matches: Matches) -> Html:
    """Return what was found for each query: pictures where there are items, else ids."""
    lines: list[object] = []
    for i in range(min(len(matches), _QUERIES)):
        far = [distance_text(float(value)) for value in matches.distances[i]]
        lines.append(tag("div", f"query {i}", style=_SOFT))
        if matches.items is not None:
            pairs = list(zip(matches.items[i], far, strict=True))
            found = [(item, text) for item, text in pairs if item is not None]
            lines.append(_row(found[:_RESULTS]))
            more = len(found) - _RESULTS
        else:
            pairs_of_ids = list(zip(matches.ids[i].tolist(), far, strict=True))
            known = [f"{row} ({text})" for row, text in pairs_of_ids if row >= 0]
            lines.append(tag("div", ", ".join(known[:_RESULTS]) or "nothing was found"))
            more = len(known) - _RESULTS
        lines.append(_more(more, "found"))
    lines.append(_more(len(matches) - _QUERIES, "queries"))
    queries = "1 query" if len(matches) == 1 else f"{len(matches):,} queries"
    return _box(tag("b", f"Matches of {queries}"), *lines)


def clusters_html(
    clusters: Sequence[Cluster], unclustered: Sequence[Item] = (), *, most: int = _CLUSTERS
) -> Html:
    """Return clusters: how many of which size, and the first images of the first ones."""
    sizes = cluster_sizes(clusters)
    listed = [f"{size:,} : {count:,}" for size, count in sizes[:_SIZES]]
    listed += ["…"] if len(sizes) > _SIZES else []
    parts: list[object] = [
        tag("b", summary(clusters, unclustered)),
        tag("div", f"images : clusters   {', '.join(listed)}", style=_SOFT) if listed else None,
    ]
    parts += [cluster_html(one) for one in clusters[:most]]
    parts.append(_more(len(clusters) - most, "clusters"))
    return _box(*parts)


def cluster_html(cluster: Cluster) -> Html:
    """Return one cluster: its first images."""
    return _box(
        tag("div", f"Cluster {cluster.number} · {images(len(cluster.items))}"),
        _row((item, None) for item in cluster.items[:_MEMBERS]),
        _more(len(cluster.items) - _MEMBERS, "images"),
    )


def _box(*parts: object) -> Html:
    return tag("div", *parts, style=_BOX)


def _more(count: int, what: str) -> Html | None:
    return tag("div", f"… and {count:,} more {what}", style=_SOFT) if count > 0 else None


def _row(found: Iterable[tuple[Item, str | None]]) -> Html:
    pairs = list(found)
    uris = thumbnails((item for item, _ in pairs), _SIDE)
    return tag(
        "div", *(_cell(*pair, uri) for pair, uri in zip(pairs, uris, strict=True)), style=_ROW
    )


def _cell(item: Item, says: str | None, uri: str | None) -> Html:
    inner = (
        tag("span", "no picture", style=_SOFT)
        if uri is None
        else tag("img", src=uri, alt=item.id, style=_PICTURE)
    )
    return tag(
        "div",
        tag("div", inner, style=_FRAME),
        tag("div", item.id, style=_NAME, title=item.id),
        tag("div", says) if says is not None else None,
        style=_CELL,
    )
