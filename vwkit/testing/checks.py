"""How a test of the suite is written: on generated examples, and with figures that are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

__all__ = ["Figure", "again", "examples", "is_statistical", "statistical"]

Test = TypeVar("Test", bound=Callable[..., Any])

# Rounding of a mean of shares.
_NEAR = 1e-9


def examples(count: int = 12, **strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Run a test on `count` generated examples, the same ones every time."""

    def decorate(test: Any) -> Any:
        found: Any = _settings(count, derandomize=True)(given(**strategies)(test))
        found._drawn = (test, count, strategies)
        return found

    return decorate


def again(test: Any, other: int) -> Any:
    """Return a test with other examples, those of a seed; one without examples as it is."""
    if not hasattr(test, "_drawn"):
        return test
    plain, count, strategies = test._drawn
    return seed(other)(_settings(count, derandomize=False)(given(**strategies)(plain)))


def _settings(count: int, *, derandomize: bool) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=derandomize,
        database=None,
        # Examples are small; making a failing one smaller could take minutes with a slow library.
        phases=(Phase.explicit, Phase.generate),
        # Methods are inherited by many classes, and some libraries take long to start.
        suppress_health_check=list(HealthCheck),
    )


def statistical(test: Test) -> Test:
    """Mark a test that compares a measured share or ratio with a threshold.

    `vwkit.testing.seeds` runs these with other seeds: they must pass with every one.
    """
    test._statistical = True  # type: ignore[attr-defined]
    return test


def is_statistical(test: Any) -> bool:
    """Tell whether a test was marked with `statistical`."""
    return bool(getattr(test, "_statistical", False))


class Figure(NamedTuple):
    """One measured figure, and how far it may go.

    Attributes
    ----------
    what : str
        Such as ``"recall@10, l2"``.
    value, limit : float
    at_least : bool
        Whether the limit is the smallest value that is fine; otherwise it is the largest.
    """

    what: str
    value: float
    limit: float
    at_least: bool

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the limit; NaN never is."""
        if self.at_least:
            return self.value >= self.limit - _NEAR
        return self.value <= self.limit + _NEAR
