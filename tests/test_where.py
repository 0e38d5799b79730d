"""Filters by metadata: the little language, its mistakes, and searches under it."""

import operator
import string

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vwkit
from tests.helpers import photo_folder
from vwkit.columns import Columns
from vwkit.errors import ParameterError, UnsupportedError
from vwkit.types import Item
from vwkit.where import parse, search_allowed

ITEMS = [
    Item(0, "a/1", size=(10, 20), metadata={"price": 5, "color": "red", "new": True}),
    Item(1, "b", size=(30, 20), metadata={"price": 20.5, "color": "Blue", "new": False}),
    Item(2, "c", metadata={"color": "dark red", "tags": ["Sale", ["Women", 7]]}),
    Item(3, "d", metadata={"price": -1e3, "rank": {"Shoes": 7}, "my field": "x", "text": "it's"}),
    Item(4, "e", metadata={"price": "n/a"}),
]


def found(text):
    return np.flatnonzero(parse(text).mask(Columns(ITEMS))).tolist()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("price < 20", [0, 3]),
        ("price <= 5", [0, 3]),
        ("price>20", [1]),
        ("price >= 20.5", [1]),
        ("price == 5.0", [0]),
        ("price == -1e3", [3]),
        ("price != 5", [1, 3]),
        ("not price < 20", [1, 2, 4]),
        ("not (price < 20 or has tags)", [1, 4]),
        ("price == 'n/a'", [4]),
        ("color == 'red'", [0]),
        ('color == "Blue" or color == "red"', [0, 1]),
        ("color in ['red', 'Blue', 'green']", [0, 1]),
        ("color not in ['red']", [1, 2]),
        ("price in [5, -1000]", [0, 3]),
        ("color contains 'RED'", [0, 2]),
        ("tags contains 'sale'", [2]),
        ("tags contains 'women'", [2]),
        ("tags contains 'wom'", []),
        ("tags contains 7", [2]),
        ("color < 'c'", [1]),
        ("new == true", [0]),
        ("new != true", [1]),
        ("new == FALSE", [1]),
        ("has price", [0, 1, 3, 4]),
        ("NOT HAS price AND id == 'c'", [2]),
        ("rank.Shoes == 7", [3]),
        ("`my field` == 'x'", [3]),
        (r"text == 'it\'s'", [3]),
        ("id contains '/'", [0]),
        ("width > 10 and height == 20", [1]),
        ("price < 0 or price > 20 and color == 'red'", [3]),
        ("(price < 0 or price > 20) and color == 'Blue'", [1]),
        ("not not has new", [0, 1]),
    ],
)
def test_expressions(text, rows):
    assert found(text) == rows


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("", 1, "nothing there"),
        ("price", 6, "one of < <="),
        ("price <", 8, "a value is expected"),
        ("price < red", 9, "text stands in quotes: 'red'"),
        ("price = 5", 7, "write == for ="),
        ("price < 5 && new == true", 11, "write and for &&"),
        ("price < 5 color", 11, "and, or or the end"),
        ("(price < 5", 11, "a ) is missing"),
        ("price < 5)", 10, ") closes nothing"),
        ("color in 'red'", 10, "a list is expected"),
        ("color in ['red'", 16, "a ] is missing"),
        ("color in []", 11, "a value is expected"),
        ("color == 'red", 10, "the quote ' is not closed"),
        ("5 < price", 1, "the name of a field"),
        ("and", 1, "the name of a field"),
        ("price < 5 and", 14, "the name of a field"),
        ("new < true", 5, "have no order"),
        ("price ; 5", 7, "';' has no meaning"),
        ("__import__('os')", 11, "one of < <="),
        ("price < 5x", 9, "has no meaning"),
        ("colour == 'red'", 1, "no item has a field 'colour'; did you mean color?"),
        ("has zzz", 5, "no item has a field 'zzz'; there are price, color"),
        ("color < 5", 1, "color has text, never numbers"),
        ("new == 'yes'", 1, "new has true or false, never text"),
        ("width contains 'a'", 1, "width has numbers, never text or lists"),
    ],
)
def test_mistakes_are_pointed_at(text, column, said):
    with pytest.raises(ParameterError) as caught:
        found(text)
    assert str(caught.value).startswith(f"where, column {column}: "), caught.value
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_too_much_is_refused():
    with pytest.raises(ParameterError, match="nested too deeply"):
        parse("(" * 5000 + "a == 1" + ")" * 4000)
    with pytest.raises(ParameterError, match="nested too deeply"):
        parse("not " * 2000 + "a == 1")
    with pytest.raises(ParameterError, match="longer than"):
        parse("a == 1 or " * 2000 + "a == 1")
    assert len(repr(parse(" or ".join(["a == 1"] * 900)))) > 900
    assert (
        parse(["price < 20", "color == 'red'"]).mask(Columns(ITEMS)).tolist()
        == [True] + [False] * 4
    )
    with pytest.raises(ParameterError, match=r"column 7: .*\(in: price = 1\)"):
        parse(["price < 20", "price = 1"])
    with pytest.raises(ParameterError, match="no expression"):
        parse([])


@given(st.text(string.printable, max_size=30))
def test_any_text_is_an_expression_or_one_clear_error(text):
    try:
        found(text)
    except ParameterError as error:
        assert str(error).startswith("where")


OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
             "==": operator.eq, "!=": operator.ne}  # fmt: skip
leaves = st.tuples(st.sampled_from("ab"), st.sampled_from(sorted(OPERATORS)), st.integers(-2, 2))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)
    ),
    max_leaves=8,
)


def written(tree):
    if tree[0] == "not":
        return f"not ({written(tree[1])})"
    if tree[0] in ("and", "or"):
        return f"({written(tree[1])}) {tree[0]} ({written(tree[2])})"
    return "{} {} {}".format(*tree)


def expected(tree, record):
    if tree[0] == "not":
        return not expected(tree[1], record)
    if tree[0] == "and":
        return expected(tree[1], record) and expected(tree[2], record)
    if tree[0] == "or":
        return expected(tree[1], record) or expected(tree[2], record)
    return tree[0] in record and OPERATORS[tree[1]](record[tree[0]], tree[2])


@given(trees, st.lists(st.dictionaries(st.sampled_from("ab"), st.integers(-2, 2)), max_size=8))
def test_columns_and_a_plain_loop_agree(tree, records):
    records = [{"a": 0, "b": 0}, *records]
    items = [Item(i, str(i), metadata=record) for i, record in enumerate(records)]
    mask = parse(written(tree)).mask(Columns(items))
    assert mask.tolist() == [expected(tree, record) for record in records]


# Searching ---------------------------------------------------------------------------------------


@vwkit.backend("blind")
class Blind(vwkit.Index):
    """An exact index that cannot filter, and counts how often it is asked."""

    metrics = frozenset({"l2"})

    def _build(self, vectors):
        self._inner = vwkit.create("index", "exact").build(vectors)
        self.asked = 0

    def _search(self, queries, k):
        self.asked += 1
        found = self._inner.search(queries, k)
        return found.ids, found.distances


@given(st.integers(0, 60), st.integers(1, 12), st.integers(0, 99))
def test_an_index_that_cannot_filter_gives_the_same(count, k, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(60, 3)).astype(np.float32)
    ids = np.arange(100, 160)
    allowed = np.sort(rng.permutation(ids)[:count])
    queries = rng.normal(size=(4, 3)).astype(np.float32)
    blind = Blind().build(vectors, ids)
    exact = vwkit.create("index", "exact").build(vectors, ids)
    slow = search_allowed(blind, queries, k, allowed, {})
    quick = search_allowed(exact, queries, k, allowed, {})
    assert (slow.ids == quick.ids).all()
    assert np.allclose(slow.distances, quick.distances)
    assert blind.asked <= 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("where")
    photo_folder(folder / "photos", groups=4, copies=3)
    lines = ["file,price,kind"]
    lines += [
        f"g{g}/c{c}.png,{10 * g + c},{'dress' if c else 'shoe'}" for g in range(4) for c in range(3)
    ]
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder


def spec(folder, **slots):
    return {
        "vwkit": 1,
        "images": {"path": str(folder / "photos"), "metadata": str(folder / "m.csv")},
        "featurizer": {"use": "colour-histogram"},
        "index": {"use": "exact"},
        **slots,
    }


def test_a_run_is_searched_under_a_filter(photos, tmp_path):
    run = vwkit.Pipeline.from_dict(spec(photos)).run(tmp_path / "run")
    every = run.search("g1/c0.png", 12).items[0]
    some = run.search("g1/c0.png", 12, where="kind == 'dress' and price < 30").items[0]
    wanted = [i for i in every if i.metadata["kind"] == "dress" and i.metadata["price"] < 30]
    assert [item.id for item in some if item] == [item.id for item in wanted]
    assert len(wanted) == 6
    both = run.search("g1/c0.png", 12, where=["kind == 'dress'", "price < 30"])
    assert [item.id for item in both.items[0] if item] == [item.id for item in wanted]
    none = run.search(["g1/c0.png", "g0/c1.png"], 3, where="price < 0")
    assert none.ids.tolist() == [[-1] * 3] * 2
    with pytest.raises(ParameterError, match="no item has a field"):
        run.search("g1/c0.png", where="prices < 5")


def test_local_features_are_filtered_before_they_vote(photos, tmp_path):
    run = vwkit.Pipeline.from_dict(spec(photos, featurizer={"use": "pixels"})).run(tmp_path / "run")
    small = np.asarray(PIL.Image.open(photos / "photos/g0/c0.png"))[::12, ::12]
    found = run.search(small, 12, where="kind == 'shoe' and price >= 10")
    kept = [item for item in found.items[0] if item]
    assert kept
    assert {item.metadata["kind"] for item in kept} == {"shoe"}
    assert all(item.metadata["price"] >= 10 for item in kept)


def test_runs_from_vectors_have_nothing_to_filter_by(tmp_path):
    vwkit.write(tmp_path / "x.npy", np.eye(4, dtype=np.float32))
    vectors = {"vwkit": 1, "vectors": {"path": str(tmp_path / "x.npy")}, "index": {"use": "exact"}}
    run = vwkit.Pipeline.from_dict(vectors).run(tmp_path / "run")
    with pytest.raises(UnsupportedError, match="needs items"):
        run.search(np.eye(4, dtype=np.float32), where="price < 5")


def test_hints_name_fields_that_there_are():
    with pytest.raises(ParameterError, match=r"'PRICE'; did you mean price\?"):
        found("PRICE < 3")
    bare = Columns([Item(0, "a", metadata={"price": 5})])
    with pytest.raises(ParameterError, match=r"no item has a field 'width'; there are price, id "):
        parse("width > 3").mask(bare)


@pytest.mark.parametrize("given", [5, [5], [["price < 3"]], b"price < 3"])
def test_an_expression_is_text(given):
    with pytest.raises(ParameterError, match="an expression is text"):
        parse(given)
