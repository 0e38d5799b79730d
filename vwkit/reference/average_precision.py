"""Average precision by the protocol of the Oxford Buildings benchmark."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

__all__ = ["average_precision", "mean_average_precision"]


def average_precision(
    ranked: Iterable[Hashable], positives: Iterable[Hashable], junk: Iterable[Hashable] = ()
) -> float:
    """Return the area under the precision-recall curve by trapezoids, as ``compute_ap.cpp`` does.

    Philbin, Chum, Isard, Sivic, Zisserman 2007, "Object retrieval with large vocabularies and fast
    spatial matching". Junk is passed over as if it were not in the list, also where it is among the
    positives; positives that are not ranked add nothing. The curve starts at recall 0 and precision
    1. (The original computes in float32, this in float64; the rectangles of ``trec_eval`` give
    another number.)

    Parameters
    ----------
    ranked : names
        The answer, best first, each name once.
    positives : names
        What should be found: good and ok in Oxford and Paris.
    junk : names
        What is neither right nor wrong.

    Returns
    -------
    float
        From 0 to 1; NaN without positives.

    Examples
    --------
    >>> average_precision(["a", "x", "b"], {"a", "b"})
    0.7916666666666666
    """
    right, ignored = set(positives), set(junk)
    if not right:
        return float("nan")
    area, hits, rank = 0.0, 0, 0
    old_recall, old_precision = 0.0, 1.0
    for name in ranked:
        if name in ignored:
            continue
        if name in right:
            hits += 1
        recall = hits / len(right)
        precision = hits / (rank + 1)
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
        rank += 1
    return area


def mean_average_precision(
    ranked: Sequence[Iterable[Hashable]],
    positives: Sequence[Iterable[Hashable]],
    junk: Sequence[Iterable[Hashable]] | None = None,
) -> float:
    """Return the mean average precision of the queries that have positives; NaN without any.

    Parameters
    ----------
    ranked, positives, junk : one entry per query
        As for `average_precision`.

    Returns
    -------
    float
    """
    ignored = [()] * len(ranked) if junk is None else junk
    scores = [average_precision(*query) for query in zip(ranked, positives, ignored, strict=True)]
    scores = [score for score in scores if not np.isnan(score)]
    return float(np.mean(scores)) if scores else float("nan")
