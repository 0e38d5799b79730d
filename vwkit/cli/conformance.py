"""`vwkit conformance`."""

from __future__ import annotations

import importlib.util
from typing import Any

import click

__all__ = ["conformance_command"]


@click.command("conformance")
@click.argument("role")
@click.argument("name")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter of the backend.")
@click.option(
    "--min-recall", type=float, metavar="FLOAT", help="The recall that an index promises, 0 to 1."
)
@click.option(
    "--expect-failure",
    "failures",
    multiple=True,
    metavar="TEST=REASON",
    help="A test that it is known to fail, and why; if it passes, that is a failure.",
)
def conformance_command(
    role: str,
    name: str,
    params: tuple[str, ...],
    min_recall: float | None,
    failures: tuple[str, ...],
) -> int:
    """Run the conformance suite on the installed backend NAME of ROLE."""
    from vwkit.errors import ParameterError, PluginError
    from vwkit.source import from_dict, override

    missing = [lib for lib in ("pytest", "hypothesis") if importlib.util.find_spec(lib) is None]
    if missing:
        raise PluginError(f"the suite needs {' and '.join(missing)}: pip install 'vwkit[testing]'")
    from pathlib import Path

    given: dict[str, Any] = dict(override(from_dict({}, Path()), params).data)
    expected: dict[str, str] = {}
    for failure in failures:
        test, equals, reason = failure.partition("=")
        if not equals:
            raise ParameterError(
                f"--expect-failure {failure}: write TEST=REASON, such as "
                "test_recall='it looks into few cells'"
            )
        expected[test.strip()] = reason.strip()
    from vwkit.testing.run import run_conformance

    status: int = run_conformance(
        role, name, given, min_recall=min_recall, expected_failures=expected
    )
    return status
