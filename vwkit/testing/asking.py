"""What a fitted backend is asked, by role.

The same in a test and in a process of its own, where neither pytest nor hypothesis is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vwkit.sparse import Sparse
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = ["Answer", "ask", "dense", "row_by_row", "state"]

Answer = tuple[Any, ...]

_NEIGHBOURS = 7


def ask(fitted: Any, questions: Any) -> Answer:
    """Return what shows of a fitted backend, and what it says to questions.

    Parameters
    ----------
    fitted : Backend
        Of one of the five roles of the data path.
    questions : (q, d) array or Stream, or a list of images for a featurizer
    """
    return (*state(fitted), *row_by_row(fitted, questions))


def state(fitted: Any) -> Answer:
    """Return the public arrays of a fit: labels, centers and objective, or the codebook."""
    if fitted.role == "clusterer":
        fitted._need_fitted()
        found = [np.asarray(fitted.labels)]
        if fitted.has_centers:
            found += [np.asarray(fitted.centers), np.asarray(fitted.objective, np.float64)]
        return tuple(found)
    if fitted.role == "quantizer":
        fitted._need_fitted()
        return (np.asarray(fitted.codebook),)
    return ()


def row_by_row(fitted: Any, questions: Any) -> Answer:
    """Return the answers, arrays with one entry per question each."""
    if fitted.role == "index":
        found = fitted.search(questions, _NEIGHBOURS)
        return found.ids, found.distances
    if fitted.role == "clusterer":
        if not fitted.supports_predict:
            return ()
        labels = fitted.predict(questions)
        return (_whole(labels)[:, 0] if isinstance(labels, Stream) else labels,)
    if fitted.role == "quantizer":
        codes = _whole(fitted.encode(questions))
        return codes, fitted.decode(codes)
    if fitted.role == "transform":
        return (_whole(fitted.transform(questions)),)
    return tuple(dense(found) for found in fitted.extract(questions))


def dense(vectors: Any) -> Array:
    """Return vectors as an array."""
    return vectors.toarray() if isinstance(vectors, Sparse) else np.asarray(vectors)


def _whole(found: Any) -> Any:
    return found.toarray() if isinstance(found, Stream) else found
