"""Targets: descriptor files and what stands beside them."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.target import Wrong, target

_ROWS = (1, 3, 40)
_DIMS = (1, 4, 13)
_SIZES = (b"\x04\x00\x00\x00", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\x00\x00\x80\x7f")


def _read(path: Path, format: str | None = None) -> None:
    """Read a descriptor file as users do: looked at, in chunks, and single rows."""
    import vwkit
    from vwkit.errors import DataError, FormatError
    from vwkit.formats import open_vectors
    from vwkit.inspecting import inspect_path

    try:
        rows = 0
        for chunk in vwkit.read(path, format):
            rows += len(chunk)
            if chunk.ndim != 2:
                raise Wrong(f"rows of shape {chunk.shape}")
        vwkit.read(path, format).take(np.array([0, rows - 1]))
        if format is None:
            inspect_path(path)
    except FormatError as error:
        _names(error, path)
        opened = open_vectors(path, format, partial=True)
        kept = sum(len(chunk) for chunk in opened.chunks(7))
        if opened.rows is not None and kept != opened.rows:
            raise Wrong(f"{kept} rows where {opened.rows} were promised") from error
    except DataError as error:
        _names(error, path)
        raise


def _names(error: Exception, path: Path) -> None:
    if path.name not in str(error):
        raise Wrong(f"does not name the file: {error}") from error


def _vectors(dtype: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 100, (n, d)).astype(dtype) for n in _ROWS for d in _DIMS]


def _written(folder: Path, name: str, arrays: list[Any]) -> list[bytes]:
    import vwkit

    made = []
    for array in arrays:
        path = folder / name
        vwkit.write(path, array)
        made.append(path.read_bytes())
        path.unlink()
    return made


_TEXMEX = {"fvecs": np.float32, "ivecs": np.int32, "bvecs": np.uint8}
_BIN = {"fbin": np.float32, "u8bin": np.uint8, "i8bin": np.int8, "ibin": np.int32}


def _texmex_seeds(folder: Path) -> list[bytes]:
    return [
        bytes([at]) + data
        for at, (name, dtype) in enumerate(_TEXMEX.items())
        for data in _written(folder, f"x.{name}", _vectors(dtype))
    ]


def _chosen(data: bytes, names: Any) -> tuple[str, bytes]:
    """Let the first byte choose."""
    names = list(names)
    return names[(data[0] if data else 0) % len(names)], data[1:]


@target("fvecs", _texmex_seeds, words=_SIZES)
def fvecs(data: bytes, folder: Path) -> None:
    """``.fvecs``, ``.ivecs`` and ``.bvecs``."""
    name, content = _chosen(data, _TEXMEX)
    path = folder / f"x.{name}"
    path.write_bytes(content)
    _read(path)


@target(
    "fvecs-gz",
    lambda folder: [one[:1] + gzip.compress(one[1:], mtime=0) for one in _texmex_seeds(folder)],
)
def fvecs_gz(data: bytes, folder: Path) -> None:
    """The same under gzip, whose bytes are damaged."""
    name, content = _chosen(data, _TEXMEX)
    path = folder / f"x.{name}.gz"
    path.write_bytes(content)
    _read(path)


@target("fvecs-in-gz", _texmex_seeds, words=_SIZES)
def fvecs_in_gz(data: bytes, folder: Path) -> None:
    """The same under a gzip that is whole."""
    name, content = _chosen(data, _TEXMEX)
    path = folder / f"x.{name}.gz"
    path.write_bytes(gzip.compress(content, 1, mtime=0))
    _read(path)


def _bin_seeds(folder: Path) -> list[bytes]:
    made = [
        bytes([at]) + data
        for at, (name, dtype) in enumerate(_BIN.items())
        for data in _written(folder, f"x.{name}", _vectors(dtype))
    ]
    rng = np.random.default_rng(0)
    return [*made, b"\x04" + rng.bytes(128 * 3), b"\x04" + rng.bytes(128 * 2 + 12)]


@target("bin", _bin_seeds, words=_SIZES)
def flat(data: bytes, folder: Path) -> None:
    """``.fbin``, ``.u8bin``, ``.i8bin``, ``.ibin`` and Oxford5k's descriptors."""
    name, content = _chosen(data, [*_BIN, "oxford"])
    path = folder / ("x_sift.bin" if name == "oxford" else f"x.{name}")
    path.write_bytes(content)
    _read(path)


def _npy_seeds(folder: Path) -> list[bytes]:
    made = []
    for dtype in ("u1", "<f4", ">f4", "<f8", "<f2", "<i8", ">i2"):
        for order in "CF":
            path = folder / "x.npy"
            table: Any = np.arange(12).reshape(4, 3).astype(dtype)
            np.save(path, np.asfortranarray(table) if order == "F" else table)
            made.append(path.read_bytes())
    for odd in (np.zeros((2, 0)), np.zeros(3), np.zeros((1, 2, 3)), np.array([("a", 1)], "U3,i4")):
        np.save(path, odd)
        made.append(path.read_bytes())
    np.save(path, np.array([{}], object), allow_pickle=True)
    return [*made, path.read_bytes()]


_NPY = (
    b"'descr': ", b"'fortran_order': True", b"'shape': (", b"'|O'", b"'<f4'", b"(1,1)", b"(4L, 3L)",
    b"\x93NUMPY\x02\x00", b"\x93NUMPY\x03\x00", b"[('a', '<i4')]", b"(9223372036854775807, 2)",
)  # fmt: skip


@target("npy", _npy_seeds, words=_NPY)
def npy(data: bytes, folder: Path) -> None:
    """``.npy``, by its name and by its content."""
    name, content = _chosen(data, ("x.npy", "unnamed"))
    path = folder / name
    path.write_bytes(data if name == "x.npy" else content)
    _read(path)


# Oxford5k's lists -------------------------------------------------------------------------------

_README = b"Some prose.\n\noxc1_all_souls_000000\noxc1_all_souls_000001\n"
_COUNTS = b"1.0\n3\n1 10.5 20.25 0.001 0 0.002\n17 1 2 3e-3 1e-4 2e-3\n1000000 5 5 1 0 1\n"
_GROUPS = b'query,item,what\na.jpg,b.jpg,relevant\na.jpg,c.jpg,junk\n"q,1",d.jpg,relevant\n'


@target("oxford", lambda _: [b"\x00" + _README, b"\x01" + _COUNTS, b"\x01" + b"128\n0\n", b"\x02" + _GROUPS],
        words=(b"oxc1_", b"relevant", b"junk", b",", b'"', b"nan", b"1e400", b"/", b"..", b"\x1b"))  # fmt: skip
def oxford(data: bytes, folder: Path) -> None:
    """``README2.txt``, word files, and the ground truth of `groups`."""
    from vwkit.evaluate.groups import read_groups
    from vwkit.formats import oxford as read

    what, content = _chosen(data, ("readme", "words", "groups"))
    if what == "readme":
        (folder / "README2.txt").write_bytes(content)
        names = read.read_image_list(folder / "README2.txt")
        (folder / "words").mkdir()
        for name in names[:3]:
            with contextlib.suppress(OSError):  # no system has such a name
                (folder / "words" / f"{name}.txt").write_bytes(_COUNTS)
        read.offsets_from_counts(read.read_counts(folder / "words", names[:3]))
    elif what == "words":
        (folder / "oxc1_a.txt").write_bytes(content)
        words, geometry = read.read_words(folder / "oxc1_a.txt")
        if geometry.shape != (len(words), 5):
            raise Wrong(f"{len(words)} words and {geometry.shape} places")
    else:
        (folder / "groups.csv").write_bytes(content)
        read_groups(folder / "groups.csv")


# Folders of words, palettes, notes --------------------------------------------------------------


def _words_files() -> dict[str, bytes]:
    import io

    def saved(array: Any) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    lines = [
        f'{{"row": {i}, "id": "{i}.jpg", "path": "{i}.jpg", "size": [4, 3]}}\n' for i in range(3)
    ]
    return {
        "words.npy": saved(np.arange(7, dtype=np.uint32)),
        "offsets.npy": saved(np.array([0, 3, 3, 7])),
        "keypoints.npy": saved(np.zeros((7, 5), np.float32)),
        "items.jsonl": "".join(lines).encode(),
    }


@target(
    "words", lambda _: [bytes([i]) + d for i, d in enumerate(_words_files().values())], words=_NPY
)
def words(data: bytes, folder: Path) -> None:
    """A folder that ``output: words`` wrote, one file of it changed."""
    from vwkit.inspecting import inspect_path

    files = _words_files()
    name, content = _chosen(data, files)
    for file, held in {**files, name: content}.items():
        (folder / file).write_bytes(held)
    inspect_path(folder)


_PALETTE = (
    b'{"format": 1, "name": "x", "space": "rgb", "colours": [{"hex": "#ff0000", "rgb": [255, 0, 0], '
    b'"alpha": 1.0, "pixels": 12, "share": 0.75}, {"hex": "#00ff0080", "pixels": 4, "share": 0.25}]}'
)


@target(
    "palette", lambda _: [_PALETTE], words=(b'"hex"', b'"pixels"', b"1e999", b"NaN", b"#", b"[]")
)
def palette(data: bytes, folder: Path) -> None:
    """A palette that was saved as JSON."""
    from vwkit.palettes.palette import Palette

    (folder / "p.json").write_bytes(data)
    held = Palette.load(folder / "p.json")
    held.to_json()
    held.to_gpl()


_NOTE = struct.pack("<i3f", 3, 1, 2, 3)


@target(
    "note", lambda _: [b'{"codes": {"bytes": 16, "sha256_of_first_mib": "x"}, "quantizer": "abc"}']
)
def note(data: bytes, folder: Path) -> None:
    """The note beside a file of codes."""
    import vwkit

    (folder / "x.fvecs").write_bytes(_NOTE)
    (folder / "x.fvecs.json").write_bytes(data)
    vwkit.read(folder / "x.fvecs").toarray()
