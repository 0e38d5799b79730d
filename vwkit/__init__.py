"""vwkit: visual words and visual search from swappable backends.

Public names are loaded when they are first used, so that importing vwkit costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Backend": "base",
    "Clusterer": "clusterer",
    "Executor": "around",
    "Features": "types",
    "Featurizer": "featurizer",
    "Field": "base",
    "Fraction": "types",
    "Image": "image",
    "Index": "index",
    "Item": "types",
    "Job": "jobs",
    "Matches": "types",
    "Nested": "base",
    "Pipeline": "pipeline",
    "Positive": "types",
    "Quantizer": "quantizer",
    "Reader": "featurizer",
    "Run": "run",
    "Skipped": "types",
    "Sparse": "sparse",
    "Stream": "stream",
    "Transform": "transform",
    "backend": "base",
    "backends": "api",
    "create": "base",
    "derive_seed": "hashing",
    "hookimpl": "hookspecs",
    "job": "jobs",
    "load": "base",
    "read": "api",
    "use_job": "jobs",
    "write": "api",
}
# Errors and warnings are part of the package's face too.
_ERRORS = (
    "ArtifactError", "BackendError", "CacheWarning", "CheckpointWarning", "DataError", "FewDistinctRows",
    "FormatError", "ImageError", "Interrupted", "NotFittedError", "ParameterError",
    "PluginError", "PluginWarning", "RunError", "ShapeError", "SkippedItems", "SpecError",
    "UnknownNameError", "UnsupportedError", "VwkitError",
)  # fmt: skip
_HOMES.update(dict.fromkeys(_ERRORS, "errors"))

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from vwkit.api import backends as backends
    from vwkit.api import read as read
    from vwkit.api import write as write
    from vwkit.around import Executor as Executor
    from vwkit.base import Backend as Backend
    from vwkit.base import Field as Field
    from vwkit.base import Nested as Nested
    from vwkit.base import backend as backend
    from vwkit.base import create as create
    from vwkit.base import load as load
    from vwkit.clusterer import Clusterer as Clusterer
    from vwkit.errors import ArtifactError as ArtifactError
    from vwkit.errors import BackendError as BackendError
    from vwkit.errors import CacheWarning as CacheWarning
    from vwkit.errors import CheckpointWarning as CheckpointWarning
    from vwkit.errors import DataError as DataError
    from vwkit.errors import FewDistinctRows as FewDistinctRows
    from vwkit.errors import FormatError as FormatError
    from vwkit.errors import ImageError as ImageError
    from vwkit.errors import Interrupted as Interrupted
    from vwkit.errors import NotFittedError as NotFittedError
    from vwkit.errors import ParameterError as ParameterError
    from vwkit.errors import PluginError as PluginError
    from vwkit.errors import PluginWarning as PluginWarning
    from vwkit.errors import RunError as RunError
    from vwkit.errors import ShapeError as ShapeError
    from vwkit.errors import SkippedItems as SkippedItems
    from vwkit.errors import SpecError as SpecError
    from vwkit.errors import UnknownNameError as UnknownNameError
    from vwkit.errors import UnsupportedError as UnsupportedError
    from vwkit.errors import VwkitError as VwkitError
    from vwkit.featurizer import Featurizer as Featurizer
    from vwkit.featurizer import Reader as Reader
    from vwkit.hashing import derive_seed as derive_seed
    from vwkit.hookspecs import hookimpl as hookimpl
    from vwkit.image import Image as Image
    from vwkit.index import Index as Index
    from vwkit.jobs import Job as Job
    from vwkit.jobs import job as job
    from vwkit.jobs import use_job as use_job
    from vwkit.pipeline import Pipeline as Pipeline
    from vwkit.quantizer import Quantizer as Quantizer
    from vwkit.run import Run as Run
    from vwkit.sparse import Sparse as Sparse
    from vwkit.stream import Stream as Stream
    from vwkit.transform import Transform as Transform
    from vwkit.types import Features as Features
    from vwkit.types import Fraction as Fraction
    from vwkit.types import Item as Item
    from vwkit.types import Matches as Matches
    from vwkit.types import Positive as Positive
    from vwkit.types import Skipped as Skipped


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'vwkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vwkit.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
