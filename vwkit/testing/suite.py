"""What the suites of all roles share: the rules of subclassing, and how a backend is made.

A test of the suite takes no pytest fixture, and everything random in it is derandomised, so that a
backend passes or fails the same way everywhere.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import tempfile
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vwkit
from vwkit.base import Backend
from vwkit.errors import ParameterError, PluginWarning
from vwkit.plugins import registered, registry, unavailable
from vwkit.testing.asking import Answer, ask
from vwkit.testing.checks import Figure
from vwkit.testing.data import DEFAULTS
from vwkit.testing.isolation import no_pickle
from vwkit.types import Array

__all__ = ["Suite"]

# Far above the seeds that the tests write down, so that no two data meet.
_STRIDE = 1_000_003


class Suite:
    """Base of the suites of all roles.

    Attributes
    ----------
    backend : class
        The class under test. It need not be installed.
    params : dict
        Its parameters in every test, unless a test is about one of them.
    expected_failures : dict of str to str
        Tests that it is known to fail, and why: each becomes a strict xfail. Overriding a test is
        refused.
    data_seed : int
        Other seeds give other data in all tests (0); see `vwkit.testing.seeds`.
    """

    role: ClassVar[type[Backend]]
    backend: ClassVar[type[Any]]
    params: ClassVar[Mapping[str, Any]] = {}
    expected_failures: ClassVar[Mapping[str, str]] = {}
    data_seed: int = 0

    #: The tests as they must stay, by name; filled in for the classes of this package.
    _suite_tests: ClassVar[dict[str, Any]] = {}
    #: What to call first: fit or build.
    _first_call: ClassVar[str] = "fit"
    #: Where measured figures are kept instead of being judged, where somebody asks for them.
    _figures: list[Figure] | None = None

    def __init_subclass__(cls, suite: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        if suite:
            names = [name for name in dir(cls) if name.startswith("test_")]
            cls._suite_tests = {name: inspect.getattr_static(cls, name) for name in names}
            return
        _check_class(cls)

    @pytest.fixture(autouse=True)
    def _known_by_name(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Register the class under test while the test runs; make expected failures strict."""
        if not hasattr(self, "backend"):
            pytest.fail(f"{type(self).__name__} needs `backend = ` the class to test")
        reason = self.expected_failures.get(getattr(request.node, "originalname", ""))
        if reason is not None:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
        missing = unavailable(self.backend)
        if missing:
            pytest.skip(missing)
        with warnings.catch_warnings():
            # Somebody else's broken plugin is not this backend's fault.
            warnings.simplefilter("ignore", PluginWarning)
            registry()
        with registered(self.backend):
            yield

    # What the tests are made of

    def _defaults(self) -> dict[str, Any]:
        """Return values for parameters that must be given; the author's `params` win."""
        given = DEFAULTS.get(self.backend.role, {})
        found = {name: value for name, value in given.items() if self._offers(name)}
        if self.data_seed and self._offers("seed"):
            found["seed"] = self.data_seed
        return found

    def _make(self, **changes: Any) -> Any:
        """Return a new backend with the author's parameters, some of them changed."""
        params = {**self._defaults(), **_fresh(self.params), **changes}
        return vwkit.create(self.backend.role, self.backend.name, **params)

    def _offers(self, parameter: str) -> bool:
        return parameter in self.backend.parameters()

    def _seed(self, seed: int) -> int:
        """Return the seed of some data: the given one, unless other data are asked for."""
        return seed + _STRIDE * self.data_seed

    @abstractmethod
    def _ready(self, **changes: Any) -> Any:
        """Return a backend that is fitted, on data that are always the same."""

    @abstractmethod
    def _another(self) -> Any:
        """Return a backend that is fitted on other data of the same shape, and was asked."""

    def _ready_from(self, folder: Path) -> Any:
        """Return a backend that is fitted on files in a folder."""
        return self._ready()

    def _verify_ready(self, fitted: Any) -> None:
        """Check what `_ready` returned against the reference."""

    @abstractmethod
    def _questions(self) -> list[Array]:
        """Return what a fitted backend is asked, always the same: images, or one array of rows."""

    def _answer(self, fitted: Any) -> Answer:
        """Return what a fitted backend says to `_questions`."""
        return ask(fitted, self._questions()[0])

    @abstractmethod
    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        """Compare two answers: byte by byte, or as floating-point numbers."""

    def _judge(
        self,
        what: str,
        value: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        said: str = "",
    ) -> None:
        """Compare a measured figure with its limit, or keep both for somebody who asks."""
        __tracebackhide__ = True
        limit = at_most if at_least is None else at_least
        assert limit is not None
        figure = Figure(what, float(value), float(limit), at_least is not None)
        if self._figures is not None:
            self._figures.append(figure)
            return
        side = "at least" if figure.at_least else "at most"
        assert figure.holds, f"{what} is {value:.4g}; {side} {limit:.4g} is needed{said}"

    @contextlib.contextmanager
    def _saved(self, backend: Any) -> Iterator[Any]:
        """Save and load again, with pickle switched off."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "saved"
            with no_pickle():
                backend.save(place)
                loaded = vwkit.load(place)
            yield loaded

    def _make_or_none(self, **changes: Any) -> Any:
        try:
            return self._make(**changes)
        except ParameterError:
            return None  # other parameters rule it out

    def _on_one_thread(self) -> dict[str, Any]:
        """Return the change of parameters that makes a library use one thread."""
        return {"threads": 1} if self._offers("threads") else {}

    @abstractmethod
    def _trained(self, made: Any) -> Any:
        """Fit on data that show whether a seed or a parameter was heeded."""

    def _trial_answer(self, fitted: Any) -> Answer:
        """Return what shows it."""
        return self._answer(fitted)


# The rules of subclassing ----------------------------------------------------------------------


def _check_class(cls: type[Suite]) -> None:
    for name, original in cls._suite_tests.items():
        if inspect.getattr_static(cls, name, None) is not original:
            raise TypeError(
                f"{cls.__name__}.{name} overrides a test of the conformance suite, which is "
                f"refused: a known failure is declared with a reason, as "
                f'expected_failures = {{"{name}": "reason"}}'
            )
    for name, reason in dict(cls.expected_failures).items():
        if name not in cls._suite_tests:
            known = ", ".join(sorted(cls._suite_tests))
            raise TypeError(
                f"{cls.__name__}.expected_failures names {name}, which is no test of the suite; "
                f"its tests: {known}"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise TypeError(f"{cls.__name__}.expected_failures: {name} needs a reason")
    tested = cls.__dict__.get("backend")
    if tested is None:
        return  # a base for several classes of tests
    if not (
        isinstance(tested, type) and issubclass(tested, cls.role) and "name" in tested.__dict__
    ):
        raise TypeError(
            f"{cls.__name__}.backend: a class derived from vwkit.{cls.role.__name__} and decorated "
            f"with @vwkit.backend is needed; got {tested!r}"
        )


def _fresh(params: Mapping[str, Any]) -> dict[str, Any]:
    """Copy parameters, so that no test sees a nested backend that another one has fitted."""
    found = {}
    for name, value in params.items():
        if isinstance(value, Backend):
            found[name] = value if value._fitted else {"use": value.name, **value.params()}
        else:
            found[name] = copy.deepcopy(value)
    return found
