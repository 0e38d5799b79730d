"""`vwkit conformance`, and the function below it."""

import subprocess
import sys
import textwrap
import warnings

import pytest

from tests.suite.right_index import Cells
from tests.suite.wrong_index import Unsquared
from tests.suite.wrong_transform import ScalesTheBatch
from vwkit.errors import ParameterError, UnknownNameError
from vwkit.testing import IndexTests, registered
from vwkit.testing.run import run_conformance


def test_a_backend_that_passes(capfd):
    assert run_conformance("transform", "l2-norm", {}) == 0
    lines = capfd.readouterr().out.split("\n")
    assert "passed" in lines[-2]
    assert len(lines) < 5


def test_a_failure_is_told():
    with registered(ScalesTheBatch):
        assert run_conformance("transform", "scalesthebatch", {}, ["-x"]) == 1


def test_one_fault_is_told_once(capfd):
    """Unsquared distances fail twenty tests; the author reads one paragraph."""
    with registered(Unsquared):
        assert run_conformance("index", "unsquared", {}) == 1
    text = capfd.readouterr().out
    assert text.count("its square root was returned: l2 is the squared distance") == 1
    first = text.partition("\n\n")[2]
    assert first.startswith("test_distances_and_neighbours and ")
    words = " ".join(text.split())
    assert "given drawn=Rows(seed=" in words
    assert "check that l2 distances are squared" in words
    assert len(text.splitlines()) < 40


STRANGER = '''
"""What somebody wrote after reading docs/write-a-backend.md."""

import numpy as np
import vwkit


@vwkit.backend("stranger")
class Stranger(vwkit.Index):
    """Cosine by one matrix product."""

    metrics = frozenset({"cosine"})
    exact = True

    def _build(self, vectors):
        self._vectors = vectors
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def _search(self, queries, k):
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        similarity = queries @ self._vectors.T
        rows = np.argsort(-similarity, axis=1)[:, :k]
        return rows, 1 - np.take_along_axis(similarity, rows, axis=1)
'''


def test_the_line_of_the_author_is_named(tmp_path, monkeypatch, capfd):
    (tmp_path / "stranger.py").write_text(textwrap.dedent(STRANGER))
    monkeypatch.syspath_prepend(str(tmp_path))
    import stranger

    # As in a shell: in a test of ours a warning would be an error.
    with registered(stranger.Stranger), warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run_conformance("index", "stranger", {}) == 1
    text = " ".join(capfd.readouterr().out.split())
    assert "ValueError: output array is read-only" in text
    assert "at stranger.py:17 in _build: vectors /= np.linalg.norm" in text
    assert "the data were changed by fitting check for operators such as `*=`" in text
    assert "are [nan nan nan nan nan nan]" in text
    assert "warnings of its own code: stranger.py:" in text
    assert "Traceback" not in text


def test_what_cannot_be_run_is_refused():
    with pytest.raises(UnknownNameError, match="l2-norm"):
        run_conformance("transform", "l2norm", {})
    with pytest.raises(ParameterError, match="output"):
        run_conformance("output", "table", {})
    with pytest.raises(ParameterError, match="whiten"):
        run_conformance("transform", "pca", {"whitten": True})
    with pytest.raises(ParameterError, match="greater than 0"):
        run_conformance("quantizer", "pq", {"m": 0})
    with pytest.raises(ParameterError, match="needs it"):
        run_conformance("quantizer", "vocabulary", {})
    assert UnknownNameError.exit_status == 2


def test_an_approximate_index_declares_its_promises(capfd):
    said = {"cells": 20, "probes": 4}
    only = ["-k", "test_recall and not adding and not removing and not allowed"]
    with registered(Cells):
        assert run_conformance("index", "cells", said, only) == 1
        assert run_conformance("index", "cells", said, only, min_recall=0.3) == 0
        assert run_conformance("index", "cells", said, only, min_recall=1) == 1
        assert "at least 1 is needed (`min_recall` of the test class" in capfd.readouterr().out
        known = {"test_recall": 'it "looks" into {few}\\ cells'}
        assert run_conformance("index", "cells", said, only, expected_failures=known) == 0
        # Strict: what passes must not be declared.
        wrong = {"min_recall": 0.3, "expected_failures": known}
        assert run_conformance("index", "cells", said, only, **wrong) == 1
        assert 'it "looks" into {few}' in capfd.readouterr().out


@pytest.mark.parametrize(
    ("role", "promises", "message"),
    [
        ("transform", {"min_recall": 0.5}, "promise of an index"),
        ("index", {"min_recall": 1.5}, "from 0 to 1; got 1.5"),
        ("index", {"min_recall": float("nan")}, "got nan"),
        ("index", {"expected_failures": {"test_recal": "few"}}, "did you mean test_recall"),
        ("index", {"expected_failures": {"zzz": "few"}}, "its tests: .*test_recall"),
        ("index", {"expected_failures": {"test_recall": " "}}, "needs a reason"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(role, promises, message):
    name = {"transform": "l2-norm", "index": "exact"}[role]
    with pytest.raises(ParameterError, match=message):
        run_conformance(role, name, {}, **promises)


def test_the_command():
    def conformance(*options):
        command = [sys.executable, "-m", "vwkit", "conformance", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    shown = conformance("transform", "l2-norm", "--expect-failure", "test_has_a_docstring=why not")
    assert shown.returncode == 1
    assert "why not" in shown.stdout
    for options, message in (
        (["transform", "l2-norm", "--min-recall", "0.5"], "promise of an index"),
        (["index", "exact", "--expect-failure", "test_recall"], "write TEST=REASON"),
    ):
        refused = conformance(*options)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr


def test_the_order_of_the_report_is_that_of_the_suite():
    from vwkit.testing.run import _order

    order = _order("index")
    assert set(order) == set(IndexTests._suite_tests)
    assert order.index("test_distances_and_neighbours") < order.index("test_add")
    assert order.index("test_add") < order.index("test_save_and_load")
