"""Fuzzing: what every reader of strangers' files does with damaged and hostile ones.

Each target runs in a process of its own, under a watchdog and a bound of its memory. Anything but an error
of vwkit's own is a failure: another exception, the end of the process, too long, too much memory. Inputs
that fail are written to a folder (``--failures``), each with a smaller copy that fails alike.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import machine, table
from benchmarks.fuzzing.shrinking import shrunk
from benchmarks.fuzzing.target import targets
from benchmarks.fuzzing.working import State, keep_failure, key_of

_CASES = {True: 100_000, False: 10_000}  # cheap targets, dear ones
_STUCK = 60.0  # seconds; then not even the watchdog within the process could end a case
_START = 300.0  # for imports, and for making the valid inputs
_CRASHES = 25  # of a process; then the target is given up

PARTS = tuple(targets())


def main(options):
    print(machine(1, ("numpy", "atheris", "vwkit")))
    guided = _has_atheris() and options.engine != "own"
    root = Path(options.failures)
    before = _known(root)
    rows, every = [], 0
    names = options.parts or PARTS
    for name in names:
        row = _fuzzed(targets()[name], options, root, guided)
        rows.append(row)
        every += row[1]
        print(f"  {name}: {row[1]:,} cases, {row[4]} new failures", file=sys.stderr, flush=True)
    head = ["target", "cases", "cases a second", "engine", "new failures", "peak memory, MiB"]
    table(f"{every:,} cases of {len(rows)} targets", head, rows)
    for path in sorted(_known(root) - before):
        said = json.loads(path.with_suffix(".json").read_text())
        print(f"\n{path}: {said['what']}")


def _known(root):
    return set(root.glob("*/*.bin")) - set(root.glob("*/*.small.bin"))


def _has_atheris():
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def _fuzzed(target, options, root, guided):
    missing = target.missing()
    if missing:
        return [target.name, 0, 0.0, f"needs {missing}", 0, 0]
    failures = root / target.name
    failures.mkdir(parents=True, exist_ok=True)
    before = set(failures.glob("*.json"))
    guided = guided and target.guided
    cases = options.count or _CASES[target.cheap]
    begin = time.monotonic()
    with scratch() as folder:
        task = {
            "target": target.name,
            "folder": str(folder),
            "state": str(folder / "state"),
            "failures": str(failures.absolute()),
            "guided": guided,
            "seed": 0,
            "begin": 0,
            "cases": cases,
        }
        done, most, crashes = 0, 0, 0
        end = begin + options.limit if options.limit else None
        while done < cases and (end is None or time.monotonic() < end) and crashes < _CRASHES:
            task["begin"], task["seed"] = done, crashes if guided else 0
            task["seconds"] = end - time.monotonic() if end else 1e6
            done, used, died, data = _worked(task, folder)
            most = max(most, used)
            if died:
                crashes += 1
                _note_crash(failures, died, data, folder)
                done += 1
        took = time.monotonic() - begin
        new = sorted(set(failures.glob("*.json")) - before)
        for path in new:
            shrunk(task, path.with_suffix(".bin"))
    with contextlib.suppress(OSError):
        failures.rmdir()
    engine = "atheris" if guided else "own"
    return [target.name, done, done / took, engine, len(new), most >> 20]


@contextlib.contextmanager
def scratch():
    """Give a folder, in memory where that is possible: cases write small files by the thousand."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp("", "vwkit-fuzz-", where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _worked(task, folder):
    """Run cases until they are done or one ends the process.

    Returns cases, peak memory, why the process died (or None), and its last input.
    """
    state = Path(task["state"])
    state.unlink(missing_ok=True)
    held = State(state)
    with (folder / "out").open("w") as out, (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fuzzing.working", json.dumps(task)],
            cwd=Path(__file__).parents[1],
            stdout=out,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # its own children die with it
            env={**os.environ, **_SINGLE},
        )
        died = None
        started, case, waited = time.monotonic(), 0.0, 0.0
        while process.poll() is None:
            time.sleep(0.1)
            _, since, _, _ = held.read()
            if since != case:
                case, waited = since, _kept_waiting(process.pid)
            quiet = time.monotonic() - max(since, started if since else started + _START - _STUCK)
            # That others had the processors is no fault of the case.
            if quiet - (_kept_waiting(process.pid) - waited) > _STUCK:
                died = f"Hang: nothing came back within {_STUCK:g} seconds"
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    cases, _, most, data = held.read()
    held.close()
    if died is None and process.returncode:
        died = _why(process.returncode, folder / "errors")
    return cases, most, died, data


def _kept_waiting(pid):
    """Return the seconds that a process was ready and not let run, where the system tells."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


_SINGLE = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


def _why(status, errors):
    lines = errors.read_text(errors="replace").strip().splitlines()
    frame = next((one.strip() for one in lines if "vwkit" in one and "File" in one), "")
    if status < 0:
        return f"{signal.Signals(-status).name} {frame[-90:]}: the process died"
    return f"Exit {status} {frame[-90:]}: {' '.join(lines[-1:])[:200]}"


def _note_crash(failures, why, data, folder):
    for path in failures.glob("*.json"):
        if key_of(json.loads(path.read_text())["what"]) == key_of(why):
            return
    lines = (folder / "errors").read_text(errors="replace").splitlines()
    told = "\n".join(line for line in lines if not line.startswith(("INFO:", "WARNING:")))
    keep_failure(failures, why, told[-8000:], data)
