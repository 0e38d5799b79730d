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
def conformance_command(role: str, name: str, params: tuple[str, ...]) -> int:
    """Run the conformance suite on the installed backend NAME of ROLE."""
    from vwkit.errors import PluginError
    from vwkit.source import from_dict, override

    missing = [lib for lib in ("pytest", "hypothesis") if importlib.util.find_spec(lib) is None]
    if missing:
        raise PluginError(f"the suite needs {' and '.join(missing)}: pip install 'vwkit[testing]'")
    from pathlib import Path

    given: dict[str, Any] = dict(override(from_dict({}, Path()), params).data)
    from vwkit.testing.run import run_conformance

    status: int = run_conformance(role, name, given)
    return status
