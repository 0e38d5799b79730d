"""Every faulty featurizer and reader is caught by the test that is meant for it."""

from tests.suite import wrong_featurizer
from tests.suite.faults import check_fault, each


@each(wrong_featurizer.FAULTS)
def test_a_featurizer_with_a_fault_is_caught(fault):
    check_fault(fault)
