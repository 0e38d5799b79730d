"""A plan: its stages, and what is expected of each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from vwkit.planning.spent import Spent

__all__ = ["Plan", "PlannedStage"]


@dataclass
class PlannedStage:
    """One stage as it is expected.

    Attributes
    ----------
    name : str
        As in the run's manifest.
    backend : str
        The backend's name, or "" where there is none.
    rows : float or None
        What comes out: rows, or images.
    dim : int or None
    seconds : float or None
        By the clock, without the stages before it; None where it cannot be known before.
    cpu_seconds : float or None
        Seconds that processors work for it, those of all threads together.
    memory : float or None
        Peak of the process's anonymous bytes meanwhile, all that it is counted.
    disk : float or None
        Bytes of its artifact (and of features that are kept for each image).
    least : float
        Bytes that it holds at once for certain.
    cached : str
        ``yes``, ``no``, ``run`` (in the interrupted run's own folder), ``some`` (of its images) or
        ``unknown``.
    hits, of : int or None
        Images whose features are kept already, of how many.
    key : str or None
        What decides its content, where it is known before.
    note : str
        Why a figure is missing or rough.
    """

    name: str
    backend: str = ""
    rows: float | None = None
    dim: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    memory: float | None = None
    disk: float | None = None
    least: float = 0
    cached: str = "unknown"
    hits: int | None = None
    of: int | None = None
    key: str | None = None
    note: str = ""

    @property
    def spent(self) -> Spent | None:
        """Both times."""
        return None if self.seconds is None else Spent(self.seconds, self.cpu_seconds or 0.0)

    def takes(self, spent: Spent | None) -> None:
        """Note both times."""
        self.seconds = None if spent is None else spent.clock
        self.cpu_seconds = None if spent is None else spent.cpu


@dataclass
class Plan:
    """All stages, and what a run takes altogether.

    Attributes
    ----------
    stages : list of PlannedStage
    base : float
        Anonymous bytes of the process itself.
    threads, budget : int
        What the run may use.
    stated : bool
        Whether the spec says `run.memory`.
    calibrated : float
        Seconds that were spent on measuring; 0 when all was remembered.
    busy : float
        Processes that want a processor, for each that there is: far above 1, times are rough.
    """

    stages: list[PlannedStage] = field(default_factory=list)
    base: float = 0
    threads: int = 1
    budget: int = 0
    stated: bool = False
    calibrated: float = 0
    busy: float = 0

    def total(self, name: str) -> float | None:
        """Return the sum of what is known of ``seconds``, ``cpu_seconds`` or ``disk``; None if nothing is."""
        known = [v for stage in self.stages if (v := getattr(stage, name)) is not None]
        return sum(known) if known else None

    @property
    def peak(self) -> float | None:
        """The largest memory of a stage that is known."""
        known = [stage.memory for stage in self.stages if stage.memory is not None]
        return max(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; numbers of rows and bytes are whole."""
        stages = []
        for stage in self.stages:
            plain = asdict(stage)
            for name in ("rows", "memory", "disk", "least"):
                if plain[name] is not None:
                    plain[name] = round(plain[name])
            for name in ("seconds", "cpu_seconds"):
                if plain[name] is not None:
                    plain[name] = round(plain[name], 3)
            stages.append(plain)
        seconds, cpu = self.total("seconds"), self.total("cpu_seconds")
        disk, peak = self.total("disk"), self.peak
        return {
            "stages": stages,
            "total": {
                "seconds": None if seconds is None else round(seconds, 3),
                "cpu_seconds": None if cpu is None else round(cpu, 3),
                "memory": None if peak is None else round(peak),
                "disk": None if disk is None else round(disk),
            },
            "base_memory": round(self.base),
            "threads": self.threads,
            "budget": self.budget,
            "budget_stated": self.stated,
            "calibration_seconds": round(self.calibrated, 3),
            "busy": round(self.busy, 2),
        }
