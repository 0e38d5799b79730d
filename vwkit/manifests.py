"""The manifest of a saved folder: what it must be before anything else of the folder is looked at."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from vwkit.errors import ArtifactError

__all__ = [
    "FORMAT",
    "HASHED",
    "MANIFEST",
    "inside",
    "is_artifact",
    "own_sha256",
    "read_manifest",
    "text_of",
]

FORMAT = 1
MANIFEST = "manifest.json"
#: Names of ours in a saved folder: what it is called, and the hash of its content.
HASHED = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.]*-[0-9a-f]{16}(\.npy)?$")

_LARGEST = 16 << 20


def is_artifact(folder: Path) -> bool:
    """Tell whether a folder holds a manifest of ours (nothing is checked yet)."""
    return (folder / MANIFEST).is_file()


def text_of(manifest: dict[str, Any]) -> str:
    """Return a manifest as its file holds it."""
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def own_sha256(manifest: dict[str, Any]) -> str:
    """Hash the manifest itself, without the entry that holds the result."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(text_of(rest).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a folder's manifest; that it is one, and unchanged, is checked, and nothing of its files.

    Raises
    ------
    ArtifactError
    """
    path = folder / MANIFEST
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST:
            raise ArtifactError(f"{path}: not a manifest of vwkit")
        text = path.read_bytes().decode("utf-8")
        manifest = json.loads(text)
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder}: no {MANIFEST} in it, so it is not something that vwkit saved"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ArtifactError(f"{path}: not valid JSON; damaged, make it again") from None
    _check_manifest(path, manifest, text)
    checked: dict[str, Any] = manifest
    return checked


def _check_manifest(path: Path, manifest: Any, text: str) -> None:
    def need(fine: bool) -> None:
        if not fine:
            raise ArtifactError(f"{path}: not a manifest of vwkit, or damaged; make it again")

    need(isinstance(manifest, dict) and type(manifest.get("format")) is int)
    need(manifest["format"] > 0)
    if manifest["format"] > FORMAT:
        raise ArtifactError(
            f"{path}: format {manifest['format']}, made by a newer vwkit; "
            f"this one reads up to format {FORMAT}: update vwkit"
        )
    # Equal text too: a changed byte need not change what it means.
    need(manifest.get("sha256") == own_sha256(manifest) and text == text_of(manifest))
    need(isinstance(manifest.get("files"), dict))
    for entry in manifest["files"].values():
        need(isinstance(entry, dict) and type(entry.get("bytes")) is int)
        need(isinstance(entry.get("sha256"), str))
    arrays = manifest.get("arrays", {})
    need(isinstance(arrays, dict))
    need(all(isinstance(name, str) and name in manifest["files"] for name in arrays.values()))
    native = manifest.get("native")
    need(native is None or (isinstance(native, str) and HASHED.match(native) is not None))
    children = manifest.get("children", {})
    need(isinstance(children, dict))
    for entry in children.values():
        need(isinstance(entry, dict) and isinstance(entry.get("sha256"), str))
        need(isinstance(entry.get("folder"), str) and HASHED.match(entry["folder"]) is not None)


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file that the manifest names, if it cannot lead out of the folder.

    Raises
    ------
    ArtifactError
    """
    parts = PurePosixPath(name).parts
    plain = parts and "\\" not in name and not any(part in ("..", "/") for part in parts)
    path = folder / name
    if not plain or not path.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{folder}: its manifest names {name!r}, outside the folder")
    return path
