"""The official Oxford5k features: descriptors, the list of images, words and places.

``feat_oxc1_hesaff_sift.bin`` is 16,334,970 descriptors of 128 uint8 and then 12 more bytes, the images
one after the other in the order of ``README2.txt``. How many descriptors an image has, their words
and where they lie in it stand in one text file per image
(https://www.robots.ox.ac.uk/~vgg/data/oxbuildings). Nothing in the descriptor file says that the
12 bytes are its last and not its first, or that the order is right: `verify_alignment` finds out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vwkit.errors import DataError, FormatError
from vwkit.formats.alignment import Alignment, verify_alignment
from vwkit.formats.base import VectorFile, opening, regular_size
from vwkit.formats.remote import Place
from vwkit.formats.stored import FlatFile

__all__ = [
    "Alignment",
    "check_counts",
    "offsets_from_counts",
    "open_oxford",
    "read_counts",
    "read_image_list",
    "read_words",
    "verify_alignment",
]

_DIM = 128
_TRAILER = 12
_IMAGE = re.compile(r"oxc1_\S+")
_COUNT = re.compile(rb"\d{1,18}")
# Two header lines of a word file are a few characters; more is another file.
_MAX_LINE = 4096
_MAX_LIST = 1 << 26
# The shortest line of a feature: six numbers of one digit.
_MIN_FEATURE = 11


def open_oxford(path: Place, format: str, size: int, partial: bool) -> VectorFile:
    """Open an Oxford5k descriptor file: 128 uint8 a row, then 12 spare bytes or none.

    Raises
    ------
    FormatError
        If its size is no such number, or it holds no rows.
    """
    rows, spare = divmod(size, _DIM)
    if spare not in (0, _TRAILER):
        raise FormatError(
            f"{path}: has {size:,} bytes: row {rows - 1} is its last whole row (the first is 0) and "
            f"{spare} bytes follow; an oxford-sift file has 128 bytes a row and then 12 or none: it "
            "is truncated, or of another format"
        )
    if rows == 0:
        raise FormatError(f"{path}: 0 rows: the file has {size} bytes")
    dtype = np.dtype(np.uint8)
    return FlatFile(path, format, rows=rows, dim=_DIM, dtype=dtype, size=size, offset=0)


def read_image_list(readme: str | os.PathLike[str]) -> list[str]:
    """Return the image names of ``README2.txt``, in the order of the descriptors.

    Parameters
    ----------
    readme : path-like
        Prose, then one image a line: every line that is a single word beginning with ``oxc1_``.

    Returns
    -------
    list of str
        Names with their ``oxc1_``, as the word files have them.

    Raises
    ------
    MissingFileError, FormatError
        If it cannot be read, or a name is repeated or holds a path. The text names the line.
    """
    path = Path(readme)
    if regular_size(path) > _MAX_LIST:
        raise FormatError(f"{path}: is far too large for a list of images")
    with opening(path):
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    names: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        name = line.strip()
        if not _IMAGE.fullmatch(name):
            continue
        _check_name(name, f"{path}, line {number}")
        if name in names:
            raise FormatError(f"{path}, line {number}: {name} stands on line {names[name]} already")
        names[name] = number
    if not names:
        raise FormatError(f"{path}: names no image; expected lines such as oxc1_all_souls_000000")
    return list(names)


def _check_name(name: str, where: str) -> None:
    # The name becomes a file's: a list from elsewhere must not lead out of its folder.
    if "/" in name or "\\" in name or "\0" in name:
        raise FormatError(f"{where}: {name!r} is not the name of an image: it holds a path")


def read_words(
    path: str | os.PathLike[str],
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """Read the official words and places of one image.

    The file: a line that is not used, the number of features n, then n lines ``word x y a b c``, words
    from 1, the ellipse a x² + 2 b x y + c y² = 1 around (x, y) in pixels.

    Returns
    -------
    words : ndarray of uint32, shape (n,)
        From 0: one less than in the file.
    geometry : ndarray of float32, shape (n, 5)
        x, y, a, b, c.

    Raises
    ------
    MissingFileError, FormatError
        If it cannot be read or is not of that form. The text names the line.
    """
    path = Path(path)
    size = regular_size(path)
    count = _read_count(path)
    if count * _MIN_FEATURE > size:
        raise FormatError(
            f"{path}, line 2: claims {count} features, more than its {size:,} bytes can hold"
        )
    table = _read_table(path) if count else np.empty((0, 6))
    if table is None or table.shape != (count, 6):
        raise _wrong_line(path, count)
    with np.errstate(over="ignore"):
        geometry = table[:, 1:].astype(np.float32)
    words = table[:, 0]
    if not (
        np.isfinite(geometry).all()
        and ((words >= 1) & (words <= 2**32)).all()
        and (words == np.floor(words)).all()
    ):
        raise _wrong_line(path, count)
    return (words - 1).astype(np.uint32), geometry


def _read_table(path: Path) -> npt.NDArray[np.float64] | None:
    """Parse the lines after the second at once; None if there is something else than numbers."""
    try:
        with opening(path):
            # An absolute path is never taken for a URL. The name keeps NumPy on its fast path,
            # several times faster than an open file.
            return np.loadtxt(
                os.path.abspath(path),
                skiprows=2,
                comments=None,
                encoding="latin-1",
                ndmin=2,
            )
    except ValueError:
        return None


def _wrong_line(path: Path, count: int) -> FormatError:
    """Find out, line by line, what is wrong with a word file."""
    found = 0
    with opening(path), path.open(encoding="latin-1") as file:
        for number, line in enumerate(file, 1):
            fields = line.split()
            if number <= 2 or not fields:
                continue
            found += 1
            if not _is_feature(fields):
                return FormatError(
                    f"{path}, line {number}: expected `word x y a b c`, six finite numbers and the "
                    f"word from 1, found {line.strip()[:80]!r}"
                )
    return FormatError(f"{path}, line 2: claims {count} features, {found} follow")


def _is_feature(fields: Sequence[str]) -> bool:
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        return False
    word, limit = numbers[0], float(np.finfo(np.float32).max)
    return (
        len(numbers) == 6
        and word.is_integer()
        and 1 <= word <= 2**32
        and all(abs(number) <= limit for number in numbers[1:])
    )


def read_counts(folder: str | os.PathLike[str], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return how many descriptors each image has, from the second line of its word file.

    Parameters
    ----------
    folder : path-like
        Holds ``<name>.txt`` for every name.
    names : sequence of str
        As from `read_image_list`.

    Returns
    -------
    ndarray of int64, shape (len(names),)

    Raises
    ------
    MissingFileError, FormatError
        If a file is missing or its second line is not a number. The text names the file.
    """
    folder = Path(folder)
    counts = np.empty(len(names), np.int64)
    for at, name in enumerate(names):
        _check_name(name, str(folder))
        path = folder / f"{name}.txt"
        regular_size(path)
        counts[at] = _read_count(path)
    return counts


def _read_count(path: Path) -> int:
    with opening(path), path.open("rb") as file:
        file.readline(_MAX_LINE)
        line = file.readline(_MAX_LINE).strip()
    if not _COUNT.fullmatch(line):
        raise FormatError(
            f"{path}, line 2: expected the number of features, found {line[:80].decode('latin-1')!r}"
        )
    return int(line)


def offsets_from_counts(counts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return where each image's rows begin and the last one's end.

    Parameters
    ----------
    counts : array_like of int, shape (items,)

    Returns
    -------
    ndarray of int64, shape (items + 1,)
        From 0 to the sum of the counts.

    Raises
    ------
    DataError
        If a count is negative.
    """
    given = np.asarray(counts, np.int64)
    if (given < 0).any():
        at = int((given < 0).argmax())
        raise DataError(f"counts of rows cannot be negative: item {at} has {given[at]}")
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(given)])


def check_counts(vectors: VectorFile, counts: npt.ArrayLike) -> None:
    """Make sure that the images' descriptors are all the rows of a file, no more and no less.

    Raises
    ------
    DataError
        If the sum of the counts is not the number of rows; the text says both.
    """
    total = int(offsets_from_counts(counts)[-1])
    if total != vectors.rows:
        raise DataError(
            f"{vectors.path}: has {vectors.rows} rows, but the counts of its "
            f"{np.size(counts)} images add up to {total}; one of them is not of this data set"
        )
