"""Tools that watch what a backend does besides answering, and processes of its own."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np

from vwkit.types import Array

__all__ = [
    "HEAVY",
    "answers_of_another_process",
    "captured",
    "generators",
    "global_state",
    "manifest",
    "modules_after_import",
    "no_pickle",
    "pickles",
]

# Importing a plugin must not load these: `vwkit backends` imports every plugin that is installed.
HEAVY = frozenset(
    {
        "annoy", "cv2", "dask", "distributed", "faiss", "h5py", "hnswlib", "matplotlib", "numba",
        "onnxruntime", "pandas", "plotly", "pqkmeans", "pyarrow", "pyflann", "pyflann_ibeis",
        "pynndescent", "scipy", "skimage", "sklearn", "tensorflow", "torch", "umap", "usearch",
    }
)  # fmt: skip

_LIGHT_IMPORT = """
import importlib, importlib.util, json, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    found = importlib.util.find_spec(sys.argv[2])
except (ImportError, ValueError):
    found = None
if found is not None:
    importlib.import_module(sys.argv[2])
print()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules}) if found else None))
"""

_ANSWER = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
module, name, folder = sys.argv[2:5]
import numpy as np
import vwkit
from vwkit.plugins import registered
from vwkit.testing.asking import ask
cls = importlib.import_module(module)
for part in name.split("."):
    cls = getattr(cls, part)
with np.load(folder + "/questions.npz", allow_pickle=False) as held:
    questions = [held[key] for key in held.files]
with registered(cls):
    loaded = vwkit.load(folder + "/saved")
    answer = ask(loaded, questions if cls.role == "featurizer" else questions[0])
np.savez(folder + "/answer.npz", *answer)
"""


@functools.cache
def modules_after_import(module: str) -> frozenset[str] | None:
    """Return the top-level modules of a new process that imported `module`, None if it cannot."""
    if module == "__main__":
        return None
    written = _python(_LIGHT_IMPORT, module, what=f"importing {module}")
    found = json.loads(written.rstrip("\n").rpartition("\n")[2])
    return None if found is None else frozenset(found)


def answers_of_another_process(
    cls: type[Any], folder: Path, questions: list[Array]
) -> tuple[Array, ...]:
    """Return what the backend saved in ``folder/saved`` answers when a new process loads it."""
    np.savez(folder / "questions.npz", *questions)
    what = f"loading what {cls.__name__} saved in a new process"
    _python(_ANSWER, cls.__module__, cls.__qualname__, str(folder), what=what)
    with np.load(folder / "answer.npz", allow_pickle=False) as held:
        return tuple(held[key] for key in held.files)


def _python(code: str, *arguments: str, what: str) -> str:
    command = [sys.executable, "-c", code, json.dumps([str(Path(p).resolve()) for p in sys.path])]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{what} fails:\n{done.stderr[-1500:]}"
    return done.stdout


@contextlib.contextmanager
def no_pickle() -> Iterator[None]:
    """Let every use of pickle fail with the reason."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError(
            "pickle was used to save or load; write plain arrays (_state) or the library's own "
            "file (_save): a pickle runs code when it is opened"
        )

    with contextlib.ExitStack() as stack:
        for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
            stack.enter_context(mock.patch(f"pickle.{name}", refuse))
        yield


def pickles(folder: Path) -> list[str]:
    """Return the files that are pickles: a protocol mark at the start, a stop mark at the end."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if len(content) > 2 and content[0] == 0x80 and content[1] <= 5 and content[-1:] == b".":
                found.append(path.name)
    return found


def manifest(folder: Path) -> str:
    """Return the text of an artifact's manifest, which holds a checksum of every file."""
    return (folder / "manifest.json").read_text(encoding="utf-8")


@contextlib.contextmanager
def generators(backend: type) -> Iterator[list[str]]:
    """Note with what NumPy's generators are seeded that a method of the backend makes, in order."""
    made = []
    default_rng = np.random.default_rng

    def noted(*args: Any, **options: Any) -> np.random.Generator:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not isinstance(frame.f_locals.get("self"), backend):
            frame = frame.f_back
        if frame is not None:  # it is not one that the test makes its data with
            made.append(", ".join(map(repr, (*args, *options.values()))))
        return default_rng(*args, **options)

    with mock.patch.object(np.random, "default_rng", noted):
        yield made


def global_state() -> tuple[Any, ...]:
    """Return the state of NumPy's global generator."""
    # The legacy generator is what must stay as it is.
    state = np.random.get_state(legacy=True)  # noqa: NPY002
    return tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in state)


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Take what Python and native code write to stdout and stderr."""
    python_text, native_text = io.StringIO(), b""
    _flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            with contextlib.redirect_stdout(python_text), contextlib.redirect_stderr(python_text):
                yield lambda: python_text.getvalue() + native_text.decode(errors="replace")
        finally:
            _flush()
            for place, handle in zip((1, 2), kept, strict=True):
                os.dup2(handle, place)
                os.close(handle)
            file.seek(0)
            native_text = file.read()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    with contextlib.suppress(Exception):
        # What C code printed waits in the C library's own buffers.
        ctypes.CDLL(None).fflush(None)
