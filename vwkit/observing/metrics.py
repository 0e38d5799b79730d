"""The state of a run in Prometheus's text format, for the textfile collector of its node exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vwkit.errors import RunError, UnsupportedError
from vwkit.observing.progress import STATES, moment

__all__ = ["write_metrics"]

_NUMBERS = (
    ("done", "vwkit_stage_done", "Units of the stage that are done."),
    ("total", "vwkit_stage_total", "Units that there will be."),
    ("rate_now", "vwkit_stage_rate", "Units a second over the last half minute."),
    ("eta_seconds", "vwkit_stage_eta_seconds", "Seconds until the stage is done."),
)


def write_metrics(found: dict[str, Any], path: Path) -> None:
    """Write what `vwkit.observing.status` found to a file, all or nothing.

    Raises
    ------
    UnsupportedError
        The package ``prometheus-client`` is not installed.
    RunError
        The file cannot be written.
    """
    try:
        from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
    except ImportError:
        raise UnsupportedError(
            "--metrics needs the package prometheus-client: pip install 'vwkit[metrics]'"
        ) from None
    registry = CollectorRegistry()
    # A name that is not UTF-8 holds lone surrogates, which cannot be written.
    run = {"run": found["run"].encode("utf-8", "backslashreplace").decode()}

    def tell(name: str, text: str, value: float | None, **labels: str) -> None:
        if value is None:
            return
        if name not in gauges:
            gauges[name] = Gauge(name, text, [*run, *labels], registry=registry)
        gauges[name].labels(**run, **labels).set(value)

    gauges: dict[str, Any] = {}
    for state in ("starting", *STATES):
        tell(
            "vwkit_run_state",
            "1 for the state the run is in.",
            found["state"] == state,
            state=state,
        )
    tell("vwkit_run_alive", "Whether a process is at work in the run folder.", found["alive"])
    progress = found["progress"]
    if progress is not None:
        stage = {"stage": progress["stage"] or "", "unit": progress["unit"]}
        if progress["stage"] is not None:
            for key, name, text in _NUMBERS:
                tell(name, text, progress[key], **stage)
            if progress["objective"]:
                tell("vwkit_stage_objective", "The last one.", progress["objective"][-1], **stage)
        for when in ("done", "to_come"):
            tell("vwkit_run_stages", "Stages.", len(progress[f"stages_{when}"]), when=when)
        for which in ("now", "peak"):
            text = "Anonymous memory of the process."
            tell("vwkit_run_memory_bytes", text, progress[f"memory_{which}"], which=which)
        at = moment(progress["updated"])
        tell("vwkit_run_updated_seconds", "The last sign of life, seconds since 1970.", at)
    counts = (found["manifest"] or {}).get("counts", {})
    for status in ("ok", "skipped", "removed"):
        tell("vwkit_run_items", "Items of the finished run.", counts.get(status), status=status)
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
