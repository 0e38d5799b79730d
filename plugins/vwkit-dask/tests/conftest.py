"""One cluster of two processes for all tests: to begin it takes seconds."""

from __future__ import annotations

import logging
import warnings

import pytest


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed = pytest.importorskip("distributed")
        made = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            worker_dashboard_address=None,
            silence_logs=logging.CRITICAL,
            local_directory=str(tmp_path_factory.mktemp("dask")),
            memory_limit=None,
        )
    yield made
    made.close(timeout=10)


@pytest.fixture
def scheduler(cluster) -> str:
    """The address of a scheduler whose two workers are there, also after others killed some."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import distributed

        with distributed.Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
    return str(cluster.scheduler_address)
