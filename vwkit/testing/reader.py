"""The part of the featurizer's suite that is about readers of descriptor files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import vwkit
from vwkit.errors import FormatError, ParameterError, UnsupportedError, VwkitError
from vwkit.featurizer import Featurizer
from vwkit.stream import Stream
from vwkit.testing.comparing import same_form, same_numbers
from vwkit.testing.data import photo
from vwkit.testing.every_role import EveryRole
from vwkit.types import Array

__all__ = ["ReaderSuite", "assert_equal"]


class ReaderSuite(EveryRole, suite=True):
    """Tests of readers; a featurizer of images skips them."""

    role = Featurizer

    suffix: ClassVar[str | None] = None

    def write_file(self, folder: Path) -> tuple[Path, Array]:
        """Write a file that the reader under test should read; return it and its (n, d) numbers.

        By default `vwkit.write` does; a reader of another format brings its own.
        """
        path = folder / f"sample{self.suffix or '.' + self.backend.name}"
        numbers = np.random.default_rng(0).integers(0, 100, (37, 128))
        if self.backend.name == "oxford-sift":
            # Raw rows and twelve spare bytes; vwkit only reads this format.
            path.write_bytes(numbers.astype(np.uint8).tobytes() + bytes(12))
            return path, numbers.astype(np.uint8)
        for dtype in (np.float32, np.int32, np.uint8, np.int8):
            with contextlib.suppress(ParameterError, FormatError):
                vwkit.write(path, numbers.astype(dtype))
                return path, numbers.astype(dtype)
        pytest.skip(f"vwkit.write does not write {path.suffix} files; define write_file")

    @property
    def _is_reader(self) -> bool:
        return bool(self._make().consumes == "files")

    def _for_files(self) -> None:
        if not self._is_reader:
            pytest.skip("it reads images")

    def test_reads_what_was_written(self) -> None:
        """A reader gives the numbers of the file, as a Stream that can be read again.

        If this fails, check byte order, header, and the last rows.
        """
        self._for_files()
        reader = self._make()
        with self._file() as (path, expected):
            stream = reader.read(path)
            assert isinstance(stream, Stream), f"a Stream is needed; got {type(stream).__name__}"
            form = f"(n, {stream.dim}) {stream.dtype}"
            wanted = f"(n, {expected.shape[1]}) {expected.dtype}"
            assert form == wanted, f"the Stream is {form}; the file holds {wanted}"
            for turn in ("the first", "the second"):
                found = np.concatenate(list(stream))
                assert_equal(expected, found, True, f"in {turn} pass")
            assert stream.rows == len(expected), f"rows is {stream.rows}, not {len(expected)}"
            taken = stream.take([0, 5, len(expected) - 1])
            assert_equal(expected[[0, 5, -1]], taken, True, "for rows 0, 5 and the last")
            pieces = list(reader.read(str(path)).rechunk(10))
            sizes = {len(piece) for piece in pieces[:-1]}
            assert sizes <= {10}, f"pieces of {sizes} rows where 10 were asked for"
            assert_equal(expected, np.concatenate(pieces), True, "in pieces of 10")

    def test_wrong_files_are_refused(self) -> None:
        """A file of another kind, cut short, empty or missing is a clear error that names it.

        If this fails, check sizes before reading, and turn the library's errors into `FormatError`.
        """
        self._for_files()
        reader = self._make()
        with self._file() as (path, expected):
            content = path.read_bytes()
            # Three bytes short: no row of any of the formats ends there.
            for name, wrong in (
                ("short", content[:-3]),
                ("empty", b""),
                ("text", b"no numbers\n" * 7),
            ):
                bad = path.with_name(f"{name}{''.join(path.suffixes)}")
                bad.write_bytes(wrong)
                with pytest.raises(FormatError, match=name):
                    np.concatenate(list(reader.read(bad)))
            with pytest.raises(VwkitError, match="missing"):
                list(reader.read(path.with_name("missing" + path.suffix)))
            found = np.concatenate(list(reader.read(path)))
            assert_equal(expected, found, True, "after wrong files")

    def test_a_reader_takes_no_images(self) -> None:
        """Asking a reader for the features of images raises `UnsupportedError`.

        If this fails, check that ``features`` is the inherited one.
        """
        self._for_files()
        with pytest.raises(UnsupportedError, match="read"):
            list(self._make().extract([photo(0)]))

    @contextlib.contextmanager
    def _file(self) -> Iterator[tuple[Path, Array]]:
        with tempfile.TemporaryDirectory() as folder:
            yield self.write_file(Path(folder))


def assert_equal(one: Array, other: Array, exact: bool, why: str) -> None:
    """Compare vectors: byte by byte, or as floating-point numbers."""
    __tracebackhide__ = True
    same_form(one, other, why)
    limit = 0.0 if exact else 1e-3 * max(1.0, float(np.abs(one).max(initial=0)))
    same_numbers(one, other, limit, f"other vectors {why}")
