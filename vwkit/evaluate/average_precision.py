"""Average precision as the Oxford buildings protocol computes it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["average_precision"]


def average_precision(
    ranked: Iterable[str], positives: Collection[str], junk: Collection[str] = ()
) -> float:
    """Return the area under the precision-recall curve, by trapezoids.

    As ``compute_ap`` of Philbin et al. 2007: junk is passed over as if it were not there,
    positives that are not ranked add nothing. Not the rectangles of other definitions.

    Parameters
    ----------
    ranked : ids, best first
    positives : ids that should be found
    junk : ids that count neither way

    Returns
    -------
    float
        0…1; NaN without positives.
    """
    wanted = set(positives)
    ignored = set(junk)
    if not wanted:
        return float("nan")
    area, old_recall, old_precision = 0.0, 0.0, 1.0
    hits = seen = 0
    for one in ranked:
        if one in ignored:
            continue
        hits += one in wanted
        seen += 1
        recall, precision = hits / len(wanted), hits / seen
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area
