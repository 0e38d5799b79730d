"""What users hand in: taken as it is where it fits, converted without loss, or refused clearly."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from vwkit import Stream
from vwkit.data import as_data, as_weights, dim_of, prepare, rows_of

FLOAT = ("float32",)
BOTH = ("uint8", "float32")
ROWS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


@vwkit.backend("data-recorder")
class Recorder(vwkit.Transform):
    """Remember what came."""

    def _fit(self, vectors):
        self._seen = vectors

    def _transform(self, vectors):
        self._seen = vectors
        return vectors


class TestAsTheyAre:
    @pytest.mark.parametrize("rows", [ROWS, ROWS.astype(np.uint8)])
    def test_an_array_that_fits_is_itself(self, rows):
        assert prepare(rows, dtypes=BOTH) is rows

    def test_public_methods_hand_it_on(self):
        recorder = Recorder().fit(ROWS)
        assert recorder._seen is ROWS
        recorder.transform(ROWS)
        assert recorder._seen is ROWS

    def test_a_memory_map_stays_one(self, tmp_path):
        np.save(tmp_path / "rows.npy", ROWS)
        mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
        found = prepare(mapped, dtypes=FLOAT)
        assert isinstance(found, np.memmap)
        assert np.shares_memory(found, mapped)

    def test_read_only_rows_are_fine(self):
        rows = ROWS.copy()
        rows.flags.writeable = False
        assert prepare(rows, dtypes=FLOAT) is rows

    def test_the_array_of_a_stream_that_fits_is_itself(self):
        stream = Stream.from_array(ROWS)
        assert prepare(stream, dtypes=FLOAT) is ROWS
        assert prepare(stream, dtypes=FLOAT, streams=True).array is ROWS


class TestConverted:
    @pytest.mark.parametrize(
        "given_rows",
        [
            ROWS.tolist(),
            tuple(map(tuple, ROWS.tolist())),
            ROWS.astype(np.float64),
            ROWS.astype(">f4"),
            ROWS.astype(np.longdouble),
            np.asfortranarray(ROWS),
            np.repeat(ROWS, 2, axis=0)[::2],
            ROWS[::-1][::-1],
            np.ma.masked_array(ROWS),
            np.frombuffer(b"x" + ROWS.tobytes(), np.uint8)[1:].view(np.float32).reshape(12, 3),
            Stream(lambda: np.array_split(ROWS.astype(np.float64), 5), dim=3, dtype=np.float64),
        ],
    )
    @pytest.mark.parametrize("streams", [False, True])
    def test_any_layout_and_type_gives_the_same_rows(self, given_rows, streams):
        found = prepare(given_rows, dtypes=FLOAT, streams=streams)
        if isinstance(found, Stream):
            parts = list(found)
            assert found.rows == 12
            found = np.concatenate(parts)
        assert type(found) is np.ndarray
        assert found.dtype == np.float32
        assert found.dtype.isnative
        assert found.flags.c_contiguous
        assert found.flags.aligned
        assert np.array_equal(found, ROWS)

    def test_a_matrix_becomes_a_plain_array(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matrix = np.matrix(ROWS)
        assert type(prepare(matrix, dtypes=FLOAT)) is np.ndarray

    @pytest.mark.parametrize(
        ("dtype", "wanted"),
        [("uint8", "uint8"), ("int64", "float32"), ("bool", "float32"), ("float16", "float32")],
    )
    def test_the_nearest_dtype_is_chosen(self, dtype, wanted):
        rows = np.array([[0, 1], [1, 0]], dtype)
        assert prepare(rows, dtypes=BOTH).dtype == wanted
        assert prepare(rows, dtypes=("uint8",)).tolist() == rows.tolist()

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=4), st.sampled_from("iu")
    )
    def test_whole_numbers_are_kept_or_refused(self, values, kind):
        limits = np.iinfo(f"{kind}8")
        rows = np.array([[min(max(v, limits.min), limits.max)] for v in values], f"{kind}8")
        for dtypes in (FLOAT, ("uint8",), ("uint8", "uint16")):
            try:
                found = prepare(rows, dtypes=dtypes)
            except vwkit.DataError as error:
                assert re.search(r"row \d+, column 0", str(error))
                assert not all(0 <= int(v) <= 255 for v in rows[:, 0])
            else:
                assert [int(v) for v in found[:, 0]] == [int(v) for v in rows[:, 0]]

    def test_inputs_are_never_modified(self):
        for rows in (ROWS.copy(), ROWS.astype(np.float64), np.asfortranarray(ROWS)):
            before = rows.copy()
            rows.flags.writeable = False
            vwkit.create("clusterer", "lloyd", k=3).fit(rows).predict(rows)
            vwkit.create("index", "exact", metric="cosine").build(rows).add(rows).search(rows, 3)
            vwkit.create("quantizer", "pq", m=3, ks=4).fit(rows).encode(rows)
            vwkit.create("transform", "pca", whiten=True).fit(rows).transform(rows)
            assert np.array_equal(rows, before)


class TestRefused:
    @pytest.mark.parametrize(
        ("rows", "error", "message"),
        [
            (ROWS[0], vwkit.ShapeError, r"got shape \(3,\); for a single vector pass x\[None, :\]"),
            (ROWS[None], vwkit.ShapeError, r"shape \(n, d\).*got shape \(1, 12, 3\)"),
            (np.float32(3), vwkit.ShapeError, r"got shape \(\)"),
            (None, vwkit.ShapeError, r"got shape \(\)"),
            ({"a": 1}, vwkit.ShapeError, r"got shape \(\)"),
            ([["a", "b"]], vwkit.DataError, "numbers are needed.*got dtype <U1"),
            (np.array([[None, 1]]), vwkit.DataError, "got dtype object"),
            (np.array([[1j]]), vwkit.DataError, "got dtype complex128"),
            (np.array([["2020-01-01"]], "M8[D]"), vwkit.DataError, "got dtype datetime64"),
            ([[1, 2], [3]], vwkit.DataError, "cannot be read as an array"),
            (np.zeros((0, 3)), vwkit.DataError, "0 rows were given; at least 1"),
            (np.zeros((3, 0)), vwkit.ShapeError, "at least one dimension"),
            (
                (row for row in ROWS),
                vwkit.DataError,
                "generator can be read only once.*vwkit.Stream",
            ),
            (iter(ROWS), vwkit.DataError, "only once"),
            (np.array([[1, np.nan]]), vwkit.DataError, "row 0, column 1 is nan"),
            (np.array([[1], [np.inf]]), vwkit.DataError, "row 1, column 0 is inf"),
            (np.array([[1], [-np.inf]], np.float32), vwkit.DataError, "row 1, column 0 is -inf"),
            (
                np.array([[1], [1e39]]),
                vwkit.DataError,
                "row 1, column 0 is 1e[+]39, beyond float32",
            ),
            (np.array([[1, -(2**24) - 1]]), vwkit.DataError, "row 0, column 1.*beyond ±2"),
            (np.ma.masked_array([[1.0, 2.0]], [[0, 1]]), vwkit.DataError, "masked"),
            (scipy.sparse.csr_array(np.eye(3)), vwkit.DataError, "Sparse.from_scipy"),
            (vwkit.Sparse.from_dense(np.eye(3)), vwkit.UnsupportedError, "toarray"),
        ],
    )
    def test_by_every_role(self, rows, error, message):
        calls = [
            lambda rows: vwkit.create("clusterer", "lloyd", k=1).fit(rows),
            lambda rows: vwkit.create("index", "exact").build(rows),
            lambda rows: vwkit.create("quantizer", "pq", m=1, ks=2).fit(rows),
            lambda rows: vwkit.create("transform", "pca").fit(rows),
        ]
        if type(rows) is np.ndarray and rows.ndim == 2 and rows.size and rows.dtype.kind in "fi":
            chunks = np.array_split(rows, len(rows))
            calls.append(
                lambda rows: vwkit.create("clusterer", "lloyd", k=1).fit(
                    Stream(lambda: chunks, dim=rows.shape[1], dtype=rows.dtype)
                )
            )
            calls.append(lambda rows: calls[0](Stream.from_array(rows)))
        for call in calls:
            with pytest.raises(error, match=message) as caught:
                call(rows)
            assert "\n" not in str(caught.value)

    def test_another_dim_than_fitted_names_both(self):
        lloyd = vwkit.create("clusterer", "lloyd", k=2).fit(ROWS)
        for call in (
            lloyd.predict,
            vwkit.create("index", "exact").build(ROWS).search,
            vwkit.create("index", "exact").build(ROWS).add,
            vwkit.create("quantizer", "pq", m=1, ks=2).fit(ROWS).encode,
            vwkit.create("transform", "pca").fit(ROWS).transform,
        ):
            with pytest.raises(vwkit.ShapeError, match=r"3 dimensions.*\(n, 3\); got \(n, 5\)"):
                call(np.zeros((4, 5), np.float32))

    def test_no_rows_are_fine_where_nothing_is_learned(self):
        none = np.zeros((0, 3), np.float32)
        assert vwkit.create("clusterer", "lloyd", k=2).fit(ROWS).predict(none).shape == (0,)
        assert vwkit.create("index", "exact").build(ROWS).search(none, 4).ids.shape == (0, 4)
        assert vwkit.create("quantizer", "pq", m=1, ks=2).fit(ROWS).encode(none).shape == (0, 1)
        assert vwkit.create("transform", "pca", dim=2).fit(ROWS).transform(none).shape == (0, 2)
        assert vwkit.create("transform", "l2-norm").transform(none).shape == (0, 3)

    @pytest.mark.parametrize("place", [0, 1, 777, 4999])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_one_nan_anywhere_is_found(self, place, dtype):
        rows = np.full((5000, 40), 2.0, dtype)
        rows[place, 7] = np.nan
        for given_rows in (rows, Stream.from_array(rows)):
            with pytest.raises(vwkit.DataError, match=f"row {place}, column 7 is nan"):
                prepare(given_rows, dtypes=FLOAT)
        lazily = prepare(Stream.from_array(rows), dtypes=FLOAT, streams=True, empty=True)
        with pytest.raises(vwkit.DataError, match=f"row {place}, column 7 is nan"):
            list(lazily)
        with pytest.raises(vwkit.DataError, match=f"row {place}, column 7 is nan"):
            lazily.take([0, place]) if dtype != np.float32 else list(lazily)

    def test_large_values_whose_sum_overflows_are_fine(self):
        rows = np.full((50, 50), 3e38, np.float32)
        assert prepare(rows, dtypes=FLOAT) is rows

    def test_a_stream_that_changes_between_passes(self):
        sizes = iter([4, 9, 2])

        def chunks():
            return [np.zeros((next(sizes), 2), np.float64)]

        stream = Stream(chunks, dim=2, dtype=np.float64)
        assert stream.count() == 4
        for brought in (9, 2):
            with pytest.raises(vwkit.DataError, match=f"4 rows brought {brought}"):
                prepare(stream, dtypes=FLOAT)


class TestWeights:
    def test_they_are_float64_and_aligned(self):
        assert as_weights(None, 3) is None
        assert as_weights([1, 0, 2], 3).dtype == np.float64
        weights = np.ones(3)
        assert as_weights(weights, 3) is weights


def test_sizes():
    stream = Stream(lambda: [ROWS, ROWS], dim=3, dtype=np.float32)
    assert (rows_of(stream), dim_of(stream)) == (24, 3)
    assert (rows_of(ROWS), dim_of(ROWS)) == (12, 3)
    assert as_data(stream) is stream
