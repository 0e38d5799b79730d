"""Every faulty quantizer is caught by the test that is meant for it."""

from tests.suite import wrong_quantizer
from tests.suite.faults import check_fault, each


@each(wrong_quantizer.FAULTS)
def test_a_quantizer_with_a_fault_is_caught(fault):
    check_fault(fault)
