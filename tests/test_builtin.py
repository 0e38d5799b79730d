"""The built-in backends against the slow and obvious reference."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from vwkit import reference
from vwkit.builtin import transforms
from vwkit.formats import write_vectors

SIFT = np.random.default_rng(0).integers(0, 256, (300, 8)).astype(np.uint8)


def rows_of(seed: int, n: int, d: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "uint8":
        return rng.integers(0, 256, (n, d)).astype(np.uint8)
    rows = rng.normal(size=(n, d)).astype(np.float32)
    rows[0] = 0
    return rows * np.float32({"float": 1, "large": 1e30, "tiny": 1e-30}[kind])


some_rows = st.builds(
    rows_of,
    st.integers(0, 999),
    st.integers(1, 30),
    st.integers(1, 6),
    st.sampled_from(["uint8", "float", "large", "tiny"]),
)


def as_stream(rows, size=7):
    spans = range(0, len(rows), size)
    return vwkit.Stream(
        lambda: [rows[i : i + size] for i in spans], dim=rows.shape[1], dtype=rows.dtype
    )


class TestRowTransforms:
    @pytest.mark.parametrize(
        ("name", "true"),
        [("l2-norm", reference.transforms.l2_norm), ("root-sift", reference.transforms.root_sift)],
    )
    @settings(max_examples=40, deadline=None)
    @given(rows=some_rows)
    def test_against_the_reference(self, name, true, rows):
        transform = vwkit.create("transform", name)
        found = transform.transform(rows)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, true(rows), rtol=1e-6, atol=1e-7)
        lazy = transform.transform(as_stream(rows))
        assert (lazy.dim, lazy.dtype) == (rows.shape[1], np.float32)
        assert np.array_equal(lazy.toarray(), found)

    @pytest.mark.parametrize("name", ["l2-norm", "root-sift"])
    def test_they_need_no_fit_and_are_saved(self, name, tmp_path):
        vwkit.create("transform", name).save(tmp_path / "a")
        again = vwkit.load(tmp_path / "a")
        assert np.array_equal(
            again.transform(SIFT), vwkit.create("transform", name).transform(SIFT)
        )

    def test_the_kind_is_written_on(self):
        stream = vwkit.Stream.from_array(SIFT, kind="sift")
        assert vwkit.create("transform", "root-sift").transform(stream).kind == "sift+root-sift"
        vocabulary = vwkit.create("quantizer", "vocabulary", clusterer={"use": "lloyd", "k": 3})
        vocabulary.fit(stream)
        with pytest.raises(vwkit.DataError, match=r"fitted on sift .*refuses sift\+root-sift"):
            vocabulary.encode(vwkit.create("transform", "root-sift").transform(stream))


class TestPCA:
    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 999),
        n=st.integers(1, 40),
        d=st.integers(1, 6),
        whiten=st.booleans(),
        data=st.data(),
    )
    def test_against_the_reference(self, seed, n, d, whiten, data):
        rows = np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) ** 2 + 5
        rows = rows.astype(np.float32)
        dim = data.draw(st.one_of(st.none(), st.integers(1, d)))
        pca = vwkit.create("transform", "pca", dim=dim, whiten=whiten).fit(rows)
        mean, components, explained = reference.transforms.pca_fit(rows, dim)
        np.testing.assert_allclose(pca.mean, mean, rtol=1e-6)
        np.testing.assert_allclose(pca.explained, explained, rtol=1e-5, atol=1e-5 * d**4)
        np.testing.assert_allclose(
            pca.components @ pca.components.T, np.eye(len(components)), atol=1e-5
        )
        if n > d:  # else directions without variance are anybody's
            expected = reference.transforms.pca_transform(rows, mean, components, explained, whiten)
            np.testing.assert_allclose(pca.transform(rows), expected, rtol=1e-3, atol=1e-3)

    def test_a_share_of_the_variance(self):
        rows = np.random.default_rng(1).normal(size=(500, 5)) * [10, 5, 1, 0.1, 0.01]
        for share in (0.5, 0.9, 0.999, 1.0):
            pca = vwkit.create("transform", "pca", variance=share).fit(rows)
            expected = reference.transforms.pca_fit(rows.astype(np.float32), variance=share)[1]
            assert len(pca.components) == len(expected)

    def test_constant_columns_are_not_blown_up(self):
        rows = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32) * [1, 1, 0] + 3
        found = vwkit.create("transform", "pca", whiten=True).fit(rows).transform(rows)
        np.testing.assert_allclose(found[:, :2].std(axis=0, ddof=1), 1, rtol=1e-4)
        assert np.abs(found[:, 2]).max() < 1e-3

    def test_dependent_columns_are_not_blown_up(self):
        rows = np.random.default_rng(1).normal(size=(80, 2)) + 100
        rows = np.concatenate([rows, rows @ [[1.0], [2.0]]], axis=1).astype(np.float32)
        found = vwkit.create("transform", "pca", whiten=True).fit(rows).transform(rows)
        assert np.abs(found).max() < 6

    def test_identical_rows(self):
        rows = np.full((5, 3), 7, np.uint8)
        pca = vwkit.create("transform", "pca", variance=0.9, whiten=True).fit(rows)
        assert np.array_equal(pca.transform(rows), np.zeros((5, 3)))

    def test_the_same_bytes_for_any_chunks_and_threads(self, monkeypatch):
        monkeypatch.setattr(transforms, "_BLOCK", 50)
        rows = np.random.default_rng(2).normal(size=(230, 9)).astype(np.float32)
        found = []
        for threads, data in [(1, rows), (2, rows), (2, as_stream(rows, 33))]:
            with vwkit.use_job(vwkit.Job(threads=threads)):
                pca = vwkit.create("transform", "pca", dim=4).fit(data)
            found.append((pca.mean.tobytes(), pca.components.tobytes(), pca.explained.tobytes()))
        assert len(set(found)) == 1

    def test_a_row_gives_the_same_bytes_in_any_batch(self):
        # Nearly on a line: what is left off it is small beside the terms of its sum, so that the
        # last bits of a product, which change with the batch, reach the float32 result.
        rng = np.random.default_rng(3)
        rows = rng.normal(size=(200, 1)) * 1e6 * rng.normal(size=(1, 257))
        rows = (rows + rng.normal(size=rows.shape) * 1e-2).astype(np.float32)
        pca = vwkit.create("transform", "pca", dim=20).fit(rows)
        whole = pca.transform(rows)
        assert np.array_equal(np.concatenate([pca.transform(row[None]) for row in rows]), whole)
        assert np.array_equal(pca.transform(as_stream(rows, 37)).toarray(), whole)

    def test_saving_and_streams(self, tmp_path):
        pca = vwkit.create("transform", "pca", dim=3).fit(SIFT)
        pca.save(tmp_path / "a")
        again = vwkit.load(tmp_path / "a")
        assert np.array_equal(again.transform(SIFT), pca.transform(SIFT))
        lazy = pca.transform(as_stream(SIFT))
        assert (lazy.dim, lazy.dtype) == (3, np.float32)
        assert np.array_equal(lazy.toarray(), pca.transform(SIFT))

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"dim": 2, "variance": 0.5}, "dim or variance, not both"),
            ({"dim": 0}, "greater than 0"),
            ({"variance": 0.0}, "greater than 0"),
            ({"variance": 1.5}, "less than or equal to 1"),
            ({"dim": 9}, "at most the 8 dimensions of the data; got 9"),
        ],
    )
    def test_wrong_parameters(self, params, message):
        with pytest.raises(vwkit.ParameterError, match=message):
            vwkit.create("transform", "pca", **params).fit(SIFT)


class TestPQ:
    @settings(max_examples=25, deadline=None)
    @given(
        seed=st.integers(0, 99),
        m=st.integers(1, 4),
        width=st.integers(1, 3),
        ks=st.integers(2, 40),
        kind=st.sampled_from(["uint8", "float"]),
    )
    def test_codes_are_the_references(self, seed, m, width, ks, kind):
        rows = rows_of(seed, 60, m * width, kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vwkit.FewDistinctRows)
            pq = vwkit.create("quantizer", "pq", m=m, ks=ks, seed=seed).fit(rows)
        assert pq.codebook.shape == (m, ks, width)
        assert pq.codebook.dtype == np.float32
        codes = pq.encode(rows)
        assert codes.dtype == np.uint8
        assert np.array_equal(codes, reference.pq.encode(rows, pq.codebook))
        decoded = pq.decode(codes)
        assert decoded.dtype == np.float32
        assert np.array_equal(decoded, reference.pq.decode(codes, pq.codebook).astype(np.float32))
        assert np.array_equal(pq.decode(pq.encode(decoded)), decoded)
        lazy = pq.encode(as_stream(rows))
        assert (lazy.dim, lazy.dtype, lazy.kind) == (m, np.uint8, f"codes of {pq.identity}")
        assert np.array_equal(lazy.toarray(), codes)
        assert np.array_equal(pq.decode(lazy).toarray(), decoded)

    def test_it_is_not_worse_than_the_reference(self):
        pq = vwkit.create("quantizer", "pq", m=4, ks=16).fit(SIFT)
        true = reference.pq.train(SIFT, 4, 16, 0, 25)
        assert reference.pq.distortion(SIFT, pq.codebook) <= 1.1 * reference.pq.distortion(
            SIFT, true
        )

    def test_more_than_256_codewords_take_two_bytes(self):
        rows = np.random.default_rng(3).normal(size=(400, 2)).astype(np.float32)
        pq = vwkit.create("quantizer", "pq", m=2, ks=300, iterations=2).fit(rows)
        codes = pq.encode(rows)
        assert codes.dtype == np.uint16
        assert codes.max() > 255
        assert np.array_equal(codes, reference.pq.encode(rows, pq.codebook))

    def test_the_sample_belongs_to_rows(self):
        found = set()
        for data in (SIFT, as_stream(SIFT, 7), as_stream(SIFT, 300)):
            pq = vwkit.create("quantizer", "pq", m=2, ks=8, train_rows=50).fit(data)
            found.add(pq.codebook.tobytes())
        assert len(found) == 1
        other = vwkit.create("quantizer", "pq", m=2, ks=8, train_rows=50, seed=1).fit(SIFT)
        assert other.codebook.tobytes() not in found

    def test_saving(self, tmp_path):
        pq = vwkit.create("quantizer", "pq", m=4, ks=8).fit(SIFT)
        pq.save(tmp_path / "a")
        again = vwkit.load(tmp_path / "a")
        assert np.array_equal(again.encode(SIFT), pq.encode(SIFT))
        assert again.params() == pq.params()

    def test_what_does_not_fit(self):
        with pytest.raises(
            vwkit.ParameterError, match=r"3 does not divide the 8.*allowed: 1, 2, 4, 8"
        ):
            vwkit.create("quantizer", "pq", m=3).fit(SIFT)
        with pytest.raises(vwkit.DataError, match="ks = 301 codewords need at least 301 rows"):
            vwkit.create("quantizer", "pq", m=2, ks=301).fit(SIFT)
        for ks in (1, 65_537):
            with pytest.raises(vwkit.ParameterError, match=r"pq\.ks"):
                vwkit.create("quantizer", "pq", m=2, ks=ks)
        pq = vwkit.create("quantizer", "pq", m=2, ks=8).fit(SIFT)
        with pytest.raises(vwkit.ShapeError, match="has 2 per vector"):
            pq.decode(np.zeros((3, 4), np.uint8))
        with pytest.raises(vwkit.DataError, match="row 1 holds a code outside 0…7"):
            pq.decode(np.array([[0, 7], [8, 0]]))
        with pytest.raises(vwkit.DataError, match="row 0 holds a code"):
            pq.decode(np.array([[-1, 0]]))
        with pytest.raises(vwkit.DataError, match="whole numbers"):
            pq.decode(np.array([[0.0, 1.0]]))


class TestVocabulary:
    def make(self, **params):
        return vwkit.create(
            "quantizer", "vocabulary", clusterer={"use": "lloyd", "k": 12}, **params
        )

    def test_words_are_the_training_labels(self):
        vocabulary = self.make().fit(SIFT)
        words = vocabulary.encode(SIFT)
        assert words.shape == (300, 1)
        assert words.dtype == np.uint8
        assert np.array_equal(words[:, 0], vocabulary.clusterer.labels)
        assert np.array_equal(vocabulary.decode(words), vocabulary.clusterer.centers[words[:, 0]])
        assert vocabulary.codebook.shape == (1, 12, 8)
        assert (vocabulary.k, vocabulary.m) == (12, 1)
        lazy = vocabulary.encode(as_stream(SIFT))
        assert (lazy.dim, lazy.dtype) == (1, np.uint8)
        assert np.array_equal(lazy.toarray(), words)

    def test_a_fitted_clusterer_makes_it_ready_at_once(self):
        lloyd = vwkit.create("clusterer", "lloyd", k=5).fit(SIFT)
        vocabulary = vwkit.create("quantizer", "vocabulary", clusterer=lloyd)
        assert np.array_equal(vocabulary.encode(SIFT)[:, 0], lloyd.labels)

    def test_an_exact_lookup_changes_nothing_and_follows_a_second_fit(self, tmp_path):
        plain = self.make().fit(SIFT)
        looked = self.make(lookup={"use": "exact"}).fit(SIFT)
        assert np.array_equal(looked.encode(SIFT), plain.encode(SIFT))
        other = SIFT[::-1].copy() // 2
        looked.fit(other)
        assert np.array_equal(looked.encode(SIFT), self.make().fit(other).encode(SIFT))
        looked.save(tmp_path / "a")
        assert np.array_equal(vwkit.load(tmp_path / "a").encode(SIFT), looked.encode(SIFT))

    def test_a_lookup_that_finds_nothing_is_completed(self, monkeypatch):
        vocabulary = self.make(lookup={"use": "exact"}).fit(SIFT)
        plain = self.make().fit(SIFT).encode(SIFT)
        real = type(vocabulary.lookup).search

        def forgetful(self, *args, **kwargs):
            found = real(self, *args, **kwargs)
            found.ids[::3] = -1
            return found

        monkeypatch.setattr(type(vocabulary.lookup), "search", forgetful)
        assert np.array_equal(vocabulary.encode(SIFT), plain)

    def test_what_does_not_fit(self):
        with pytest.raises(vwkit.ParameterError, match=r"vocabulary\.lookup: .*metric l2.*cosine"):
            self.make(lookup={"use": "exact", "metric": "cosine"})
        with pytest.raises(vwkit.NotFittedError):
            _ = self.make().codebook
        with pytest.raises(vwkit.ShapeError, match=r"8 dimensions"):
            self.make().fit(SIFT).encode(SIFT[:, :4])

    def test_training_labels_do_not_travel_with_a_stream(self, monkeypatch):
        lloyd = vwkit.create("clusterer", "lloyd", k=10, iterations=2).fit(SIFT)
        words = vwkit.create("quantizer", "vocabulary", clusterer=lloyd)
        carried = []
        predict = type(lloyd)._predict

        def watched(self, rows):
            carried.append(len(self.labels))
            return predict(self, rows)

        monkeypatch.setattr(type(lloyd), "_predict", watched)
        stream = vwkit.Stream.from_array(SIFT)
        assert np.array_equal(np.concatenate(list(words.encode(stream))), words.encode(SIFT))
        assert np.array_equal(np.concatenate(list(lloyd.predict(stream)))[:, 0], lloyd.labels)
        assert carried == [0, len(SIFT), 0]


class TestBagOfWords:
    IMAGES = tuple(np.random.default_rng(5).integers(0, 256, (6, 5, 4, 3), np.uint8))

    def make(self, **params):
        return vwkit.create(
            "featurizer",
            "bag-of-words",
            **{"local": {"use": "pixels"}, "vocabulary": {"use": "lloyd", "k": 9}, **params},
        )

    @pytest.mark.parametrize("weighting", ["tf", "tf-idf", "binary"])
    def test_against_the_reference(self, weighting, tmp_path):
        bags = self.make(weighting=weighting).fit(self.IMAGES[:4])
        words = [bags.words.encode(image.reshape(-1, 3))[:, 0] for image in self.IMAGES]
        idf = reference.bag_of_words.idf(words[:4], 9)
        expected = reference.bag_of_words.bag_of_words(words, 9, weighting, idf)
        found = list(bags.extract(self.IMAGES))
        assert [bag.shape for bag in found] == [(1, 9)] * 6
        dense = np.concatenate([bag.toarray() for bag in found])
        np.testing.assert_allclose(dense, expected, rtol=1e-6, atol=1e-7)
        assert all((bag.data != 0).all() for bag in found)
        bags.save(tmp_path / "a")
        again = np.concatenate(
            [b.toarray() for b in vwkit.load(tmp_path / "a").extract(self.IMAGES)]
        )
        assert np.array_equal(again, dense)

    def test_a_fitted_vocabulary_stays(self, tmp_path):
        lloyd = vwkit.create("clusterer", "lloyd", k=4).fit(self.IMAGES[0].reshape(-1, 3))
        lloyd.save(tmp_path / "words")
        centers = lloyd.centers.copy()
        for given_vocabulary in (lloyd, tmp_path / "words", str(tmp_path / "words")):
            bags = self.make(vocabulary=given_vocabulary).fit(self.IMAGES[1:])
            assert bags.dim == 4
            assert np.array_equal(bags.words.codebook[0], centers)

    def test_a_second_fit_replaces_the_first(self):
        twice = self.make().fit(self.IMAGES[:2]).fit(self.IMAGES[2:])
        once = self.make().fit(self.IMAGES[2:])
        assert np.array_equal(twice.words.codebook, once.words.codebook)

    def test_images_without_descriptors(self):
        @vwkit.backend("sparse-points")
        class Points(vwkit.Featurizer):
            """One descriptor per bright pixel."""

            local = True
            dim = 2

            def _extract(self, images):
                found = [np.argwhere(image.gray > 100).astype(np.float32) for image in images]
                return [vwkit.Features(vectors) for vectors in found]

        bright = np.full((3, 3), 200, np.uint8)
        dark = np.zeros((3, 3), np.uint8)
        bags = self.make(local=Points(), vocabulary={"use": "lloyd", "k": 3}, weighting="tf")
        found = list(bags.fit([bright, dark, bright]).extract([dark, bright]))
        assert found[0].nnz == 0
        assert found[0].shape == (1, 3)
        assert np.linalg.norm(found[1].toarray()) == pytest.approx(1)
        with pytest.raises(vwkit.DataError, match="no descriptor in any of 2 images"):
            self.make(local=Points()).fit([dark, dark])

    def test_what_does_not_fit(self):
        with pytest.raises(vwkit.ParameterError, match=r"bag-of-words\.local: fvecs reads files"):
            self.make(local={"use": "fvecs"})
        with pytest.raises(vwkit.ParameterError, match=r"bag-of-words\.local: a local featurizer"):
            self.make(local=self.make())
        with pytest.raises(vwkit.ParameterError, match="vocabulary: one word per descriptor"):
            self.make(vocabulary={"use": "pq", "m": 3, "ks": 4}).fit(self.IMAGES)
        for images in ([], iter(self.IMAGES)):
            with pytest.raises(vwkit.DataError, match="images: "):
                self.make().fit(images)
        with pytest.raises(vwkit.NotFittedError):
            list(self.make().extract(self.IMAGES))


class TestInverted:
    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 9999), n=st.integers(2, 25), d=st.integers(1, 8), k=st.integers(1, 30)
    )
    def test_against_the_reference(self, seed, n, d, k):
        rng = np.random.default_rng(seed)
        rows = (rng.random((n, d)) * rng.integers(0, 2, (n, d))).astype(np.float32)
        queries = (rng.random((4, d)) * rng.integers(0, 2, (4, d))).astype(np.float32)
        ids = rng.permutation(100)[:n]
        index = vwkit.create("index", "inverted").build(
            vwkit.Sparse.from_dense(rows[: n // 2 + 1]), ids[: n // 2 + 1]
        )
        if n // 2 + 1 < n:
            index.add(vwkit.Sparse.from_dense(rows[n // 2 + 1 :]), ids[n // 2 + 1 :])
        kept = np.ones(n, bool)
        kept[rng.integers(0, n)] = False
        index.remove(ids[~kept])
        allowed = ids[kept][: max(1, n // 2)] if seed % 2 else None
        expected = reference.bag_of_words.search(queries, rows[kept], k, ids[kept], allowed)
        true = reference.distances.distances(queries, rows, "cosine")
        for asked in (queries, vwkit.Sparse.from_dense(queries)):
            found = index.search(asked, k, allowed=allowed)
            np.testing.assert_allclose(found.distances, expected[1], atol=1e-6)
            assert ((found.ids < 0) == (expected[0] < 0)).all()
            for i, line in enumerate(found.ids.tolist()):  # ties may stand in any order
                held = [one for one in line if one >= 0]
                assert len(set(held)) == len(held)
                own = [np.flatnonzero(ids == one)[0] for one in held]
                np.testing.assert_allclose(true[i, own], found.distances[i, : len(held)], atol=1e-6)

    def test_a_stored_zero_is_no_word(self):
        rows = vwkit.Sparse([0, 2, 3, 4], [0, 1, 0, 1], [0.0, 1.0, 2.0, 0.0], (3, 2))
        index = vwkit.create("index", "inverted").build(rows)
        assert index.search(np.array([[1.0, 0.0]]), 3).ids.tolist() == [[1, -1, -1]]
        query = vwkit.Sparse([0, 2], [0, 1], [0.0, 1.0], (1, 2))
        assert index.search(query, 3).ids.tolist() == [[0, -1, -1]]
        found = index.search(np.zeros((1, 2)), 2)
        assert found.ids.tolist() == [[-1, -1]]

    @pytest.mark.parametrize("factor", [1e-40, 1e-20, 1e20, 1e37])
    def test_lengths_do_not_count(self, factor):
        rows = np.array([[1, 2, 0], [0, 3, 1], [5, 0, 0]]) * factor
        index = vwkit.create("index", "inverted").build(rows)
        found = index.search(rows, 3)
        assert found.ids[:, 0].tolist() == [0, 1, 2]
        np.testing.assert_allclose(found.distances[:, 0], 0, atol=1e-4)

    def test_saving(self, tmp_path):
        rows = np.eye(4, dtype=np.float32)
        index = vwkit.create("index", "inverted").build(rows, [5, 6, 7, 8]).remove([6])
        index.save(tmp_path / "a")
        again = vwkit.load(tmp_path / "a")
        assert again.search(rows, 1).ids.tolist() == [[5], [-1], [7], [8]]
        again.add(rows[1:2], [6])
        assert again.search(rows, 1).ids.tolist() == [[5], [6], [7], [8]]


class TestPixels:
    def test_against_the_reference(self):
        rgb = np.random.default_rng(6).integers(0, 256, (7, 5, 3), np.uint8)
        rgb[0, :2] = [[0, 0, 0], [255, 255, 255]]
        for space in ("oklab", "lab"):
            pixels = vwkit.create("featurizer", "pixels", space=space)
            (found,) = pixels.extract([rgb])
            assert found.dtype == pixels.dtype == np.float32
            expected = reference.pixels.pixels(rgb, space).reshape(-1, 3)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        plain = vwkit.create("featurizer", "pixels")
        (found,) = plain.extract([rgb])
        assert found.dtype == np.uint8
        assert np.array_equal(found, rgb.reshape(-1, 3))
        assert (plain.dim, plain.local, plain.kind) == (3, True, "pixels-rgb")

    def test_gray_and_alpha_become_rgb(self):
        gray = np.array([[0, 9]], np.uint8)
        clear = np.zeros((1, 2, 4), np.uint8)
        found = list(vwkit.create("featurizer", "pixels").extract([gray, clear]))
        assert found[0].tolist() == [[0, 0, 0], [9, 9, 9]]
        assert found[1].tolist() == [[255, 255, 255]] * 2


class TestReaders:
    @pytest.mark.parametrize(
        ("name", "dtype"),
        [
            ("fvecs", "float32"),
            ("ivecs", "int32"),
            ("bvecs", "uint8"),
            ("npy", "uint8"),
            ("fbin", "float32"),
            ("u8bin", "uint8"),
            ("i8bin", "int8"),
            ("ibin", "int32"),
        ],
    )
    def test_rows_come_back_and_are_learned_from(self, name, dtype, tmp_path):
        rows = (SIFT // 2).astype(dtype)
        path = tmp_path / f"rows.{name}"
        write_vectors(path, [rows[:100], rows[100:]], dim=8, dtype=rows.dtype, rows=300)
        for stream in (
            vwkit.create("featurizer", name).read(path),
            vwkit.read(path),
            vwkit.read(str(path)),
        ):
            assert (stream.rows, stream.dim, stream.dtype) == (300, 8, dtype)
            assert np.array_equal(stream.toarray(), rows)
            assert np.array_equal(stream.take([0, 7, 299]), rows[[0, 7, 299]])
        plain = vwkit.create("clusterer", "lloyd", k=5).fit(rows)
        read = vwkit.create("clusterer", "lloyd", k=5).fit(vwkit.read(path))
        assert np.array_equal(read.centers, plain.centers)
        assert np.array_equal(read.labels, plain.labels)
        pq = vwkit.create("quantizer", "pq", m=2, ks=8, train_rows=40)
        assert pq.fit(vwkit.read(path)).codebook.tobytes() == pq.fit(rows).codebook.tobytes()

    def test_a_sample_reads_only_its_rows(self, tmp_path, monkeypatch):
        path = tmp_path / "rows.bvecs"
        write_vectors(path, [SIFT], dim=8, dtype=SIFT.dtype, rows=300)
        stream = vwkit.read(path)
        taken = []
        monkeypatch.setattr(
            type(stream), "__iter__", lambda self: pytest.fail("the whole file was read")
        )
        real = type(stream).take
        monkeypatch.setattr(
            type(stream), "take", lambda self, rows: (taken.append(len(rows)), real(self, rows))[1]
        )
        picked = vwkit.create("quantizer", "pq", m=2, ks=8, train_rows=20)
        prepared = picked._prepare(stream, streams=True)
        assert prepared.take(np.array([3, 5])).tolist() == SIFT[[3, 5]].tolist()
        assert taken == [2, 2]

    def test_damage_names_file_and_reader(self, tmp_path):
        path = tmp_path / "rows.fvecs"
        write_vectors(path, [SIFT.astype(np.float32)], dim=8, dtype=np.dtype(np.float32), rows=300)
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(vwkit.FormatError, match=r"rows\.fvecs"):
            vwkit.create("featurizer", "fvecs").read(path)
        whole = vwkit.create("featurizer", "fvecs", partial=True).read(path)
        assert np.array_equal(whole.toarray(), SIFT[:299])
        with pytest.raises(vwkit.VwkitError, match="nowhere"):
            vwkit.read(tmp_path / "nowhere.fvecs")

    def test_writing(self, tmp_path):
        assert vwkit.write(tmp_path / "a.bvecs", SIFT) == 300
        assert vwkit.write(tmp_path / "b.fvecs", as_stream(SIFT.astype(np.float32))) == 300
        assert np.array_equal(vwkit.read(tmp_path / "b.fvecs").toarray(), SIFT)
        with pytest.raises(vwkit.UnsupportedError, match="dense"):
            vwkit.write(tmp_path / "c.fvecs", vwkit.Sparse.from_dense(SIFT))
        with pytest.raises(vwkit.ShapeError):
            vwkit.write(tmp_path / "c.fvecs", SIFT[0])
        assert not (tmp_path / "c.fvecs").exists()


@vwkit.backend("picky")
class Picky(vwkit.Featurizer):
    """The mean colour, and no dark pictures."""

    batch_size = 4
    dim = 3

    def _extract(self, images):
        for image in images:
            if image.rgb.max() < 10:
                raise vwkit.ImageError(f"{image.source}: too dark")
        return [vwkit.Features(image.rgb.mean((0, 1))[None].astype(np.float32)) for image in images]


def test_an_image_that_the_backend_refuses_is_skipped_alone():
    images = [np.full((2, 2, 3), value, np.uint8) for value in (50, 0, 60, 70, 80)]
    found = list(Picky().features(images, on_error="skip"))
    assert [type(one).__name__ for one in found] == ["Features", "Skipped", *["Features"] * 3]
    assert "too dark" in found[1].reason
    with pytest.raises(vwkit.ImageError, match="too dark"):
        list(Picky().extract(images))
    assert Picky().vectors(images[2:])[:, 0].tolist() == [60, 70, 80]
