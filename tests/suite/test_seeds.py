"""The statistical checks hold for other seeds than the suite's own.

Here for one; ``python -m benchmarks seeds`` takes two hundred with every backend of the repository.
"""

import pytest

import vwkit
from benchmarks.seeds import FILES, owner, suites
from tests.suite.right_clusterer import KMeans
from tests.suite.right_featurizer import BrightSpots
from tests.suite.right_index import Cells
from tests.suite.right_quantizer import PlainPQ
from tests.suite.right_transform import Standard
from tests.suite.test_odd_but_right import RIGHT
from tests.suite.wrong_index import PoorRecall
from vwkit.testing import IndexTests
from vwkit.testing.checks import is_statistical
from vwkit.testing.seeds import broken, measure, table

SEEDS = range(3)
# One of each role: its whole suite takes a second or two.
CLASSES = (Cells, KMeans, PlainPQ, Standard, BrightSpots)


@pytest.fixture(autouse=True)
def _one_thread():
    """The data are too small for two threads, and on a busy machine these wait for each other."""
    with vwkit.use_job(vwkit.Job(threads=1)):
        yield


def classes():
    """Yield the classes of tests of the repository that measure something."""
    for path in FILES:
        try:
            found = suites(path)
        except ImportError:  # a plugin that is not installed
            continue
        for name, suite in found.items():
            measures = any(is_statistical(getattr(suite, one)) for one in suite._suite_tests)
            if measures and hasattr(suite, "backend"):
                yield pytest.param(suite, id=f"{owner(path)}-{name}")


@pytest.mark.parametrize("suite", list(classes()))
def test_no_false_alarm(suite):
    spreads = measure(suite, [1])
    alarms = [one for one in spreads if one.alarms]
    assert not alarms, table(alarms)


def test_everything_holds_for_other_seeds():
    """All tests, with other data and other generated examples, of backends that are right."""
    chosen = [one for one in RIGHT if one[1] in CLASSES]
    assert len(chosen) == len(CLASSES)
    for suite, backend, attributes in chosen:
        made = type("TestBackend", (suite,), {"backend": backend, **attributes})
        assert broken(made, [1]) == []


def test_figures_are_measured():
    made = type("TestCells", (IndexTests,), {"backend": Cells, "min_recall": 0.6})
    done = []
    spreads = measure(made, SEEDS, done.append)
    assert done == [0, 1, 2]
    (recall,) = [one for one in spreads if one.what == "recall@10, l2"]
    assert recall.test == "test_recall"
    assert recall.at_least
    assert recall.limits == [0.6] * 3
    assert len(set(recall.values)) > 1, "the seeds gave equal data"
    assert all(0.6 <= value < 1 for value in recall.values)
    assert "| TestCells | recall@10, l2 " in table(spreads)
    assert "| ≥ 0.6 " in table(spreads)
    assert "0 of 3" in table(spreads)


def test_false_alarms_are_counted():
    made = type("TestPoor", (IndexTests,), {"backend": PoorRecall})
    spreads = {one.what: one for one in measure(made, SEEDS)}
    assert spreads["recall@10, l2"].alarms == [0, 1, 2]
    assert "3 of 3" in table([spreads["recall@10, l2"]])
    assert any(
        "test_recall, seed 1: AssertionError: recall@10" in line for line in broken(made, [1])
    )


def test_expected_failures_are_left_out():
    known = {"test_recall": "few cells"}
    made = type("TestPoor", (IndexTests,), {"backend": PoorRecall, "expected_failures": known})
    assert "test_recall" not in {one.test for one in measure(made, [0])}
