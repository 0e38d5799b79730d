"""`vwkit demo`."""

from __future__ import annotations

from pathlib import Path

import click

from vwkit.cli.run import execute, summary
from vwkit.cli.text import printable

__all__ = ["demo_command"]


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
    help="Run folder; the photographs go beside it.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted demo.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def demo_command(out: Path, resume: bool, quiet: bool) -> None:
    """Build a vocabulary and a search engine on real photographs, score it, write a report.

    The photographs come with the package scikit-image; nothing is downloaded.
    """
    from vwkit.demo import prepare
    from vwkit.pipeline import Pipeline, check_folder

    check_folder(out.absolute())
    spec = prepare(out.with_name(f"{out.name}-photos"))
    click.echo(printable(f"spec: {spec}"))
    run = execute(Pipeline.from_file(spec), out, resume=resume, quiet=quiet)
    summary(run)
