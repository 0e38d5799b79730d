"""`vwkit add` and `vwkit remove`."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import click

from vwkit.cli.progress import logs_shown, reporter
from vwkit.cli.signals import AT_THE_NEXT, GRACE, stopping

__all__ = ["add_command", "remove_command"]

_QUIET = click.option("--quiet", is_flag=True, help="Show no progress.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("add")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--id", "ids", multiple=True, help="The id of each picture, as often as there are any."
)
@click.option(
    "--skip-existing", is_flag=True, help="Leave out what has an id that is there already."
)
@_QUIET
@_JSON
def add_command(
    run: Path,
    images: tuple[Path, ...],
    ids: tuple[str, ...],
    skip_existing: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Add IMAGES to RUN and its index: pictures, folders, or a metadata file of URLs.

    Nothing that is there is computed again; a kill leaves the run as it was, or with all of them.
    """

    def work(opened: Any) -> Any:
        return opened.add(
            list(images), ids=ids or None, existing="skip" if skip_existing else "refuse"
        )

    opened, items = _changed(run, work, quiet)
    added = [item for item in items if item.status == "ok"]
    skipped = [item for item in items if item.status != "ok"]
    if as_json:
        rows = [{"id": item.id, "row": item.row, "status": item.status} for item in items]
        click.echo(json.dumps({"items": rows, "counts": opened.manifest["counts"]}, indent=1))
        return
    said = f", {len(skipped):,} skipped" if skipped else ""
    click.echo(f"{len(added):,} added{said}; {len(opened.kept):,} items can be found")


@click.command("remove")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("ids", nargs=-1, required=True)
@_QUIET
@_JSON
def remove_command(run: Path, ids: tuple[str, ...], quiet: bool, as_json: bool) -> None:
    """Remove the items with these IDS from RUN and its index."""
    opened, items = _changed(run, lambda opened: opened.remove(list(ids)), quiet)
    if as_json:
        rows = [{"id": item.id, "row": item.row, "status": item.status} for item in items]
        click.echo(json.dumps({"items": rows, "counts": opened.manifest["counts"]}, indent=1))
        return
    click.echo(f"{len(items):,} removed; {len(opened.kept):,} items can be found")


def _changed(run: Path, work: Any, quiet: bool) -> tuple[Any, Any]:
    """Change a run with progress, then write its report again."""
    from vwkit.errors import Interrupted, RunError
    from vwkit.jobs import Job, use_job
    from vwkit.outputs.files import new_file
    from vwkit.report import write_report
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
                items = work(opened)
        except Interrupted:
            raise Interrupted(
                "interrupted; the run is as it was, and what was computed is kept for the next time"
            ) from None
        if items:
            # RunError: somebody else has changed the run meanwhile, and writes the report.
            with (
                contextlib.suppress(RunError),
                use_job(Job()),
                new_file(opened.folder / "report.html") as part,
            ):
                write_report(opened, part)
    return opened, items
