"""Every faulty transform is caught by the test that is meant for it."""

from tests.suite import wrong_transform
from tests.suite.faults import check_fault, each


@each(wrong_transform.FAULTS)
def test_a_transform_with_a_fault_is_caught(fault):
    check_fault(fault)
