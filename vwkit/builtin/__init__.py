"""The backends that come with vwkit. They enter through the same hook as everybody's."""

from __future__ import annotations

from typing import Any

from vwkit.hookspecs import hookimpl


@hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Return the built-in backends."""
    from vwkit.builtin.bag_of_words import BagOfWords
    from vwkit.builtin.exact import Exact
    from vwkit.builtin.inverted import Inverted
    from vwkit.builtin.lloyd import Lloyd
    from vwkit.builtin.pixels import Pixels
    from vwkit.builtin.pq import PQ
    from vwkit.builtin.readers import READERS
    from vwkit.builtin.transforms import PCA, L2Norm, RootSift
    from vwkit.builtin.vocabulary import Vocabulary

    return [BagOfWords, Exact, Inverted, L2Norm, Lloyd, PCA, PQ, Pixels, RootSift, Vocabulary, *READERS]
