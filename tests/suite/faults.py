"""What proves that the conformance suite catches faults: one realistic fault in each class.

A fault is one change of a backend that passes the whole suite (`tests/suite/right_*.py`), and names
the test that is there to catch it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

import vwkit
from vwkit.testing import registered

# What a test raises: pytest.fail raises an exception of its own, which is no Exception.
RAISED = (Exception, pytest.fail.Exception)


@dataclass(frozen=True)
class Fault:
    """A class, the test that must fail on it with a message, and the class without the fault."""

    suite: type
    cls: type
    test: str
    message: str
    mended: type
    attributes: dict[str, Any] = field(default_factory=dict)

    def __repr__(self):
        return self.cls.__name__


def fault(faults, suite, test, message, *, keep=("metrics",), mended=None, **attributes):
    """Note in `faults` that the decorated class must fail a test, with a message.

    Without the fault it is its first base, with what `keep` names: abilities that choose what is
    tested, and are no fault themselves.
    """

    def note(cls):
        if mended is None:
            kept = {name: cls.__dict__[name] for name in keep if name in cls.__dict__}
            kept["__doc__"], kept["__module__"] = "Without the fault.", cls.__module__
            plain = vwkit.backend("mended")(type(cls.__name__, cls.__bases__, kept))
        else:
            plain = mended
        cls = vwkit.backend(cls.__name__.lower())(cls)
        faults.append(Fault(suite, cls, test, message, plain, attributes))
        return cls

    return note


def run_test(suite, backend, name, **attributes):
    """Run one test of the suite on a class, as pytest would."""
    case = type("TestBackend", (suite,), {"backend": backend, **attributes})()
    with registered(backend):
        getattr(case, name)()


def check_fault(one):
    """Check that the test meant for it catches the fault, and passes without it."""
    with pytest.raises(RAISED, match=one.message):
        run_test(one.suite, one.cls, one.test, **one.attributes)
    run_test(one.suite, one.mended, one.test, **one.attributes)


def each(faults):
    """Parametrize a test over faults."""
    return pytest.mark.parametrize("fault", faults, ids=repr)
