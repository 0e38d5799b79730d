"""Descriptor files: what is written is read back, and nothing damaged is read as if it were whole."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import stat
import struct
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vwkit.errors import (
    DataError,
    FormatError,
    ParameterError,
    ShapeError,
    UnsupportedError,
    VwkitError,
)
from vwkit.formats import FORMATS, MissingFileError, VectorFile, open_vectors, write_vectors
from vwkit.formats.oxford import (
    check_counts,
    offsets_from_counts,
    read_counts,
    read_image_list,
    read_words,
    verify_alignment,
)

# Ending -> the types it stores as they are.
WRITABLE = {
    ".fvecs": ("f4",),
    ".ivecs": ("i4",),
    ".bvecs": ("u1",),
    ".fvecs.gz": ("f4",),
    ".ivecs.gz": ("i4",),
    ".bvecs.gz": ("u1",),
    ".npy": ("u1", "i1", "f2", "f4", "f8", "i4", "u2", "u4", "i8", "u8", "i2"),
    ".fbin": ("f4",),
    ".u8bin": ("u1",),
    ".i8bin": ("i1",),
    ".ibin": ("i4",),
}
TEXMEX = ("fvecs", "ivecs", "bvecs")

SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def array_of(rows: int, dim: int, dtype: str, seed: int = 0) -> np.ndarray:
    # Any bits are allowed: NaN and infinity are no matter of layout.
    bits = np.random.default_rng(seed).bytes(rows * dim * np.dtype(dtype).itemsize)
    return np.frombuffer(bits, dtype).reshape(rows, dim)


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal in shape, type and every bit."""
    return (
        found.shape == expected.shape
        and found.dtype == expected.dtype
        and found.tobytes() == expected.tobytes()
        and bool(found.flags.c_contiguous)
    )


def read_all(file: VectorFile, rows_per_chunk: int = 7) -> np.ndarray:
    return np.concatenate(list(file.chunks(rows_per_chunk)))


def texmex(array: np.ndarray) -> bytes:
    """The obvious writer."""
    return b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in array)


# Round trips ---------------------------------------------------------------------------------


def test_every_format_has_a_round_trip():
    tested = {name for name, known in FORMATS.items() if set(known.extensions) & set(WRITABLE)}
    assert tested == set(FORMATS) - {"oxford-sift"}
    assert all(known.description for known in FORMATS.values())


@SETTINGS
@given(
    kind=st.sampled_from([(ending, t) for ending, types in WRITABLE.items() for t in types]),
    rows=st.integers(1, 30),
    dim=st.integers(1, 9),
    cut=st.integers(1, 40),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_what_is_written_is_read_back(tmp_path, kind, rows, dim, cut, chunk, seed):
    ending, dtype = kind
    array = array_of(rows, dim, dtype, seed)
    path = tmp_path / f"some{ending}"
    pieces = [array[at : at + cut] for at in range(0, rows, cut)]
    assert write_vectors(path, pieces, dim=dim, dtype=dtype, rows=rows) == rows
    assert not list(tmp_path.glob(".*"))

    file = open_vectors(path)
    assert (file.path, file.dim, file.dtype) == (path, dim, np.dtype(dtype))
    assert file.format == open_vectors(path, file.format).format
    parts = list(file.chunks(chunk))
    assert [len(part) for part in parts[:-1]] == [chunk] * (len(parts) - 1)
    assert same(np.concatenate(parts), array)
    assert same(read_all(file), array), "a second iterator begins again"
    assert file.rows == rows
    assert (file.cut, file.partial_bytes) == (False, 0)

    some = np.sort(np.random.default_rng(seed).integers(0, rows, 5))
    assert same(file.take(some), array[some])
    assert same(file.take([]), array[:0])
    if ending.endswith(".gz"):
        assert open_vectors(path).rows is None
        with pytest.raises(UnsupportedError, match="gunzip"):
            file.read(0, 1)
    else:
        assert same(file.read(rows // 3, rows), array[rows // 3 :])
        assert same(file.read(rows, rows), array[:0])
    if file.format in TEXMEX:
        assert file.array is None
    else:
        assert same(file.array, array)
        assert not file.array.flags.writeable
        assert isinstance(file.array, np.memmap)


@pytest.mark.parametrize(("format", "dtype"), [("fvecs", "f4"), ("ivecs", "i4"), ("bvecs", "u1")])
def test_texmex_bytes_are_the_documented_ones(tmp_path, format, dtype):
    array = array_of(5, 3, dtype)
    write_vectors(tmp_path / f"x.{format}", [array], dim=3, dtype=dtype)
    assert (tmp_path / f"x.{format}").read_bytes() == texmex(array)
    write_vectors(tmp_path / f"x.{format}.gz", [array], dim=3, dtype=dtype)
    assert gzip.decompress((tmp_path / f"x.{format}.gz").read_bytes()) == texmex(array)


def test_bigann_bytes_are_the_documented_ones(tmp_path):
    array = array_of(5, 3, "f4")
    write_vectors(tmp_path / "x.fbin", [array], dim=3, dtype="f4")
    assert (tmp_path / "x.fbin").read_bytes() == struct.pack("<II", 5, 3) + array.tobytes()


def test_npy_files_go_both_ways_with_numpy(tmp_path):
    array = array_of(6, 4, "f8")
    path = tmp_path / "x.npy"
    write_vectors(path, [array], dim=4, dtype="f8")
    assert same(np.load(path, allow_pickle=False), array)
    for version in [(1, 0), (2, 0), (3, 0)]:
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version=version)
        assert same(read_all(open_vectors(path)), array)


@SETTINGS
@given(
    dtype=st.sampled_from([">f4", ">i8", "<f4", "u1"]),
    order=st.sampled_from("CF"),
    rows=st.integers(2, 20),
    dim=st.integers(2, 6),
)
def test_npy_in_other_orders_comes_out_native_and_in_rows(tmp_path, dtype, order, rows, dim):
    array = array_of(rows, dim, dtype)
    np.save(tmp_path / "x.npy", np.asarray(array, order=order))
    file = open_vectors(tmp_path / "x.npy")
    native = array.astype(array.dtype.newbyteorder("="))
    assert same(read_all(file, 3), native)
    assert same(file.read(1, rows), native[1:])
    assert same(file.take([0, 0, rows - 1]), native[[0, 0, rows - 1]])
    assert (file.array is None) == (order == "F" or dtype[0] == ">")


def test_npy_headers_of_python_2_are_read(tmp_path):
    array = array_of(3, 2, "f4")
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 2L), }".ljust(117) + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0v\0" + text + array.tobytes())
    assert same(read_all(open_vectors(tmp_path / "x.npy")), array)


def test_several_gzip_members_and_padding_are_one_file(tmp_path):
    array = array_of(50, 8, "u1")
    content = texmex(array)
    parts = [gzip.compress(content[:100]), gzip.compress(content[100:]), bytes(9)]
    (tmp_path / "x.bvecs.gz").write_bytes(b"".join(parts))
    assert same(read_all(open_vectors(tmp_path / "x.bvecs.gz")), array)


def test_compressed_files_larger_than_a_block(tmp_path):
    array = np.random.default_rng(0).integers(0, 3, (40_000, 100), np.uint8)
    write_vectors(tmp_path / "x.bvecs.gz", [array], dim=100, dtype="u1")
    file = open_vectors(tmp_path / "x.bvecs.gz")
    assert same(read_all(file, 1), array)
    assert same(read_all(file, 17_000), array)
    rows = np.array([0, 12_345, 12_345, 39_999])
    assert same(open_vectors(file.path).take(rows), array[rows])


def test_stored_files_larger_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("vwkit.formats.texmex._PIECE", 50)
    monkeypatch.setattr("vwkit.formats.writing._PIECE", 50)
    array = array_of(33, 4, "f4")
    for ending in (".fvecs", ".npy", ".fvecs.gz"):
        write_vectors(tmp_path / f"x{ending}", array, dim=4, dtype="f4")
        file = open_vectors(tmp_path / f"x{ending}")
        assert same(read_all(file, 20), array)
        assert same(file.take(np.arange(33)), array)


def test_equal_rows_give_equal_bytes_however_chunked(tmp_path):
    array = array_of(40, 4, "u1")
    for ending in (".bvecs.gz", ".npy"):
        one, two = tmp_path / f"one{ending}", tmp_path / f"two{ending}"
        write_vectors(one, [array], dim=4, dtype="u1")
        write_vectors(two, [array[:11], array[11:11], array[11:]], dim=4, dtype="u1")
        assert one.read_bytes() == two.read_bytes()


# Damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", TEXMEX)
def test_every_truncation_of_a_texmex_file(tmp_path, format):
    array = array_of(4, 3, {"fvecs": "f4", "ivecs": "i4", "bvecs": "u1"}[format])
    content = texmex(array)
    width = len(content) // 4
    path = tmp_path / f"x.{format}"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        rows, spare = divmod(size, width)
        if rows and not spare:
            assert same(read_all(open_vectors(path)), array[:rows])
            continue
        with pytest.raises(FormatError) as caught:
            open_vectors(path)
        assert str(path) in str(caught.value)
        if rows:
            assert f"row {rows - 1} is its last whole row" in str(caught.value)
            assert f"{spare} bytes of row {rows} follow" in str(caught.value)
            file = open_vectors(path, partial=True)
            assert (file.rows, file.cut, file.partial_bytes) == (rows, True, spare)
            assert same(read_all(file), array[:rows])
        else:
            with pytest.raises(FormatError, match=r"0 rows|0 whole rows|ends after"):
                open_vectors(path, partial=True)


@pytest.mark.parametrize("ending", [".npy", ".fbin"])
def test_every_truncation_of_a_file_with_a_header(tmp_path, ending):
    array = array_of(4, 3, "f4")
    path = tmp_path / f"x{ending}"
    write_vectors(path, [array], dim=3, dtype="f4")
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError) as caught:
            open_vectors(path)
        assert str(path) in str(caught.value)
    assert f"{len(content)} bytes" in str(caught.value)
    assert f"has {len(content) - 1}" in str(caught.value)
    path.write_bytes(content + b"x")
    with pytest.raises(FormatError, match=f"has {len(content) + 1}"):
        open_vectors(path, partial=True)


def test_the_first_part_of_a_bigann_file(tmp_path):
    array = array_of(4, 3, "f4")
    path = tmp_path / "base.1B.fbin.crop_nb_2"
    path.write_bytes(struct.pack("<II", 4, 3) + array[:2].tobytes() + b"abc")
    with pytest.raises(FormatError, match="partial=True to use its 2 whole rows"):
        open_vectors(path)
    file = open_vectors(path, partial=True)
    assert (file.format, file.rows, file.cut, file.partial_bytes) == ("fbin", 2, True, 3)
    assert same(read_all(file), array[:2])
    assert same(file.array, array[:2])


def test_a_gz_cut_at_every_byte(tmp_path):
    array = array_of(30, 6, "u1")
    content = gzip.compress(texmex(array), mtime=0)
    path = tmp_path / "x.bvecs.gz"
    last = -1
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError) as caught:
            read_all(open_vectors(path))
        assert str(path) in str(caught.value)
        try:
            file = open_vectors(path, partial=True)
            found = read_all(file, 4)
        except FormatError as error:
            assert last == -1, "more bytes never give fewer rows"
            assert "0 rows" in str(error) or "0 whole rows" in str(error)
            continue
        assert same(found, array[: len(found)])
        assert len(found) >= last
        last = len(found)
        assert (file.rows, file.cut) == (last, True)
        assert 0 <= file.partial_bytes < 10
        message = f"{last} whole rows could be read and {file.partial_bytes} bytes of row {last}"
        assert message in str(caught.value)
    assert last == 30, "all rows are there when only the checksum is cut off"
    path.write_bytes(content)
    assert same(read_all(open_vectors(path)), array)


def test_a_gz_whose_content_ends_within_a_row(tmp_path):
    array = array_of(5, 6, "u1")
    path = tmp_path / "x.bvecs.gz"
    path.write_bytes(gzip.compress(texmex(array)[:-3]))
    with pytest.raises(FormatError, match="4 whole rows could be read and 7 bytes of row 4"):
        read_all(open_vectors(path))
    assert same(read_all(open_vectors(path, partial=True)), array[:4])


def test_a_damaged_gz_is_refused_even_if_partial(tmp_path):
    path = tmp_path / "x.bvecs.gz"
    for rows, message in [(5, "data are damaged"), (40_000, r"damaged after about \d+ whole rows")]:
        content = bytearray(gzip.compress(texmex(np.zeros((rows, 100), np.uint8))))
        content[-6] ^= 1  # the checksum
        path.write_bytes(content)
        for partial in (False, True):
            with pytest.raises(FormatError, match=message):
                read_all(open_vectors(path, partial=partial), 1000)


def test_a_gz_that_is_none_and_one_without_the_name(tmp_path):
    array = array_of(5, 6, "u1")
    (tmp_path / "x.bvecs.gz").write_bytes(texmex(array))
    with pytest.raises(FormatError, match=r"rename it to x\.bvecs$"):
        open_vectors(tmp_path / "x.bvecs.gz")
    (tmp_path / "download").write_bytes(gzip.compress(texmex(array)))
    assert same(read_all(open_vectors(tmp_path / "download", "bvecs")), array)


@SETTINGS
@given(
    row=st.integers(1, 19),
    found=st.integers(-(2**31), 2**31 - 1).filter(lambda d: d != 5),
    ending=st.sampled_from([".bvecs", ".fvecs", ".bvecs.gz"]),
    chunk=st.integers(1, 25),
)
def test_a_wrong_dimension_in_any_row_is_found(tmp_path, row, found, ending, chunk):
    array = array_of(20, 5, WRITABLE[ending][0])
    content = bytearray(texmex(array))
    at = row * len(content) // 20
    content[at : at + 4] = struct.pack("<i", found)
    path = tmp_path / f"x{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    expected = rf"row {row} \(the first is 0\) has dimension {found}, expected 5"
    file = open_vectors(path)
    with pytest.raises(FormatError, match=expected) as caught:
        read_all(file, chunk)
    assert str(path) in str(caught.value)
    with pytest.raises(FormatError, match=expected):
        file.take([0, row])
    if not ending.endswith(".gz"):
        assert same(file.read(0, row), array[:row])
        with pytest.raises(FormatError, match=expected):
            file.read(row, 20)


def test_a_file_of_another_format_is_not_called_truncated(tmp_path):
    path = tmp_path / "x.bvecs"
    path.write_bytes(texmex(array_of(3, 6, "f4")))
    with pytest.raises(FormatError, match=r"row 1 .* has dimension"):
        open_vectors(path)


@pytest.mark.parametrize("claim", [0, -1, -(2**31), 1_000_001, 2**31 - 1])
@pytest.mark.parametrize("ending", [".bvecs", ".fvecs", ".ivecs.gz"])
def test_implausible_dimensions_are_refused(tmp_path, claim, ending):
    content = struct.pack("<i", claim) + bytes(2000)
    path = tmp_path / f"x{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    with pytest.raises(FormatError, match=f"dimension {claim}, allowed are 1 to 1000000"):
        open_vectors(path, partial=True)


def npy(header: str, data: bytes = bytes(24)) -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x93NUMPY\1\0\xff\xff", "damaged"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff", "damaged"),
        (b"\x93NUMPY\7\0" + bytes(20), "unknown version"),
        (b"PK\3\4" + bytes(20), "is not an npy file"),
        (npy("{}"), "damaged"),
        (npy("{'descr': '<f4', 'shape': (2, 3), }"), "damaged"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': 'x', }"), "damaged"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }"), "Python objects"),
        (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }"), "fields"),
        (npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1, 3), }"), "'<c8'"),
        (npy("{'descr': '|b1', 'fortran_order': False, 'shape': (4, 6), }"), r"'\|b1'"),
        (npy("{'descr': '<f4,<f4', 'fortran_order': False, 'shape': (4, 6), }"), "'<f4,<f4'"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }"), r"shape \(6,\)"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (), }"), r"shape \(\)"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }"), "two dimensions"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }", b""), "0 rows"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }"), "damaged"),
        (npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**15}, 128), }}"), "claims"),
        (npy(f"{{'descr': '<f4', 'fortran_order': True, 'shape': ({10**17}, 99), }}"), "claims"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000), "damaged"),
    ],
    ids=itertools.count(),
)
def test_npy_files_that_hold_no_vectors(tmp_path, content, message):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        open_vectors(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_an_npy_of_objects_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "x.npy", np.array([[Trap()]], object), allow_pickle=True)
    with pytest.raises(FormatError, match="Python objects"):
        open_vectors(tmp_path / "x.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("rows", "dim"), [(2**32 - 1, 2**32 - 1), (10**9, 128), (0, 128), (1, 0), (2, 3)]
)
def test_bigann_headers_that_are_not_true(tmp_path, rows, dim):
    path = tmp_path / "x.u8bin"
    path.write_bytes(struct.pack("<II", rows, dim) + bytes(7))
    with pytest.raises(FormatError, match=f"claims {rows} rows of dimension {dim}"):
        open_vectors(path)


@pytest.mark.parametrize("ending", [*WRITABLE, "_sift.bin"])
def test_empty_files(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"0 rows|0 whole rows"):
        open_vectors(path)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(FormatError):
        open_vectors(path)


@pytest.mark.parametrize("ending", [".fvecs", ".npy", ".u8bin"])
def test_a_file_that_shrinks_after_opening_kills_nobody(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    dtype = WRITABLE[ending][0]
    write_vectors(path, [array_of(100, 100, dtype)], dim=100, dtype=dtype)
    file = open_vectors(path)
    os.truncate(path, 300)
    for use in (lambda: file.read(0, 100), lambda: file.take([99]), lambda: read_all(file)):
        with pytest.raises(FormatError, match="changed while in use"):
            use()
    path.unlink()
    with pytest.raises(MissingFileError):
        file.read(0, 1)


NAMES = [f"x{ending}" for ending in (*WRITABLE, "_sift.bin", ".what")]
BEGINNINGS = [b"", b"\x93NUMPY\1\0v\0", b"\x1f\x8b\x08\0\0\0\0\0", b"\4\0\0\0", b"\1\0\0\0\1\0\0\0"]


def use(path: Path) -> None:
    for partial in (False, True):
        with own_errors(path):
            file = open_vectors(path, partial=partial)
            found = read_all(file, 3)
            assert found.shape == (file.rows, file.dim)
            assert same(file.take([0, file.rows - 1]), found[[0, -1]])


@contextmanager
def own_errors(path: Path):
    """Let errors of ours pass if they are one line that names the file."""
    message = str(path)
    try:
        yield
    except VwkitError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message


@settings(SETTINGS, max_examples=150)
@given(
    name=st.sampled_from(NAMES),
    beginning=st.sampled_from(BEGINNINGS),
    content=st.binary(max_size=300),
    compress=st.booleans(),
)
def test_random_bytes_give_errors_of_ours_or_rows(tmp_path, name, beginning, content, compress):
    content = beginning + content
    (tmp_path / name).write_bytes(gzip.compress(content) if compress else content)
    use(tmp_path / name)


@settings(SETTINGS, max_examples=150)
@given(
    ending=st.sampled_from(list(WRITABLE)),
    at=st.integers(0, 10_000),
    value=st.integers(1, 255),
    cut=st.integers(0, 20),
)
def test_one_wrong_byte_gives_errors_of_ours_or_rows(tmp_path, ending, at, value, cut):
    path = tmp_path / f"x{ending}"
    dtype = WRITABLE[ending][0]
    write_vectors(path, [array_of(4, 4, dtype)], dim=4, dtype=dtype)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= value
    path.write_bytes(content[: len(content) - cut])
    use(path)


# Opening -------------------------------------------------------------------------------------


def test_the_name_or_the_content_tells_the_format(tmp_path):
    array = array_of(3, 2, "u1")
    for name, format in [("A.BVECS", "bvecs"), ("a.b.Npy", "npy"), ("a.u8bin", "u8bin")]:
        write_vectors(tmp_path / name, [array], dim=2, dtype="u1")
        assert open_vectors(str(tmp_path / name)).format == format
    (tmp_path / "a.b.Npy").rename(tmp_path / "nameless")
    assert open_vectors(tmp_path / "nameless").format == "npy"
    assert "rows=3, dim=2, dtype=uint8" in repr(open_vectors(tmp_path / "nameless"))


def test_an_unknown_file_gets_a_list_of_formats(tmp_path):
    path = tmp_path / "vectors.dat"
    path.write_bytes(texmex(array_of(3, 2, "u1")))
    with pytest.raises(FormatError) as caught:
        open_vectors(path)
    for name, known in FORMATS.items():
        assert name in str(caught.value)
        assert all(ending in str(caught.value) for ending in known.extensions)
    assert "`use: bvecs`" in str(caught.value)
    assert open_vectors(path, "bvecs").rows == 3


def test_an_unknown_format_gets_a_suggestion(tmp_path):
    with pytest.raises(ParameterError, match=r"'bvec'.*did you mean bvecs"):
        open_vectors(tmp_path / "x", "bvec")
    with pytest.raises(ParameterError, match=r"'bvec'.*did you mean bvecs"):
        write_vectors(tmp_path / "x", [], dim=1, dtype="u1", format="bvec")


def test_missing_files_folders_and_pipes(tmp_path):
    with pytest.raises(MissingFileError, match=r"no such file: .*x\.bvecs$") as caught:
        open_vectors(tmp_path / "x.bvecs")
    assert isinstance(caught.value, DataError)
    assert caught.value.exit_status == 2
    with pytest.raises(MissingFileError, match="zero byte"):
        open_vectors("a\0b.npy")
    with pytest.raises(FormatError, match="is a folder"):
        open_vectors(tmp_path)
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(FormatError, match="not a regular file"):
        open_vectors(tmp_path / "pipe.npy")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FormatError, match="cannot be read: Not a directory"):
        open_vectors(tmp_path / "file" / "x.npy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "x.bvecs").write_bytes(texmex(array_of(3, 2, "u1")))
    (tmp_path / "x.bvecs").chmod(0)
    with pytest.raises(FormatError, match="cannot be read: Permission denied"):
        open_vectors(tmp_path / "x.bvecs")


def test_refusals_of_the_system_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "x.bvecs").write_bytes(texmex(array_of(3, 2, "u1")))
    file = open_vectors(tmp_path / "x.bvecs")

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    for attempt in (lambda: open_vectors(file.path), lambda: file.read(0, 1)):
        with pytest.raises(FormatError, match=r"x\.bvecs: cannot be read: Permission denied$"):
            attempt()


@pytest.mark.parametrize("ending", [".bvecs", ".npy", ".bvecs.gz"])
def test_rows_that_are_not_there(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    write_vectors(path, [array_of(5, 2, "u1")], dim=2, dtype="u1")
    file = open_vectors(path)
    with pytest.raises(DataError, match="row 5 was asked for; it has 5 rows"):
        file.take([0, 5])
    with pytest.raises(DataError, match="row -1 was asked for"):
        file.take([-1, 2])
    with pytest.raises(DataError, match="sort them"):
        file.take([2, 1])
    with pytest.raises(DataError, match="float64"):
        file.take([0.5])
    with pytest.raises(ShapeError, match=r"\(1, 1\)"):
        file.take([[0]])
    for start, stop in [(-1, 2), (3, 2), (0, 6)]:
        with pytest.raises(DataError, match=rf"\[{start}, {stop}\) were asked for"):
            file.read(start, stop)
    with pytest.raises(ParameterError, match="at least 1, was given 0"):
        file.chunks(0)


# Memory --------------------------------------------------------------------------------------


def peak_of(action) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", [".bvecs", ".npy", ".u8bin", ".bvecs.gz"])
def test_memory_is_that_of_a_chunk(tmp_path, ending):
    path, rows = tmp_path / f"x{ending}", 200_000

    def chunks():
        for at in range(0, rows, 2000):
            yield np.full((2000, 128), at % 251, np.uint8)

    def write():
        assert write_vectors(path, chunks(), dim=128, dtype="u1") == rows

    def read():
        assert sum(len(chunk) for chunk in open_vectors(path).chunks(2000)) == rows

    # The file has 25.6 MB, a chunk 0.256 MB; one step of decompression takes up to 1 MB.
    assert peak_of(write) < 2_000_000
    assert peak_of(read) < 5_000_000


def test_claims_take_no_memory(tmp_path):
    path = tmp_path / "x.fvecs.gz"
    path.write_bytes(gzip.compress(struct.pack("<i", 1_000_000) + bytes(100)))

    def read():
        with pytest.raises(FormatError, match="0 whole rows"):
            list(open_vectors(path, partial=True).chunks(10**9))

    assert peak_of(read) < 2_000_000


def test_a_bomb_is_read_only_as_far_as_asked_for(tmp_path):
    path = tmp_path / "x.bvecs.gz"
    with gzip.open(path, "wb", 9) as file:
        for _ in range(100):
            file.write(texmex(np.zeros((10_000, 8), np.uint8)))

    def read():
        assert len(next(open_vectors(path).chunks(100))) == 100

    assert peak_of(read) < 4_000_000


def test_importing_is_light():
    code = "import sys, vwkit.formats; print(*(n for n in sys.modules if '.' not in n))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "pluggy", "yaml", "PIL", "h5py", "cv2"} & set(run.stdout.split())


# Writing -------------------------------------------------------------------------------------


def broken(array):
    yield array
    raise RuntimeError("the source failed")


@pytest.mark.parametrize("ending", [".bvecs", ".bvecs.gz", ".npy"])
@pytest.mark.parametrize("before", [None, b"what was there"])
def test_nothing_is_left_of_a_failed_write(tmp_path, ending, before):
    path = tmp_path / f"x{ending}"
    if before is not None:
        path.write_bytes(before)
    array = array_of(4, 3, "u1")
    attempts = [
        (RuntimeError, "the source failed", broken(array), {}),
        (
            ShapeError,
            r"chunk 1 has shape \(4, 2\), expected \(rows, 3\)",
            [array, array[:, :2]],
            {},
        ),
        (ShapeError, r"chunk 0 has shape \(3,\)", iter(array), {}),
        (DataError, "row 4 comes as float64, which uint8", [array, array.astype("f8")], {}),
        (DataError, "5 rows were promised, 4 came", [array], {"rows": 5}),
        (DataError, "no rows", [], {}),
        (DataError, "no rows", [array[:0]], {}),
    ]
    for kind, message, chunks, more in attempts:
        with pytest.raises(kind, match=message):
            write_vectors(path, chunks, dim=3, dtype="u1", **more)
        assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == (
            {} if before is None else {path.name: before}
        )


def test_a_file_can_be_rewritten_from_itself(tmp_path):
    array = array_of(20, 3, "f4")
    path = tmp_path / "x.fvecs"
    write_vectors(path, [array], dim=3, dtype="f4")
    write_vectors(path, open_vectors(path).chunks(6), dim=3, dtype="f4")
    assert same(read_all(open_vectors(path)), array)


def test_a_written_file_has_ordinary_permissions(tmp_path):
    write_vectors(tmp_path / "x.npy", [array_of(2, 2, "u1")], dim=2, dtype="u1")
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    assert len(modes) == 1


def test_types_that_fit_are_converted(tmp_path):
    ids = np.array([[1, 2], [-5, 2**31 - 1]])
    write_vectors(tmp_path / "x.ivecs", [ids], dim=2, dtype=ids.dtype)
    assert same(read_all(open_vectors(tmp_path / "x.ivecs")), ids.astype("i4"))
    wide = np.array([[0.1, np.inf], [np.nan, -1e300 * 1e-290]])
    write_vectors(tmp_path / "x.fvecs", [wide], dim=2, dtype="f8")
    assert same(read_all(open_vectors(tmp_path / "x.fvecs")), wide.astype("f4"))
    write_vectors(tmp_path / "y.fvecs", [np.array([[7, 8]], "u1")], dim=2, dtype="u1")
    assert same(read_all(open_vectors(tmp_path / "y.fvecs")), np.array([[7, 8]], "f4"))
    write_vectors(tmp_path / "z.npy", [ids.astype(">i8")], dim=2, dtype=">i8")
    assert same(read_all(open_vectors(tmp_path / "z.npy")), ids)
    write_vectors(tmp_path / "f.npy", [np.asfortranarray(ids)], dim=2, dtype="i8")
    assert same(read_all(open_vectors(tmp_path / "f.npy")), ids)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x.ivecs", np.array([[0, 1], [2, 2**31]]), "row 1 .* holds 2147483648, which int32"),
        ("x.ibin", np.array([[2**64 - 1, 0]], "u8"), "row 0 .* holds 18446744073709551615"),
        ("x.fvecs", np.array([[0, 0], [1e300, 0]]), r"row 1 .* holds 1e\+300, which float32"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, name, array, message):
    with pytest.raises(DataError, match=message):
        write_vectors(tmp_path / name, [array], dim=2, dtype=array.dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("x.bvecs", {"dtype": "f4"}, "bvecs holds uint8, was given float32"),
        ("x.bvecs", {"dtype": "i8"}, "bvecs holds uint8, was given int64"),
        ("x.ivecs", {"dtype": "f4"}, "ivecs holds int32, was given float32"),
        ("x.fvecs", {"dtype": "i8"}, "fvecs holds float32, was given int64"),
        ("x.npy", {"dtype": "O"}, "plain integers or floats, was given object"),
        ("x.npy", {"dtype": "c16"}, "plain integers or floats"),
        ("x.npy", {"dim": 0}, "dimensions from 1"),
        ("x.bvecs", {"dim": 1_000_001}, "dimensions from 1 to 1000000"),
        ("x.dat", {}, "tells no descriptor format; known are fvecs"),
        ("x_sift.bin", {}, "oxford-sift can only be read"),
        ("x.npy.gz", {"format": "npy"}, "drop the .gz"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, more, message):
    array = array_of(2, 2, "u1")
    with pytest.raises(ParameterError, match=message):
        write_vectors(tmp_path / name, [array], **{"dim": 2, "dtype": "u1", **more})
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    array = array_of(2, 2, "u1")
    with pytest.raises(MissingFileError, match="no such folder"):
        write_vectors(tmp_path / "no" / "x.npy", [array], dim=2, dtype="u1")
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(FormatError, match="is a folder"):
        write_vectors(tmp_path / "x.npy", [array], dim=2, dtype="u1")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FormatError, match="cannot be written: No space left on device"):
        write_vectors(tmp_path / "y.npy", [array], dim=2, dtype="u1")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npy"]


def test_a_failing_source_is_not_called_a_failing_disk(tmp_path):
    def source():
        yield array_of(2, 2, "u1")
        raise ConnectionResetError("the peer is gone")

    with pytest.raises(ConnectionResetError):
        write_vectors(tmp_path / "x.npy", source(), dim=2, dtype="u1")


# Oxford --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spare", range(0, 128, 4))
def test_oxford_descriptors(tmp_path, spare):
    array = array_of(5, 128, "u1")
    path = tmp_path / "feat_oxc1_hesaff_sift.bin"
    path.write_bytes(array.tobytes() + bytes(spare))
    if spare not in (0, 12):
        with pytest.raises(FormatError, match=f"row 4 is its last whole row .* {spare} bytes"):
            open_vectors(path)
        return
    file = open_vectors(path)
    assert (file.format, file.rows, file.dim, file.dtype) == ("oxford-sift", 5, 128, np.uint8)
    assert same(read_all(file, 2), array)
    assert same(file.array, array)
    assert same(file.take([1, 4]), array[[1, 4]])


README = """These are the features.

The images:
oxc1_all_souls_000013
oxc1_worcester_000001
see oxc1_all_souls_000013 for more
"""


def test_image_list(tmp_path):
    path = tmp_path / "README2.txt"
    for text in (
        README,
        README.replace("\n", "\r\n"),
        README.replace("13\n", "13  \n") + "caf\xe9",
    ):
        path.write_bytes(text.encode("latin-1"))
        assert read_image_list(path) == ["oxc1_all_souls_000013", "oxc1_worcester_000001"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("only prose\n", "names no image"),
        (README + "oxc1_worcester_000001\n", "line 7: oxc1_worcester_000001 stands on line 5"),
        (README + "oxc1_/../../../etc/passwd\n", "line 7: .* holds a path"),
        (README + "oxc1_..\\secret\n", "line 7: .* holds a path"),
    ],
)
def test_image_lists_that_are_none(tmp_path, text, message):
    (tmp_path / "README2.txt").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_image_list(tmp_path / "README2.txt")


def word_file(path: Path, words, geometry, newline="\n") -> None:
    lines = ["1.0", str(len(words))]
    lines += [
        f"{word + 1} {' '.join(repr(float(number)) for number in row)}"
        for word, row in zip(words, geometry, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", newline=newline)


@SETTINGS
@given(n=st.integers(0, 30), seed=st.integers(0, 2**32), newline=st.sampled_from(["\n", "\r\n"]))
def test_word_files(tmp_path, n, seed, newline):
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 10**6, n)
    geometry = rng.normal(scale=1000, size=(n, 5)).astype(np.float32)
    word_file(tmp_path / "oxc1_a.txt", words, geometry, newline)
    found = read_words(tmp_path / "oxc1_a.txt")
    assert same(found[0], words.astype(np.uint32))
    assert same(found[1], geometry)
    assert read_counts(tmp_path, ["oxc1_a", "oxc1_a"]).tolist() == [n, n]


GOOD = "7 1.5 2.5 0.1 0.0 0.2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 2: expected the number of features, found ''"),
        ("1.0\n", "line 2: expected the number"),
        ("1.0\nmany\n", "line 2: expected the number of features, found 'many'"),
        ("1.0\n-1\n", "line 2: expected the number"),
        ("1.0\n1000000000000000\n" + GOOD, "line 2: claims 1000000000000000 features, more than"),
        ("1.0\n3\n" + 2 * GOOD, "line 2: claims 3 features, 2 follow"),
        ("1.0\n1\n" + 2 * GOOD, "line 2: claims 1 features, 2 follow"),
        ("1.0\n2\n" + GOOD + "8 1 2 3 4\n", "line 4: expected `word x y a b c`"),
        ("1.0\n2\n" + GOOD + "\n\n8 1 2 3 4 5 6\n", "line 6: expected"),
        ("1.0\n2\n" + GOOD + "8 1 2 x 4 5\n", "line 4: .* found '8 1 2 x 4 5'"),
        ("1.0\n2\n" + GOOD + "0 1 2 3 4 5\n", "line 4"),
        ("1.0\n2\n" + GOOD + "1.5 1 2 3 4 5\n", "line 4"),
        ("1.0\n2\n" + GOOD + "8 1 nan 3 4 5\n", "line 4"),
        ("1.0\n2\n" + GOOD + "8 1 1e99 3 4 5\n", "line 4"),
        ("1.0\n2\n" + GOOD + "8589934592 1 2 3 4 5\n", "line 4"),
    ],
)
def test_word_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "oxc1_a.txt"
    path.write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        read_words(path)
    assert str(path) in str(caught.value)


@settings(SETTINGS, max_examples=100)
@given(content=st.binary(max_size=200), count=st.integers(0, 5))
def test_random_word_files_give_errors_of_ours_or_words(tmp_path, content, count):
    path = tmp_path / "oxc1_a.txt"
    for start in (b"", f"1.0\n{count}\n".encode()):
        path.write_bytes(start + content)
        with own_errors(path):
            words, geometry = read_words(path)
            assert geometry.shape == (len(words), 5)


def test_a_word_file_is_never_fetched_or_unpacked(tmp_path, monkeypatch):
    (tmp_path / "oxc1_a.txt.gz").write_bytes(gzip.compress(b"1.0\n1\n" + GOOD.encode()))
    with pytest.raises(MissingFileError):
        read_words(tmp_path / "oxc1_a.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError):
        read_words("http://localhost/oxc1_a.txt")


def test_counts_name_the_file(tmp_path):
    word_file(tmp_path / "oxc1_a.txt", [1], np.ones((1, 5)))
    (tmp_path / "oxc1_b.txt").write_text("1.0\nsome\n")
    with pytest.raises(FormatError, match=r"oxc1_b\.txt, line 2: .* found 'some'"):
        read_counts(tmp_path, ["oxc1_a", "oxc1_b"])
    with pytest.raises(MissingFileError, match=r"oxc1_c\.txt"):
        read_counts(tmp_path, ["oxc1_a", "oxc1_c"])
    with pytest.raises(FormatError, match="holds a path"):
        read_counts(tmp_path / "sub", ["../oxc1_a"])


def test_offsets_and_counts(tmp_path):
    offsets = offsets_from_counts([3, 0, 2])
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [0, 3, 3, 5]
    assert offsets_from_counts([]).tolist() == [0]
    with pytest.raises(DataError, match="item 1 has -1"):
        offsets_from_counts([3, -1])
    (tmp_path / "x_sift.bin").write_bytes(bytes(5 * 128 + 12))
    file = open_vectors(tmp_path / "x_sift.bin")
    check_counts(file, [3, 0, 2])
    with pytest.raises(DataError, match=r"has 5 rows.* 3 images add up to 6"):
        check_counts(file, [3, 1, 2])


def described(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descriptors near the center of their word, the words, and an item for each of 20 images."""
    rng = np.random.default_rng(seed)
    centers = rng.integers(0, 200, (400, 128))
    words = rng.integers(0, 400, 4000).astype(np.uint32)
    vectors = np.clip(centers[words] + rng.normal(0, 25, (4000, 128)), 0, 255).astype(np.uint8)
    return vectors, words, np.arange(4000) // 200


def test_alignment_of_words_and_descriptors(tmp_path):
    vectors, words, items = described()
    path = tmp_path / "x_sift.bin"
    path.write_bytes(vectors.tobytes() + bytes(12))
    right = verify_alignment(open_vectors(path), words)
    assert right.ok
    assert right.within < 0.3 * right.random
    assert right == verify_alignment(vectors, words), "a file and its array give the same answer"
    assert right != verify_alignment(vectors, words, seed=1)

    order = np.argsort(np.random.default_rng(0).permutation(20)[items], kind="stable")
    images_in_another_order = verify_alignment(vectors[order], words)
    assert not images_in_another_order.ok
    assert images_in_another_order.within > 0.9 * images_in_another_order.random

    shifted = np.frombuffer(vectors.tobytes()[12:] + bytes(12), np.uint8).reshape(-1, 128)
    trailer_is_a_header = verify_alignment(shifted, words)
    assert not trailer_is_a_header.ok, "though most components are right"
    assert trailer_is_a_header.within < 0.5 * trailer_is_a_header.random


def test_alignment_needs_words_for_all_rows_and_pairs_that_share_them():
    vectors, words, _ = described()
    with pytest.raises(ShapeError, match="4000"):
        verify_alignment(vectors, words[1:])
    with pytest.raises(DataError, match="only 0 pairs"):
        verify_alignment(vectors, np.arange(4000))
    same_everywhere = verify_alignment(np.zeros((4000, 128), np.uint8), words)
    assert not same_everywhere.ok, "equal descriptors prove nothing"


def test_no_global_random_state_is_touched():
    vectors, words, _ = described()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    verify_alignment(vectors, words)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_gzip_streams_are_read_as_gzip_reads_them(tmp_path):
    """Compression levels, stored blocks and names in the header, against Python's own gzip."""
    array = array_of(3000, 50, "u1")
    for level in (0, 1, 9):
        buffer = io.BytesIO()
        with gzip.GzipFile("name", "wb", level, buffer) as file:
            file.write(texmex(array))
        (tmp_path / "x.bvecs.gz").write_bytes(buffer.getvalue())
        assert same(read_all(open_vectors(tmp_path / "x.bvecs.gz"), 999), array)
