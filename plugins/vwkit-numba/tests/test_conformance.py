from __future__ import annotations

from typing import Any, ClassVar

from vwkit_numba import FastOPQ, FastPQ, GraphKMeans, GraphPQKMeans, VocabularyTree

from vwkit.testing import ClustererTests, QuantizerTests


class TestGraphKMeans(ClustererTests):
    backend = GraphKMeans


class TestFewNeighbours(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"neighbours": 8}


class TestWithoutRelocation(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"relocate": 0.0}


class TestSpherical(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"spherical": True}


class TestGraphPQKMeans(ClustererTests):
    backend = GraphPQKMeans


class TestFewNeighboursOfCodes(ClustererTests):
    backend = GraphPQKMeans
    params: ClassVar[dict[str, Any]] = {"neighbours": 8, "relocate": 0.0}


class TestFoldedAndExact(ClustererTests):
    backend = GraphKMeans
    params: ClassVar[dict[str, Any]] = {"fold": True, "finish": "exact"}


class TestFoldedCodes(ClustererTests):
    backend = GraphPQKMeans
    params: ClassVar[dict[str, Any]] = {"fold": True, "finish": "exact"}


class TestTree(ClustererTests):
    backend = VocabularyTree


class TestFlatTree(ClustererTests):
    backend = VocabularyTree
    params: ClassVar[dict[str, Any]] = {"branch": 16, "depth": 1}


class TestBinaryTree(ClustererTests):
    backend = VocabularyTree
    params: ClassVar[dict[str, Any]] = {"branch": 2, "depth": 3, "iterations": 4}


class TestBeam(ClustererTests):
    backend = VocabularyTree
    params: ClassVar[dict[str, Any]] = {"branch": 3, "depth": 3, "beam": 3}


class TestFastPQ(QuantizerTests):
    backend = FastPQ
    params: ClassVar[dict[str, Any]] = {"m": 2, "ks": 16}


class TestFastPQOfOneSlice(QuantizerTests):
    backend = FastPQ
    params: ClassVar[dict[str, Any]] = {"m": 1, "ks": 5}


class TestFastPQOfOneNumber(QuantizerTests):
    backend = FastPQ
    params: ClassVar[dict[str, Any]] = {"m": 6, "ks": 2, "iterations": 3}


class TestFastPQOfFewTrainingRows(QuantizerTests):
    backend = FastPQ
    params: ClassVar[dict[str, Any]] = {"m": 3, "ks": 8, "train_rows": 100}


class TestFastOPQ(QuantizerTests):
    backend = FastOPQ
    params: ClassVar[dict[str, Any]] = {"m": 2, "ks": 16, "rotations": 4}


class TestFastOPQOfOneNumber(QuantizerTests):
    backend = FastOPQ
    params: ClassVar[dict[str, Any]] = {"m": 6, "ks": 2, "rotations": 2, "iterations": 3}
