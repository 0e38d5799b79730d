"""What the cases of `faults` are made with: a spec, what it makes in peace, and a judge of bytes."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
# Made anew each time: times, and what names the folder of the run.
LEFT_OUT = {"manifest.json", "report.html"}


class Tally:
    """What became of one kind of fault."""

    def __init__(self):
        self.tried = self.same = self.refused = 0
        self.bad, self.notes = [], []

    def count(self, same, what):
        self.tried += 1
        if same:
            self.same += 1
        else:
            self.bad.append(what)


class Bench:
    """One spec with its data, and what it makes in peace."""

    def __init__(self, work, name, spec, repeats):
        self.work, self.name, self.repeats = work, name, repeats
        self.random = random.Random(f"0 {name}")
        work.mkdir()
        make_data(work)
        whole = {"vwkit": 1, "seed": 1, **spec, "run": {"threads": 2}}
        (work / "s.yaml").write_text(json.dumps(whole))
        made, took = [], []
        for number in range(2):
            start = time.monotonic()
            done = self.run("whole", f"cache-{number}", {"count": str(work / "count")})
            took.append(time.monotonic() - start)
            if done.returncode:
                raise SystemExit(f"{name}: in peace it fails: {done.stderr}")
            made.append(self.made("whole"))
            if number == 0:
                self.clear("whole")
        self.seconds = min(took)
        self.count, self.memory = json.loads((work / "count").read_text())
        first, second = made
        self.expected = {key: value for key, value in first.items() if second.get(key) == value}
        self.unequal = sorted(
            set(first) ^ set(second) | {k for k in first if k not in self.expected}
        )
        print(f"{name}: {len(self.expected)} files, {self.count} operations, "
              f"{self.seconds:.1f} s; differ in peace: {self.unequal or 'none'}", flush=True)  # fmt: skip

    # Running

    def command(self, out, task=None):
        arguments = ["run", "s.yaml", "--quiet", "--resume", "--out", out]
        if task is None:
            return [sys.executable, "-m", "vwkit", *arguments]
        return [sys.executable, "-m", "benchmarks.harmed", json.dumps([arguments, task])]

    def environment(self, cache):
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "VWKIT_CACHE": str(self.work / cache), "PYTHONPATH": paths}

    def run(self, out, cache, task=None, limits=None):
        return subprocess.run(
            self.command(out, task),
            cwd=self.work,
            env=self.environment(cache),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            preexec_fn=limits,
        )

    def clear(self, *names):
        for name in (*names, "out"):
            shutil.rmtree(self.work / name, ignore_errors=True)

    def made(self, out):
        found = {}
        for kind, top in (("run", self.work / out), ("out", self.work / "out")):
            for path in sorted(top.rglob("*")):
                inside = path.relative_to(top)
                if path.is_symlink():
                    found[f"{kind}/{inside}"] = os.readlink(path).encode()
                elif path.is_file() and ".run" not in inside.parts and str(inside) not in LEFT_OUT:
                    found[f"{kind}/{inside}"] = path.read_bytes()
        return found

    def differing(self, out):
        """Name the files of a run that are not as they should be, but for what differs in peace."""
        found = self.made(out)
        names = (found.keys() | self.expected.keys()) - set(self.unequal)
        return sorted(name for name in names if found.get(name) != self.expected.get(name))

    def finish(self, tally, out, cache, what):
        """Resume in peace, and compare."""
        done = self.run(out, cache)
        if done.returncode:
            tally.count(False, f"{what}: not resumed: {done.stderr.strip()[-300:]}")
        else:
            self.compare(tally, out, what)
        self.clear("cut", "cache-cut")

    def drawn(self, most):
        """Return numbers of operations of the file system: all of them, or as many drawn."""
        every = range(1, self.count + 1)
        return list(every) if len(every) <= most else sorted(self.random.sample(every, most))

    # Judging

    def compare(self, tally, out, what):
        differing = self.differing(out)
        tally.count(not differing, f"{what}: other bytes: {', '.join(differing[:5])}")

    def tried_here(self, tally, out, cache, what):
        """Resume within this process, which is quicker."""
        import warnings

        from vwkit.pipeline import Pipeline

        os.environ["VWKIT_CACHE"] = str(self.work / cache)
        with contextlib.chdir(self.work), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                Pipeline.from_file("s.yaml").run(out, resume=True)
            except Exception as error:
                self.refused(tally, error, what)
                return
            if self.differing(out):
                # It was finished before it was damaged: then whoever reads it is to be told.
                try:
                    look(self.work / out)
                except Exception as error:
                    self.refused(tally, error, what)
                    return
            self.compare(tally, out, what)

    def refused(self, tally, error, what):
        from vwkit.errors import VwkitError

        tally.tried += 1
        if isinstance(error, VwkitError):
            tally.refused += 1
            if os.environ.get("VWKIT_FAULTS_TOLD"):
                print(f"{what}: {error}")
        else:
            tally.bad.append(f"{what}: {type(error).__name__}: {error}")

    def clear_error(self, tally, done, what):
        """Note a run that failed without a clear word."""
        if done.returncode and not clear(done):
            tally.bad.append(f"{what}: status {done.returncode}: {done.stderr.strip()[-300:]}")


def clear(done):
    """Tell whether a run that failed said why, in one line."""
    return done.returncode in (1, 2) and "error: " in done.stderr and "Traceback" not in done.stderr


def look(folder):
    """Return all that a finished run says of itself and holds."""
    import vwkit
    from vwkit.artifact import open_artifact

    run = vwkit.Run.open(folder)
    said = [(item.id, item.status, item.size) for item in run.items]
    for name in sorted(run.manifest["stages"]):
        stage = open_artifact(run.path(name))
        said.append((name, sorted(stage.manifest["files"])))
        said += [(name, key, array.tobytes()) for key, array in sorted(stage.arrays().items())]
    return said


def make_data(work):
    """Write photos and descriptors."""
    import PIL.Image

    import vwkit

    generator = np.random.default_rng(0)
    (work / "photos").mkdir()
    for number in range(16):
        # Blocks of several sizes: something for a detector to find.
        picture = np.zeros((120, 160, 3))
        for size in (4, 8, 20, 40):
            blocks = generator.integers(0, 256, (120 // size, 160 // size, 3))
            picture += np.kron(blocks, np.ones((size, size, 1)))
        image = PIL.Image.fromarray((picture / 4).astype(np.uint8))
        image.save(work / "photos" / f"{number:02}.png")
    centers = generator.integers(0, 200, (300, 32))
    rows = centers[generator.integers(0, 300, 40_000)] + generator.integers(0, 56, (40_000, 32))
    vwkit.write(work / "x.bvecs", rows.astype(np.uint8))
