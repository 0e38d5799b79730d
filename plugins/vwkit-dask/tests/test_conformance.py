"""The tests of every role, and that any executor gives what the threads of this process give."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
from vwkit_dask import Dask

from vwkit.around import Executor
from vwkit.testing.every_role import EveryRole


class ExecutorTests(EveryRole):
    role: ClassVar[Any] = Executor

    def _ready(self, **changes):
        return self._make(**changes)

    _trained = staticmethod(lambda made: made)

    def _questions(self):
        return []

    def _answer(self, fitted):
        # An executor keeps nothing but its parameters.
        return (np.frombuffer(json.dumps(fitted.params()).encode(), np.uint8),)

    def _assert_same(self, first, second, exact, why):
        assert first[0].tobytes() == second[0].tobytes(), why


class TestDask(ExecutorTests):
    backend = Dask
    params: ClassVar[dict[str, Any]] = {"workers": 2, "patience": 5.0}
    expected_failures: ClassVar[dict[str, str]] = {
        "test_another_process_can_load": "an executor is asked for work, not by arrays"
    }
