"""The process that runs cases: ``python -m benchmarks.fuzzing.working TASK``.

It may be killed by what it reads. So the case that it is at stands in a file that is mapped, where the
process that started it (`benchmarks.fuzz`) finds it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import hashlib
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.mutating import mutated
from benchmarks.fuzzing.target import GROWTH, SECONDS, SPACE, Case, Target, named

__all__ = ["Hang", "State", "signature", "watched"]

_HEAD = struct.Struct("<QdQQ")
_ROOM = 1 << 20


class Hang(BaseException):
    """A case took too long; no `except Exception` may swallow it."""


class Bloat(BaseException):
    """A case took too much memory."""


class State:
    """What a worker is doing, in a file that outlives it: cases begun, when, peak memory, the input."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_HEAD.size + _ROOM))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _HEAD.size + _ROOM)

    def begin(self, cases: int, data: bytes) -> None:
        self._map[_HEAD.size : _HEAD.size + len(data)] = data
        self._map[: _HEAD.size] = _HEAD.pack(cases, time.monotonic(), peak(), len(data))

    def read(self) -> tuple[int, float, int, bytes]:
        cases, since, most, length = _HEAD.unpack(self._map[: _HEAD.size])
        return cases, since, most, self._map[_HEAD.size : _HEAD.size + length]

    def close(self) -> None:
        self._map.close()


def peak() -> int:
    """Return the most memory that this process ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def watched(case: Case, data: bytes) -> BaseException | None:
    """Run one case under the watchdog; return what came out that must not."""

    def rings(*_: Any) -> None:
        raise Hang(f"more than {SECONDS:g} seconds of work")

    before = peak()
    # Its own time, not the clock's: a busy machine is no fault of the case. Whoever waits for something
    # is found out by the process that started this one.
    signal.signal(signal.SIGPROF, rings)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 0.5)  # again, should the first be swallowed
    try:
        try:
            case(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (Exception, Hang) as error:
        return error
    if peak() - before > GROWTH:
        return Bloat(f"{(peak() - before) >> 20} MiB for {len(data):,} bytes")
    return None


def signature(error: BaseException) -> str:
    """Say what failed and where, so that equal failures count once."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "/fuzzing/" not in one.filename]
    named = [one for one in ours if "vwkit" in one.filename] or ours or list(frames)
    place = f"{Path(named[-1].filename).name}:{named[-1].lineno}" if named else "?"
    kind = type(error).__name__
    if isinstance(error, Hang | Bloat):
        place = "" if isinstance(error, Bloat) else place
    return f"{kind} {place}: {' '.join(str(error).split())[:100]}"


def key_of(text: str) -> str:
    """Return what two failures have in common if they are one: all before the message."""
    return text.split(": ")[0]


class Finder:
    """Runs cases and keeps the first of each kind of failure."""

    def __init__(self, target: Target, task: dict[str, Any]) -> None:
        self.case = Case(target, Path(task["folder"]) / "case")
        self.state = State(Path(task["state"]))
        self.failures = Path(task["failures"])
        self.done = int(task["begin"])
        self._seen: set[str] = set()
        for path in self.failures.glob("*.json"):
            self._seen.add(key_of(json.loads(path.read_text())["what"]))

    def __call__(self, data: bytes) -> None:
        self.state.begin(self.done, data)
        self.done += 1
        error = watched(self.case, data)
        if error is not None:
            self._keep(error, data)
        if self.done % 2000 == 0:
            gc.collect()

    def _keep(self, error: BaseException, data: bytes) -> None:
        what = signature(error)
        if key_of(what) in self._seen:
            return
        self._seen.add(key_of(what))
        stack = "".join(traceback.format_exception(error))
        keep_failure(self.failures, what, stack, data)


def keep_failure(folder: Path, what: str, stack: str, data: bytes) -> Path:
    """Write a failing input and what it did."""
    name = hashlib.sha256(data).hexdigest()[:12]
    (folder / f"{name}.bin").write_bytes(data)
    (folder / f"{name}.json").write_text(json.dumps({"what": what, "stack": stack}, indent=1))
    return folder / f"{name}.bin"


def main() -> None:
    task = json.loads(sys.argv[1])
    faulthandler.enable()
    os.environ.setdefault("VWKIT_CACHE", str(Path(task["folder"]) / "cache"))
    if task["guided"]:
        import atheris

        with atheris.instrument_imports(include=["vwkit"]):
            _imports()
            target = named(task["target"])
            seeds = _seeds(target, task)
    else:
        target = named(task["target"])
        seeds = _seeds(target, task)
    if task.get("only"):  # one input, again and again while it is made smaller
        _bounded()
        error = watched(
            Case(target, Path(task["folder"]) / "case"), Path(task["only"]).read_bytes()
        )
        print(json.dumps({"what": None if error is None else signature(error)}))
        return
    finder = Finder(target, task)
    for data in seeds if not task["begin"] else ():
        finder(data)  # valid inputs are cases too, and fill caches before memory is bounded
    _bounded()
    end = time.monotonic() + task["seconds"]
    if task["guided"]:
        _guided(finder, target, task, seeds)
    while finder.done < task["cases"] and time.monotonic() < end:
        rng = random.Random(f"{task['seed']} {target.name} {finder.done}")
        finder(mutated(seeds, target.words, target.largest, rng))
    finder.state.begin(finder.done, b"")
    print(json.dumps({"cases": finder.done}))


def _seeds(target: Target, task: dict[str, Any]) -> list[bytes]:
    folder = Path(task["folder"]) / "seeds"
    folder.mkdir(parents=True, exist_ok=True)
    made = [data[: target.largest] for data in target.seeds(folder)]
    return sorted(set(made), key=lambda one: (len(one), one))


def _imports() -> None:
    import importlib

    for name in ("vwkit.pipeline", "vwkit.checking", "vwkit.metadata", "vwkit.where", "vwkit.run"):
        importlib.import_module(name)


def _bounded() -> None:
    """Bound what the process may ask of the system from here on."""
    with contextlib.suppress(OSError, ValueError):
        now = _space()
        resource.setrlimit(resource.RLIMIT_AS, (now + SPACE, now + SPACE))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))


def _space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _guided(finder: Finder, target: Target, task: dict[str, Any], seeds: list[bytes]) -> None:
    """Let libFuzzer lead; it ends the process."""
    import atheris

    corpus = Path(task["folder"]) / "corpus"
    corpus.mkdir(exist_ok=True)
    for data in seeds:
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    words = Path(task["folder"]) / "words"
    words.write_text("".join(_word(one) for one in target.words if one))
    left = task["cases"] - finder.done

    def mutator(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return atheris.Mutate(data, most)  # type: ignore[no-any-return]
        return mutated([data], target.words, most, rng)

    def one(data: bytes) -> None:
        if finder.done >= task["cases"]:
            finder.state.begin(finder.done, b"")
            sys.stdout.flush()
            os._exit(0)
        finder(data)

    flags = [
        f"-max_total_time={max(1, int(task['seconds']))}",
        f"-runs={left}",
        f"-seed={task['seed'] + 1}",
        f"-max_len={target.largest}",
        f"-dict={words}",
        f"-artifact_prefix={task['folder']}/",
        "-timeout=600",  # atheris takes 0 for a very short time; our own watchdog is stricter
        "-rss_limit_mb=0",
        "-malloc_limit_mb=0",
        "-verbosity=0",
        "-print_final_stats=0",
        "-handle_segv=0", "-handle_bus=0", "-handle_abrt=0", "-handle_ill=0", "-handle_fpe=0",
        "-len_control=0",
    ]  # fmt: skip
    atheris.Setup(["fuzz", *flags, str(corpus)], one, custom_mutator=mutator)
    atheris.Fuzz()


def _word(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


if __name__ == "__main__":
    main()
