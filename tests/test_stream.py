"""Streams: the same rows however they are cut, as often as they are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from vwkit import Stream
from vwkit.stream import CHUNK_BYTES, chunk_rows, row_spans

ROWS = np.arange(60, dtype=np.float32).reshape(20, 3)


def cut(rows, cuts, **more):
    return Stream(lambda: np.split(rows, cuts), dim=rows.shape[1], dtype=rows.dtype, **more)


streams = st.builds(
    lambda cuts, whole: Stream.from_array(ROWS) if whole else cut(ROWS, sorted(cuts)),
    st.lists(st.integers(0, 20), max_size=6),
    st.booleans(),
)


class TestRows:
    @settings(max_examples=80, deadline=None)
    @given(streams, st.integers(1, 25))
    def test_rechunk_keeps_the_rows_and_has_the_size(self, stream, size):
        parts = list(stream.rechunk(size))
        assert np.array_equal(np.concatenate(parts), ROWS)
        assert [len(part) for part in parts] == [
            stop - start for start, stop in row_spans(20, size)
        ]

    @settings(max_examples=80, deadline=None)
    @given(streams, st.lists(st.integers(0, 19), max_size=12))
    def test_take(self, stream, rows):
        rows = sorted(rows)
        assert np.array_equal(stream.take(rows), ROWS[rows])
        assert np.array_equal(stream.rechunk(7).take(rows), ROWS[rows])
        doubled = stream.map(lambda chunk: chunk * 2)
        assert np.array_equal(doubled.take(rows), ROWS[rows] * 2)

    @settings(max_examples=30, deadline=None)
    @given(streams)
    def test_it_can_be_read_again_and_again(self, stream):
        for _ in range(3):
            assert np.array_equal(np.concatenate(list(stream)), ROWS)
        assert stream.count() == stream.rows == 20
        assert np.array_equal(stream.toarray(), ROWS)

    def test_empty_chunks_are_left_out(self):
        assert [len(chunk) for chunk in cut(ROWS, [0, 0, 5, 5, 20])] == [5, 15]

    def test_no_rows(self):
        stream = Stream(lambda: iter(()), dim=3, dtype=np.uint8)
        assert stream.toarray().shape == (0, 3)
        assert stream.count() == 0
        assert stream.take([]).shape == (0, 3)
        assert list(stream.rechunk(4)) == []

    def test_an_array_is_read_without_a_copy(self):
        stream = Stream.from_array(ROWS)
        assert stream.array is ROWS
        assert stream.toarray() is ROWS
        assert all(np.shares_memory(chunk, ROWS) for chunk in stream)
        assert all(np.shares_memory(chunk, ROWS) for chunk in stream.rechunk(7))

    def test_chunks_of_a_large_array_are_of_moderate_size(self):
        rows = np.broadcast_to(np.zeros(4, np.uint8), (CHUNK_BYTES, 4))
        assert {len(chunk) for chunk in Stream.from_array(rows)} == {CHUNK_BYTES // 4}
        assert chunk_rows(1 << 40) == 1

    def test_mapping_is_lazy_and_keeps_what_is_aligned(self):
        calls = []
        offsets, weights = np.array([0, 12, 20]), np.ones(20)
        stream = cut(
            ROWS, [5], offsets=offsets, items=["a", "b"], columns={"weights": weights}, kind="sift"
        )

        def halve(chunk):
            calls.append(len(chunk))
            return chunk[:, :1].astype(np.uint8)

        mapped = stream.map(halve, dim=1, dtype=np.uint8)
        assert calls == []
        assert (mapped.dim, mapped.dtype, mapped.kind) == (1, np.uint8, "sift")
        assert mapped.offsets.tolist() == [0, 12, 20]
        assert mapped.items == ["a", "b"]
        assert mapped.columns["weights"] is weights
        assert mapped.toarray().shape == (20, 1)
        assert stream.map(halve, dim=1, dtype=np.uint8, kind="half").kind == "half"
        assert mapped.rechunk(3).columns["weights"] is weights

    def test_writing(self, tmp_path):
        assert cut(ROWS, [5, 6]).write(tmp_path / "rows.fvecs") == 20
        assert np.array_equal(vwkit.read(tmp_path / "rows.fvecs").toarray(), ROWS)

    def test_it_shows_itself(self):
        assert repr(cut(ROWS, [5])) == "Stream(? × 3 float32)"
        assert repr(Stream.from_array(ROWS)) == "Stream(20 × 3 float32)"


class TestRefusals:
    def test_a_generator(self):
        with pytest.raises(vwkit.DataError, match="fresh iterator.*generator.*only once"):
            Stream((chunk for chunk in [ROWS]), dim=3, dtype=np.float32)

    def test_a_function_that_returns_the_same_iterator(self):
        once = iter([ROWS])
        stream = Stream(lambda: once, dim=3, dtype=np.float32)
        assert stream.count() == 20
        with pytest.raises(vwkit.DataError, match="20 rows brought 0 rows"):
            list(stream)

    @pytest.mark.parametrize("promised", [19, 21, 7])
    def test_another_number_of_rows_than_promised(self, promised):
        parts = np.split(ROWS, [6, 12, 14])
        stream = Stream(lambda: parts, dim=3, dtype=np.float32, rows=promised)
        for read in (stream.toarray, lambda: list(stream), lambda: list(stream.rechunk(4))):
            with pytest.raises(vwkit.DataError, match=f"{promised} rows brought 20"):
                read()

    @pytest.mark.parametrize(
        "chunk",
        [ROWS[:, :2], ROWS.astype(np.float64), ROWS[0], [[1.0, 2.0, 3.0]], ROWS.astype(">f4"), []],
    )
    def test_chunks_of_another_shape_or_dtype(self, chunk):
        stream = Stream(lambda: [ROWS, chunk], dim=3, dtype=np.float32)
        with pytest.raises(vwkit.ShapeError, match="dim 3 and dtype float32.*at row 20"):
            list(stream)

    @pytest.mark.parametrize("stream", [Stream.from_array(ROWS), cut(ROWS, [5])])
    @pytest.mark.parametrize("rows", [[1, 0], [-1], [0.5], [[1]], [True], ["a"], [20], [3, 99]])
    def test_rows_that_are_not_there(self, stream, rows):
        with pytest.raises(vwkit.DataError, match="ascending|was asked of a Stream of 20"):
            stream.take(rows)
