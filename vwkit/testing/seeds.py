"""The statistical checks of a suite, over many seeds: what is measured, and how far from its limit.

    from vwkit.testing.seeds import measure, table

    print(table(measure(TestKDTree, range(200))))

A test of the suite draws the same data everywhere, so that a backend passes or fails the same way.
Where it compares a measured share or ratio with a threshold (recall, distortion, objective), that
is one draw of many: with others the check must hold as well, or it would fail whenever somebody
changes the data. Here data and the backend's own seed are drawn anew for each number. It is also
the way to choose `min_recall` and the other declared figures.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from vwkit.plugins import registered, unavailable
from vwkit.testing.checks import again, is_statistical
from vwkit.testing.suite import Suite

__all__ = ["Spread", "broken", "measure", "table"]


@dataclass
class Spread:
    """One figure of one class of tests, over all seeds.

    Attributes
    ----------
    suite : str
        The class of tests.
    test, what : str
        The test that measures it, and what it is, such as ``"recall@10, l2"``.
    at_least : bool
        Whether the limit is the smallest value that is fine.
    values, limits : list of float
        One per seed.
    alarms : list of int
        The seeds with which the check fails.
    """

    suite: str
    test: str
    what: str
    at_least: bool
    values: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    alarms: list[int] = field(default_factory=list)


def measure(
    suite: type[Suite],
    seeds: Iterable[int],
    progress: Callable[[int], None] | None = None,
) -> list[Spread]:
    """Run the statistical tests of a class of tests with other data and other backend seeds.

    Parameters
    ----------
    suite : class
        A subclass of a suite, as pytest would collect it. Its expected failures are left out.
    seeds : iterable of int
        0 gives the data of the suite itself.
    progress : callable, optional
        Called with each seed that is done.

    Returns
    -------
    list of Spread
        In the order of the tests. A test that fails for another reason than its figure gives one
        that says so, whose values are 1.
    """
    found: dict[tuple[str, str], Spread] = {}
    tests = [name for name in _tests(suite) if is_statistical(getattr(suite, name))]
    for seed in seeds:
        for name in tests:
            case = _case(suite, seed)
            error = _error(case, getattr(suite, name))
            if error is None and not case._figures:
                continue  # skipped, or it had nothing to measure
            for figure in case._figures or ():
                key = name, figure.what
                spread = found.setdefault(key, Spread(suite.__name__, *key, figure.at_least))
                spread.values.append(figure.value)
                spread.limits.append(figure.limit)
                if not figure.holds:
                    spread.alarms.append(seed)
            if error is not None:
                spread = found.setdefault(
                    (name, error), Spread(suite.__name__, name, f"failure: {error[:90]}", False)
                )
                spread.values.append(1.0)
                spread.limits.append(0.0)
                spread.alarms.append(seed)
        if progress is not None:
            progress(seed)
    return list(found.values())


def broken(suite: type[Suite], seeds: Iterable[int]) -> list[str]:
    """Run all tests of a class of tests with other data; return what fails, one line each.

    Generated examples are drawn anew too.

    Parameters
    ----------
    suite : class
        As for `measure`.
    seeds : iterable of int
    """
    lines = []
    for seed in seeds:
        for name in _tests(suite):
            case = _case(suite, seed)
            case._figures = None
            error = _error(case, again(getattr(suite, name), seed))
            if error is not None:
                lines.append(f"{suite.__name__}.{name}, seed {seed}: {error}")
    return lines


def table(spreads: Sequence[Spread]) -> str:
    """Return a Markdown table: smallest, middle and largest value, limit and false alarms."""
    head = ["tests", "figure", "min", "median", "max", "limit", "false alarms"]
    rows = []
    for one in spreads:
        limits = {f"{limit:.4g}" for limit in one.limits}
        limit = limits.pop() if len(limits) == 1 else "its own"
        rows.append(
            [
                one.suite,
                one.what,
                f"{min(one.values):.4g}",
                f"{statistics.median(one.values):.4g}",
                f"{max(one.values):.4g}",
                f"{'≥' if one.at_least else '≤'} {limit}",
                f"{len(one.alarms)} of {len(one.values)}",
            ]
        )
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    first = [cell.ljust(width) for cell, width in zip(head, widths, strict=True)]
    ruler = ["-" * width for width in widths]
    return "\n".join(f"| {' | '.join(row)} |" for row in (first, ruler, *lines))


def _tests(suite: type[Suite]) -> list[str]:
    own = [name for cls in suite.__mro__ for name in vars(cls) if name in suite._suite_tests]
    return [name for name in dict.fromkeys(own) if name not in suite.expected_failures]


def _case(suite: type[Suite], seed: int) -> Any:
    case: Any = suite()
    case.data_seed, case._figures = seed, []
    return case


def _error(case: Any, test: Any) -> str | None:
    """Run one test; return what it says when it fails, None when it passes or is skipped."""
    if unavailable(case.backend):
        return None
    try:
        with registered(case.backend), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            test(case)
    except pytest.skip.Exception:
        return None
    except (Exception, pytest.fail.Exception) as error:
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
    return None
