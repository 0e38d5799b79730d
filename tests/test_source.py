from __future__ import annotations

import copy
import datetime
import enum
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from vwkit.errors import ParameterError, SpecError
from vwkit.source import MAX_BYTES, Source, from_dict, load, override, parse

BASE = Path("specs")


def yaml12(text: str) -> Source:
    return parse(text, "f.yaml", format="yaml", base=BASE)


def toml(text: str) -> Source:
    return parse(text, "f.toml", format="toml", base=BASE)


def refused(text: str, read: Any = yaml12) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(text)
    return str(caught.value).split("\n")


def attempt(read: Callable[[], Source]) -> tuple[Source | None, list[str]]:
    """What came of it, and the lines of the SpecError otherwise; nothing else may be raised."""
    try:
        return read(), []
    except SpecError as error:
        return None, str(error).split("\n")


def same(a: Any, b: Any) -> bool:
    """Equality that tells True from 1, but not 1e16 from its int."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    kinds = {type(a), type(b)}
    return a == b and (len(kinds) == 1 or kinds == {int, float})


# --- what scalars mean ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1_000_000),
        ("1.5e3", 1500),
        ("-2E+2", -200),
        ("1.5", 1.5),
        ("1.0", 1.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("1.23e1", 12.3),
        ("1e300", 1e300),
        ("100_000", 100_000),
        ("1_0.5", 10.5),
        ("0x10", 16),
        ("0o17", 15),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("0.5", 0.5),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        *[(text, text) for text in ("no", "on", "yes", "off", "y", "N", "tRUE", "nUll")],
        *[(text, text) for text in ("1:30", "2024-01-31", "2024-01-31T10:00:00Z", "0b1", "=")],
        *[(text, text) for text in ("1__0", "_1", "1_", "-0x10", "4GB", "inf", "nan", ".", "1e")],
        *[(f'"{text}"', text) for text in ("1e6", "true", "010", "<<", "~", "")],
        ("'1'", "1"),
        ("|-\n  12", "12"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    got = yaml12(f"a: {text}\n").data["a"]
    assert got == value
    assert type(got) is type(value)


def test_nan():
    assert math.isnan(yaml12("a: .nan").data["a"])
    assert math.isnan(toml("a = nan").data["a"])


@pytest.mark.parametrize("text", ["010", "00", "-07", "0_1", "01.5", "00e1"])
def test_a_leading_zero_is_refused(text):
    [line] = refused(f"a:\n  b: {text}")
    assert line.startswith(f"f.yaml:2:6: '{text}' begins with a 0")


def test_numbers_too_large_are_refused_where_they_stand():
    [line] = refused("a: 1\nb: [-1e400]")
    assert line.startswith("f.yaml:2:5: '-1e400' is too large")
    [line] = refused("a: " + "9" * 5000)
    assert line == "f.yaml:1:4: a number of 5,000 digits is too large"
    [line] = refused("a = 1\nb = [-1e400]", toml)
    assert line.startswith("f.toml:2:6: '-1e400' is too large")
    [line] = refused("a = 1\nb = " + "9" * 5000, toml)
    assert line.startswith("f.toml:2:5: ")


def test_characters_outside_the_basic_plane():
    assert yaml12('a: "\\ud83d\\ude00"').data == yaml12('a: "\U0001f600"').data
    assert refused('a: "\\ud83d"')[0].startswith("f.yaml:1:4: ")
    assert refused('a: "\\UFFFFFFFF"')[0].startswith("f.yaml:1:")


# --- round trips ----------------------------------------------------------------------------------

# Characters that need no escape, so that JSON's and TOML's strings agree.
_TEXT = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), max_size=10)
_NUMBER = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False)


def _plain(leaves, keys=_TEXT):
    return st.dictionaries(
        keys,
        st.recursive(
            leaves,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
            max_leaves=8,
        ),
        min_size=1,
        max_size=4,
    )


class QuotingDumper(yaml.SafeDumper):
    """Quotes every string: what PyYAML leaves plain is meant as YAML 1.1."""

    def represent_quoted(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"')


QuotingDumper.add_representer(str, QuotingDumper.represent_quoted)


def dump(data: Any, flow: bool | None = False) -> str:
    return yaml.dump(data, Dumper=QuotingDumper, default_flow_style=flow, width=10**6)


@given(_plain(st.none() | st.booleans() | _NUMBER | _TEXT), st.sampled_from([True, False, None]))
def test_yaml_round_trip(data, flow):
    assert same(yaml12(dump(data, flow)).data, data)


@given(_plain(st.none() | st.booleans() | _NUMBER.filter(math.isfinite) | _TEXT), st.booleans())
def test_json_is_yaml(data, escaped):
    assert same(yaml12(json.dumps(data, ensure_ascii=escaped)).data, data)


def dump_toml(table: dict[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{" + ", ".join(f"{value(k)} = {value(v)}" for k, v in item.items()) + "}"
        if isinstance(item, list):
            return "[\n" + ",\n".join(map(value, item)) + "]"
        if isinstance(item, float):
            return str(item)
        return json.dumps(item, ensure_ascii=False)

    def header(key: str) -> str:
        return " . ".join(json.dumps(part, ensure_ascii=False) for part in (*path, key))

    lines, tables = [], []
    for key, item in table.items():
        if isinstance(item, dict):
            tables += [f" [ {header(key)} ] # [x]", *dump_toml(item, (*path, key))]
        elif isinstance(item, list) and item and all(isinstance(part, dict) for part in item):
            for part in item:
                tables += [f"[[{header(key)}]]", *dump_toml(part, (*path, key))]
        else:
            lines.append(f"{value(key)} = {value(item)}")
    return lines + tables


@given(_plain(st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | _TEXT))
def test_toml_round_trip(data):
    assert same(toml("\n".join(dump_toml(data))).data, data)


# --- positions ------------------------------------------------------------------------------------


def paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: Any = []
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    below = [found for step, item in inner for found in paths(item, (*path, step))]
    return [path, *below] if path else below


def text_at(source: Source, text: str, path: Any, *, key: bool = True) -> str:
    name, line, column = source.where(path, key).split(":")
    assert name == source.name
    return text.split("\n")[int(line) - 1][int(column) - 1 :]


_NAMES = st.text("abc.- ", min_size=1, max_size=5)
_NAMED = _plain(st.booleans() | st.integers(0, 99) | _NAMES, _NAMES)


@given(_NAMED, st.sampled_from([True, False, None]))
def test_every_yaml_key_is_found(data, flow):
    text = "# a comment\n" + dump(data, flow)
    source = yaml12(text)
    for path in paths(data):
        if isinstance(path[-1], str):
            assert text_at(source, text, path).startswith(json.dumps(path[-1]))


@given(_NAMED)
@example({"a": [{"b": [{"c": 1}, {"c": {"d": 2}}]}, {"b": [{"c": [1, {"c": 3}]}]}]})
def test_every_toml_key_and_value_is_found(data):
    text = "# a = 1\n" + "\n".join(dump_toml(data))
    source = toml(text)
    for path in paths(data):
        value: Any = data
        for step in path:
            value = value[step]
        if isinstance(path[-1], str):
            assert text_at(source, text, path).startswith(json.dumps(path[-1]))
        if not isinstance(value, dict | list):
            assert text_at(source, text, path, key=False).startswith(json.dumps(value))


NESTED = """\
vwkit: 1
vectors: {path: x.bin}
clusterer:
  use: lloyd
  k: 4096
  assign: {use: kdtree, leaf_sizes: 20}
transform:
  - use: rootsift
  - {use: pca,
     dim: 32}
run:
"""


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("vwkit",), "1:1", "1:8"),
        (("clusterer", "k"), "5:3", "5:6"),
        (("clusterer", "assign", "leaf_sizes"), "6:25", "6:37"),
        (("transform", 0), "8:5", "8:5"),
        (("transform", 1, "dim"), "10:6", "10:11"),
        (("clusterer", "iterations"), "3:1", "3:1"),  # missing: the nearest above
        (("clusterer", "k", "x", 3), "5:3", "5:3"),
        (("transform", 7), "7:1", "7:1"),
        (("run",), "11:1", "11:5"),
        (("nothing",), "1:1", "1:1"),
        ((), "1:1", "1:1"),
    ],
)
def test_where(path, key, value):
    source = yaml12(NESTED)
    assert source.where(path) == f"f.yaml:{key}"
    assert source.where(path, key=False) == f"f.yaml:{value}"


def test_where_in_toml():
    source = toml(
        "vwkit = 1\n"
        'vectors.path = "a#b.bin"\n'
        "notes = '''\n"
        'k = 1 # "\n'
        "[clusterer]\n"
        "'''''\n"
        "[[transform]] # first\n"
        "use = 'x'\n"
        "[[transform]]\n"
        "  use = 'pca'\n"
        "  options = {dim = 32, 'white.n' = true}\n"
        "[transform.train]\n"
        "rows = 100\n"
        "[clusterer.assign]\n"
        "use = 'flann'\n"
        "checks = [\n"
        "  1, # one\n"
        "  [2, 3],\n"
        "]\n"
        "[clusterer]\n"
        "k = 5\n"
    )
    found = {
        ("vectors",): "2:1",
        ("vectors", "path"): "2:9",
        ("transform",): "7:3",
        ("transform", 0): "7:3",
        ("transform", 1): "9:3",
        ("transform", 1, "use"): "10:3",
        ("transform", 1, "options", "dim"): "11:14",
        ("transform", 1, "options", "white.n"): "11:24",
        ("transform", 1, "train", "rows"): "13:1",
        ("clusterer", "assign", "checks", 0): "17:3",
        ("clusterer", "assign", "checks", 1, 1): "18:7",
        ("clusterer",): "20:2",
        ("clusterer", "k"): "21:1",
        ("clusterer", "iterations"): "20:2",
    }
    assert {path: source.where(path) for path in found} == {
        path: f"f.toml:{at}" for path, at in found.items()
    }
    assert source.where(("transform", 1, "options", "dim"), key=False) == "f.toml:11:20"


def test_toml_with_windows_line_ends_and_byte_order_mark():
    source = toml("\ufeffa = 1\r\n[b]\r\nc = 1e6\r\n")
    assert source.data == {"a": 1, "b": {"c": 1_000_000}}
    assert source.where(("b", "c")) == "f.toml:3:1"
    assert yaml12("\ufeffa: 1\r\nb: 2\r\n").where(("b",)) == "f.yaml:2:1"


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("a: 1\nb: 2\na: 3", "3:1", "'a' is repeated; it stands first at 1:1"),
        ('a: {b: 1, "b": 2}', "1:11", "'b' is repeated; it stands first at 1:5"),
        ("1: x", "1:1", "'1' is not text; put it in quotes"),
        ("a: {true: x}", "1:5", "'true' is not text"),
        ("?\n: x", "1:2", "the key before ':' is missing"),
        ("a: {: x}", "1:5", "a key or value is missing before ':'"),
        ("a: }", "1:4", "a key or value is missing before '}'"),
        ("? [a]\n: x", "1:3", "a list cannot be a key"),
        ("a: {{b}: c}", "1:5", "a mapping cannot be a key"),
        ("a: &a {b: 1}\nc: {<<: *a}", "2:5", "merge keys"),
        ("a: !!python/object/apply:os.system [ls]", "1:4", "'!!python/object/apply:os.system'"),
        ("a: !!str 1", "1:4", "'!!str'"),
        ("a: !local x", "1:4", "'!local'"),
        ("a: [!x, 1]", "1:5", "'!x,'"),
        ("!!map {a: 1}", "1:1", "'!!map'"),
        ("a: 1\n--- \nb: 1", "2:1", "a second document"),
        ("a: 1\n...\nb: 1", "3:1", "one document"),
        ("%FOO\n", "2:1", "one document"),
        ("", "1:1", "the spec is empty; a spec needs `vwkit: 1`"),
        ("# nothing\n", "1:1", "the spec is empty"),
        ("{}", "1:1", "the spec is empty"),
        ("---\n- a", "2:1", "this is a list, no mapping"),
        ("some text", "1:1", "this is text, no mapping"),
        ("a:\n\tb: 1", "2:1", "a tab stands where YAML allows only spaces"),
        ("a: b: c", "1:5", "a ':' cannot stand here"),
        ("a:1\nb: 2", "2:2", "a space after each ':'"),
        ("a: 1\nb:2\nc: 3", "2:1", "no ':' follows this"),
        ("a: {b: 1\nc: 2", "2:2", "',' or '}' is missing here, in the mapping begun at 1:4"),
        ("a: [1, 2", "1:9", "',' or ']' is missing here, in the list begun at 1:4"),
        ("a: 'x\nb: 1", "1:4", "this quote is never closed"),
        ('a: "C:\\data"', "1:8", "this backslash begins no known escape"),
        ('a: "\\xzz"', "1:7", "this backslash begins no known escape"),
        ("a: **/*.jpg", "1:4", "a value that begins with * must be in quotes"),
        ("a: *.jpg", "1:4", "a value that begins with * must be in quotes"),
        ("a: *jpg", "1:4", "*jpg repeats nothing"),
        ("a: &.x 1", "1:4", "a value that begins with & must be in quotes"),
        ("a: @x", "1:4", "a value cannot begin with @"),
        ("a: &a 1\nb: &a 2", "2:4", "this anchor is repeated; it stands first at 1:4"),
        ("a:\n  b: 1\n c: 2", "3:2", "this does not continue the mapping begun at 1:1"),
        ("a:\n - 1\n b: 2", "3:2", "this does not continue the list begun at 2:2"),
        ("a: - b", "1:4", "a list item '- ' cannot stand here"),
        ("a: '\x07'", "1:5", "the character U+0007 is not allowed"),
        ("ab\n\x00", "2:1", "the character U+0000 is not allowed"),
        ("&a [*a]", "1:5", "*a stands inside &a itself"),
        ("x: &a {b: [*a]}", "1:12", "*a stands inside &a itself"),
        ("a: " + "[" * 100_000, "1:67", "nested more than 64 levels deep"),
        ("- " * 1000, "1:129", "nested more than 64 levels deep"),
    ],
)
def test_yaml_refusals(text, at, words):
    [line] = refused(text)
    assert line.startswith(f"f.yaml:{at}: ")
    assert words in line


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("a=1\nb=2\na=3", "3:1", "'a' is repeated; it stands first at 1:1"),
        ("[t]\na=1\n[ t ]\n", "3:3", "'t' is repeated; it stands first at 1:2"),
        ("a.b=1\n'a'.\"b\"=2", "2:5", "'b' is repeated; it stands first at 1:3"),
        ("a = {b = 1, b = 2}", "1:13", "'b' is repeated; it stands first at 1:6"),
        ("x='''\ny=1\n'''\ny=1\ny=2", "5:1", "'y' is repeated; it stands first at 4:1"),
        ("a=1\na=2 [[[[", "2:1", "'a' is repeated"),
        ("a=1\n[a.b]", "2:5", "clashes with an entry of the same name above"),
        ("a=[1]\n[[a]]", "2:4", "clashes with an entry of the same name above"),
        ("a=no", "1:3", "text needs quotes"),
        ("a = 1 b", "1:7", "a new line is expected here"),
        ("a = 010", "1:6", "numbers begin with no 0"),
        ('a = "\\q"', "1:8", "this backslash begins no known escape"),
        ("a = [1,\n", "2:1", "no value begins here"),
        ("", "1:1", "the spec is empty"),
        ("# x", "1:1", "the spec is empty"),
        ("a = [1, 2020-01-01]", "1:9", "no dates or times; put 2020-01-01 in quotes"),
        ("[t]\na = 07:30:00", "2:5", "no dates or times"),
        ("a=" + "[" * 100_000, "1:1", "nested more than 64 levels deep"),
        ("a=" + "[" * 70 + "]" * 70, "1:67", "nested more than 64 levels deep"),
    ],
)
def test_toml_refusals(text, at, words):
    [line] = refused(text, toml)
    assert line.startswith(f"f.toml:{at}: ")
    assert words in line


def test_all_problems_of_meaning_are_told_at_once_in_order():
    lines = refused("b: !x 1\na: 010\na: 2\n1: 3\nc: [1e999]\n")
    assert [line.split(": ")[0] for line in lines] == [
        "f.yaml:1:4",
        "f.yaml:2:4",
        "f.yaml:3:1",
        "f.yaml:4:1",
        "f.yaml:5:5",
    ]
    lines = refused("a = 1979-05-27\nb = 1e999", toml)
    assert [line.split(": ")[0] for line in lines] == ["f.toml:1:5", "f.toml:2:5"]


def test_aliases_are_copies_placed_where_they_were_written():
    source = yaml12("a: &x {k: 1}\nb: *x\nc: [*x]")
    assert source.data == {"a": {"k": 1}, "b": {"k": 1}, "c": [{"k": 1}]}
    assert source.data["a"] is not source.data["b"]
    assert source.where(("b",)) == "f.yaml:2:1"
    assert source.where(("b", "k")) == "f.yaml:1:8"
    assert override(source, ["a.k=2"]).data == {"a": {"k": 2}, "b": {"k": 1}, "c": [{"k": 1}]}


def test_a_problem_inside_an_alias_is_told_once():
    assert len(refused("a: &x [010]\nb: [*x, *x]")) == 1


def test_endless_lists_are_stopped(monkeypatch):
    monkeypatch.setattr("vwkit._yaml12.MAX_VALUES", 1000)
    assert len(yaml12("a: [" + "1," * 998 + "]").data["a"]) == 998
    [line] = refused("a: [" + "1," * 999 + "]")
    assert line == "f.yaml:1:2001: more than 1,000 values, those of aliases counted"
    # Far above, it is not even composed.
    [line] = refused("a: [" + "1," * 100_000)
    assert line == "f.yaml:1:3999: more than 1,000 values"


def test_multiplying_aliases_are_stopped():
    tens = [", ".join([f"*a{i}"] * 10) for i in range(12)]
    lines = ["a0: &a0 [x, x]"] + [f"a{i + 1}: &a{i + 1} [{ten}]" for i, ten in enumerate(tens)]
    [line] = refused("\n".join(lines))
    assert "more than 100,000 values, those of aliases counted" in line


def test_aliases_that_nest_are_stopped():
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 2000)]
    [line] = refused("\n".join(lines))
    assert "nested more than 64 levels deep" in line


_SIGNS = st.text("ab:,-[]{}'\"\n\t #&*!|>%@`?.=10e~\\_<T\r\x00\u2028\ud800", max_size=40)


@given(_SIGNS | st.text(max_size=20))
@example('"\\U00110000"')
@example("%YAML 1.1.1")
@example("%YAML 99999.9\n---\na")
def test_any_text_is_read_or_refused_in_yaml(text):
    source, problems = attempt(lambda: yaml12(text))
    for line in problems:
        assert re.fullmatch(r"f\.yaml:[1-9]\d*:[1-9]\d*: [^\n]+", line)
    if source is not None:
        assert source.data
        for path in paths(source.data):
            assert path in source.places


@given(st.lists(st.sampled_from([*"ab.=[]{},\n '\"#1\\", "a=1\n", "[a]", '"""']), max_size=20))
def test_any_text_is_read_or_refused_in_toml(pieces):
    source, problems = attempt(lambda: toml("".join(pieces)))
    for line in problems:
        assert re.fullmatch(r"f\.toml:[1-9]\d*:[1-9]\d*: [^\n]+", line)
    if source is not None:
        for path in paths(source.data):
            assert path in source.places


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"), [("a.yaml", "a: 1e6"), ("a.YML", "a: 1e6"), ("a.toml", "a = 1e6")]
)
def test_load(tmp_path, name, content):
    file = tmp_path / name
    file.write_text(content)
    source = load(str(file))
    assert source.data == {"a": 1_000_000}
    assert source.base == tmp_path
    assert source.where(("a",)) == f"{file}:1:1"


def test_load_shows_the_path_as_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("a: 010")
    with pytest.raises(SpecError, match=r"^a\.yaml:1:4: "):
        load("a.yaml")


@pytest.mark.parametrize("name", ["spec.json", "spec", "yaml"])
def test_other_endings_are_refused(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(SpecError, match=r"ends in one of \.yaml, \.yml, \.toml$"):
        load(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SpecError, match=r"^no such file: .*x\.yaml$"):
        load(tmp_path / "x.yaml")
    (tmp_path / "d.yaml").mkdir()
    with pytest.raises(SpecError, match=r"d\.yaml: not a file$"):
        load(tmp_path / "d.yaml")
    with pytest.raises(SpecError, match=r"\.yaml: cannot be read: "):
        load(tmp_path / ("x" * 5000 + ".yaml"))


def test_size_limit(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_bytes(b"a: 1 #".ljust(MAX_BYTES, b"-"))
    assert load(file).data == {"a": 1}
    file.write_bytes(b"a: 1 #".ljust(MAX_BYTES + 1, b"-"))
    with pytest.raises(SpecError, match="larger than 1 MiB"):
        load(file)


@pytest.mark.parametrize("name", ["a.yaml", "a.toml"])
def test_not_utf_8(tmp_path, name):
    file = tmp_path / name
    file.write_bytes("# größe\n# größe ".encode() + b"\xff\n")
    with pytest.raises(SpecError) as caught:
        load(file)
    assert str(caught.value) == f"{file}:2:9: the byte 0xff is not UTF-8; save the file as UTF-8"


def test_unknown_format():
    with pytest.raises(ParameterError, match="allowed are 'yaml' and 'toml'"):
        parse("a: 1", "f", format="json", base=BASE)


# --- from Python ----------------------------------------------------------------------------------


def test_from_dict_copies_and_has_no_places():
    inner = {"use": "pca"}
    data = {"transform": [inner], "seed": 7, "ratio": 0.5, "x": None, "y": True, "t": (1, 2)}
    source = from_dict(data, BASE)
    inner["use"] = "other"
    assert source.data == {**data, "transform": [{"use": "pca"}], "t": [1, 2]}
    assert source.where(("transform", 0)) == ""
    assert source.where(()) == ""
    assert source.base == BASE


def test_from_dict_brings_subclasses_down_to_plain_types():
    class Name(str):
        def __str__(self) -> str:
            return "another text"

    class Count(enum.IntEnum):
        TWO = 2

    data = from_dict({"c": Name("x"), "b": Count.TWO, Name("a"): 1}, BASE).data
    assert data == {"a": 1, "b": 2, "c": "x"}
    assert {*map(type, data), *map(type, data.values())} == {int, str}


def test_from_dict_refuses_what_is_not_plain_data():
    with pytest.raises(SpecError) as caught:
        from_dict({"a": [b"x"], "b": {1: 2, "c": datetime.date(2024, 1, 1)}, "p": Path()}, BASE)
    lines = str(caught.value).split("\n")
    assert [line.split(" ")[:3] for line in lines] == [
        ["a[0]:", "a", "builtins.bytes"],
        ["b:", "the", "key"],
        ["b.c:", "a", "datetime.date"],
        ["p:", "a", lines[3].split(" ")[2]],
    ]
    with pytest.raises(SpecError, match="a spec is a mapping, not a list"):
        from_dict([1], BASE)
    loop: dict[str, Any] = {}
    loop["a"] = loop
    with pytest.raises(SpecError, match="nested more than 64 levels deep"):
        from_dict(loop, BASE)


# --- overrides ------------------------------------------------------------------------------------


def changed(*assignments: str) -> dict[str, Any]:
    return override(yaml12(NESTED), assignments).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4096", 4096),
        ("1e6", 1_000_000),
        ("no", "no"),
        ("", None),
        (" true ", True),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("{use: pca, dim: 1_0}", {"use": "pca", "dim": 10}),
        ("'10'", "10"),
        ('"a\\tb"', "a\tb"),
        ("**/*.jpg", "**/*.jpg"),
        ("a: b # c=d", "a: b # c=d"),
        ("C:\\x", "C:\\x"),
        ("- a", "- a"),
    ],
)
def test_override_values(text, value):
    got = changed(f"clusterer.k={text}")["clusterer"]["k"]
    assert got == value
    assert type(got) is type(value)


def test_override_paths():
    assert changed("transform[1].dim=8")["transform"][1] == {"use": "pca", "dim": 8}
    assert changed("transform[0]={use: l2}")["transform"][0] == {"use": "l2"}
    assert changed("index.train.rows=5")["index"] == {"train": {"rows": 5}}
    assert changed("run.memory=4GB")["run"] == {"memory": "4GB"}
    assert changed("index={}", "index.M=4", "index.M=8")["index"] == {"M": 8}


def test_override_leaves_its_source_alone():
    source = yaml12(NESTED)
    before = copy.deepcopy(source)
    override(source, ["clusterer.k=1", "transform[0]=x", "run.threads=1"])
    assert source == before


def test_where_of_an_override():
    source = override(
        yaml12(NESTED), ["clusterer.assign={use: flann}", "run.memory=4GB", "transform[1].dim=4"]
    )
    assert source.where(("clusterer", "assign", "use")) == "--set clusterer.assign"
    assert source.where(("clusterer", "assign", "leaf_sizes")) == "--set clusterer.assign"
    assert source.where(("clusterer", "k")) == "f.yaml:5:3"
    assert source.where(("run",)) == "--set run.memory"
    assert source.where(("transform", 1, "dim")) == "--set transform[1].dim"
    assert source.where(("transform", 1)) == "f.yaml:9:5"
    again = override(source, ["clusterer=null"])
    assert again.where(("clusterer", "assign")) == "--set clusterer"
    python = override(from_dict({"a": {"b": 1}}, BASE), ["a.c=2"])
    assert (python.where(("a", "b")), python.where(("a", "c"))) == ("", "--set a.c")


def test_relative_names_in_an_override_count_from_the_working_directory():
    source = override(yaml12(NESTED), ["vectors.path=y.bin"])
    assert source.base_of(("vectors", "path")) == Path()
    assert source.base_of(("vectors",)) == BASE
    assert source.base_of(("vectors", "images")) == BASE


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("clusterer.k", "write it as key.path=value"),
        ("=4", "write it as key.path=value"),
        ("a..b=4", "write it as key.path=value"),
        ("[0]=4", "write it as key.path=value"),
        ("transform[-1]=4", "write it as key.path=value"),
        ("transform[2]=4", "transform holds 2, counted from 0, so it has no [2]"),
        ("transform[2].dim=4", "transform holds 2"),
        ("transform.dim=4", "transform is a list; say which item, such as transform[0].dim"),
        ("clusterer[0].k=4", "clusterer is a mapping, so it has no [0]"),
        ("clusterer.k.x=4", "clusterer.k is a number, so it has no x"),
        ("output[0].path=x", "output is missing, so it has no items"),
        ("run[0]=x", "run is null, so it has no [0]"),
        ("clusterer.k=010", "begins with a 0"),
        ("clusterer.k=[1", "',' or ']' is missing"),
        ("images.pattern=[ab].jpg", "put the value in quotes if it is text"),
        ("clusterer.k='a' b", "put the value in quotes if it is text"),
        ("clusterer.k='a': b", "text follows the closing quote"),
        ("clusterer.k={a: 1, a: 2}", "'a' is repeated"),
        ("clusterer.k=[!!python/name:os x]", "is refused"),
        (".".join("a" * 70) + "=1", "nested more than 64 levels deep"),
    ],
)
def test_override_refusals(assignment, words):
    with pytest.raises(SpecError) as caught:
        changed(assignment)
    assert str(caught.value).startswith(f"--set {assignment[:70]}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_override_tells_all_problems():
    with pytest.raises(SpecError) as caught:
        changed("x", "clusterer.k=1", "y[0]=1")
    assert [line[:7] for line in str(caught.value).split("\n")] == ["--set x", "--set y"]
    with pytest.raises(ParameterError, match="give a list of strings"):
        override(yaml12(NESTED), "a=1")


@given(st.lists(st.sampled_from([*"ab.=[]0{}'\" :,-*&!\n", "clusterer", "transform", "k"])))
def test_any_assignment_is_made_or_refused(pieces):
    source, assignment = yaml12(NESTED), "".join(pieces)
    made, problems = attempt(lambda: override(source, [assignment]))
    assert (made is None) == (len(problems) == 1)
    assert all(line.startswith("--set ") for line in problems)


# --- the jobs -------------------------------------------------------------------------------------

JOBS = {
    "vocabulary": """\
vwkit: 1                       # vocabulary of Oxford5k by PQk-means
seed: 7
vectors: {path: feat_oxc1_hesaff_sift.bin}          # format sniffed; `use: oxford-sift` says it
quantizer: {use: pq, m: 4, ks: 256, train_rows: 1_000_000}
clusterer: {use: pqkmeans, k: 131_072, iterations: 10}
output:
  - {write: vocabulary, path: out/vocabulary}
  - {write: words, path: out/words}
""",
    "approximate k-means": """\
vwkit: 1                       # approximate k-means: any index does the assignment
vectors: {path: feat_oxc1_hesaff_sift.bin}
clusterer: {use: lloyd, k: 131_072, iterations: 15, assign: {use: flann, trees: 8, checks: 128}}
output: {write: vocabulary, path: out/vocabulary}
""",
    "billion-scale": """\
vwkit: 1                       # billion-scale
vectors: {path: bigann_base.bvecs.gz}
quantizer: {use: pq, m: 4, train: {path: siftsmall_learn.fvecs}}
clusterer: {use: graph-pqkmeans, k: 1000}
output: {write: codes, path: out/codes.npy}
run: {memory: 4GB}
""",
    "palette": """\
vwkit: 1                       # palette
images: {path: talos.jpg}
featurizer: {use: pixels, space: oklab}
clusterer: {use: lloyd, k: 16, iterations: 30}
output: {write: palette, path: out/palette}         # a folder; in it talos.png: PNG-8
""",
    "image clusters": """\
vwkit: 1                       # similar photos into folders
images: {path: pics, pattern: "**/*.jpg"}
featurizer: {use: onnx, model: vgg16.onnx, layer: fc2}
transform: [{use: pca, variance: 0.95}]
clusterer: {use: agglomerative, similarity: 0.5, min_size: 2}
output:
  - {write: folders, path: out/clusters}
  - {write: gallery, path: out/gallery.html}
  - {write: dendrogram, path: out/dendrogram.html}
""",
    "visual search": """\
vwkit: 1                       # visual search; then: vwkit search out/run skirt.jpg -k 5
images: {path: amazon}         # or {urls: metadata.jsonl, url_field: imUrl, id_field: asin}
featurizer: {use: onnx, model: resnet18.onnx}
index: {use: hnsw, metric: l2, M: 16, ef_construction: 100, ef: 100}
output: {write: index, path: out/index}
""",
    "image retrieval": """\
vwkit: 1                       # from a folder of photos to a scored search engine in one run
images: {path: oxbuild_images}
featurizer:
  use: bag-of-words
  local: {use: sift, root: true, max_keypoints: 2000}
  vocabulary: {use: graph-kmeans, k: 100_000}
  weighting: tf-idf
index: {use: inverted, metric: cosine}
rerank: [{use: affine, top: 200}]
evaluate: {protocol: oxford, groundtruth: gt_files}
""",
}


@pytest.mark.parametrize("job", JOBS)
def test_the_jobs_parse(job):
    text = JOBS[job]
    source = yaml12(text)
    assert source.data["vwkit"] == 1
    for path in paths(source.data):
        if isinstance(path[-1], str):
            assert text_at(source, text, path).startswith(f"{path[-1]}:")


def test_the_values_of_a_job():
    assert yaml12(JOBS["vocabulary"]).data == {
        "vwkit": 1,
        "seed": 7,
        "vectors": {"path": "feat_oxc1_hesaff_sift.bin"},
        "quantizer": {"use": "pq", "m": 4, "ks": 256, "train_rows": 1_000_000},
        "clusterer": {"use": "pqkmeans", "k": 131_072, "iterations": 10},
        "output": [
            {"write": "vocabulary", "path": "out/vocabulary"},
            {"write": "words", "path": "out/words"},
        ],
    }
    retrieval = yaml12(JOBS["image retrieval"]).data
    assert retrieval["featurizer"]["local"] == {"use": "sift", "root": True, "max_keypoints": 2000}
    assert yaml12(JOBS["billion-scale"]).data["run"] == {"memory": "4GB"}
