"""The reference is the oracle of all other tests, so it is checked by hand and by identities."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vwkit.errors import DataError, ParameterError, ShapeError
from vwkit.reference import (
    average_precision,
    bag_of_words,
    distances,
    lloyd,
    pixels,
    pq,
    pqkmeans,
    search,
    transforms,
)

# The number of examples is the profile's.
quick = settings(deadline=None)
# Whole numbers make ties and repeated rows; the floats make everything else.
numbers = st.one_of(
    st.integers(-3, 3).map(float), st.floats(-1000, 1000, width=32, allow_subnormal=False)
)
weight = st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0])


@st.composite
def matrices(draw, rows=(1, 12), dim=(1, 5)):
    shape = (draw(st.integers(*rows)), draw(st.integers(*dim)))
    return draw(hnp.arrays(np.float64, shape, elements=numbers))


@st.composite
def clusterings(draw):
    """Vectors, initial centers among or beside them, and weights."""
    vectors = draw(matrices())
    k = draw(st.integers(1, 6))
    centers = draw(hnp.arrays(np.float64, (k, vectors.shape[1]), elements=numbers))
    weights = draw(st.none() | hnp.arrays(np.float64, len(vectors), elements=weight))
    assume(weights is None or weights.sum() > 0)
    return vectors, centers, weights


@st.composite
def codings(draw):
    """Codes, their codebook, initial center codes and weights."""
    m, ks, width = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 2))
    codebook = draw(hnp.arrays(np.float64, (m, ks, width), elements=numbers))
    n, k = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    codes = draw(hnp.arrays(np.uint8, (n, m), elements=st.integers(0, ks - 1)))
    centers = draw(hnp.arrays(np.uint8, (k, m), elements=st.integers(0, ks - 1)))
    weights = draw(st.none() | hnp.arrays(np.float64, n, elements=weight))
    assume(weights is None or weights.sum() > 0)
    return codes, codebook, centers, weights


def by_hand(query, vector, metric):
    """One distance in plain Python."""
    dot = math.fsum(a * b for a, b in zip(query, vector, strict=True))
    if metric == "l2":
        return math.dist(query, vector) ** 2
    if metric == "ip":
        return 1 - dot
    lengths = math.hypot(*query) * math.hypot(*vector)
    return 1 - dot / lengths if lengths else 1.0


def never_increases(objectives):
    return all(b <= a * (1 + 1e-9) + 1e-9 for a, b in itertools.pairwise(objectives))


def test_package_imports_nothing_heavy():
    script = (
        "import sys, numpy, vwkit; before = set(sys.modules); import vwkit.reference\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) - {"numpy"} == {"vwkit"}


class TestDistances:
    def test_known_values(self):
        queries = [[3.0, 4.0], [0.0, 0.0]]
        vectors = [[0.0, 0.0], [6.0, 8.0], [-4.0, 3.0]]
        assert distances.distances(queries, vectors, "l2").tolist() == [[25, 25, 50], [0, 100, 25]]
        assert distances.distances(queries, vectors, "ip").tolist() == [[1, -49, 1], [1, 1, 1]]
        assert distances.distances(queries, vectors, "cosine").tolist() == [[1, 0, 1], [1, 1, 1]]

    def test_opposite_vectors_are_at_cosine_distance_two(self):
        assert distances.distances([[1.0, 2.0]], [[-2.0, -4.0]], "cosine")[0, 0] == pytest.approx(2)

    def test_hamming_counts_bits(self):
        queries = np.array([[0, 255], [1, 0]], np.uint8)
        vectors = np.array([[0, 0], [3, 0], [0, 255]], np.uint8)
        expected = [[8, 10, 0], [1, 1, 9]]
        assert distances.distances(queries, vectors, "hamming").tolist() == expected

    def test_uint8_does_not_wrap_around(self):
        rows = np.array([[0, 255]], np.uint8)
        assert distances.distances(rows, rows[:, ::-1], "l2")[0, 0] == 2 * 255**2
        assert distances.distances(rows, rows, "ip")[0, 0] == 1 - 255**2

    @given(matrices(), st.sampled_from(["l2", "cosine", "ip"]), st.data())
    @quick
    def test_equal_plain_python(self, vectors, metric, data):
        shape = (3, vectors.shape[1])
        queries = data.draw(hnp.arrays(np.float64, shape, elements=numbers))
        table = distances.distances(queries, vectors, metric)
        assert table.shape == (3, len(vectors))
        assert table.dtype == np.float64
        for (i, query), (j, vector) in itertools.product(enumerate(queries), enumerate(vectors)):
            expected = by_hand(query.tolist(), vector.tolist(), metric)
            assert table[i, j] == pytest.approx(expected, rel=1e-9, abs=1e-6)

    @given(matrices(), st.sampled_from(["l2", "cosine", "ip"]))
    @quick
    def test_symmetric_and_independent_of_layout(self, vectors, metric):
        table = distances.distances(vectors, vectors, metric)
        assert np.array_equal(table, table.T)
        columns = np.asfortranarray(vectors)
        assert np.array_equal(distances.distances(columns, columns, metric), table)

    @pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
    def test_bits_depend_on_the_two_rows_alone(self, metric):
        # Long rows: NumPy adds short ones in the same order whatever the layout.
        rows = np.random.default_rng(0).normal(size=(50, 300))
        table = distances.distances(rows, rows, metric)
        columns = np.asfortranarray(rows)
        assert np.array_equal(distances.distances(columns, columns, metric), table)
        assert np.array_equal(distances.distances(rows[7:8], rows[9:10], metric), table[7:8, 9:10])

    @given(matrices())
    @quick
    def test_ranges(self, vectors):
        squared = distances.distances(vectors, vectors, "l2")
        assert (squared >= 0).all()
        assert (np.diag(squared) == 0).all()
        cosine = distances.distances(vectors, vectors, "cosine")
        assert ((cosine >= 0) & (cosine <= 2)).all()

    @given(hnp.arrays(np.uint8, (4, 3)))
    @quick
    def test_hamming_equals_plain_python(self, rows):
        table = distances.distances(rows, rows, "hamming")
        for i, j in itertools.product(range(4), repeat=2):
            bits = sum((int(a) ^ int(b)).bit_count() for a, b in zip(rows[i], rows[j], strict=True))
            assert table[i, j] == bits

    def test_errors(self):
        with pytest.raises(ParameterError, match=r"'l1'.*l2, cosine, ip, hamming"):
            distances.distances([[0.0]], [[0.0]], "l1")
        with pytest.raises(ShapeError, match=r"\(1, 1\) and \(1, 2\)"):
            distances.distances([[0.0]], [[0.0, 1.0]], "l2")
        with pytest.raises(DataError, match="uint8 rows; got float64"):
            distances.distances([[0.0]], [[0.0]], "hamming")


class TestSearch:
    def test_ties_go_to_the_lowest_row(self):
        ids, found = search.search([[0.0]], [[2.0], [1.0], [-1.0], [1.0]], 3, "l2")
        assert ids.tolist() == [[1, 2, 3]]
        assert found.tolist() == [[1, 1, 1]]

    def test_many_ties(self):
        # Enough rows that an unstable sort would show.
        rows = np.arange(200.0).reshape(-1, 1) % 3
        ids, _ = search.search([[0.0]], rows, 200, "l2")
        assert ids[0].tolist() == [row for rest in range(3) for row in range(rest, 200, 3)]

    def test_missing_neighbours_are_padded(self):
        ids, found = search.search([[0.0]], [[2.0], [1.0]], 4, "l2", ids=[70, 50])
        assert ids.tolist() == [[50, 70, -1, -1]]
        assert found.tolist() == [[1, 4, np.inf, np.inf]]
        assert ids.dtype == np.int64

    def test_only_allowed_ids_are_found(self):
        rows = [[0.0], [1.0], [2.0], [3.0]]
        ids, _ = search.search([[0.0]], rows, 2, "l2", ids=[9, 8, 7, 6], allowed=[6, 8, 1000])
        assert ids.tolist() == [[8, 6]]
        assert search.search([[0.0]], rows, 1, "l2", allowed=[])[0].tolist() == [[-1]]

    @pytest.mark.parametrize(("queries", "rows", "k"), [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
    def test_empty(self, queries, rows, k):
        ids, found = search.search(np.zeros((queries, 2)), np.zeros((rows, 2)), k, "l2")
        assert ids.shape == found.shape == (queries, k)
        assert rows or (ids == -1).all()

    @given(matrices(), st.sampled_from(["l2", "cosine", "ip"]), st.integers(1, 15))
    @quick
    def test_is_the_sorted_table(self, vectors, metric, k):
        ids, found = search.search(vectors, vectors, k, metric)
        table = distances.distances(vectors, vectors, metric)
        held = min(k, len(vectors))
        assert np.array_equal(found[:, :held], np.sort(table, axis=1)[:, :held])
        assert np.array_equal(np.take_along_axis(table, ids[:, :held], 1), found[:, :held])
        assert all(len(set(row.tolist())) == held for row in ids[:, :held])
        assert search.recall(ids, vectors, vectors, metric) == 1


class TestRecall:
    rows = ((0.0,), (1.0,), (-1.0,), (5.0,))

    def test_counts_the_share_that_is_right(self):
        assert search.recall([[0, 3]], [[0.0]], self.rows, "l2") == 0.5
        assert search.recall([[0, 1], [3, 2]], [[0.0], [5.0]], self.rows, "l2") == 0.75
        assert search.recall([[3, -1]], [[0.0]], self.rows, "l2") == 0

    @pytest.mark.parametrize("tied", [1, 2])
    def test_either_of_two_tied_neighbours_is_right(self, tied):
        assert search.recall([[0, tied]], [[0.0]], self.rows, "l2") == 1

    def test_a_repeated_or_unknown_id_counts_once_or_not(self):
        assert search.recall([[0, 0]], [[0.0]], self.rows, "l2") == 0.5
        assert search.recall([[0, 99]], [[0.0]], self.rows, "l2") == 0.5

    def test_a_forbidden_id_does_not_count(self):
        assert search.recall([[0, 1]], [[0.0]], self.rows, "l2", allowed=[1, 2, 3]) == 0.5

    def test_own_ids(self):
        ids = [40, 30, 20, 10]
        assert search.recall([[40, 20]], [[0.0]], self.rows, "l2", ids=ids) == 1
        assert search.recall([[0, 1]], [[0.0]], self.rows, "l2", ids=ids) == 0

    def test_k_above_the_rows_held(self):
        assert search.recall([[0, 1, 2, 3, -1]], [[0.0]], self.rows, "l2") == 1
        assert search.recall([[0, 1, -1, -1, -1]], [[0.0]], self.rows, "l2") == 0.5

    def test_nothing_to_find(self):
        assert search.recall([[-1]], [[0.0]], self.rows, "l2", allowed=[]) == 1


class TestLloyd:
    def test_two_pairs(self):
        vectors = [[0.0], [2.0], [10.0], [12.0]]
        centers, labels, objectives = lloyd.lloyd(vectors, [[0.0], [2.0]], 10)
        assert centers.tolist() == [[1], [11]]
        assert labels.tolist() == [0, 0, 1, 1]
        assert labels.dtype == np.int32
        # 0,2|10,12 to 0 and 2: (0+0+64+100)/4. Then the means 0 and 8: (0+4+4+16)/4. Then 1 and 11.
        assert objectives == [41, 6, 1, 1]

    def test_weights(self):
        centers, labels, objectives = lloyd.lloyd([[0.0], [4.0]], [[1.0]], 5, weights=[3, 1])
        assert centers.tolist() == [[1]]
        assert labels.tolist() == [0, 0]
        assert objectives == [3, 3]
        assert lloyd.objective([[0.0], [4.0]], [[0.0]], [0, 0], [3, 1]) == 4

    def test_ties_go_to_the_lowest_center(self):
        assert lloyd.assign([[0.0]], [[2.0], [1.0], [-1.0], [1.0]]).tolist() == [1]

    def test_other_metrics(self):
        vectors = [[2.0, 0.0], [0.0, 3.0]]
        assert lloyd.assign(vectors, [[0.0, 1.0], [1.0, 0.0]], "cosine").tolist() == [1, 0]
        assert lloyd.objective(vectors, [[1.0, 0.0]], [0, 0], metric="cosine") == 0.5

    def test_an_empty_cluster_moves_to_the_farthest_row(self):
        vectors = [[0.0], [1.0], [-9.0], [9.0]]
        centers, labels, _ = lloyd.lloyd(vectors, [[0.0], [100.0], [200.0]], 0)
        assert centers.tolist() == [[0], [-9], [9]]
        assert labels.tolist() == [0, 0, 1, 2]

    def test_equal_farthest_rows_serve_one_center(self):
        vectors = [[0.0], [9.0], [9.0], [3.0]]
        centers, labels, _ = lloyd.lloyd(vectors, [[0.0], [100.0], [200.0]], 0)
        assert centers.tolist() == [[0], [9], [3]]
        assert labels.tolist() == [0, 1, 1, 2]

    def test_fewer_distinct_rows_than_centers(self):
        centers, labels, objectives = lloyd.lloyd([[1.0], [1.0]], [[1.0], [1.0], [5.0]], 3)
        assert centers.tolist() == [[1], [1], [5]]
        assert labels.tolist() == [0, 0]
        assert objectives[-1] == 0

    def test_update_keeps_or_refuses_an_empty_cluster(self):
        kept = lloyd.update([[1.0], [3.0]], [0, 0], 2, previous=[[0.0], [7.0]])
        assert kept.tolist() == [[2], [7]]
        with pytest.raises(DataError, match="cluster 1 has no members"):
            lloyd.update([[1.0], [3.0]], [0, 0], 2)

    def test_tolerance_stops_early(self):
        vectors = [[0.0], [2.0], [10.0], [12.0]]
        assert lloyd.lloyd(vectors, [[0.0], [2.0]], 10, tolerance=0.84)[2] == [41, 6, 1]
        assert lloyd.lloyd(vectors, [[0.0], [2.0]], 10, tolerance=0.86)[2] == [41, 6]

    @given(clusterings(), st.integers(0, 5))
    @quick
    def test_properties(self, clustering, iterations):
        vectors, initial, weights = clustering
        before = vectors.copy(), initial.copy()
        centers, labels, objectives = lloyd.lloyd(vectors, initial, iterations, weights)
        assert never_increases(objectives)
        assert 1 <= len(objectives) <= iterations + 1
        assert np.array_equal(labels, lloyd.assign(vectors, centers))
        own = np.array([by_hand(x, centers[c], "l2") for x, c in zip(vectors, labels, strict=True)])
        w = np.ones(len(vectors)) if weights is None else weights
        assert objectives[-1] == pytest.approx((w * own).sum() / w.sum(), abs=1e-6)
        held = len(np.unique(vectors[w > 0] + 0.0, axis=0))
        assert len(set(labels[w > 0].tolist())) >= min(held, len(centers))
        assert np.array_equal(vectors, before[0])
        assert np.array_equal(initial, before[1])

    @given(clusterings())
    @quick
    def test_a_row_without_weight_influences_nothing(self, clustering):
        vectors, initial, weights = clustering
        assume(weights is not None)
        all_rows = lloyd.lloyd(vectors, initial, 4, weights)
        some = lloyd.lloyd(vectors[weights > 0], initial, 4, weights[weights > 0])
        assert np.array_equal(all_rows[0], some[0])
        assert np.array_equal(all_rows[1][weights > 0], some[1])

    @given(clusterings(), st.integers(1, 3))
    @quick
    def test_a_whole_weight_is_a_repeated_row(self, clustering, weight):
        vectors, initial, _ = clustering
        once = lloyd.objective(vectors, initial, lloyd.assign(vectors, initial))
        labels = lloyd.assign(vectors, initial)
        weights = np.ones(len(vectors))
        weights[0] = weight
        repeated = np.concatenate([vectors, np.repeat(vectors[:1], weight - 1, axis=0)])
        repeated_labels = lloyd.assign(repeated, initial)
        weighted = lloyd.objective(vectors, initial, labels, weights)
        assert weighted == pytest.approx(lloyd.objective(repeated, initial, repeated_labels))
        assert weight > 1 or weighted == pytest.approx(once)
        kept = initial.copy()
        assert lloyd.update(vectors, labels, len(kept), weights, kept) == pytest.approx(
            lloyd.update(repeated, repeated_labels, len(kept), None, kept), abs=1e-9
        )

    @given(clusterings())
    @quick
    def test_the_mean_is_the_best_center(self, clustering):
        vectors, centers, weights = clustering
        w = np.ones(len(vectors)) if weights is None else weights
        labels = lloyd.assign(vectors, centers)
        means = lloyd.update(vectors, labels, len(centers), w, centers)
        best = lloyd.objective(vectors, means, labels, w)
        for shift in (0.1, -0.1):
            assert best <= lloyd.objective(vectors, means + shift, labels, w)

    def test_reaches_the_best_of_all_partitions_on_separate_groups(self):
        vectors = np.array([[0.0], [1.0], [20.0], [21.0], [50.0]])
        found = lloyd.lloyd(vectors, vectors[[0, 2, 4]], 10)[2][-1]
        every = []
        for labels in itertools.product(range(3), repeat=5):
            if set(labels) == {0, 1, 2}:
                centers = lloyd.update(vectors, labels, 3)
                every.append(lloyd.objective(vectors, centers, labels))
        assert found == min(every)


class TestKmeansPlusPlus:
    @given(matrices(), st.integers(1, 6), st.integers(0, 5))
    @quick
    def test_draws_distinct_rows_while_there_are_any(self, vectors, k, seed):
        centers = lloyd.kmeans_plus_plus(vectors, k, seed)
        assert centers.shape == (k, vectors.shape[1])
        assert all((vectors == center).all(axis=1).any() for center in centers)
        # Adding 0.0 makes -0.0 and 0.0 the same row.
        distinct = len(np.unique(vectors + 0.0, axis=0))
        assert len(np.unique(centers + 0.0, axis=0)) == min(k, distinct)
        assert np.array_equal(centers, lloyd.kmeans_plus_plus(vectors, k, seed))

    def test_rows_without_weight_are_never_drawn(self):
        for seed in range(20):
            centers = lloyd.kmeans_plus_plus([[0.0], [1.0], [2.0]], 2, seed, weights=[1, 0, 1])
            assert sorted(centers.ravel()) == [0, 2]

    def test_chances_are_squared_distances(self):
        # From 0 the second is 1 or 3 with chances 1 : 9.
        vectors, weights = [[0.0], [1.0], [3.0]], [1e9, 1, 1]
        drawn = [lloyd.kmeans_plus_plus(vectors, 2, seed, weights)[1, 0] for seed in range(400)]
        assert drawn.count(3.0) + drawn.count(1.0) == 400
        # 5 standard deviations of a binomial count are 30.
        assert abs(drawn.count(3.0) - 360) < 30

    def test_global_random_state_is_left_alone(self):
        before = np.random.get_state()[1].tolist()  # noqa: NPY002 - the state that must not move
        lloyd.kmeans_plus_plus([[0.0], [1.0]], 2, 0)
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


class TestPQ:
    codebook = np.array([[[0.0], [10.0]], [[0.0], [1.0]]])

    def test_known_codes(self):
        codes = pq.encode([[1.0, 0.9], [6.0, 0.4], [5.0, 0.5]], self.codebook)
        assert codes.tolist() == [[0, 1], [1, 0], [0, 0]]
        assert codes.dtype == np.uint8
        assert pq.decode(codes, self.codebook).tolist() == [[0, 1], [10, 0], [0, 0]]

    def test_known_distortion(self):
        # (1 + 0) and (16 + 1/4), the mean of two rows.
        assert pq.distortion([[1.0, 1.0], [6.0, 0.5]], self.codebook) == 17.25 / 2

    def test_known_symmetric_distances(self):
        tables = pq.symmetric_tables(self.codebook)
        assert tables.tolist() == [[[0, 100], [100, 0]], [[0, 1], [1, 0]]]
        table = pq.symmetric_distance([[0, 0], [1, 1]], [[0, 1], [1, 0], [1, 1]], self.codebook)
        assert table.tolist() == [[1, 100, 101], [100, 1, 0]]

    @pytest.mark.parametrize(
        ("ks", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65_536, np.uint16)]
    )
    def test_code_dtype(self, ks, dtype):
        assert pq.code_dtype(ks) is dtype

    @pytest.mark.parametrize("ks", [0, -1, 65_537])
    def test_code_dtype_out_of_range(self, ks):
        with pytest.raises(ParameterError, match=f"ks is {ks}"):
            pq.code_dtype(ks)

    def test_more_than_256_codewords(self):
        codebook = np.arange(300.0).reshape(1, 300, 1)
        codes = pq.encode([[299.2], [0.3]], codebook)
        assert codes.tolist() == [[299], [0]]
        assert codes.dtype == np.uint16

    @given(codings())
    @quick
    def test_encoding_a_decoded_code(self, coding):
        codes, codebook, _, _ = coding
        decoded = pq.decode(codes, codebook)
        again = pq.encode(decoded, codebook)
        # Equal codewords go to the lowest id; the vector is the same.
        assert np.array_equal(pq.decode(again, codebook), decoded)
        assert (again <= codes).all()
        assert pq.distortion(decoded, codebook) == 0

    @given(codings())
    @quick
    def test_symmetric_distance_is_the_distance_of_decoded_vectors(self, coding):
        codes, codebook, others, _ = coding
        table = pq.symmetric_distance(codes, others, codebook)
        decoded = pq.decode(codes, codebook), pq.decode(others, codebook)
        assert table == pytest.approx(distances.distances(*decoded, "l2"), rel=1e-9, abs=1e-9)
        assert np.array_equal(table.T, pq.symmetric_distance(others, codes, codebook))

    @given(codings(), st.data())
    @quick
    def test_no_other_code_is_nearer(self, coding, data):
        codes, codebook, _, _ = coding
        shape = pq.decode(codes, codebook).shape
        vectors = data.draw(hnp.arrays(np.float64, shape, elements=numbers))
        m, ks, _ = codebook.shape
        every = np.array(list(itertools.product(range(ks), repeat=m)))
        least = distances.distances(vectors, pq.decode(every, codebook), "l2").min(axis=1)
        assert pq.distortion(vectors, codebook) == pytest.approx(least.mean(), rel=1e-9, abs=1e-9)

    def test_training(self):
        vectors = np.random.default_rng(0).normal(size=(60, 6))
        coarse, fine = (pq.train(vectors, 3, ks, seed=1, iterations=10) for ks in (2, 8))
        assert fine.shape == (3, 8, 2)
        assert pq.distortion(vectors, fine) < pq.distortion(vectors, coarse)
        # One codeword per subspace is the mean, whose distortion is the variance.
        mean = pq.train(vectors, 3, 1, seed=1, iterations=1)
        assert mean.reshape(6) == pytest.approx(vectors.mean(axis=0))
        assert pq.distortion(vectors, mean) == pytest.approx(vectors.var(axis=0).sum())
        assert np.array_equal(fine, pq.train(vectors, 3, 8, seed=1, iterations=10))
        assert not np.array_equal(fine, pq.train(vectors, 3, 8, seed=2, iterations=10))

    def test_training_with_a_codeword_per_row_has_no_distortion(self):
        vectors = np.random.default_rng(0).normal(size=(5, 2))
        assert pq.distortion(vectors, pq.train(vectors, 2, 5, seed=0, iterations=2)) == 0

    def test_errors(self):
        with pytest.raises(ParameterError, match="m is 4; it must divide the dimension 6"):
            pq.train(np.zeros((3, 6)), 4, 2, 0, 1)
        with pytest.raises(ShapeError, match=r"needs vectors \(n, 2\); got \(1, 3\)"):
            pq.encode([[1.0, 2.0, 3.0]], self.codebook)


class TestPQkMeans:
    # One subspace whose codewords are 0, 1, 3, 10, 11.
    codebook = np.array([[[0.0], [1.0], [3.0], [10.0], [11.0]]])

    def test_known_clustering(self):
        codes = [[0], [0], [1], [3], [4], [4]]
        centers, labels, objectives = pqkmeans.pqkmeans(codes, self.codebook, [[0], [1]], 10)
        # Start: (0+0+0+81+100+100)/6. The best codeword of {1, 10, 11, 11} is 10: 81+0+1+1; so 1
        # goes to 0. Then {10, 11, 11} is best served by 11: 1+0+0.
        assert objectives == [281 / 6, 3 / 6, 2 / 6, 2 / 6]
        assert centers.tolist() == [[0], [4]]
        assert centers.dtype == np.uint8
        assert labels.tolist() == [0, 0, 0, 1, 1, 1]

    def test_ties_go_to_the_lowest_codeword(self):
        book = np.array([[[2.0], [0.0], [2.0]]])
        assert pqkmeans.update([[1], [2]], [0, 0], [[1]], book).tolist() == [[0]]
        assert pqkmeans.assign([[0]], [[1], [2], [0]], book).tolist() == [1]

    def test_weights(self):
        assert pqkmeans.update([[0], [4]], [0, 0], [[2]], self.codebook, [9, 1]).tolist() == [[1]]
        assert pqkmeans.objective([[0], [4]], [[0]], [0, 0], self.codebook, [10, 1]) == 11

    def test_an_empty_cluster_keeps_its_center_in_update(self):
        assert pqkmeans.update([[0]], [0], [[1], [2]], self.codebook).tolist() == [[0], [2]]

    def test_an_empty_cluster_moves_to_the_farthest_code(self):
        codes = [[0], [3], [4]]
        centers, labels, _ = pqkmeans.pqkmeans(codes, self.codebook, [[0], [0]], 0)
        assert centers.tolist() == [[0], [4]]
        assert labels.tolist() == [0, 1, 1]

    @given(codings(), st.integers(0, 5))
    @quick
    def test_properties(self, coding, iterations):
        codes, codebook, initial, weights = coding
        centers, labels, objectives = pqkmeans.pqkmeans(
            codes, codebook, initial, iterations, weights
        )
        assert never_increases(objectives)
        assert 1 <= len(objectives) <= iterations + 1
        assert np.array_equal(labels, pqkmeans.assign(codes, centers, codebook))
        w = np.ones(len(codes)) if weights is None else weights
        held = np.unique(pq.decode(codes[w > 0], codebook) + 0.0, axis=0)
        assert len(set(labels[w > 0].tolist())) >= min(len(held), len(centers))
        assert objectives[-1] == pytest.approx(
            lloyd.objective(
                pq.decode(codes, codebook), pq.decode(centers, codebook), labels, weights
            ),
            rel=1e-9,
            abs=1e-9,
        )

    @given(codings())
    @quick
    def test_no_other_center_code_is_better(self, coding):
        codes, codebook, initial, weights = coding
        w = np.ones(len(codes)) if weights is None else weights
        labels = pqkmeans.assign(codes, initial, codebook)
        centers = pqkmeans.update(codes, labels, initial, codebook, w)
        m, ks, _ = codebook.shape
        every = np.array(list(itertools.product(range(ks), repeat=m)))
        sums = pq.symmetric_distance(codes, every, codebook)
        for cluster in range(len(centers)):
            members = labels == cluster
            if w[members].sum() == 0:
                assert np.array_equal(centers[cluster], initial[cluster])
                continue
            cost = (w[members, None] * sums[members]).sum(axis=0)
            chosen = cost[(every == centers[cluster]).all(axis=1)][0]
            assert chosen == pytest.approx(cost.min(), rel=1e-9, abs=1e-9)


class TestTransforms:
    def test_known_values(self):
        assert transforms.l2_norm([[3, 4], [0, 0]]).tolist() == [[0.6, 0.8], [0, 0]]
        assert transforms.root_sift([[1, 3], [0, 0]]) == pytest.approx(
            np.array([[0.5, 0.75**0.5], [0, 0]])
        )
        assert transforms.root_sift([[-1.0, 3.0]])[0, 0] == -0.5

    @given(matrices())
    @quick
    def test_lengths_are_one_or_zero(self, vectors):
        expected = (np.abs(vectors) > 0).any(axis=1).astype(float)
        for transform in (transforms.l2_norm, transforms.root_sift):
            assert np.linalg.norm(transform(vectors), axis=1) == pytest.approx(expected)

    @given(hnp.arrays(np.uint8, (4, 3)))
    @quick
    def test_root_sift_dot_is_the_hellinger_kernel(self, rows):
        x = rows.astype(float) + 1
        rooted = transforms.root_sift(rows.astype(int) + 1)
        shares = x / x.sum(axis=1, keepdims=True)
        kernel = np.sqrt(shares[:, None] * shares[None]).sum(axis=2)
        assert rooted @ rooted.T == pytest.approx(kernel)

    def test_pca_of_points_on_a_line(self):
        vectors = np.array([[0.0, 0.0], [3.0, -4.0], [6.0, -8.0]])
        mean, components, variance = transforms.pca_fit(vectors)
        assert mean.tolist() == [3, -4]
        # The direction is (3, -4)/5; the sign makes the entry of largest magnitude positive.
        assert components[0] == pytest.approx(np.array([-0.6, 0.8]))
        # Along it the points lie at 5, 0, -5: (25 + 0 + 25) / (3 - 1).
        assert variance == pytest.approx(np.array([25, 0]))
        moved = transforms.pca_transform(vectors, mean, components, variance)
        assert moved == pytest.approx(np.array([[5, 0], [0, 0], [-5, 0]]))
        white = transforms.pca_transform(vectors, mean, components, variance, whiten=True)
        assert white == pytest.approx(np.array([[1, 0], [0, 0], [-1, 0]]))

    def test_sign_of_equal_entries_goes_by_the_first(self):
        for flip in (1, -1):
            rows = flip * np.array([[1.0, -1.0], [-1.0, 1.0], [0.25, 0.25], [-0.25, -0.25]])
            components = transforms.pca_fit(rows)[1]
            assert components == pytest.approx(np.array([[1, -1], [1, 1]]) / 2**0.5)

    def test_rounding_cannot_turn_the_sign(self):
        for last in (1 - 1e-9, 1, 1 + 1e-9):
            components = transforms.pca_fit([[1.0, -last], [-1.0, last]])[1]
            assert components[0] == pytest.approx(np.array([1, -1]) / 2**0.5)

    def test_variance_keeps_the_fewest_components(self):
        # Variances 8 : 2 along the axes.
        rows = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        assert len(transforms.pca_fit(rows, variance=0.79)[1]) == 1
        assert len(transforms.pca_fit(rows, variance=0.81)[1]) == 2
        assert len(transforms.pca_fit(rows, variance=1.0)[1]) == 2
        assert len(transforms.pca_fit(rows, dim=1)[1]) == 1

    @given(matrices(rows=(1, 20)))
    @quick
    def test_pca_properties(self, vectors):
        mean, components, variance = transforms.pca_fit(vectors)
        d = vectors.shape[1]
        assert components @ components.T == pytest.approx(np.eye(d), abs=1e-9)
        assert (np.diff(variance) <= 0).all()
        moved = transforms.pca_transform(vectors, mean, components, variance)
        # A rotation: nothing is lost, and the covariance becomes diagonal.
        assert moved @ components + mean == pytest.approx(vectors, abs=1e-6)
        covariance = moved.T @ moved / max(len(vectors) - 1, 1)
        scale = max(variance.max(), 1.0)
        assert covariance / scale == pytest.approx(np.diag(variance) / scale, abs=1e-9)
        largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], 1)
        close = np.isclose(np.abs(components), np.abs(largest), rtol=1e-5)
        assert ((largest > 0).ravel() | (close.sum(axis=1) > 1)).all()

    def test_whitened_columns_have_unit_covariance(self):
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3))
        white = transforms.pca_transform(vectors, *transforms.pca_fit(vectors), whiten=True)
        assert np.cov(white.T) == pytest.approx(np.eye(3), abs=1e-9)

    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ({"dim": 3}, "dim is 3; vectors of dimension 2 allow 1 to 2"),
            ({"dim": 0}, "dim is 0"),
            ({"variance": 1.5}, "variance is 1.5"),
            ({"dim": 1, "variance": 0.5}, "not both"),
        ],
    )
    def test_pca_errors(self, wrong, text):
        with pytest.raises(ParameterError, match=text):
            transforms.pca_fit(np.eye(2), **wrong)


class TestPixels:
    colours = np.array(
        [[[0, 0, 0], [255, 255, 255], [255, 0, 0]], [[0, 255, 0], [0, 0, 255], [119, 119, 119]]],
        np.uint8,
    )

    def test_rgb_is_itself_in_row_order(self):
        flat = pixels.pixels(self.colours, "rgb")
        assert flat.dtype == np.uint8
        assert flat.tolist() == [c for row in self.colours.tolist() for c in row]

    def test_lab_of_the_primaries(self):
        # As tabulated by Lindbloom's colour calculator for sRGB and D65.
        expected = [
            [0, 0, 0],
            [100, 0, 0],
            [53.2408, 80.0925, 67.2032],
            [87.7347, -86.1827, 83.1793],
            [32.2970, 79.1875, -107.8602],
            [50.0344, 0, 0],
        ]
        assert pixels.pixels(self.colours, "lab") == pytest.approx(np.array(expected), abs=2e-4)

    def test_oklab_of_the_primaries(self):
        # As Ottosson's page and CSS Color 4 give them.
        expected = [
            [0, 0, 0],
            [1, 0, 0],
            [0.627955, 0.224863, 0.125846],
            [0.866440, -0.233888, 0.179498],
            [0.452014, -0.032457, -0.311528],
        ]
        found = pixels.pixels(self.colours, "oklab")[:5]
        assert found == pytest.approx(np.array(expected), abs=2e-6)

    @pytest.mark.parametrize("space", ["lab", "oklab"])
    def test_greys_have_no_colour_and_lightness_rises(self, space):
        greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
        values = pixels.pixels(greys, space)
        assert np.abs(values[:, 1:]).max() < 1e-6
        assert (np.diff(values[:, 0]) > 0).all()

    @pytest.mark.parametrize("space", ["rgb", "lab", "oklab"])
    def test_there_and_back(self, space):
        levels = np.array([0, 1, 5, 10, 11, 64, 127, 128, 200, 254, 255], np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(11, 121, 3)
        back = pixels.to_rgb(pixels.pixels(cube, space), space)
        assert back.dtype == np.uint8
        assert np.array_equal(back, cube.reshape(-1, 3))

    def test_back_is_clipped_and_rounded(self):
        given_values = [[-3.0, 1.6, 300.0], [0.5, 1.5, 2.4]]
        assert pixels.to_rgb(given_values, "rgb").tolist() == [[0, 2, 255], [0, 2, 2]]
        assert pixels.to_rgb([[150.0, 0.0, 0.0], [-20.0, 0.0, 0.0]], "lab").tolist() == [
            [255, 255, 255],
            [0, 0, 0],
        ]
        assert pixels.to_rgb([[1.5, 0.0, 0.0], [-1.0, 0.0, 0.0]], "oklab").tolist() == [
            [255, 255, 255],
            [0, 0, 0],
        ]

    def test_errors(self):
        with pytest.raises(ParameterError, match=r"'hsv'.*rgb, lab, oklab"):
            pixels.pixels(self.colours, "hsv")
        with pytest.raises(ParameterError, match="'hsv'"):
            pixels.to_rgb([[0.0, 0.0, 0.0]], "hsv")
        with pytest.raises(DataError, match=r"got \(2, 3, 3\) float64"):
            pixels.pixels(self.colours.astype(float), "rgb")


class TestBagOfWords:
    images = ((0, 0, 1), (1, 2), (1,), ())

    def test_histogram(self):
        assert bag_of_words.histogram([3, 0, 3], 5).tolist() == [1, 0, 0, 2, 0]
        assert bag_of_words.histogram([], 2).tolist() == [0, 0]

    @pytest.mark.parametrize("word", [-1, 4])
    def test_a_word_outside_the_vocabulary(self, word):
        with pytest.raises(DataError, match=f"word {word} is not in a vocabulary of 4"):
            bag_of_words.histogram([word], 4)

    def test_idf(self):
        # Word 0 in 1 of 4 images, word 1 in 3, word 2 in 1, word 3 in none.
        expected = [math.log(4), math.log(4 / 3), math.log(4), 0]
        assert bag_of_words.idf(self.images, 4) == pytest.approx(np.array(expected))

    def test_tf_idf(self):
        # (2/3 * 3, 1/3 * 12) = (2, 4), of length sqrt(20).
        found = bag_of_words.tf_idf([0, 1, 0], [3, 12, 5])
        assert found == pytest.approx(np.array([2, 4, 0]) / 20**0.5)
        assert bag_of_words.tf_idf([], [3, 12]).tolist() == [0, 0]
        assert bag_of_words.tf_idf([1], [3, 0]).tolist() == [0, 0]

    def test_weightings(self):
        rows = bag_of_words.bag_of_words(self.images, 3, "tf")
        assert rows[0] == pytest.approx(np.array([2, 1, 0]) / 5**0.5)
        rows = bag_of_words.bag_of_words(self.images, 3, "binary")
        assert rows[0] == pytest.approx(np.array([1, 1, 0]) / 2**0.5)
        rows = bag_of_words.bag_of_words(self.images, 3)
        expected = np.array([2 * math.log(4), math.log(4 / 3), 0])
        assert rows[0] == pytest.approx(expected / np.linalg.norm(expected))
        assert rows[3].tolist() == [0, 0, 0]
        with pytest.raises(ParameterError, match=r"'bm25'.*tf, tf-idf, binary"):
            bag_of_words.bag_of_words(self.images, 3, "bm25")

    def test_queries_use_the_weights_of_the_database(self):
        row = bag_of_words.bag_of_words([[0, 1]], 2, idf_weights=[3, 4])[0]
        assert row == pytest.approx(np.array([0.6, 0.8]))

    @given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=6))
    @quick
    def test_order_of_words_is_nothing(self, images):
        turned = [words[::-1] for words in images]
        for weighting in bag_of_words.WEIGHTINGS:
            rows = bag_of_words.bag_of_words(images, 6, weighting)
            assert np.array_equal(rows, bag_of_words.bag_of_words(turned, 6, weighting))
            lengths = np.linalg.norm(rows, axis=1)
            assert (np.isclose(lengths, 1) | (lengths == 0)).all()

    def test_search_lists_no_image_that_shares_no_word(self):
        rows = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
        ids, found = bag_of_words.search([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], rows, 3)
        assert ids.tolist() == [[0, 2, -1], [-1, -1, -1]]
        assert found[0] == pytest.approx([0, 1 - 0.5**0.5, np.inf])
        ids, _ = bag_of_words.search([[1.0, 0, 0]], rows, 2, ids=[7, 8, 9], allowed=[8, 9])
        assert ids.tolist() == [[9, -1]]


def other_average_precision(ranked, positives, junk):
    """The form of revisitop and INRIA: each positive adds the mean precision before and at it."""
    kept = [name for name in ranked if name not in junk]
    ranks = [rank for rank, name in enumerate(kept) if name in positives]
    area = 0.0
    for j, rank in enumerate(ranks):
        before = j / rank if rank else 1.0
        area += (before + (j + 1) / (rank + 1)) / 2 / len(positives)
    return area


class TestAveragePrecision:
    @pytest.mark.parametrize(
        ("ranked", "positives", "junk", "expected"),
        [
            ("ab", "ab", "", 1.0),
            ("ax", "a", "", 1.0),
            # At rank 1: precision rises from 0 to 1/2.
            ("xa", "a", "", 0.25),
            # 1/2 * 1 + 1/2 * (1/2 + 2/3)/2.
            ("axb", "ab", "", 0.5 + 7 / 24),
            # Junk is passed over: the same as "axb".
            ("ajxjb", "ab", "j", 0.5 + 7 / 24),
            # An unranked positive adds nothing.
            ("a", "ab", "", 0.5),
            ("", "a", "", 0.0),
            ("xyz", "a", "", 0.0),
            # Junk is looked at before positives.
            ("ab", "ab", "a", 0.5),
        ],
    )
    def test_known_values(self, ranked, positives, junk, expected):
        found = average_precision.average_precision(ranked, positives, junk)
        assert found == pytest.approx(expected, abs=1e-15)

    def test_no_positives(self):
        assert math.isnan(average_precision.average_precision("ab", "", ""))

    @given(
        st.permutations("abcdefgh"), st.sets(st.sampled_from("abcdefghi"), min_size=1), st.data()
    )
    @quick
    def test_equals_the_other_form(self, ranked, positives, data):
        junk = data.draw(st.sets(st.sampled_from("abcdefghi"))) - positives
        found = average_precision.average_precision(ranked, positives, junk)
        assert found == pytest.approx(other_average_precision(ranked, positives, junk))
        assert 0 <= found <= 1 + 1e-12

    def test_mean_skips_queries_without_positives(self):
        mean = average_precision.mean_average_precision(["ab", "xa", "ab"], ["ab", "a", ""])
        assert mean == (1 + 0.25) / 2
        junk = ["", "x", ""]
        assert average_precision.mean_average_precision(["ab", "xa"], ["ab", "a"], junk[:2]) == 1
        assert math.isnan(average_precision.mean_average_precision(["ab"], [""]))
        with pytest.raises(ValueError, match="zip"):
            average_precision.mean_average_precision(["ab"], ["a", "b"])
