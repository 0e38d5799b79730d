"""`vwkit backends` and `vwkit schema`."""

from __future__ import annotations

import json
from typing import Any

import click

__all__ = ["backends_command", "schema_command"]


@click.command("backends")
@click.argument("role", required=False)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backends_command(role: str | None, name: str | None, as_json: bool) -> None:
    """List the backends; with ROLE only that one's; with NAME describe it."""
    from vwkit.catalog import catalog, describe
    from vwkit.plugins import registry

    if role is not None and name is not None:
        _show(describe(registry().entry(role, name)), as_json)
        return
    listed = [one for one in catalog() if role is None or one["role"] == role]
    if role is not None and not listed:
        registry().entry(role, "")  # says which roles there are
    if as_json:
        click.echo(json.dumps({"backends": listed, "broken": registry().broken}, indent=1))
        return
    width = max(len(one["name"]) for one in listed)
    shown = ""
    for one in listed:
        if one["role"] != shown:
            shown = one["role"]
            click.echo(shown)
        note = f"  [unavailable: {one['unavailable']}]" if one["unavailable"] else ""
        click.echo(f"  {one['name']:<{width}}  {one['package']:<16} {one['summary']}{note}")
    for package, why in registry().broken.items():
        click.echo(f"broken: {package}: {why}")


def _show(one: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(one, indent=1))
        return
    click.echo(f"{one['role']} {one['name']} ({one['package']} {one['version']})\n{one['summary']}")
    if one["choose"]:
        click.echo(f"When to choose it: {one['choose']}")
    if one["library"]:
        made = "compiled when installed" if one["compiled"] else "has wheels"
        click.echo(f"Library: {one['library']} ({one['license'] or 'licence not told'}; {made})")
    if one["unavailable"]:
        click.echo(f"Unavailable: {one['unavailable']}")
    for parameter in one["parameters"]:
        given = "required" if parameter["required"] else f"default {parameter['default']!r}"
        late = ", late" if parameter["late"] else ""
        click.echo(f"  {parameter['name']}: {parameter['type']} ({given}{late}) {parameter['doc']}")
    for ability, value in one["abilities"].items():
        click.echo(f"  {ability} = {value}")


@click.command("schema")
def schema_command() -> None:
    """Print a JSON schema of specs with the installed backends, for editors."""
    from vwkit.catalog import schema

    click.echo(json.dumps(schema(), indent=1))
