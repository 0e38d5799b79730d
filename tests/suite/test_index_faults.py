"""Every faulty index is caught by the test that is meant for it."""

from tests.suite import wrong_index, wrong_index_changes, wrong_index_sizes
from tests.suite.faults import check_fault, each


@each(wrong_index.FAULTS + wrong_index_changes.FAULTS + wrong_index_sizes.FAULTS)
def test_an_index_with_a_fault_is_caught(fault):
    check_fault(fault)
