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
    from vwkit.evaluate.groups import Groups
    from vwkit.outputs.arrays import CodesOutput, LabelsOutput, TableOutput, VectorsOutput
    from vwkit.outputs.montage import Montage
    from vwkit.outputs.saved import IndexOutput, VocabularyOutput
    from vwkit.outputs.words import WordsOutput

    return [
        *(BagOfWords, Pixels, *READERS),
        *(L2Norm, PCA, RootSift),
        *(PQ, Vocabulary),
        Lloyd,
        *(Exact, Inverted),
        Groups,
        *(CodesOutput, IndexOutput, LabelsOutput, Montage, TableOutput, VectorsOutput),
        *(VocabularyOutput, WordsOutput),
    ]
