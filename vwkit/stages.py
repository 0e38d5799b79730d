"""Stages of a run: found in the run's own folder, in the cache, or computed; then kept in both."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vwkit.artifact import Artifact, change_params, open_artifact
from vwkit.base import Backend, library_version, load
from vwkit.cache import Cache
from vwkit.errors import ArtifactError
from vwkit.hashing import content_key
from vwkit.jobs import Job, use_job
from vwkit.plugins import registry

__all__ = ["MemoryMeter", "Stage", "Stages", "opened", "set_late", "signature", "used_key"]


def signature(backend: Backend, cache: Cache, *, late: bool = False) -> dict[str, Any]:
    """Describe all that decides a backend's results: parameters, versions, nested backends.

    Late parameters are left out, but those of nested backends are not: an index that assigns is
    searched while its clusterer is fitted. A file counts by its content.
    """
    entries = registry().entries.get((backend.role, backend.name))
    described: dict[str, Any] = {
        "role": backend.role,
        "name": backend.name,
        "revision": backend.revision,
        "package": f"{entries[0].package} {entries[0].version}" if entries else None,
        "library": library_version(backend.library),
    }
    if backend._fitted:
        described["fitted"] = backend._fingerprint or _state_key(backend)
    plain = backend.params(late=late)
    for name, parameter in backend.parameters().items():
        value = getattr(backend, parameter.attribute)
        if isinstance(value, Backend):
            plain[name] = signature(value, cache, late=True)
        elif isinstance(value, Path) and value.is_file():
            plain[name] = {"file": cache.file_key(value)}
    described["params"] = plain
    return described


def _state_key(backend: Backend) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name, array in sorted(backend._state().items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def set_late(folder: Path, backend: Backend) -> None:
    """Give what was saved in a folder the late parameters of another backend of its class.

    Only the manifest changes: a stage from the cache has those of the run that made it.
    """
    if backend.late:
        change_params(folder, _late_of(backend))


def _late_of(backend: Backend) -> dict[str, Any]:
    return {name: value for name, value in backend.params().items() if name in backend.late}


class MemoryMeter:
    """Samples the anonymous memory of this process; its peak is what a run really needs."""

    def __init__(self, every: float = 0.1) -> None:
        self.peak = 0
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vwkit-memory", daemon=True)

    def __enter__(self) -> MemoryMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak = max(self.peak, anonymous_memory())

    def _watch(self) -> None:
        while not self._done.wait(self._every):
            self.peak = max(self.peak, anonymous_memory())

    def restart(self) -> int:
        """Return the peak so far and begin anew."""
        peak, self.peak = max(self.peak, anonymous_memory()), 0
        return peak


def anonymous_memory() -> int:
    """Return RssAnon + RssShmem in bytes; where the system does not tell, the resident peak."""
    total = 0
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += int(line.split()[1]) << 10
    if total == 0:
        unit = 1 if sys.platform == "darwin" else 1 << 10
        total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return total


@dataclass(frozen=True)
class Stage:
    """A finished stage.

    Attributes
    ----------
    name : str
        The slot's path, such as ``featurizer.vocabulary``.
    key : str
        What decided its content.
    folder : Path
        Its artifact.
    """

    name: str
    key: str
    folder: Path

    def open(self) -> Artifact:
        """Open the artifact, verified."""
        return open_artifact(self.folder)


def opened(stage: Stage, backend: Backend) -> Any:
    """Load what a stage made of a backend, with the late parameters that this one has."""
    set_late(stage.folder, backend)
    return load(stage.folder)


def used_key(stage: Stage, backend: Backend) -> Any:
    """Return what decides the answers of what a stage made: its key, and late parameters."""
    if not backend.late:
        return stage.key
    return {"key": stage.key, "late": _late_of(backend)}


@dataclass
class Stages:
    """The stages of one run.

    Attributes
    ----------
    folder : Path
        Where finished stages go, one artifact each.
    checkpoints : Path
        Where unfinished ones keep their checkpoints.
    cache : Cache
    job : Job
    records : list of dict
        Name, key, seconds, peak memory, and where each stage came from.
    """

    folder: Path
    checkpoints: Path
    cache: Cache
    job: Job
    meter: MemoryMeter
    records: list[dict[str, Any]] = field(default_factory=list)
    _earlier: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._earlier = json.loads(self._ledger.read_text())

    @property
    def _ledger(self) -> Path:
        return self.checkpoints / "stages.json"

    def run(self, name: str, inputs: Any, compute: Callable[[Path], None]) -> Stage:
        """Return the stage, computed only if its inputs were never seen.

        Parameters
        ----------
        name : str
        inputs : plain data
            All that decides the result.
        compute : callable
            Writes an artifact to the path it is given; its job is the current one.
        """
        key = content_key({"stage": name, "inputs": inputs})
        target = self.folder / name
        start = time.monotonic()
        self.meter.restart()
        if self._finished(name, key, target):
            origin = self._earlier[name].get("from", "computed")
        elif self._restored(key, target):
            origin = "cache"
        else:
            origin = "computed"
            work = self.job.within(name, self.checkpoints / key[:32])
            with use_job(work):
                work.progress(0, None, "")
                compute(target)
            self.cache.keep(key, target)
            if work.folder is not None:
                shutil.rmtree(work.folder, ignore_errors=True)
        record = {
            "name": name,
            "key": key,
            "from": origin,
            "seconds": round(time.monotonic() - start, 3),
            "peak_memory": self.meter.restart(),
        }
        self.records.append(record)
        self._note(name, record)
        return Stage(name, key, target)

    def _finished(self, name: str, key: str, target: Path) -> bool:
        if self._earlier.get(name, {}).get("key") != key or not target.is_dir():
            return False
        try:
            open_artifact(target)
        except ArtifactError:
            return False
        return True

    def _restored(self, key: str, target: Path) -> bool:
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        return self.cache.restore(key, target)

    def _note(self, name: str, record: dict[str, Any]) -> None:
        self._earlier[name] = record
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        part = self._ledger.with_suffix(".part")
        part.write_text(json.dumps(self._earlier))
        part.replace(self._ledger)
