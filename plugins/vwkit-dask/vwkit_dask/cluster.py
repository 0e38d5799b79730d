"""Where the workers come from: processes begun here, or a scheduler that is there already."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import multiprocessing
import platform
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from vwkit.errors import RunError

__all__ = ["Cluster", "ClusterError", "described", "unlike"]

_CLOSING = 10  # seconds that workers have to end by themselves
# Tasks carry the rows they are about where workers cannot read them; Dask would warn of each.
_SETTINGS = {"distributed.admin.large-graph-warning-threshold": "1PB"}


class ClusterError(RunError):
    """Schedulers or workers failed in the middle of the work."""

    exit_status = 1


class Cluster:
    """A client of a Dask cluster, and the cluster if it is our own.

    Parameters
    ----------
    scheduler : str or None
        Address or scheduler file; None for processes on this machine.
    workers : int
        How many processes to begin, or how many to wait for.
    threads : int
        Of each process that is begun.
    patience : float
        Seconds to wait for an answer and for workers.

    Raises
    ------
    RunError
    """

    def __init__(
        self, scheduler: str | None, workers: int | None, threads: int, patience: float
    ) -> None:
        self._exit = contextlib.ExitStack()
        self._own: Any = None
        self.foreign = scheduler is not None
        try:
            _library()  # before its settings are changed: it brings them
            import dask

            self._exit.enter_context(dask.config.set(_SETTINGS))
            self._exit.enter_context(_silent())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions: looked at below
                if scheduler is None:
                    self.client = self._begun(workers or 1, threads, patience)
                else:
                    self.client = self._connected(scheduler, patience)
            self._wait(scheduler, workers or 1, patience)
            self._compare(scheduler)
        except BaseException:
            self.close(fast=True)
            raise

    # Beginning

    def _begun(self, workers: int, threads: int, patience: float) -> Any:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RunError(
                "executor dask: this script starts worker processes, which import it, too; put what "
                "it does under: if __name__ == '__main__':"
            )
        folder = tempfile.mkdtemp(prefix="vwkit-dask-")
        self._exit.callback(shutil.rmtree, folder, ignore_errors=True)
        for more in (True, False):  # once more: somebody may kill a worker that is still beginning
            try:
                self._own = _local_cluster(workers, threads, folder)
                break
            except (OSError, RuntimeError, TimeoutError) as error:
                if not more:
                    raise RunError(
                        f"executor dask: {workers} worker processes cannot be begun: "
                        f"{_said(error)}{_guard_hint()}"
                    ) from None
        return _library().Client(self._own, set_as_default=False, timeout=patience)

    def _connected(self, scheduler: str, patience: float) -> Any:
        where: dict[str, Any] = {"address": scheduler}
        if ":" not in scheduler:
            if not Path(scheduler).is_file():
                raise RunError(
                    f"executor dask: there is no scheduler file {scheduler}, and an address has a "
                    "port: tcp://host:8786. dask scheduler --scheduler-file writes one"
                )
            where = {"scheduler_file": scheduler}
        try:
            return _library().Client(**where, set_as_default=False, timeout=patience)
        except (OSError, TimeoutError, ValueError, TypeError) as error:
            raise RunError(
                f"executor dask: no scheduler answers at {scheduler} ({_said(error)}); begin one with: "
                "dask scheduler, and workers with: dask worker ADDRESS"
            ) from None

    def _wait(self, scheduler: str | None, workers: int, patience: float) -> None:
        try:
            self.client.wait_for_workers(workers, timeout=patience)
        except TimeoutError:
            raise RunError(
                f"executor dask: {len(self.workers())} of {workers} workers came within "
                f"{patience:g} seconds"
                + (f"; begin some for {scheduler} with: dask worker" if scheduler else "")
            ) from None

    def _compare(self, scheduler: str | None) -> None:
        """Refuse other versions: they could give other results, and nobody would know."""
        #: What all that join later must have too.
        self.versions = mine = _versions()
        try:
            found: dict[str, Any] = dict(self.client.run(described))
            if scheduler is not None:
                found["the scheduler"] = self.client.run_on_scheduler(described)
        except Exception as error:
            raise RunError(
                f"executor dask: workers cannot answer what they have ({_said(error)}); they and the "
                "scheduler need vwkit-dask and all packages that are installed here"
            ) from None
        for address, theirs in found.items():
            difference = unlike(mine, theirs)
            if difference is not None:
                name, version, other = difference
                raise RunError(
                    f"executor dask: {name} is {version} here and {other} on {address}; install "
                    "the same version everywhere"
                )

    # Looking

    @property
    def alive(self) -> bool:
        """Whether the scheduler still answers."""
        return bool(self.client.status == "running")

    @property
    def gone(self) -> bool:
        """Whether the connection to it is given up."""
        return bool(self.client.status in ("closing", "closed"))

    def workers(self) -> dict[str, int]:
        """Return the threads of each worker by its address, always in the same order."""
        found: dict[str, int] = {}
        with contextlib.suppress(OSError, TimeoutError):  # nobody answers
            found = self.client.nthreads()
        return dict(sorted(found.items()))

    # Ending

    def close(self, *, fast: bool = False) -> None:
        """End the workers that were begun here; leave those of others.

        Parameters
        ----------
        fast : bool
            Whether to end them in the middle of what they do.
        """
        client, self.client = getattr(self, "client", None), None
        own, self._own = self._own, None
        with self._exit, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if own is not None and fast:
                _kill(own)
            if client is not None:
                with contextlib.suppress(Exception):
                    client.close(timeout=_CLOSING)
            if own is not None:
                with contextlib.suppress(Exception):
                    own.close(timeout=_CLOSING)


def _local_cluster(workers: int, threads: int, folder: str) -> Any:
    return _library().LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=True,
        dashboard_address=None,
        worker_dashboard_address=None,
        silence_logs=logging.CRITICAL,
        local_directory=folder,
        # Dask would count the pages of memory-mapped files and stop the worker.
        memory_limit=None,
        preload=["vwkit_dask.on_worker"],
    )


def _library() -> Any:
    return importlib.import_module("distributed")


def _kill(cluster: Any) -> None:
    """End worker processes at once: what they compute nobody wants."""
    for nanny in list(cluster.workers.values()):
        nanny.auto_restart = False
        process = getattr(getattr(nanny, "process", None), "process", None)
        inner = getattr(process, "_process", None)
        with contextlib.suppress(Exception):
            if inner is not None:
                inner.kill()


@contextlib.contextmanager
def _silent() -> Any:
    """Keep Dask's own log off the terminal: what matters comes as an error of ours."""
    logger = logging.getLogger("distributed")
    names = [
        "distributed",
        *(n for n in logging.root.manager.loggerDict if n.startswith("distributed.")),
    ]
    before = {name: logging.getLogger(name).level for name in names}
    before.setdefault("distributed.client", logging.getLogger("distributed.client").level)
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    quiet = not logger.handlers
    if quiet:
        logger.addHandler(logging.NullHandler())
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def described() -> dict[str, str]:
    """Return the versions of all that decides results: ours, NumPy's, and of plugins and theirs."""
    names = {"vwkit", "numpy"}
    for point in importlib.metadata.entry_points(group="vwkit"):
        if point.dist is not None:
            names.add(point.dist.name)
            names |= {_name(text) for text in point.dist.requires or () if "extra ==" not in text}
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in sorted(names):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def unlike(mine: dict[str, str], theirs: dict[str, str]) -> tuple[str, str, str] | None:
    """Return what is of another version, and both versions; what only one has does not count."""
    for name, version in mine.items():
        other = theirs.get(name, version)
        if other != version:
            return name, version, other
    return None


_versions = described  # of this process


def _name(requirement: str) -> str:
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), None)
    return requirement[:end]


def _said(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _guard_hint() -> str:
    """Say what a script may lack, where there is one that worker processes import."""
    main = sys.modules.get("__main__")
    if getattr(main, "__file__", None) and getattr(main, "__spec__", None) is None:
        return ". A script needs: if __name__ == '__main__': around what it does"
    return ""
