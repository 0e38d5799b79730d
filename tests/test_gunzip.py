"""Compressed descriptor files: whichever library decompresses, the same rows and the same refusals."""

import gzip
import sys
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vwkit.errors import FormatError
from vwkit.formats import gunzip, open_vectors
from vwkit.formats.ahead import read_ahead

LIBRARIES = ["zlib", "isal.isal_zlib"]
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def library(name):
    return pytest.importorskip(name, reason="isal is not installed: pip install '.[gzip]'")


@pytest.fixture(params=LIBRARIES)
def using(request, monkeypatch):
    found = library(request.param)
    monkeypatch.setattr(gunzip, "_library", lambda: found)
    return found


def records(rows, seed=0, dim=8):
    vectors = np.random.default_rng(seed).integers(0, 40, (rows, dim)).astype(np.uint8)
    heads = np.frombuffer(np.int32(dim).tobytes() * rows, np.uint8).reshape(rows, 4)
    return vectors, np.concatenate([heads, vectors], axis=1).tobytes()


def put(tmp_path, content):
    path = tmp_path / "a.bvecs.gz"
    path.write_bytes(content)
    return path


def test_isal_is_taken_where_it_is(monkeypatch):
    library("isal.isal_zlib")
    gunzip._library.cache_clear()
    assert gunzip._library().__name__ == "isal.isal_zlib"
    gunzip._library.cache_clear()
    monkeypatch.setitem(sys.modules, "isal", None)
    assert gunzip._library() is zlib
    gunzip._library.cache_clear()


def test_all_rows(using, tmp_path):
    vectors, content = records(300_000)
    file = open_vectors(put(tmp_path, gzip.compress(content, 1)))
    np.testing.assert_array_equal(np.concatenate(list(file.chunks(10_001))), vectors)
    assert file.rows == 300_000


def test_several_members_and_zeros_after_them(using, tmp_path):
    vectors, content = records(5000)
    packed = gzip.compress(content[:7001]) + bytes(70_000) + gzip.compress(content[7001:])
    file = open_vectors(put(tmp_path, packed + bytes(200_000)))
    np.testing.assert_array_equal(np.concatenate(list(file.chunks(777))), vectors)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda packed: packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:],
            "the compressed data are damaged",
        ),
        (lambda packed: packed[:-1] + bytes([packed[-1] ^ 1]), "the compressed data are damaged"),
        (lambda packed: packed + b"something else", "the compressed data are damaged"),
        (lambda packed: packed[:-1], "the file is cut: 5000 whole rows could be read and 0 bytes"),
        (lambda packed: packed[:-9], "the file is cut"),
        (lambda packed: packed[: len(packed) // 2], "the file is cut"),
        (lambda packed: packed[:12], "0 whole rows"),
        (lambda packed: packed[:10] + b"\xff" * 20 + packed[30:], "damaged"),
    ],
)
def test_damage(using, damage, message, tmp_path):
    _, content = records(5000)
    path = put(tmp_path, damage(gzip.compress(content)))
    with pytest.raises(FormatError, match=message):
        list(open_vectors(path).chunks(1000))


@SETTINGS
@given(data=st.data())
def test_both_libraries_agree(data, tmp_path, monkeypatch):
    other = library("isal.isal_zlib")
    rows = data.draw(st.integers(1, 400))
    _, content = records(rows, seed=rows)
    packed = bytearray(gzip.compress(content, data.draw(st.sampled_from([0, 1, 6, 9]))))
    packed = packed[: data.draw(st.integers(len(packed) // 2, len(packed)))]
    for _ in range(data.draw(st.integers(0, 2))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    path = put(tmp_path, bytes(packed))
    found = []
    for one in (zlib, other):
        monkeypatch.setattr(gunzip, "_library", lambda one=one: one)
        try:
            file = open_vectors(path, partial=True)
            read = np.concatenate(list(file.chunks(50)))
            found.append((file.cut, read))
        except FormatError as error:
            # Which damage is found first, in the packing or in the rows, is up to the library.
            found.append(None)
            assert str(path) in str(error)
    if None in found:
        assert found == [None, None]
        return
    (cut, first), (also_cut, second) = found
    assert cut == also_cut
    np.testing.assert_array_equal(first, second)


def test_a_row_whose_last_bytes_a_library_keeps_is_there(tmp_path, monkeypatch):
    """ISA-L gives up to two bytes less than zlib of data that are cut: here they end a row."""
    other = library("isal.isal_zlib")
    vectors, content = records(20_000, dim=1)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31, 9, zlib.Z_HUFFMAN_ONLY)  # codes are short
    packed = packer.compress(content) + packer.flush()
    tried = 0
    for stop in range(len(packed) - 3000, len(packed) - 10):
        given = [len(one.decompressobj(31).decompress(packed[:stop])) for one in (zlib, other)]
        assert 0 <= given[0] - given[1] <= 2
        if given[0] // 5 == given[1] // 5:
            continue
        tried += 1
        path = put(tmp_path, packed[:stop])
        for one in (zlib, other):
            monkeypatch.setattr(gunzip, "_library", lambda one=one: one)
            file = open_vectors(path, partial=True)
            found = np.concatenate(list(file.chunks(7001)))
            np.testing.assert_array_equal(found, vectors[: given[0] // 5])
            assert (file.cut, file.partial_bytes) == (True, given[0] % 5)
        if tried == 4:
            return
    pytest.fail("no cut was found where they differ")


def test_what_is_compressed_well_fills_no_memory(using, tmp_path):
    packer = zlib.compressobj(9, wbits=31)
    row = records(1)[1]
    packed = b"".join(packer.compress(row * 100_000) for _ in range(40)) + packer.flush()
    path = put(tmp_path, packed)
    file = open_vectors(path)
    tracemalloc.start()
    try:
        assert sum(len(chunk) for chunk in file.chunks(1000)) == 4_000_000
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


class TestReadAhead:
    def test_everything_in_order(self):
        assert list(read_ahead((n * n for n in range(100)), 4)) == [n * n for n in range(100)]
        assert list(read_ahead((n for n in ()), 4)) == []

    def test_an_error_comes_after_what_was_before_it(self):
        def items():
            yield 1
            yield 2
            raise ValueError("no more")

        found = read_ahead(items(), 4)
        assert [next(found), next(found)] == [1, 2]
        with pytest.raises(ValueError, match="no more"):
            next(found)

    def test_it_runs_no_further_than_asked_and_ends_its_generator(self):
        begun, ended = [], []

        def items():
            try:
                for n in range(1000):
                    begun.append(n)
                    yield n
            finally:
                ended.append(True)

        before = threading.active_count()
        found = read_ahead(items(), 4)
        assert [next(found) for _ in range(5)] == list(range(5))
        found.close()
        assert len(begun) <= 5 + 4
        assert ended == [True]
        assert threading.active_count() == before
