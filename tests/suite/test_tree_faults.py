"""Every faulty hierarchical clusterer is caught by the test that is meant for it."""

import pytest

from tests.suite import wrong_trees
from tests.suite.faults import check_fault, each, run_test
from tests.suite.right_trees import Joined
from vwkit.testing import ClustererTests


@each(wrong_trees.FAULTS)
def test_a_tree_with_a_fault_is_caught(fault):
    check_fault(fault)


@pytest.mark.parametrize("name", sorted(ClustererTests._suite_tests))
@pytest.mark.parametrize("linkage", ["ward"])  # test_odd_but_right.py has its default
def test_one_that_is_right_passes(name, linkage):
    run_test(ClustererTests, Joined, name, params={"linkage": linkage})


def test_each_test_of_trees_has_a_fault():
    from vwkit.testing.clusterer_trees import ClustererTrees

    own = {name for name in vars(ClustererTrees) if name.startswith("test_")}
    assert own
    assert own == {one.test for one in wrong_trees.FAULTS}
