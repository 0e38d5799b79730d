"""The end of a fit of data that hardly hold k distinct rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import vwkit
from vwkit.clusterer import warn_few_distinct
from vwkit.jobs import use_job
from vwkit_numba.passes import inner

if TYPE_CHECKING:
    from vwkit_numba.fitting import Fit

__all__ = ["counted"]


def counted(fit: Fit) -> None:
    """Leave the rest to exact k-means, which counts distinct rows."""
    fit.distinct = False
    passes = fit.passes
    if passes.frame.unit or passes.frame.book is not None:
        _surplus(fit)
    else:
        lloyd: Any = vwkit.create(
            "clusterer", "lloyd", k=fit.k, init=fit.centers, iterations=5, seed=fit.params.seed
        )
        with use_job(fit.job.within("exact")):  # it has checkpoints of its own
            lloyd._fit(passes.stream, passes.weights)
        fit.centers, fit.labels = lloyd.centers, lloyd.labels
        fit.objective[-1] = lloyd.objective[-1]
    fit.ready = inner(fit.centers, passes.frame)


def _surplus(fit: Fit) -> None:
    """Put words that stay empty last, as copies of the last used one."""
    mass = fit.totals.totals[:, 0]
    full = np.flatnonzero(mass > 0)
    order = np.concatenate([full, np.flatnonzero(mass == 0)])
    place = np.empty(fit.k, np.int32)
    place[order] = np.arange(fit.k, dtype=np.int32)
    fit.centers = fit.centers[order]
    fit.centers[len(full) :] = fit.centers[len(full) - 1]
    fit.labels = np.minimum(place[fit.labels], len(full) - 1).astype(np.int32)
    warn_few_distinct(len(full), fit.k)
