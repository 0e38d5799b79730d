"""Metadata files: every format, and everything that can be wrong with a line."""

import csv
import gzip
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vwkit
from tests.helpers import dump, photo_folder
from tests.picture_server import PictureServer, jpeg
from vwkit.collecting import collect
from vwkit.errors import DataError, SpecError, UnsupportedError
from vwkit.items import read_items, write_items
from vwkit.metadata import (
    MAX_LINE,
    Broken,
    Record,
    format_of,
    kept_fields,
    look_up,
    read_metadata,
    typed,
)
from vwkit.spec import ImagesSource, UrlsSource


def read(path, content, columns=None):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_metadata(path, columns))


def values(found):
    return [one.values for one in found if isinstance(one, Record)]


def broken(found):
    return {one.line: one.reason for one in found if isinstance(one, Broken)}


# Reading -----------------------------------------------------------------------------------------

AMAZON = (
    "{'asin': '0000013714', 'imUrl': 'http://ecx.images-amazon.com/images/I/x.jpg', "
    "'price': 9.99, 'title': \"It's a \\u00e9 (1) - [new] {b}\", 'categories': [['Clothing', 'Women']], "
    "'salesRank': {'Shoes': 7}, 'related': None, 'new': True, 'n': -3, 'e': 1e-5, 't': (1, 2)}"
)


def test_python_literals_as_in_the_amazon_data(tmp_path):
    (one,) = values(read(tmp_path / "m.json", AMAZON + "\n"))
    assert one["asin"] == "0000013714"
    assert one["title"] == "It's a \u00e9 (1) - [new] {b}"
    assert one["categories"] == [["Clothing", "Women"]]
    assert (one["n"], one["e"], one["t"], one["related"]) == (-3, 1e-5, [1, 2], None)
    odd = r"""{'a': 'C:\dir', 'b': 'it\'s', 'c': "\\", 'd': '\d+', 'e': u'x'}"""
    (one,) = values(read(tmp_path / "m.json", odd))
    assert one == {"a": r"C:\dir", "b": "it's", "c": "\\", "d": r"\d+", "e": "x"}


def test_a_list_of_urls_is_metadata_too(tmp_path):
    found = read(tmp_path / "urls.txt", "http://a/1.jpg\n\nhttps://b/2.jpg\nc/3.jpg\n")
    assert values(found) == [{"url": "http://a/1.jpg"}, {"url": "https://b/2.jpg"}]
    assert list(broken(found)) == [4]


@pytest.mark.parametrize(
    "line",
    [
        "{'a': __import__('os').system('touch HERE')}",
        "{'a': open('/etc/passwd').read()}",
        "{'a': [x for x in (1,)]}",
        "{'a': lambda: 1}",
        "{'a': 9**9**9}",
        "{'a': 1-1-1-1}",
        "{'a': - - - 1}",
        "{'a': f'{1}'}",
        "{'a': b'1'}",
        "{'a': 'x' 'y' if 1 else 2}",
        "{'a': 1if 2else 3}",
        "{'a': `1`}",
        "{'a': 'open}",
        "{'a': '\\x4'}",
        "{'a': 0x41}",
        "{'a': {}",
        "{'a'",
        "{'a': " + "[" * 60 + "]" * 60 + "}",
        "{" * 200_000,
        "{'a': " + "-" * 100_000 + "1}",
        "{'a': 1" + "+1" * 100_000 + "}",
        "{'a': " + "[" * 100_000 + "}",
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "{'a': " + "9" * 5000 + "}",
        '{"a": ' + "9" * 5000 + "}",
        "{[]: 1}",
        "[1, 2]",
        '"text"',
        "null",
        "7",
        "name,url",
    ],
)
def test_lines_that_are_no_record_run_nothing(tmp_path, line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read(tmp_path / "m.jsonl", '{"a": 1}\n' + line + '\n{"a": 2}\n')
    assert values(found) == [{"a": 1}, {"a": 2}]
    assert list(broken(found)) == [2]
    assert "\n" not in broken(found)[2]
    assert len(broken(found)[2]) < 200
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_odd_files(tmp_path):
    path = tmp_path / "m.jsonl"
    assert read(path, b"") == []
    assert read(path, b"\n\n  \r\n") == []
    bom = "\ufeff" + '{"a": "\u00e9"}\r\n\r\n{"a": "x"}'
    assert values(read(path, bom)) == [{"a": "\u00e9"}, {"a": "x"}]
    found = read(path, b'{"a": 1}\n{"a": "\xe9"}\n{"a": 3}\n')
    assert broken(found) == {2: "byte 8 is not UTF-8"}
    huge = b'{"a": "' + b"x" * (3 * MAX_LINE) + b'"}\n{"a": 2}\n'
    found = read(path, huge)
    assert "more than 1,048,576 bytes" in broken(found)[1]
    assert values(found) == [{"a": 2}]
    assert values(read(path, '{"a": NaN, "b": 1e999, "c": "\\ud800"}'))[0]["a"] is None
    with pytest.raises(DataError, match="UTF-16"):
        read(path, '{"a": 1}'.encode("utf-16"))
    with pytest.raises(DataError, match=r"m\.jsonl:1: byte 1 is not UTF-8.*no metadata file"):
        read(path, b"\x89PNG\r\n" * 40)
    with pytest.raises(DataError, match=r"its name does not tell"):
        format_of(tmp_path / "m.xml")
    with pytest.raises(DataError, match=r"cannot be read: No such file"):
        list(read_metadata(tmp_path / "none.jsonl"))


def test_packed_files(tmp_path):
    text = b'{"a": 1}\n' * 3
    assert len(values(read(tmp_path / "m.jsonl.gz", gzip.compress(text)))) == 3
    assert len(values(read(tmp_path / "m.json.gz", gzip.compress(text)))) == 3
    with pytest.raises(DataError, match=r"m\.jsonl\.gz: cannot be read"):
        read(tmp_path / "m.jsonl.gz", gzip.compress(text * 1000)[:-20])
    with pytest.raises(DataError, match=r"m\.jsonl\.gz: cannot be read"):
        read(tmp_path / "m.jsonl.gz", text)
    bomb = gzip.compress(bytes(64 << 20))
    found = read(tmp_path / "m.jsonl.gz", bomb)
    assert "more than" in broken(found)[1]


def test_tables(tmp_path):
    text = 'id,title,price\r\nA,"one, ""two""\nlines",9.5\r\nB,x\r\n\r\nC,,7\r\nD,a\x00b,1\r\n'
    found = read(tmp_path / "m.csv", text)
    assert values(found)[0] == {"id": "A", "title": 'one, "two"\nlines', "price": "9.5"}
    assert values(found)[1] == {"id": "C", "price": "7"}
    assert broken(found) == {4: "2 fields where the first line names 3"}
    assert values(read(tmp_path / "m.tsv", "a\tb\n1\t2\n")) == [{"a": "1", "b": "2"}]
    found = read(tmp_path / "m.csv", b"a,b\n1,\xe9\n2,3\n")
    assert broken(found) == {2: "byte 3 is not UTF-8"}
    assert values(found) == [{"a": "2", "b": "3"}]
    unclosed = 'a,b\n1,"x\n' + "y" * 200_000 + "\n2,3\n"
    found = read(tmp_path / "m.csv", unclosed)
    assert "a field of more than 131,072 characters" in broken(found)[2]
    with pytest.raises(DataError, match=r"m\.csv:1: two columns are named 'a'"):
        read(tmp_path / "m.csv", "a,a\n1,2\n")
    assert read(tmp_path / "m.csv", "") == []


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "b", "c"]),
            st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=8)),
        ),
        max_size=6,
    )
)
def test_json_and_python_lines_say_the_same(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("same")
    as_json = "".join(json.dumps(one) + "\n" for one in records)
    as_python = "".join(ascii(one) + "\n" for one in records)
    assert values(read(folder / "j.jsonl", as_json)) == records
    assert values(read(folder / "p.jsonl", as_python)) == records


@given(
    st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2))
)
def test_tables_are_read_as_they_are_written(tmp_path_factory, rows):
    rows = [row for row in rows if any(row)]
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([["a", "b"], *rows])
    found = read(tmp_path_factory.mktemp("table") / "t.csv", buffer.getvalue())
    assert values(found) == [
        {name: value for name, value in zip("ab", row, strict=True) if value} for row in rows
    ]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(
        {
            "asin": ["A", "B", None],
            "price": [1.5, None, 2.0],
            "where": [{"url": "http://a/"}, {"url": "http://b/"}, None],
            "big": [b"x" * 100] * 3,
        }
    )
    parquet.write_table(table, tmp_path / "m.parquet")
    found = list(read_metadata(tmp_path / "m.parquet", ["asin", "where.url"]))
    assert [one.values for one in found] == [
        {"asin": "A", "where": {"url": "http://a/"}},
        {"asin": "B", "where": {"url": "http://b/"}},
        {},
    ]
    assert [one.line for one in found] == [1, 2, 3]
    (tmp_path / "m.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(DataError, match=r"m\.parquet: cannot be read as Parquet"):
        list(read_metadata(tmp_path / "m.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    with pytest.raises(UnsupportedError, match=r"pip install 'vwkit\[parquet\]'"):
        list(read_metadata(tmp_path / "m.parquet"))


# Fields ------------------------------------------------------------------------------------------


def test_fields_are_looked_up_and_kept():
    record = {
        "a": {"b": [{"c": 5}]},
        "a.b": 7,
        "t": "x" * 400,
        "n": 2,
        "l": ["x", 1],
        "d": {"e": 1},
    }
    assert look_up(record, "a.b") == 7
    assert look_up(record, "a.c.0") is None
    assert look_up({"a": {"b": [{"c": 5}]}}, "a.b.0.c") == 5
    assert look_up(record, "d.e") == 1
    assert look_up(record, "d.e.f.9") is None
    assert look_up(record, "l.9") is None
    assert kept_fields(record, None) == {"a.b": 7, "n": 2, "l": ["x", 1]}
    assert kept_fields(record, ["t", "d", "none"]) == {"t": "x" * 400, "d": {"e": 1}}
    assert kept_fields({"x": float("inf"), "y": "\ud800"}, None) == {"y": "?"}


def test_columns_of_tables_become_numbers_where_all_are():
    records = [
        {"a": "1", "b": "1.5", "c": "007", "d": "1", "e": "1e3"},
        {"a": "-2", "b": "2", "c": "1", "d": "x", "f": "9" * 30},
        {"a": "0"},
    ]
    typed(records)
    assert records == [
        {"a": 1, "b": 1.5, "c": "007", "d": "1", "e": 1000.0},
        {"a": -2, "b": 2, "c": "1", "d": "x", "f": "9" * 30},
        {"a": 0},
    ]
    assert isinstance(records[0]["a"], int)


# Sources -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with PictureServer() as one:
        yield one


def source(tmp_path, text, name="m.jsonl", **given):
    (tmp_path / name).write_text(text)
    settings = {
        "url_field": "u",
        "id_field": "id",
        "allow_private": True,
        "retries": 0,
        "timeout": 5.0,
    }
    return UrlsSource(tmp_path / name, tmp_path / "cache", **{**settings, **given})


def test_items_of_urls(server, tmp_path):
    lines = [
        {"id": "A", "u": server.url("/picture/1.jpg"), "price": 5},
        {"id": "B", "u": server.url("/missing")},
        {"id": "C"},
        {"u": server.url("/picture/1.jpg")},
        "nonsense",
        {"id": "A", "u": server.url("/picture/2.jpg")},
        {"id": "../../\u00e9/x", "u": server.url("/picture/1.jpg")},
        {"id": 7, "u": 7},
        {"id": "E", "u": "file:///etc/passwd"},
        {"id": "F\n", "u": server.url("/picture/3.jpg")},
        {"id": "A#2", "u": server.url("/picture/3.jpg")},
    ]
    text = "\n".join(json.dumps(one) if isinstance(one, dict) else one for one in lines)
    found = collect(source(tmp_path, text), 0)
    items = found.items
    assert [item.row for item in items] == list(range(len(lines)))
    ids = ["A", "B", "C", "m.jsonl:4", "m.jsonl:5", "A#2", "../../\u00e9/x", "7", "E", "F", "A#2#2"]
    assert [item.id for item in items] == ids
    assert [item.status for item in items] == [
        "ok", "skipped", "skipped", "skipped", "skipped", "ok", "ok", "skipped", "skipped", "ok", "ok",
    ]  # fmt: skip
    assert items[0].metadata == {"id": "A", "u": server.url("/picture/1.jpg"), "price": 5}
    assert items[1].reason == f"m.jsonl:2: {server.url('/missing')}: HTTP 404 Not Found"
    assert items[2].reason == "m.jsonl:3: no URL (u)"
    assert items[3].reason == "m.jsonl:4: no usable id"
    assert items[4].reason.startswith("m.jsonl:5: not JSON")
    assert "only http:// and https:// are" in items[8].reason
    assert items[0].path == items[6].path
    assert found.counts == {"fetched": 3, "repeated ids": 2}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "A", "u": "MISSING"}', r"m\.jsonl:2: .*: HTTP 404"),
        ('{"id": "A"}', r"m\.jsonl:2: no URL"),
        ("oops", r"m\.jsonl:2: not JSON"),
        ('{"id": "Z", "u": "GOOD"}', r"m\.jsonl:2: the id 'Z' stands there twice"),
    ],
)
def test_stop_names_the_line(server, tmp_path, line, said):
    good = server.url("/picture/1.jpg")
    line = line.replace("MISSING", server.url("/missing")).replace("GOOD", good)
    text = f'{{"id": "Z", "u": "{good}"}}\n{line}\n'
    with pytest.raises(DataError, match=said):
        collect(source(tmp_path, text), 0, "stop")


def test_limit_sample_fields_and_tables(server, tmp_path):
    rows = [f"{i:03d},{server.url(f'/picture/{i}.jpg')},{i * 1.5},{i:02d}" for i in range(20)]
    text = "id,u,price,size\n" + "\n".join(rows) + "\n"
    items = collect(source(tmp_path, text, "m.csv", limit=4), 0).items
    assert [item.id for item in items] == ["000", "001", "002", "003"]
    assert items[2].metadata["price"] == 3.0
    assert items[2].metadata["size"] == "02"
    assert items[2].metadata["id"] == "002"
    items = collect(source(tmp_path, text, "m.csv", sample=5, fields=("price",)), 3).items
    assert len(items) == 5
    assert [set(item.metadata) for item in items] == [{"price"}] * 5
    assert items != collect(source(tmp_path, text, "m.csv", sample=5), 4).items
    with pytest.raises(DataError, match="holds no record"):
        collect(source(tmp_path, "id,u\n", "m.csv"), 0)


def test_local_pictures_with_metadata(tmp_path):
    photo_folder(tmp_path / "photos")
    (tmp_path / "m.csv").write_text(
        "file,sku,price\ng0/c0.png,A-1,5\ng1/c1.png,B,\nnone.png,C,1\ng0/c0.png,D,2\ng2/c0.png,B,3\n"
    )
    given = ImagesSource(
        tmp_path / "photos", metadata=tmp_path / "m.csv", id_field="sku", fields=("price",)
    )
    found = collect(given, 0)
    assert [item.id for item in found.items] == [
        "A-1", "g0/c1.png", "g1/c0.png", "B", "B#2", "g2/c1.png",
    ]  # fmt: skip
    assert found.items[0].metadata == {"price": 5}
    assert found.items[1].metadata == {}
    with pytest.raises(DataError, match=r"m\.csv:4: 'none.png' is none of the pictures"):
        collect(given, 0, "stop")
    (tmp_path / "m.csv").write_text("file,sku\nx.png,A\n")
    with pytest.raises(DataError, match="no record names a picture"):
        collect(given, 0)


# Specs -------------------------------------------------------------------------------------------


def spec(tmp_path, **images):
    return {
        "vwkit": 1,
        "images": {
            "urls": "m.jsonl",
            "url_field": "u",
            "id_field": "id",
            "cache": "cache",
            **images,
        },
        "featurizer": {"use": "colour-histogram"},
        "index": {"use": "exact"},
    }


def test_a_run_from_urls(server, tmp_path):
    lines = [{"id": f"P{i}", "u": server.url(f"/picture/{i}.jpg"), "price": i} for i in range(5)]
    lines += [{"id": "gone", "u": server.url("/missing")}, {"id": "cut", "u": server.url("/cut")}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    file = dump(tmp_path / "s.yaml", spec(tmp_path, allow_private=True))
    with pytest.warns(vwkit.SkippedItems, match="2 of 7"):
        run = vwkit.Pipeline.from_file(file).run(tmp_path / "run")
    again = vwkit.Run.open(tmp_path / "run")
    assert [item.status for item in again.items] == ["ok"] * 5 + ["skipped"] * 2
    assert "HTTP 404" in again.items[5].reason
    assert "truncated" in again.items[6].reason
    assert again.items[3].metadata["price"] == 3
    assert run.manifest["counts"]["fetched"] == 6
    assert run.manifest["spec"]["images"]["parallel"] == 16
    (tmp_path / "query.jpg").write_bytes(jpeg(3))
    assert again.search(tmp_path / "query.jpg", 1).items[0][0].id == "P3"
    assert again.search("P4", 1).items[0][0].id == "P4"
    assert "HTTP 404" in (tmp_path / "run/report.html").read_text()


def test_check_tells_everything_at_its_place(tmp_path):
    (tmp_path / "m.jsonl").write_text("{}")
    (tmp_path / "m.xml").write_text("")
    (tmp_path / "s.yaml").write_text(
        "vwkit: 1\n"
        "images:\n"
        "  urls: m.xml\n"
        "  url_feild: u\n"
        "  path: here\n"
        "  parallel: 0\n"
        "  timeout: soon\n"
        "  max_bytes: much\n"
        "  retry: always\n"
        "  allow_private: 1\n"
        "  fields: title\n"
        "featurizer: {use: pixels}\n"
    )
    with pytest.raises(SpecError) as caught:
        vwkit.Pipeline.from_file(tmp_path / "s.yaml")
    lines = str(caught.value).splitlines()
    for place, said in (
        ("2:1", "images: needs cache"),
        ("3:3", "its name does not tell its format"),
        ("4:3", "did you mean url_field?"),
        ("5:3", "path or urls, not both"),
        ("6:3", "from 1 to 256"),
        ("7:3", "must be seconds"),
        ("8:3", "such as 4GB"),
        ("9:3", "temporary, failed or never"),
        ("10:3", "true or false"),
        ("11:3", "a list of fields"),
    ):
        assert any(f"s.yaml:{place}:" in line and said in line for line in lines), (place, lines)
    with pytest.raises(SpecError, match=r"images\.id_field: names a field of a metadata file"):
        vwkit.Pipeline.from_dict(
            {
                "vwkit": 1,
                "images": {"path": str(tmp_path), "id_field": "x"},
                "featurizer": {"use": "pixels"},
            }
        )


def test_a_password_in_a_url_and_half_a_character_stay_out_of_reasons(tmp_path):
    lines = [
        {"id": "a", "u": "http://me:secret@example.com/x@1.png"},
        {"id": "b", "u": "http://example.com/\ud800.png"},
    ]
    items = collect(source(tmp_path, "\n".join(map(json.dumps, lines))), 0).items
    assert "http://…@example.com/x@1.png: the URL holds a user name" in items[0].reason
    assert items[1].reason == "m.jsonl:2: no URL (u): half a character"
    write_items(tmp_path / "items.jsonl", items)
    assert read_items(tmp_path / "items.jsonl") == items
    (one, _) = collect(source(tmp_path, "\n".join(map(json.dumps, lines)), id_field=None), 0).items
    assert one.id == "http://…@example.com/x@1.png"


def test_mistakes_are_told_in_plain_words(tmp_path):
    good = '{"a": 1}\n'
    found = read(tmp_path / "m.jsonl", good + '{"a": ' + "9" * 5000 + "}\n[1]\n")
    assert list(broken(found).values()) == [
        "not JSON (a number of too many digits), and no Python literal either",
        "a line is an object, {…}; this one is a list; write each object of it on a line of its own",
    ]
    found = read(tmp_path / "m.csv", 'a,b\n"not closed,1\n' + "x,y\n" * 40_000)
    assert "a quote before it not closed" in broken(found)[2]
    with pytest.raises(DataError, match="carriage return alone"):
        read(tmp_path / "n.csv", "a\r1\r2\r")


def test_a_field_named_by_half_a_character_can_be_written(tmp_path):
    (found,) = read(tmp_path / "m.jsonl", '{"\\ud800": "\\ud800"}\n')
    assert kept_fields(found.values, None) == {"?": "?"}
