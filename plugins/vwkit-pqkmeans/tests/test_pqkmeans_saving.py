"""Saved PQk-means comes back whole, and nothing false is loaded."""

from __future__ import annotations

from unittest import mock

import _pqkmeans
import numpy as np
import pytest
from pqkmeans_fits import fit, float_book, some_codes, state
from vwkit_pqkmeans import PQKMeans

import vwkit
from vwkit.errors import ArtifactError


class TestSaving:
    def test_the_notebooks_two_questions(self, tmp_path):
        """How to save it without pickle, and how to get it back from its centers."""
        book, codes = float_book(1, 4, 16), some_codes(1, 500, 4, 16)
        engine = _pqkmeans.PQKMeans(book.astype(float), 6, 5, False)
        engine.fit(codes.reshape(-1))
        with pytest.raises(TypeError, match="cannot pickle"):
            engine.__reduce_ex__(2)
        clusterer = PQKMeans.from_centers(engine.cluster_centers_, book.astype(float))
        clusterer.save(tmp_path / "words")
        loaded = vwkit.load(tmp_path / "words")
        assert loaded.predict(codes).tolist() == engine.labels_
        assert loaded.centers.tolist() == engine.cluster_centers_
        assert (loaded.k, loaded.objective, loaded.labels.shape) == (6, [], (0,))
        vectors = loaded.quantizer.decode(codes)
        words = vwkit.create("quantizer", "vocabulary", clusterer=loaded).encode(vectors)
        assert words[:, 0].tolist() == engine.labels_
        # A quantizer that is there is taken as it is, and kept.
        other = PQKMeans.from_centers(engine.cluster_centers_, loaded.quantizer)
        assert other.quantizer is loaded.quantizer
        assert state(other.fit(codes, quantizer=loaded.quantizer)) == state(fit(codes, book, 6))

    def test_a_fit_is_saved_whole(self, tmp_path):
        book, codes = float_book(1, 4, 16), some_codes(1, 500, 4, 16)
        found = fit(codes, book, 6, init=codes[:6])
        found.save(tmp_path / "a")
        loaded = vwkit.load(tmp_path / "a")
        assert state(loaded) == state(found)
        assert loaded.predict(codes).tolist() == found.labels.tolist()
        assert loaded.quantizer.identity == found.quantizer.identity
        assert np.array_equal(loaded.init, codes[:6])

    @pytest.mark.parametrize(
        ("name", "array", "said"),
        [
            ("centers", np.full((6, 4), 16, np.uint8), "row 0 holds a code outside 0…15"),
            ("centers", np.full((6, 4), -1, np.int64), "outside"),
            ("centers", np.zeros((6, 3), np.uint8), r"\(n, 4\)"),
            ("centers", np.zeros((5, 4), np.uint8), "k = 6"),
            ("centers", np.zeros((6, 4)), "whole numbers"),
            ("centers", np.zeros((0, 4), np.uint8), "k = 6"),
            ("labels", np.zeros((5, 2), np.int32), "labels"),
            ("labels", np.zeros(5), "labels"),
            ("objective", np.zeros((2, 2)), "labels"),
        ],
    )
    def test_a_false_artifact_is_refused(self, tmp_path, name, array, said):
        found = fit(some_codes(1, 50, 4, 16), float_book(1, 4, 16), 6)
        held = {**found._state(), name: array}
        with mock.patch.object(PQKMeans, "_state", return_value=held):
            found.save(tmp_path / "a")
        with pytest.raises(ArtifactError, match=said):
            vwkit.load(tmp_path / "a")

    @pytest.mark.parametrize(
        ("book", "said"),
        [
            (np.zeros((4, 300, 2), np.float32), r"float32 of shape \(4, 300, 2\)"),
            (np.zeros((4, 16), np.float32), r"float32 of shape \(4, 16\)"),
            (np.zeros((4, 16, 2)), r"float64 of shape \(4, 16, 2\)"),
            (np.zeros((4, 0, 2), np.float32), r"float32 of shape \(4, 0, 2\)"),
            (np.zeros((3, 16, 2), np.float32), r"float32 of shape \(3, 16, 2\)"),
            (np.zeros((4, 2, 2), np.float32), r"float32 of shape \(4, 2, 2\)"),
            (np.full((4, 16, 2), np.nan, np.float32), None),
        ],
    )
    def test_a_false_quantizer_beside_it_is_refused(self, tmp_path, book, said):
        found = fit(some_codes(1, 50, 4, 16), float_book(1, 4, 16), 6)
        found.quantizer.codebook = book
        found.save(tmp_path / "a")
        needed = r"where float32 of shape \(m, ks, d/m\) = \(4, 16, 2\) are needed"
        what = f"codebook are {said}, {needed}" if said else "codebook hold NaN"
        file = rf"{tmp_path}/a/quantizer-\w+/codebook-\w+\.npy"
        with pytest.raises(ArtifactError, match=f"^{file}: its {what}"):
            vwkit.load(tmp_path / "a")

    def test_a_missing_quantizer_is_told(self, tmp_path):
        found = fit(some_codes(1, 50, 4, 16), float_book(1, 4, 16), 6)
        with mock.patch.object(PQKMeans, "_children", return_value={}):
            found.save(tmp_path / "a")
        with pytest.raises(ArtifactError, match="quantizer"):
            vwkit.load(tmp_path / "a")


def test_a_spec_makes_a_vocabulary_of_code_centers(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.integers(0, 256, (900, 16)).astype(np.uint8)
    vwkit.write(tmp_path / "some.bvecs", vectors)
    spec = {
        "vwkit": 1,
        "seed": 7,
        "vectors": {"path": str(tmp_path / "some.bvecs")},
        "quantizer": {"use": "pq", "m": 4, "ks": 64},
        "clusterer": {"use": "pqkmeans", "k": 50, "iterations": 4},
        "output": [
            {"write": "vocabulary", "path": str(tmp_path / "vocabulary")},
            {"write": "words", "path": str(tmp_path / "words")},
        ],
    }
    run = vwkit.Pipeline.from_dict(spec).run(tmp_path / "run")
    words = vwkit.load(tmp_path / "vocabulary").encode(vectors)
    assert words[:, 0].tolist() == run.clusterer.labels.tolist()
    assert np.load(tmp_path / "words/words.npy").tolist() == run.clusterer.labels.tolist()
    # The same from Python, with the spec's seeds.
    pq = vwkit.create("quantizer", "pq", m=4, ks=64, seed=vwkit.derive_seed(7, "quantizer"))
    codes = pq.fit(vectors).encode(vectors)
    again = PQKMeans(k=50, iterations=4, seed=vwkit.derive_seed(7, "clusterer"))
    assert state(again.fit(codes, quantizer=pq)) == state(run.clusterer)
