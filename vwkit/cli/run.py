"""`vwkit run` and `vwkit check`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import click

from vwkit.cli.progress import logs_shown, reporter
from vwkit.cli.signals import AT_THE_NEXT, GRACE, stopping
from vwkit.cli.text import printable

__all__ = ["check_command", "execute", "run_command", "summary"]

_SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the spec."
)


@click.command("run")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/<spec's name>].")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@_SET
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the run's manifest as JSON.")
def run_command(
    spec: Path,
    out: Path | None,
    resume: bool,
    overrides: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Run SPEC: a YAML or TOML file.

    An interrupted run (Ctrl-C, a kill, a power cut) is continued with --resume.
    """
    from vwkit.lock import reserved
    from vwkit.run_folder import INNER

    folder = out or Path("runs") / spec.stem
    # Before all else: whoever looks is not to be told that nobody is at work there.
    with reserved(folder / INNER / "lock", folder.absolute()):
        from vwkit.pipeline import Pipeline

        pipeline = Pipeline.from_file(spec, overrides)
        run = execute(pipeline, folder, resume=resume, quiet=quiet)
    if as_json:
        click.echo(json.dumps(run.manifest, indent=1))
    else:
        summary(run)


@click.command("check")
@click.argument("spec", type=click.Path(path_type=Path))
@_SET
def check_command(spec: Path, overrides: tuple[str, ...]) -> None:
    """Check SPEC without running it; every problem gets a line with its place."""
    from vwkit.pipeline import Pipeline
    from vwkit.planning.making import check_budget

    check_budget(Pipeline.from_file(spec, overrides).spec)
    click.echo(printable(f"{spec}: fine"))


def execute(pipeline: Any, out: Path, *, resume: bool = False, quiet: bool = False) -> Any:
    """Run a pipeline with progress; Ctrl-C and SIGTERM stop it where it can be resumed."""
    from vwkit.jobs import Job

    settings = pipeline.spec.run
    stop = threading.Event()
    # Other processes are told to end, which takes longer.
    grace = GRACE if settings.executor is None else None
    with (
        reporter(quiet=quiet) as shown,
        logs_shown(shown),
        stopping(stop, AT_THE_NEXT, grace=grace),
    ):
        job = Job(threads=settings.threads, memory=settings.memory, progress=shown, stop=stop)
        return pipeline.run(out, resume=resume, job=job)


def summary(run: Any) -> None:
    """Print what a run made and where to look."""
    counts = run.manifest["counts"]
    named = [
        f"{value:,} {name.removesuffix('s') if value == 1 else name}"
        for name, value in counts.items()
        if value or name == "ok"
    ]
    click.echo(", ".join(named))
    for name, stage in run.manifest["stages"].items():
        origin = "" if stage["from"] == "computed" else f" ({stage['from']})"
        click.echo(f"  {name:<24} {stage['seconds']:>8.1f} s{origin}")
    for output in run.spec.get("output", []):
        click.echo(printable(f"{output['write']}: {output['path']}"))
    if run.scores and run.scores.get("mAP") is not None:
        click.echo(f"mAP {run.scores['mAP']:.3f}")
    click.echo(printable(f"report: {run.folder / 'report.html'}"))
