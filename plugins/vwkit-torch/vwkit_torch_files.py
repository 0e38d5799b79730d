"""Model files of PyTorch: what kind one is, and what is in it, without unpickling anything.

Three kinds of archives look alike from outside: programs of ``torch.export`` (a graph as JSON and
raw numbers), TorchScript (code), and checkpoints (a pickle, which may hold any code). Only the
first can be read as data.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from typing import Any, Literal

from vwkit.errors import ParameterError, PluginError

__all__ = ["EXPORTED", "FILE", "Archive", "DamagedError", "imported", "kind_of", "refused"]

#: The name of a model that is kept, and the ending of files that are only ever read as data.
FILE = "model.pt2"
EXPORTED = Path(FILE).suffix

_HOW = "save it with torch.export.save, or torch.jit.save"


class DamagedError(Exception):
    """A model file does not hold what it should."""


def imported() -> Any:
    """Import PyTorch when it is needed.

    Raises
    ------
    PluginError
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise PluginError(f"featurizer torch: needs torch ({error}): pip install torch") from None


def refused(file: Path, text: str) -> ParameterError:
    """Return the error that a model file cannot be used."""
    return ParameterError.of("model", f"{file}: {text}")


def kind_of(file: Path) -> Literal["exported", "torchscript"]:
    """Tell which of the two kinds of models a file is.

    A file whose name ends with ``.pt2`` is never taken for TorchScript, whatever is in it.

    Raises
    ------
    ParameterError
        There is none, or it is another kind of file; the text says which.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
    except FileNotFoundError:
        raise refused(file, "no such file") from None
    except OSError as error:
        raise refused(file, f"cannot be read: {error.strerror}") from None
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
    except Exception:  # whatever a damaged archive leads to
        raise refused(file, _no_archive(start)) from None
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        return "exported"
    if any(name.startswith("code/") for name in names):
        if file.suffix == EXPORTED:
            raise refused(
                file,
                f"TorchScript, which is a program, under the ending {EXPORTED} of data; if you "
                "trust it, give it the ending .pt",
            )
        return "torchscript"
    if "serialized_exported_program.json" in names:
        raise refused(
            file, "written by torch.export.save of an older PyTorch; save it anew with a newer one"
        )
    if "data.pkl" in names:
        raise refused(
            file,
            f"a checkpoint of torch.save: numbers without the network, or a pickle; {_HOW}",
        )
    raise refused(file, f"an archive, but no model of PyTorch; {_HOW}")


def _no_archive(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "a placeholder of Git LFS, not the model: run git lfs pull"
    if start.startswith(b"\x80"):
        return f"a pickle, which could run any program when opened; {_HOW}"
    if start[8:9] == b"{":
        return f"numbers without the network (safetensors); {_HOW}"
    if start.startswith(b"PK"):
        return "a damaged archive; fetch or make it again"
    return f"not a model of PyTorch, or damaged; {_HOW}"


class Archive:
    """An archive of ``torch.export.save``: named records, none of them compressed or pickled.

    Parameters
    ----------
    file : Path

    Raises
    ------
    DamagedError
    """

    def __init__(self, file: Path) -> None:
        self._zip = zipfile.ZipFile(file)
        records = [info for info in self._zip.infolist() if not info.is_dir()]
        size = file.stat().st_size
        # So no record, and not all of them together, can be larger than the file.
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in records)
        if not stored or sum(info.file_size for info in records) > size:
            raise DamagedError("its records are compressed")
        self._records = {info.filename.partition("/")[2]: info for info in records}
        order = self.text("byteorder").strip() if "byteorder" in self else "little"
        if order != sys.byteorder:
            raise DamagedError(f"its numbers are {order}-endian, those of this machine are not")

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def names(self, folder: str) -> list[str]:
        """Return the records below a folder."""
        return sorted(name for name in self._records if name.startswith(folder))

    def size(self, name: str) -> int:
        """Return a record's length in bytes."""
        return self._record(name).file_size

    def text(self, name: str) -> str:
        """Return a record as text."""
        return self._zip.read(self._record(name)).decode("utf-8")

    def json(self, name: str) -> Any:
        """Return what a record of JSON says."""
        return json.loads(self.text(name))

    def read_into(self, name: str, target: Any) -> None:
        """Fill a writable buffer with a record of its length."""
        view = memoryview(target)
        done = 0
        with self._zip.open(self._record(name)) as record:
            while done < len(view):
                count = record.readinto(view[done:])  # type: ignore[attr-defined]
                if not count:
                    raise DamagedError(f"its record {name} is cut short")
                done += count
            if record.read(1):  # at the end the checksum is compared
                raise DamagedError(f"its record {name} is too long")

    def _record(self, name: str) -> zipfile.ZipInfo:
        if name not in self._records:
            raise DamagedError(f"it has no record {name}")
        return self._records[name]
