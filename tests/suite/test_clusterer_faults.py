"""Every faulty clusterer is caught by the test that is meant for it."""

from tests.suite import wrong_clusterer, wrong_clusterer_fits, wrong_clusterer_kinds
from tests.suite.faults import check_fault, each


@each(wrong_clusterer.FAULTS + wrong_clusterer_fits.FAULTS + wrong_clusterer_kinds.FAULTS)
def test_a_clusterer_with_a_fault_is_caught(fault):
    check_fault(fault)
