"""Backends as artifacts: written, opened again, and sent to other processes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from vwkit.artifact import Artifact, open_artifact, write_artifact
from vwkit.errors import ArtifactError
from vwkit.plugins import registry
from vwkit.restoring import whole
from vwkit.types import Array

if TYPE_CHECKING:
    from vwkit.base import Backend

__all__ = ["library_version", "opened_artifact", "packed_files", "save_backend", "unpacked"]

B = TypeVar("B", bound="Backend")


def save_backend(backend: Backend, folder: str | Path, *, native: bool) -> None:
    """Write a backend to a folder, atomically; see `Backend.save`.

    Parameters
    ----------
    backend : Backend
    folder : path
    native : bool
        Whether its class writes a library's own files.
    """
    if backend._needs_fit():
        backend._need_fitted()
    entry = registry().entries.get((backend.role, backend.name), [None])[0]
    plain, core_arrays = backend._core_state()
    manifest: dict[str, Any] = {
        "role": backend.role,
        "name": backend.name,
        "params": backend._plain_params(arrays=False),
        "package": {
            "name": entry.package if entry else type(backend).__module__.split(".")[0],
            "version": entry.version if entry else "0",
        },
        "library": library_version(backend.library),
        "revision": backend.revision,
        "metric": getattr(backend, "metric", None),
        "fitted": backend._fitted,
        "identity": {"kind": backend._kind, "dim": backend._dim},
        "core": plain,
    }
    with write_artifact(folder, manifest) as draft:
        for name, parameter in backend.parameters().items():
            value = getattr(backend, parameter.attribute)
            if isinstance(value, np.ndarray):
                draft.array(f"param.{name}", value)
        for name, array in core_arrays.items():
            draft.array(f"core.{name}", array)
        if backend._fitted:
            if native:
                draft.native(backend._save)
            else:
                for name, array in backend._state().items():
                    draft.array(name, array)
        for name, child in backend._children().items():
            if child._fitted or not child._needs_fit():
                draft.child(name, child.save)


def opened_artifact(cls: type[B], artifact: Artifact, *, native: bool) -> B:
    """Make the backend that an artifact holds.

    Parameters
    ----------
    cls : type
        What the manifest names.
    artifact : Artifact
        Verified.
    native : bool
        Whether the class reads a library's own files.

    Raises
    ------
    ArtifactError
    """
    manifest = artifact.manifest
    arrays = artifact.arrays()
    _refuse_paths(cls, manifest["params"])
    params = {**manifest["params"], **_pop(arrays, "param.")}
    core = _pop(arrays, "core.")
    kept: dict[str, Any] = {}
    for name in manifest.get("children", {}):
        child = cls._open_child(name, cast("Path", artifact.child(name)))
        if name in cls.parameters():
            params[name] = child
        elif getattr(cls, f"_{name}", None) is None:
            kept[f"_{name}"] = child
        else:
            raise ArtifactError(f"it has no place for a {name}; damaged, make it again")
    made = cls(**params)
    vars(made).update(kept)
    identity = manifest.get("identity") or {}
    dim, kind = identity.get("dim"), identity.get("kind")
    made._dim = None if dim is None else whole("dim", dim)
    made._kind = None if kind is None else str(kind)
    made._restore_core(manifest.get("core") or {}, core)
    if manifest.get("fitted"):
        files = artifact.native
        if (files is None) == native:
            raise ArtifactError("it lacks the files of its kind; damaged, make it again")
        if files is not None:
            made._load(files)
        else:
            made._restore(arrays)
        made._check_restored()
        made._fitted = True
    return made


def _refuse_paths(cls: type[Backend], params: Mapping[str, Any]) -> None:
    """Refuse a manifest that names folders for nested backends: they lie in the artifact, or are new.

    Raises
    ------
    ArtifactError
    """
    for name, parameter in cls.parameters().items():
        if not parameter.nested:
            continue
        value = params.get(name)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                raise ArtifactError(
                    f"its parameter {name} names a path, {one[:80]!r}; an artifact holds what it "
                    "needs, so it is damaged or a stranger's: make it again"
                )
            if isinstance(one, Mapping):
                for role in parameter.nested:
                    for entry in registry().entries.get((role, str(one.get("use"))), []):
                        _refuse_paths(entry.cls, one)


def _pop(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays.pop(name) for name in names}


def library_version(library: str | None) -> str | None:
    """Return the installed version of a distribution."""
    if library is None:
        return None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{library} {importlib.metadata.version(library)}"
    return None


def packed_files(save: Callable[[Path], Any]) -> dict[str, bytes]:
    """Return the files of what `save` writes to a folder, by their paths in it."""
    with tempfile.TemporaryDirectory(prefix="vwkit-") as name:
        folder = Path(name) / "packed"
        save(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unpacked(cls: type[Backend], files: Mapping[str, bytes]) -> Backend:
    """Make a backend of the files that `packed_files` returned."""
    with tempfile.TemporaryDirectory(prefix="vwkit-") as name:
        for path, content in files.items():
            target = Path(name) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        artifact = open_artifact(name)
        made: Backend = cls._open(artifact)
        made._fingerprint = artifact.fingerprint
        return made
