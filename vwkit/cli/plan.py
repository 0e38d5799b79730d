"""`vwkit plan`."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["plan_command"]


@click.command("plan")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the spec."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder of an interrupted run to resume."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="About how long to measure.",
)
@click.option("--fresh", is_flag=True, help="Measure again what was measured before.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan_command(
    spec: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    seconds: float,
    fresh: bool,
    as_json: bool,
) -> None:
    """Say what running SPEC would take: rows, memory, disk and time of each stage.

    Nothing is run, but for a few seconds in which the same code is tried out on few rows of the
    same data. What that told is remembered.
    """
    from vwkit.pipeline import Pipeline
    from vwkit.planning.making import check_budget, make_plan
    from vwkit.planning.table import table

    checked = Pipeline.from_file(spec, overrides).spec
    check_budget(checked)
    plan = make_plan(checked, out=out, seconds=seconds, fresh=fresh)
    if as_json:
        click.echo(json.dumps(plan.to_dict(), indent=1))
        return
    for line in table(plan):
        click.echo(line)
