"""What a faulty backend leaves behind, and faults in long work, are caught by the tests meant for it."""

from tests.suite import wrong_long_work, wrong_traces
from tests.suite.faults import check_fault, each


@each(wrong_traces.FAULTS + wrong_long_work.FAULTS)
def test_a_backend_with_a_fault_is_caught(fault):
    check_fault(fault)
