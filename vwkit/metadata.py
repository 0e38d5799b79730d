"""Metadata files: one record per line or row, read one at a time, none of them trusted.

JSON lines, Python literals (as in the first edition of the Amazon product data), bare URLs, CSV and TSV, all of
them also ``.gz``, and Parquet. A line that cannot be read is given as `Broken` with its reason; nothing in a
file runs code, and no line costs more memory than its limit.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import csv
import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vwkit.errors import DataError, UnsupportedError

__all__ = [
    "ENDINGS",
    "Broken",
    "Record",
    "format_of",
    "is_metadata",
    "kept_fields",
    "look_up",
    "plain",
    "read_metadata",
    "typed",
]

#: Endings of names and their formats; each also with ``.gz`` behind it, but for Parquet.
ENDINGS = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".json": "lines",
    ".txt": "lines",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
#: A longer line is refused.
MAX_LINE = 1 << 20
_DEEPEST = 50
# So many broken lines and not one good one: the file is something else.
_HOPELESS = 20
_TEXT = 300
_LIST = 20


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes
    ----------
    line : int
        Its line in the file, from 1; of Parquet, its row.
    values : dict
        Plain data: text, numbers, true, false, none, lists and dicts of them.
    """

    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Broken:
    """A line that is no record, and why (one plain sentence)."""

    line: int
    reason: str


def is_metadata(path: Path) -> bool:
    """Tell by its name whether a file is one that `read_metadata` reads."""
    return _ending(path) in ENDINGS


def format_of(path: Path) -> str:
    """Return a file's format by its name: ``lines``, ``csv``, ``tsv`` or ``parquet``.

    Raises
    ------
    DataError
        The name's ending is unknown.
    """
    found = ENDINGS.get(_ending(path))
    if found is None:
        known = ", ".join(ENDINGS)
        raise DataError(
            f"{path}: its name does not tell its format; a metadata file ends in {known}, and "
            "all but Parquet may have .gz behind it"
        )
    return found


def _ending(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        inner = Path(path.stem).suffix.lower()
        return inner if inner != ".parquet" else suffix
    return suffix


def read_metadata(path: Path, columns: Sequence[str] | None = None) -> Iterator[Record | Broken]:
    """Read a metadata file record by record.

    Parameters
    ----------
    path : Path
    columns : sequence of str, optional
        The fields that will be asked for (dotted names: their first part counts); a Parquet file is
        read only that far.

    Raises
    ------
    DataError
        It cannot be opened, its format is unknown, it is damaged, or its first lines are all broken.
    UnsupportedError
        It is Parquet and pyarrow is not installed.
    """
    kind = format_of(path)
    good, broken = 0, []
    reader = _parquet(path, columns) if kind == "parquet" else _text_records(path, kind)
    for found in reader:
        if isinstance(found, Broken):
            broken.append(found)
            if not good and len(broken) == _HOPELESS:
                raise DataError(
                    f"{path}:{broken[0].line}: {broken[0].reason}; the next lines are no better, so "
                    "this is no metadata file of that format"
                )
        else:
            good += 1
            broken.clear()
        yield found


# Lines -------------------------------------------------------------------------------------------


def _text_records(path: Path, kind: str) -> Iterator[Record | Broken]:
    try:
        with _opened(path) as file:
            lines = _Lines(file, path)
            yield from _objects(lines) if kind == "lines" else _table(path, lines, kind)
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {said}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as plain:
        if path.suffix.lower() != ".gz":
            yield plain
            return
        with gzip.GzipFile(fileobj=plain) as unpacked:
            yield unpacked  # type: ignore[misc]


class _BadLine(Exception):
    """A line that is too long or not UTF-8; the next one may be fine."""


class _Lines:
    """Lines of text, each within its limit; `number` is the one given last."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = self._file.readline(MAX_LINE)
            raise _BadLine(f"a line of more than {MAX_LINE:,} bytes; refused")
        if self.number == 1:
            if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError(f"{self._path}: the file is UTF-16; save it as UTF-8")
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _BadLine(f"byte {error.start + 1} is not UTF-8") from None


def _objects(lines: _Lines) -> Iterator[Record | Broken]:
    while True:
        try:
            line = next(lines).strip()
            if line:
                yield Record(lines.number, _object(line))
        except StopIteration:
            return
        except _BadLine as error:
            yield Broken(lines.number, str(error))


def _object(line: str) -> dict[str, Any]:
    """Read one line: JSON, else a Python literal; a bare URL is a record, too."""
    if line.startswith(("http://", "https://")):
        return {"url": line}
    try:
        value = json.loads(line, parse_constant=lambda _: None)
    except RecursionError:
        raise _BadLine("nested too deeply") from None
    except ValueError as error:
        said = f"not JSON ({_why(error)})"
        if not line.startswith("{"):
            raise _BadLine(f"{said}; a line is an object: {{…}}") from None
        value = _literal(line, said)
    if not isinstance(value, dict):
        hint = "; write each object of it on a line of its own" if isinstance(value, list) else ""
        raise _BadLine(f"a line is an object, {{…}}; this one is {_kind(value)}{hint}")
    return {str(key): item for key, item in value.items()}


def _why(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "a number of too many digits"  # the only other one; Python's text is for programmers


_STRING = re.compile(r"""[uU]?(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")""")
_REST = re.compile(
    r"(?:[\s{}()\[\],:]++|(?:True|False|None)\b|''"
    r"|[-+]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?(?![\w.+-]))*+"
)
_ESCAPE = re.compile(r"\\(.)")
_KNOWN_ESCAPES = frozenset("\\'\"abfnrtvxuUN01234567")


def _literal(line: str, said: str) -> Any:
    """Read a Python literal made of dicts, lists, text, numbers, True, False and None.

    The words and the depth are looked at first, so that the parser sees nothing that it could stumble
    over: no operators, no names, no calls, no deep nesting.
    """
    bare = _STRING.sub("''", line)
    if not _REST.fullmatch(bare):
        raise _BadLine(f"{said}, and no Python literal either")
    depth = deepest = 0
    for sign in re.findall(r"[\[\](){}]", bare):
        depth += 1 if sign in "[({" else -1
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise _BadLine("nested too deeply")
    if "\\" in line:
        # A backslash before another letter means itself, but Python warns of it.
        line = _ESCAPE.sub(lambda m: m[0] if m[1] in _KNOWN_ESCAPES else "\\" + m[0], line)
    try:
        return plain(ast.literal_eval(line))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _BadLine(f"{said}, and no Python literal either") from None


def plain(value: Any) -> Any:
    """Turn tuples and sets into lists, numbers that JSON has no words for into None, and half a
    character into a question mark.
    """  # noqa: D205
    if isinstance(value, dict):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):  # half a surrogate pair can be written nowhere
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    return value if value is None or isinstance(value, (int, float)) else str(value)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _table(path: Path, lines: _Lines, kind: str) -> Iterator[Record | Broken]:
    rows = csv.reader(lines, delimiter="\t" if kind == "tsv" else ",")
    try:
        head = [name.strip() for name in next(rows, [])]
    except (_BadLine, csv.Error) as error:
        raise DataError(f"{path}:1: {_of_table(error)}") from None
    repeated = next((name for i, name in enumerate(head) if name in head[:i]), None)
    if repeated is not None:
        raise DataError(f"{path}:1: two columns are named {repeated!r}; the first line names them")
    while True:
        start = lines.number + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except (_BadLine, csv.Error) as error:
            yield Broken(start, _of_table(error))
            continue
        if not row:
            continue
        if len(row) != len(head):
            yield Broken(start, f"{len(row)} fields where the first line names {len(head)}")
            continue
        yield Record(start, {name: value for name, value in zip(head, row, strict=True) if value})


def _of_table(error: Exception) -> str:
    """Say in plain words what the reader of tables says."""
    said = str(error)
    if "field limit" in said:
        most = csv.field_size_limit()
        return f"a field of more than {most:,} characters; is a quote before it not closed?"
    if "new-line" in said:
        return "lines end in a carriage return alone; save the file with other line ends"
    return said


# Parquet -----------------------------------------------------------------------------------------


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[Record | Broken]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UnsupportedError(
            f"{path}: Parquet files are read by pyarrow: pip install 'vwkit[parquet]', or save it as "
            "CSV or JSON lines"
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = None
            if columns is not None:
                asked = {*columns, *(name.split(".")[0] for name in columns)}
                wanted = [name for name in names if name in asked]
            row = 0
            for batch in file.iter_batches(batch_size=4096, columns=wanted):
                for values in batch.to_pylist():
                    row += 1
                    known = {
                        key: plain(value) for key, value in values.items() if value is not None
                    }
                    yield Record(row, known)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be read as Parquet: {said}") from None


# Fields ------------------------------------------------------------------------------------------


def look_up(values: Mapping[str, Any], field: str) -> Any:
    """Return a field of a record, or None; ``a.b.0`` goes into dicts and lists."""
    if field in values:
        return values[field]
    found: Any = values
    for step in field.split("."):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and step.isascii() and step.isdigit() and len(step) < 10:
            found = found[int(step)] if int(step) < len(found) else None
        else:
            return None
    return found


def kept_fields(values: Mapping[str, Any], fields: Sequence[str] | None) -> dict[str, Any]:
    """Return what is kept of a record.

    Parameters
    ----------
    values : dict
    fields : sequence of str, optional
        Their names; without them every field that is a number, true, false, a text of at most 300
        characters, or a list of at most 20 of those.
    """
    if fields is not None:
        found = {field: plain(look_up(values, field)) for field in fields}
        return {field: value for field, value in found.items() if value is not None}
    return {plain(key): plain(value) for key, value in values.items() if _small(value, deep=True)}


def _small(value: Any, deep: bool) -> bool:
    if isinstance(value, str):
        return len(value) <= _TEXT
    if isinstance(value, list):
        return deep and len(value) <= _LIST and all(_small(item, deep=False) for item in value)
    return isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value))


_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")


def typed(records: Iterable[dict[str, Any]]) -> None:
    """Turn the columns of a table, which are all text, into numbers where every value is one.

    A leading zero (``007``) makes a column text: such values are names.

    Parameters
    ----------
    records : iterable of dict
        Changed in place.
    """
    listed = list(records)
    columns: dict[str, bool] = {}
    for record in listed:
        for name, value in record.items():
            if columns.get(name, True):
                columns[name] = isinstance(value, str) and _number(value) is not None
    for name, numeric in columns.items():
        if numeric:
            for record in listed:
                if name in record:
                    record[name] = _number(record[name])


def _number(text: str) -> int | float | None:
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if not math.isfinite(value):
        return None
    return int(text) if text.lstrip("+-").isdigit() else value
