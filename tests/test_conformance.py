"""Every built-in backend passes the suite that others must pass."""

from __future__ import annotations

import numpy as np

import vwkit
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
from vwkit.builtin.transforms import PCA, L2Norm, RootSift
from vwkit.builtin.vlad import Vlad
from vwkit.builtin.vocabulary import Vocabulary
from vwkit.reference import transforms as reference
from vwkit.testing import (
    ClustererTests,
    FeaturizerTests,
    IndexTests,
    QuantizerTests,
    TransformTests,
)

_READERS = {cls.name: cls for cls in READERS}


class TestExact(IndexTests):
    backend = Exact
    many_rows = 70_000


class TestInverted(IndexTests):
    backend = Inverted


class TestSharded(IndexTests):
    backend = Sharded
    params = {"shards": 3}


class TestShardedOfSparse(IndexTests):
    """Shards of so few rows that adding begins new ones."""

    backend = Sharded
    params = {"index": {"use": "inverted"}, "rows_per_shard": 17}
    many_rows = 1_000


class TestLloyd(ClustererTests):
    backend = Lloyd


class TestLloydFromRandomRows(ClustererTests):
    backend = Lloyd
    params = {"init": "random", "iterations": 40, "tolerance": 0.0}


class TestLloydWithIndex(ClustererTests):
    """Approximate k-means, here with an index that makes no mistakes."""

    backend = Lloyd
    params = {"assign": {"use": "exact"}}


class TestBreathingKMeans(ClustererTests):
    backend = BreathingKMeans


class TestPQ(QuantizerTests):
    backend = PQ
    params = {"m": 2, "ks": 16}


class TestPQOfManyCodewords(QuantizerTests):
    """Codes that need two bytes."""

    backend = PQ
    params = {"m": 1, "ks": 300, "iterations": 5}


class TestVocabulary(QuantizerTests):
    backend = Vocabulary
    params = {"clusterer": {"use": "lloyd", "k": 12}}


class TestVocabularyWithLookup(QuantizerTests):
    backend = Vocabulary
    params = {"clusterer": {"use": "lloyd", "k": 12}, "lookup": {"use": "exact"}}


class TestL2Norm(TransformTests):
    backend = L2Norm
    reference = staticmethod(lambda fitted_on, rows: reference.l2_norm(rows))


class TestRootSift(TransformTests):
    backend = RootSift
    reference = staticmethod(lambda fitted_on, rows: reference.root_sift(rows))


class TestPCA(TransformTests):
    backend = PCA


class TestPCAWhitened(TransformTests):
    backend = PCA
    params = {"variance": 0.9, "whiten": True}


class TestPixels(FeaturizerTests):
    backend = Pixels


class TestPixelsInOklab(FeaturizerTests):
    backend = Pixels
    params = {"space": "oklab"}


class TestColourHistogram(FeaturizerTests):
    backend = ColourHistogram


class TestColourHistogramOfShares(FeaturizerTests):
    backend = ColourHistogram
    params = {"space": "hsv", "bins": 5, "root": False}


class TestBagOfWords(FeaturizerTests):
    backend = BagOfWords
    params = {"local": {"use": "pixels"}, "vocabulary": {"use": "lloyd", "k": 6}}
    image_size = (12, 16)


class TestVlad(FeaturizerTests):
    backend = Vlad
    params = {"local": {"use": "pixels"}, "vocabulary": {"use": "lloyd", "k": 6}}
    image_size = (12, 16)


class TestVladOfFloats(FeaturizerTests):
    """Every step switched the other way, over descriptors that are no whole numbers."""

    backend = Vlad
    params = {
        "local": {"use": "pixels", "space": "oklab"},
        "vocabulary": {"use": "lloyd", "k": 3},
        "ssr": True,
        "intra": False,
        "l2": False,
    }
    image_size = (12, 16)


class TestFvecs(FeaturizerTests):
    backend = _READERS["fvecs"]


class TestIvecs(FeaturizerTests):
    backend = _READERS["ivecs"]


class TestBvecs(FeaturizerTests):
    backend = _READERS["bvecs"]


class TestNpy(FeaturizerTests):
    backend = _READERS["npy"]


class TestOxfordSift(FeaturizerTests):
    backend = _READERS["oxford-sift"]


class TestFbin(FeaturizerTests):
    backend = _READERS["fbin"]


class TestU8bin(FeaturizerTests):
    backend = _READERS["u8bin"]


class TestI8bin(FeaturizerTests):
    backend = _READERS["i8bin"]


class TestIbin(FeaturizerTests):
    backend = _READERS["ibin"]


def test_every_built_in_backend_is_tested():
    suites = (ClustererTests, FeaturizerTests, IndexTests, QuantizerTests, TransformTests)
    tested = {
        cls.backend
        for suite in suites
        for cls in suite.__subclasses__()
        if "backend" in cls.__dict__
    }
    built_in = {
        cls
        for role in ("clusterer", "featurizer", "index", "quantizer", "transform")
        for cls in vwkit.backends()[role].values()
        if cls.__module__.startswith("vwkit.builtin")
    }
    assert built_in, "no built-in backend was found"
    assert not {cls.name for cls in built_in - tested}


def test_pca_equals_the_reference():
    rows = np.random.default_rng(0).normal(0, 9, (80, 5)) * [5, 4, 3, 2, 1]
    fitted = PCA(dim=3).fit(rows)
    expected = reference.pca_transform(rows, *reference.pca_fit(rows, dim=3))
    assert np.abs(fitted.transform(rows) - expected).max() < 1e-3
