"""`vwkit inspect` and `vwkit convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vwkit.cli.text import printable

__all__ = ["convert_command", "inspect_command"]


@click.command("inspect")
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_command(file: str, as_json: bool) -> None:
    """Say what FILE is (a descriptor file or its URL, an artifact, a run, words); check all of it."""
    from vwkit.inspecting import inspect_path

    found = inspect_path(file)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    width = max(len(key) for key in found)
    for key, value in found.items():
        click.echo(f"{key:<{width}}  {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@click.command("convert")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--from", "format", help="The source's format, where its name does not tell.")
def convert_command(source: str, target: Path, format: str | None) -> None:
    """Convert the descriptor file SOURCE, or that of a URL, to the file TARGET.

    The formats follow from the names.
    """
    from vwkit.api import read

    rows = read(source, format).write(target)
    click.echo(printable(f"{target}: {rows:,} rows"))
