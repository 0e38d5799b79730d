"""`vwkit compact`."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import click

from vwkit.cli.progress import logs_shown, reporter
from vwkit.cli.signals import AT_THE_NEXT, GRACE, stopping

__all__ = ["compact_command"]


@click.command("compact")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compact_command(run: Path, quiet: bool, as_json: bool) -> None:
    """Let go of what removed items left in RUN's index.

    Items, ids and rows stay what they are; a kill leaves the run as it was, or compacted.
    """
    from vwkit.errors import Interrupted
    from vwkit.jobs import Job, use_job
    from vwkit.run import Run

    opened = Run.open(run)
    stop = threading.Event()
    with (
        reporter(quiet=quiet) as shown,
        logs_shown(shown),
        stopping(stop, AT_THE_NEXT, grace=GRACE),
    ):
        try:
            with use_job(Job(progress=shown, stop=stop)):
                done = opened.compact()
        except Interrupted:
            raise Interrupted("interrupted; the run is as it was") from None
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done), indent=1))
        return
    if not done.dead:
        click.echo("nothing to let go of: the index holds no removed items")
        return
    click.echo(
        f"{done.dead:,} removed items let go of; the run folder took {done.before:,} bytes and takes "
        f"{done.after:,}"
    )
