"""Stages of a run: found in the run's own folder, in the cache, or computed; then kept in both."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vwkit.artifact import Artifact, change_params, open_artifact, open_whole
from vwkit.base import Backend, library_version, load
from vwkit.cache import Cache
from vwkit.errors import ArtifactError, BackendError
from vwkit.hashing import content_key
from vwkit.jobs import Job, use_job
from vwkit.observing.accounts import Account, account_of, check_same, rows_given
from vwkit.observing.memory import anonymous_memory
from vwkit.observing.processors import processor_seconds
from vwkit.plugins import registry
from vwkit.run_folder import read_small, write_synced

__all__ = [
    "MemoryMeter",
    "Stage",
    "Stages",
    "opened",
    "set_late",
    "signature",
    "size_of",
    "used_key",
]


def signature(backend: Backend, cache: Cache, *, late: bool = False) -> dict[str, Any]:
    """Describe all that decides a backend's results: parameters, versions, nested backends.

    Late parameters are left out, but those of nested backends are not: an index that assigns is
    searched while its clusterer is fitted (those of `late_through` are not). A file counts by its
    content.
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
            plain[name] = signature(value, cache, late=name not in backend.late_through)
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
    if backend.late or backend.late_through:
        change_params(folder, _late_of(backend))


def _late_of(backend: Backend) -> dict[str, Any]:
    late = backend.late | backend.late_through
    return {name: value for name, value in backend.params().items() if name in late}


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


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


_TAKEN = ("seconds", "cpu_seconds", "peak_memory", "checkpoints")
_FOUND = {"cache": "found in the cache", "folder": "found in the run's folder"}


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
    if not backend.late and not backend.late_through:
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
        Name, key, seconds by the clock and of the processors, peak memory, bytes, checkpoints, and
        where each stage came from.
    accounts : dict of str to Account
        By stage, what was given to it and what it holds.
    """

    folder: Path
    checkpoints: Path
    cache: Cache
    job: Job
    meter: MemoryMeter
    records: list[dict[str, Any]] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    _earlier: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            earlier = json.loads(read_small(self._ledger))
            if isinstance(earlier, dict):
                self._earlier = {k: one for k, one in earlier.items() if isinstance(one, dict)}

    @property
    def _ledger(self) -> Path:
        return self.checkpoints / "stages.json"

    def run(
        self,
        name: str,
        inputs: Any,
        compute: Callable[[Path], None],
        *,
        given: Any = None,
        unit: str = "rows",
    ) -> Stage:
        """Return the stage, computed only if its inputs were never seen.

        Parameters
        ----------
        name : str
        inputs : plain data
            All that decides the result.
        compute : callable
            Writes an artifact to the path it is given; its job is the current one.
        given : int, array, Stream or Sparse, optional
            What goes in; as many rows, no more and no fewer, must come out.
        unit : str
            What these rows are.

        Raises
        ------
        BackendError
            Rows were lost on the way.
        """
        key = content_key({"stage": name, "inputs": inputs})
        target = self.folder / name
        start, spent = time.monotonic(), processor_seconds()
        self.meter.restart()
        told = self.job.within(name)
        told.note("stage started")
        before: dict[str, Any] = {}
        if self._finished(name, key, target, given, unit):
            before = self._earlier[name]
            origin = before.get("from", "computed")
        elif self._restored(name, key, target, given, unit):
            origin = "cache"
        else:
            origin = "computed"
            work = self.job.within(name, self.checkpoints / key[:32])
            with use_job(work):
                work.progress(0, None, "")
                compute(target)
            try:
                self.accounts[name] = account_of(name, target, rows_given(given), unit)
            except BackendError:
                # Nobody shall find it again.
                shutil.rmtree(target, ignore_errors=True)
                if work.folder is not None:
                    shutil.rmtree(work.folder, ignore_errors=True)
                raise
            self.cache.keep(key, target)
            if work.folder is not None:
                shutil.rmtree(work.folder, ignore_errors=True)
        record = {
            "name": name,
            "key": key,
            "from": origin,
            "seconds": round(time.monotonic() - start, 3),
            "cpu_seconds": round(processor_seconds() - spent, 3),
            "peak_memory": self.meter.restart(),
            "bytes": size_of(target),
            "checkpoints": self.job.observer.checkpoints if self.job.observer else 0,
        }
        if origin == "computed":
            # What it took to compute it, not to find it again.
            record.update({key: before[key] for key in _TAKEN if key in before})
        self.records.append(record)
        self._note(name, record)
        found = "folder" if before else origin
        self._tell(told, record, found)
        return Stage(name, key, target)

    def _finished(self, name: str, key: str, target: Path, given: Any, unit: str) -> bool:
        if self._earlier.get(name, {}).get("key") != key or not target.is_dir():
            return False
        try:
            open_whole(target)
            self.accounts[name] = account_of(name, target, rows_given(given), unit)
        except (ArtifactError, BackendError):
            return False
        return True

    def _restored(self, name: str, key: str, target: Path, given: Any, unit: str) -> bool:
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self.cache.restore(key, target):
            return False
        try:
            self.accounts[name] = account_of(name, target, rows_given(given), unit)
        except BackendError:
            # Kept by who did not count.
            shutil.rmtree(target, ignore_errors=True)
            self.cache.drop(key)
            return False
        return True

    def holds(self, name: str, rows: int) -> None:
        """Say how many rows a finished stage holds, where its files do not say it.

        Raises
        ------
        BackendError
            It was given another number.
        """
        account = self.accounts[name]
        if account.given is not None:
            check_same(name, account.unit, "it was given", account.given, "it holds", rows)
        self.accounts[name] = replace(account, kept=rows)

    def _tell(self, job: Job, record: dict[str, Any], found: str) -> None:
        """Write into the log what a stage took, and how fast it was."""
        account = self.accounts[record["name"]]
        said = {**account.plain(), **{key: record[key] for key in record if key != "name"}}
        said["from"] = found
        if found == "computed" and account.given and record["seconds"]:
            said["rate"] = round(account.given / record["seconds"], 3)
        job.note("stage finished", _FOUND.get(found, ""), **said)

    def _note(self, name: str, record: dict[str, Any]) -> None:
        self._earlier[name] = record
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_synced(self._ledger, json.dumps(self._earlier))
