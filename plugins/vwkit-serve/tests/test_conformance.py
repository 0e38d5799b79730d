"""The tests of every role; there is no suite of apps of their own.

What a served run answers is tested in test_api.py.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
from vwkit_serve import Web

from vwkit.around import App
from vwkit.testing.every_role import EveryRole


class AppTests(EveryRole):
    role: ClassVar[Any] = App

    def _ready(self, **changes):
        return self._make(**changes)

    _trained = staticmethod(lambda made: made)

    def _questions(self):
        return []

    def _answer(self, fitted):
        # An app keeps nothing but its parameters.
        return (np.frombuffer(json.dumps(fitted.params()).encode(), np.uint8),)

    def _assert_same(self, first, second, exact, why):
        assert first[0].tobytes() == second[0].tobytes(), why


class TestWeb(AppTests):
    backend = Web
    params: ClassVar[dict[str, Any]] = {"port": 0, "allowed_hosts": ("photos.example",)}
    expected_failures: ClassVar[dict[str, str]] = {
        "test_another_process_can_load": "an app is asked over HTTP, not by arrays"
    }
