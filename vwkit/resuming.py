"""What a run folder must have in common with a spec to be gone on with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vwkit.errors import RunError
from vwkit.hashing import content_key
from vwkit.run_folder import INNER, read_small, write_synced

__all__ = ["Pending", "check_same_spec"]

# They decide how a run goes and not what comes of it: a killed run may go on with more memory.
_BUDGETS = ("run.threads", "run.memory", "run.executor")


def check_same_spec(
    folder: Path, before: Any, now: dict[str, Any], *, paths: tuple[str, str] | None
) -> None:
    """Refuse a folder that holds a run of another spec.

    Parameters
    ----------
    folder : Path
        The run folder, for the message.
    before, now : dict
        The specs, with every default and absolute path written out.
    paths : (str, str), optional
        The folders of the two spec files. Absolute paths are the same if they are, or lead from
        these folders to the same place. Without it any two absolute paths are.

    Raises
    ------
    RunError
        It names the keys that differ. Threads, memory and executor may.
    """
    differing = sorted(
        key
        for key in _differences("", before, now, paths)
        if not any(key == budget or key.startswith(f"{budget}.") for budget in _BUDGETS)
    )
    if differing:
        raise RunError(
            f"{folder}: holds a run of another spec; these keys differ: {', '.join(differing)}. "
            "Run without --resume to replace it, or name another folder with --out"
        )


def _differences(path: str, before: Any, now: Any, paths: tuple[str, str] | None) -> set[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        found: set[str] = set()
        for key in before.keys() | now.keys():
            below = f"{path}.{key}" if path else str(key)
            found |= _differences(below, before.get(key), now.get(key), paths)
        return found
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        found = set()
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            found |= _differences(f"{path}[{i}]", old, new, paths)
        return found
    return set() if before == now or _same_place(before, now, paths) else {path}


def _same_place(before: Any, now: Any, paths: tuple[str, str] | None) -> bool:
    if not (isinstance(before, str) and isinstance(now, str)):
        return False
    if not (os.path.isabs(before) and os.path.isabs(now)):
        return False
    return paths is None or os.path.relpath(before, paths[0]) == os.path.relpath(now, paths[1])


class Pending:
    """The outputs of a finished run that are still to be written, whatever lies in their places.

    Parameters
    ----------
    folder : Path
        The run folder.
    count : int
        How many outputs there are.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._path = folder / INNER / "outputs.json"
        self._left = set[int]()
        try:
            said = json.loads(read_small(self._path))
            if said["key"] != content_key(said["left"]):
                raise ValueError
            self._left = set(said["left"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):
            self._left = set(range(count))  # damaged: all are written again

    @classmethod
    def all(cls, folder: Path, count: int) -> None:
        """Note that none of the outputs is written."""
        pending = cls(folder, 0)
        pending._left = set(range(count))
        pending._write()

    def _write(self) -> None:
        left = sorted(self._left)
        if left:
            write_synced(self._path, json.dumps({"left": left, "key": content_key(left)}))
        else:
            self._path.unlink(missing_ok=True)

    def __contains__(self, number: int) -> bool:
        return number in self._left

    def done(self, number: int) -> None:
        """Note that an output is written."""
        if number in self._left:
            self._left.remove(number)
            self._write()
