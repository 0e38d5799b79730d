"""The rules of subclassing, and what is said of every test."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from tests.suite.right_clusterer import KMeans
from tests.suite.right_index import Plain
from vwkit.clusterer import warn_few_distinct
from vwkit.errors import FewDistinctRows, UnknownNameError, UnsupportedError
from vwkit.testing import (
    ClustererTests,
    FeaturizerTests,
    IndexTests,
    QuantizerTests,
    TransformTests,
    registered,
    strategies,
)

SUITES = [ClustererTests, FeaturizerTests, IndexTests, QuantizerTests, TransformTests]
SOURCES = sorted((Path(vwkit.__file__).parent / "testing").glob("*.py"))


def test_overriding_a_test_is_refused():
    with pytest.raises(TypeError, match=r"TestMine\.test_recall overrides .*expected_failures"):

        class TestMine(IndexTests):
            backend = Plain

            def test_recall(self):
                pass


def test_removing_a_test_is_refused():
    with pytest.raises(TypeError, match="test_recall"):
        type("TestMine", (IndexTests,), {"backend": Plain, "test_recall": None})


def test_overriding_through_another_base_is_refused():
    class Easier:
        def test_recall(self):
            pass

    with pytest.raises(TypeError, match="test_recall"):
        type("TestMine", (Easier, IndexTests), {"backend": Plain})


def test_expected_failures_name_a_test_and_a_reason():
    with pytest.raises(TypeError, match="names test_recal, which is no test"):
        type("TestMine", (IndexTests,), {"expected_failures": {"test_recal": "reason"}})
    with pytest.raises(TypeError, match="needs a reason"):
        type("TestMine", (IndexTests,), {"expected_failures": {"test_recall": " "}})


def test_the_backend_is_of_the_role():
    with pytest.raises(TypeError, match=r"derived from vwkit\.Index"):
        type("TestMine", (IndexTests,), {"backend": KMeans})

    class Undecorated(Plain):
        pass

    with pytest.raises(TypeError, match=r"decorated with @vwkit\.backend"):
        type("TestMine", (IndexTests,), {"backend": Undecorated})


def test_own_tests_may_be_added():
    made = type("TestMine", (IndexTests,), {"backend": Plain, "test_of_mine": lambda self: None})
    assert "test_of_mine" not in made._suite_tests


@pytest.mark.parametrize("suite", SUITES)
def test_every_test_says_what_to_check(suite):
    assert len(suite._suite_tests) > 30
    for name in suite._suite_tests:
        last = inspect.cleandoc(getattr(suite, name).__doc__ or "").rpartition("\n\n")[2]
        assert last.startswith("If this fails, check "), name
        assert last.endswith("."), name


def test_every_assertion_says_what_was_given_and_got():
    asserted = 0
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                narrows = "isinstance" in ast.unparse(node.test) or "None" in ast.unparse(node.test)
                assert node.msg is not None or narrows, f"{path.name}:{node.lineno}"
                asserted += 1
    assert asserted > 100


def test_seeds_of_all_data_follow_the_seed_of_the_suite():
    """Whatever is drawn in a test goes through the helpers that heed `data_seed`."""
    plain = {"numbers", "noise", "mixture", "far_away"}
    for path in SOURCES:
        if path.name in ("data.py", "vector_suite.py", "strategies.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                    assert call.func.id not in plain, f"{path.name}:{call.lineno}"


def test_registered_lends_a_name_and_takes_it_back():
    with pytest.raises(UnknownNameError):
        vwkit.create("index", "plain")
    with registered(Plain):
        assert isinstance(vwkit.create("index", "plain"), Plain)
    with pytest.raises(UnknownNameError):
        vwkit.create("index", "plain")


@settings(max_examples=50)
@given(st.data())
def test_strategies_keep_their_word(data):
    rows = data.draw(strategies.vectors(rows=(2, 9), dim=(2, 8), step=2))
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    assert 2 <= len(rows) <= 9
    assert rows.shape[1] in (2, 4, 6, 8)
    assert np.abs(rows).max() <= 1000
    codes = data.draw(strategies.codes(m=3, ks=300))
    assert codes.dtype == np.uint16
    assert codes.max() < 300
    image = data.draw(strategies.images(side=(1, 9)))
    assert image.dtype in (np.uint8, np.uint16)
    assert image.ndim in (2, 3)
    stream = data.draw(strategies.streams())
    assert stream.count() == len(stream.toarray())


def test_a_recipe_shown_is_a_recipe_that_can_be_pasted():
    from vwkit.testing.data import Picture, Rows

    rows, picture = Rows(3, 20, 4, "grid", 1.0), Picture(2, 9, 8, "gray", True)
    assert np.array_equal(eval(repr(rows)).make(), rows.make())
    assert np.array_equal(eval(repr(picture)).make(), picture.make())


def test_few_distinct_warning_is_public():
    with pytest.warns(FewDistinctRows, match="2 words repeat"):
        warn_few_distinct(3, 5)
    assert issubclass(UnsupportedError, vwkit.VwkitError)
