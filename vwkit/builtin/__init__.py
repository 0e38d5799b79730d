"""The backends that come with vwkit. They enter through the same hook as everybody's."""

from __future__ import annotations

from typing import Any

from vwkit.hookspecs import hookimpl


@hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Return the built-in backends."""
    from vwkit.builtin.affine import Affine
    from vwkit.builtin.bag_of_words import BagOfWords
    from vwkit.builtin.breathing import BreathingKMeans
    from vwkit.builtin.colour_histogram import ColourHistogram
    from vwkit.builtin.exact import Exact
    from vwkit.builtin.inverted import Inverted
    from vwkit.builtin.lloyd import Lloyd
    from vwkit.builtin.pixels import Pixels
    from vwkit.builtin.pq import PQ
    from vwkit.builtin.readers import READERS
    from vwkit.builtin.sharded import Sharded
    from vwkit.builtin.threads import Threads
    from vwkit.builtin.transforms import PCA, L2Norm, RootSift
    from vwkit.builtin.vlad import Vlad
    from vwkit.builtin.vocabulary import Vocabulary
    from vwkit.evaluate.groups import Groups
    from vwkit.outputs.arrays import CodesOutput, LabelsOutput, VectorsOutput
    from vwkit.outputs.dendrogram import Dendrogram
    from vwkit.outputs.duplicates import Duplicates
    from vwkit.outputs.folders import Folders
    from vwkit.outputs.gallery import Gallery
    from vwkit.outputs.montage import Montage
    from vwkit.outputs.palette import PaletteOutput
    from vwkit.outputs.saved import IndexOutput, VocabularyOutput
    from vwkit.outputs.table import TableOutput
    from vwkit.outputs.words import WordsOutput

    return [
        *(BagOfWords, ColourHistogram, Pixels, Vlad, *READERS),
        *(L2Norm, PCA, RootSift),
        *(PQ, Vocabulary),
        *(BreathingKMeans, Lloyd),
        *(Exact, Inverted, Sharded),
        Affine,
        Groups,
        Threads,
        *(Dendrogram, Duplicates, Folders, Gallery),
        *(CodesOutput, IndexOutput, LabelsOutput, Montage, PaletteOutput, TableOutput),
        VectorsOutput,
        *(VocabularyOutput, WordsOutput),
    ]
