"""`vwkit status`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from vwkit.cli.text import printable
from vwkit.report.numbers import duration, memory, rate

__all__ = ["line", "report", "status_command"]

#: With --follow the command ends as the run did.
_ENDED = {"finished": 0, "failed": 1, "interrupted": 130}
_NAMED = 8


@click.command("status")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--follow", is_flag=True, help="Go on telling until the run ends; end as it did.")
@click.option(
    "--every", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS",
    help="How often to look, with --follow.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --follow one line each.")
@click.option(
    "--metrics", type=click.Path(path_type=Path), metavar="FILE.prom",
    help="Also write it for Prometheus's textfile collector (vwkit[metrics]).",
)  # fmt: skip
@click.option("--schema", is_flag=True, help="Print the JSON schema of progress.json instead.")
def status_command(
    run: Path | None,
    follow: bool,
    every: float,
    as_json: bool,
    metrics: Path | None,
    schema: bool,
) -> int:
    """Say how RUN is doing: at work, interrupted, failed or finished, from any terminal.

    Nothing of the run is changed or loaded. Exit status: 0; with --follow 0 if the run was finished,
    1 if it failed, 130 if it was interrupted.
    """
    from vwkit.observing import status
    from vwkit.observing.metrics import write_metrics
    from vwkit.observing.progress import SCHEMA

    if schema:
        click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)
        return 0
    if run is None:
        raise click.UsageError("name a run folder")
    if not follow:
        found = status(run)
        if metrics is not None:
            write_metrics(found, metrics)
        click.echo(json.dumps(found, indent=1) if as_json else report(found))
        return 0
    return _follow(run, every, as_json, metrics)


def _follow(run: Path, every: float, as_json: bool, metrics: Path | None) -> int:
    from vwkit.observing import status
    from vwkit.observing.metrics import write_metrics

    live = sys.stdout.isatty() and not as_json
    before = ""
    while True:
        found = status(run)
        if metrics is not None:
            write_metrics(found, metrics)
        ended = not found["alive"]
        said = json.dumps(found) if as_json else line(found)
        if said != before and not ended:
            # On a terminal one line that changes; in a log one for each change.
            click.echo(f"\r\x1b[2K{said}" if live else said, nl=not live)
            before = said
        if ended:
            if live and before:
                click.echo()
            click.echo(said if as_json else report(found))
            return _ENDED.get(found["state"], 1)
        time.sleep(every)


def line(found: dict[str, Any]) -> str:
    """Say in one line where a run at work is."""
    progress = found["progress"]
    if progress is None or progress["stage"] is None:
        return printable(f"{found['run']}: {found['state']}")
    return printable(f"{progress['stage']}: {_work(progress) or '…'}")


def report(found: dict[str, Any]) -> str:
    """Say all that is known of a run, for people."""
    progress, manifest = found["progress"], found["manifest"]
    running = found["state"] == "running"
    head = f"{found['run']}: {found['state']}"
    if progress is not None and progress["verb"] != "run":
        head = f"{found['run']}: {progress['verb']} {found['state']}"
    if found["held_by"]:
        head += f", by {found['held_by']}"
    lines = [head]
    if found["message"]:
        lines.append(f"  {found['message']}")
    if progress is not None and (running or found["state"] != "finished"):
        lines += _stages(progress, running=running)
        lines.append(f"  {_when(found, progress)}")
    if found["complete"] and not running:
        lines += _finished(manifest, there=found["state"] != "finished")
    if found["problems"]:
        lines.append("  last warnings and errors:")
        lines += [f"    {one['time']} {_problem(one)}" for one in found["problems"]]
    again = progress is None or progress["verb"] == "run"
    if again and found["state"] in ("interrupted", "failed"):
        lines.append("  go on: the same command with --resume")
    return "\n".join(printable(one) for one in lines)


def _stages(progress: dict[str, Any], *, running: bool) -> list[str]:
    lines = []
    for stage in progress["stages_done"]:
        origin = "" if stage.get("from") == "computed" else f" ({stage.get('from')})"
        lines.append(f"  {stage.get('name')!s:<24} {stage.get('seconds', 0):>8.1f} s{origin}")
    if progress["stage"] is not None:
        where = _work(progress, running=running)
        lines.append(f"  {progress['stage']!s:<24} {where or ('at work' if running else 'begun')}")
        said = " ".join(f"{name} {value:,.6g}" for name, value in _numbers(progress["values"]))
        if said:
            lines.append(f"  {'':<24} {said}")
    to_come = [str(name) for name in progress["stages_to_come"]]
    if to_come:
        more = f" and {len(to_come) - _NAMED} more" if len(to_come) > _NAMED else ""
        lines.append(f"  still to come: {', '.join(to_come[:_NAMED])}{more}")
    return lines


def _work(progress: dict[str, Any], *, running: bool = True) -> str:
    """Say how far a stage is, how fast it goes and how long it will take."""
    done, total, unit = progress["done"], progress["total"], progress["unit"]
    if not done:
        return ""
    said = f"{done:,} of {total:,} {unit} ({100 * done / total:.0f} %)" if total else (
        f"{done:,} {unit}"
    )  # fmt: skip
    if progress.get("part"):
        said = f"{progress['part']}: {said}"
    if not running:  # how fast it was is no promise for whoever goes on
        return said
    if progress["rate_now"]:
        said += f", {rate(progress['rate_now'], 1)} {unit}/s"
    if progress["eta_seconds"] is not None:
        said += f", {duration(progress['eta_seconds'])} left"
    return said


def _numbers(values: Any) -> list[tuple[str, float]]:
    return [
        (str(name), value)
        for name, value in (values.items() if isinstance(values, dict) else ())
        if isinstance(value, (int, float))
    ]


def _when(found: dict[str, Any], progress: dict[str, Any]) -> str:
    said = f"began {progress['started']}"
    if progress["attempt"] > 1:
        said += f" (attempt {progress['attempt']})"
    age = found["seconds_since_update"]
    if age is not None:
        said += f", last sign of life {duration(age)} ago"
    now = f"{memory(progress['memory_now'])} now, " if found["alive"] else ""
    return f"{said}; memory {now}{memory(progress['memory_peak'])} at most"


def _finished(manifest: dict[str, Any], *, there: bool) -> list[str]:
    counts = manifest.get("counts", {})
    said = ", ".join(
        f"{value:,} {name.removesuffix('s') if value == 1 else name}"
        for name, value in counts.items()
        if value
    )
    what = "the folder holds a finished run, made" if there else "finished"
    took = f" in {duration(manifest['seconds'])}" if "seconds" in manifest else ""
    peak = (
        f", memory {memory(manifest['peak_memory'])} at most" if "peak_memory" in manifest else ""
    )
    lines = [f"  {what}{took}{peak}: {said}"]
    items = (manifest.get("accounts") or {}).get("items", {})
    for reason, count in (items.get("skipped") or {}).items():
        lines.append(f"    {count:,} skipped: {reason}")
    return lines


def _problem(one: dict[str, Any]) -> str:
    stage = f"{one['stage']}: " if one.get("stage") else ""
    return f"{one['level']} {stage}{one.get('message') or one['event']}"
