"""Targets: metadata, `where`, specs and ``--set``."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from pathlib import Path

from benchmarks.fuzzing.target import Wrong, target

_LINES = [
    b'{"asin": "B1", "title": "A dress", "price": 12.5, "imUrl": "http://x.example/a.jpg", "also": ["B2", "B3"]}\n'
    b'{"asin": "B2", "price": 1e3, "categories": [["Clothing", "Women"]], "n": null, "ok": true}\n',
    b"{'asin': 'B1', 'title': \"it's\", 'price': 3.5, 'rank': {'Toys': 12}, 'x': (1, 2), 'u': u'\\xe9'}\n",
    b"https://x.example/a.jpg\nhttp://x.example/b.png\n",
    b'\xef\xbb\xbf{"id": 1}\r\n\r\n{"id": 2, "deep": {"a": {"b": [1, 2, {"c": "\\ud83d\\ude00"}]}}}',
]
_TABLE = [
    b'id,price,name\n1,2.5,one\n2,007,"two, or ""three"""\n3,,\n',
    b"id\tprice\n1\t2\nx\t1e5\n",
    b"a,a\n1,2\n",
    b'a,b\n"1\n2",3\n',
]
_WORDS = (
    b'{"', b'": ', b"null", b"[", b"{", b"'", b"True", b"None", b"u'", b"\\x", b"\\ud800", b"\\N{DIGIT ONE}",
    b"set()", b"__import__('os')", b"1e400", b"-Infinity", b"lambda: 0", b"(", b"0o7", b"1j", b"b'x'", b"f'{1}'",
    b"\xff\xfe", b"\r", b"#", b"\x00", b"\xc2\x85", b"\xe2\x80\xa8",
)  # fmt: skip


def _used(path: Path) -> None:
    """Read a metadata file as a source of URLs does, and ask `where` of what it holds."""
    from vwkit.columns import Columns
    from vwkit.errors import ParameterError
    from vwkit.items import read_items, write_items
    from vwkit.metadata import Broken, kept_fields, look_up, read_metadata, typed
    from vwkit.types import Item
    from vwkit.where import parse

    records = []
    for found in read_metadata(path, ["id", "a.b.0"]):
        if isinstance(found, Broken):
            if not found.reason.isprintable():
                raise Wrong(f"a reason that is no line: {found.reason!r}")
            continue
        look_up(found.values, "a.b.0")
        kept_fields(found.values, ["id", "price", "deep.a.b.2.c"])
        records.append(kept_fields(found.values, None))
    typed(records)
    items = [Item(row, str(row), metadata=record) for row, record in enumerate(records)]
    write_items(path.with_name("items.jsonl"), items)
    again = read_items(path.with_name("items.jsonl"))
    if [item.metadata for item in again] != [
        json.loads(json.dumps(item.metadata)) for item in items
    ]:
        raise Wrong("items are not what was written")
    for text in (
        "price < 20 and id != 'x'",
        "has price",
        "id in [1, 'B1'] or not title contains 'a'",
    ):
        with contextlib.suppress(ParameterError):
            parse(text).mask(Columns(again))


@target("metadata-lines", lambda _: _LINES, words=_WORDS)
def lines(data: bytes, folder: Path) -> None:
    """JSON lines, Python literals and bare URLs."""
    path = folder / "x.jsonl"
    path.write_bytes(data)
    _used(path)


@target(
    "metadata-table",
    lambda _: [bytes([i % 2]) + one for i, one in enumerate(_TABLE)],
    words=(b",", b"\t", *_WORDS),
)
def table(data: bytes, folder: Path) -> None:
    """CSV and TSV."""
    path = folder / ("x.csv" if not data or data[0] % 2 == 0 else "x.tsv")
    path.write_bytes(data[1:])
    _used(path)


@target("metadata-gz", lambda _: [gzip.compress(one, mtime=0) for one in _LINES])
def packed(data: bytes, folder: Path) -> None:
    """JSON lines under gzip."""
    path = folder / "x.jsonl.gz"
    path.write_bytes(data)
    _used(path)


def _parquet_seeds(folder: Path) -> list[bytes]:
    import pyarrow
    import pyarrow.parquet as parquet

    table = pyarrow.table(
        {
            "id": ["a", "b", None],
            "price": [1.5, None, 3.0],
            "tags": [["x"], [], None],
            "n": [1, 2, 3],
        }
    )
    made = []
    for packing in ("NONE", "SNAPPY", "ZSTD", "GZIP"):
        file = io.BytesIO()
        parquet.write_table(table, file, compression=packing)
        made.append(file.getvalue())
    return made


@target("metadata-parquet", _parquet_seeds, cheap=False, needs=("pyarrow",), guided=False)
def parquet(data: bytes, folder: Path) -> None:
    """Parquet."""
    path = folder / "x.parquet"
    path.write_bytes(data)
    _used(path)


# Expressions ------------------------------------------------------------------------------------

_WHERE = [
    b"price < 20 and category == 'Dress'",
    b"not (id in ['a', \"b\"] or has `odd name`) and tags contains 'x'",
    b"a.b.0 >= -1.5e3 or flag == true and n != 7",
    b"((((price > 1))))",
]


@target("where", lambda _: _WHERE, largest=12_000,
        words=(b" and ", b" or ", b"not ", b" in [", b"has ", b" contains ", b"`", b"(", b"==", b"!=", b"true", b"1e400",
               b"'\\'", b"id", b"width", b"tags", b"flag"))  # fmt: skip
def where(data: bytes, folder: Path) -> None:
    """An expression over items."""
    from vwkit.columns import Columns
    from vwkit.types import Item
    from vwkit.where import parse

    records = [
        {"price": 5, "category": "Dress", "tags": ["x", 1], "flag": True, "a": {"b": [3]}},
        {"price": "cheap", "n": 7, "odd name": None},
        {"price": 10**400, "tags": "x", "flag": 0},
    ]
    items = [Item(i, f"{i}", size=(4, 3), metadata=one) for i, one in enumerate(records)]
    text = data.decode("utf-8", "replace")
    found = parse(text).mask(Columns(items))
    if found.shape != (3,) or found.dtype != bool:
        raise Wrong(f"a mask {found!r}")


# Specs ------------------------------------------------------------------------------------------


def _specs(suffix: str) -> list[bytes]:
    import vwkit

    folder = Path(vwkit.__file__).parent / "specs"
    texts = [path.read_text() for path in sorted(folder.glob("*.yaml"))]
    if suffix == "yaml":
        return [text.encode() for text in texts]
    return [_TOML.encode()]


_TOML = """vwkit = 1
seed = 7
[vectors]
path = "x.fvecs"
[clusterer]
use = "lloyd"
k = 12
assign = {use = "exact"}
[[output]]
write = "vocabulary"
path = "out/v"
[run]
memory = "4GB"
threads = 2
"""
_KEYS = (
    b"vwkit: 1\n", b"seed: ", b"images: ", b"vectors: ", b"featurizer: ", b"transform: ", b"quantizer: ", b"clusterer: ",
    b"index: ", b"rerank: ", b"evaluate: ", b"output: ", b"run: ", b"{use: lloyd, k: 3}", b"[", b"{", b"- ", b"&a ", b"*a",
    b"<<: ", b"!!python/object:os.system ", b"!!binary ", b"? ", b"| ", b"> ", b"%YAML 1.1\n", b"---\n", b"...\n",
    b"0x1F", b".inf", b".nan", b"1_000", b"~", b"no", b"train: {path: x.npy, rows: 3}", b"{use: pca}", b"{use: bag-of-words}",
    b"path: ", b"memory: 9e99GB", b"threads: 0", b"urls: x.jsonl", b"url: http://x", b"sha256: ", b"limit: -1", b"use: ",
)  # fmt: skip


def _compiled(data: bytes, folder: Path, name: str) -> None:
    from vwkit.checking import compile_spec
    from vwkit.source import load

    path = folder / name
    path.write_bytes(data)
    for there in ("descriptors.bvecs", "picture.png", "products.csv", "x.fvecs"):
        (folder / there).touch()
    (folder / "photos").mkdir()
    spec = compile_spec(load(path))
    json.dumps(spec.resolved())


@target("spec-yaml", lambda _: _specs("yaml"), words=_KEYS, cheap=False)
def spec_yaml(data: bytes, folder: Path) -> None:
    """A spec in YAML, checked without data."""
    _compiled(data, folder, "spec.yaml")


@target("spec-toml", lambda _: _specs("toml"), cheap=False,
        words=(b"[[", b"]]", b"= ", b'"""', b"'''", b"1979-05-27", b"inf", b"nan", b"0x", b"{", b"a.b.c = 1\n", b"[a]\n"))  # fmt: skip
def spec_toml(data: bytes, folder: Path) -> None:
    """A spec in TOML."""
    _compiled(data, folder, "spec.toml")


@target("set", lambda _: [b"clusterer.k=4096", b"output[0].path=x: y", b"clusterer={use: lloyd, k: 3}", b"run.threads=",
                          b"clusterer.assign='exact'"], words=(*_KEYS, b"=", b".", b"[0]"))  # fmt: skip
def overrides(data: bytes, folder: Path) -> None:
    """What ``--set`` takes."""
    from vwkit.source import override, parse

    base = parse(_TOML, "spec.toml", format="toml", base=folder)
    override(base, data.decode("utf-8", "replace").split("\x00"))
