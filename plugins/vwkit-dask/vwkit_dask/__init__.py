"""The executor `dask` for vwkit: the chunks of a run on many processes or machines."""

from __future__ import annotations

from typing import Any

import vwkit
from vwkit_dask.executor import Dask

__all__ = ["Dask", "vwkit_backends"]


@vwkit.hookimpl
def vwkit_backends() -> list[type[Any]]:
    """Bring `dask`."""
    return [Dask]
