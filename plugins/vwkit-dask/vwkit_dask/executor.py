"""The executor `dask`: its parameters, and when the workers begin and end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import annotated_types

import vwkit
from vwkit.errors import RunError
from vwkit.jobs import Chunks, Job, Kernel

if TYPE_CHECKING:
    from vwkit_dask.cluster import Cluster

__all__ = ["Dask"]


@vwkit.backend("dask")
class Dask(vwkit.Executor):
    """Computes chunks on Dask workers: processes of this machine, or those of a scheduler.

    The results are those of the local executor, byte for byte, also if a worker dies in the middle.
    Workers read their own parts of files, so the paths of a spec and of its run folder must be the
    same for all of them. Whoever can reach a scheduler can run code on its workers: Dask's wire is for
    trusted networks.

    Examples
    --------
    >>> import vwkit
    >>> vwkit.create("executor", "dask", workers=4)
    Dask(workers=4)
    """

    library = "distributed"
    requires = ("dask", "distributed")
    license = "BSD-3-Clause"
    choose = "many machines that share a file system, or many processes on one."
    deterministic = True
    distributed = True

    scheduler: str | None = vwkit.Field(
        default=None,
        doc="Address (tcp://host:8786) or scheduler file; without it workers are begun here.",
    )
    workers: vwkit.Positive | None = vwkit.Field(
        default=None,
        doc="Processes to begin here, by default one a thread of the run; or how many to wait for.",
    )
    threads_per_worker: vwkit.Positive = vwkit.Field(
        default=1, doc="Threads of each process that is begun here."
    )
    patience: Annotated[float, annotated_types.Gt(0)] = vwkit.Field(
        default=60.0, doc="Seconds to wait for a scheduler and for workers, also in the middle."
    )

    _cluster: Cluster | None = None
    _job: Job | None = None

    def _begin(self, job: Job) -> None:
        from vwkit_dask.cluster import Cluster

        workers = self.workers
        if self.scheduler is None and workers is None:
            workers = max(1, job.threads // self.threads_per_worker)
        self._job = job
        self._cluster = Cluster(self.scheduler, workers, self.threads_per_worker, self.patience)
        count = len(self._cluster.workers())
        job.note("workers ready", self.scheduler or "processes of this machine", workers=count)

    def _end(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close(fast=sys.exc_info()[0] is not None)

    def _map(self, kernel: Kernel, chunks: Chunks, arrays: Mapping[str, Any]) -> Iterator[Any]:
        from vwkit_dask.mapping import Mapped

        if self._cluster is None or self._job is None:
            raise RunError("executor dask: not begun; use it in a with block: executor.ready(job)")
        with Mapped(self._cluster, self._job, kernel, chunks, arrays, self.patience) as mapped:
            yield from mapped.results()
