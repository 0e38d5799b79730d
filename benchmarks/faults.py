"""Runs that are killed, starved of disk and memory, and damaged: does --resume end in the same bytes?

Each spec is run twice in peace; files that differ between these two are told and left out. Then every
fault is done to a real `vwkit run` (or to what is left of one), the run is resumed until it ends, and
what it made is compared byte by byte. A fault may also be refused, with one clear line.
"""

import contextlib
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import table

ROOT = Path(__file__).parents[1]
FAULTS = ("kills", "operations", "full", "limits", "tmpfs", "flips", "cache", "finished")
# Made anew each time: times, and what names the folder of the run.
LEFT_OUT = {"manifest.json", "report.html"}
KILLS = 3

SPECS = {
    "photos": {
        "images": {"path": "photos"},
        "featurizer": {
            "use": "bag-of-words",
            "local": {"use": "sift"},
            "vocabulary": {"use": "lloyd", "k": 200, "iterations": 6, "tolerance": 0.0},
        },
        "index": {"use": "inverted"},
        "output": [
            {"write": "words", "path": "out/words"},
            {"write": "index", "path": "out/index"},
        ],
    },
    "vectors": {
        "vectors": {"path": "x.bvecs"},
        "quantizer": {"use": "pq", "m": 8, "ks": 64, "train_rows": 20_000, "iterations": 5},
        "clusterer": {"use": "graph-pqkmeans", "k": 500, "iterations": 8, "tolerance": 0.0},
        "output": [
            {"write": "codes", "path": "out/codes.npy"},
            {"write": "words", "path": "out/words"},
            {"write": "vocabulary", "path": "out/vocabulary"},
        ],
    },
    "faiss": {
        "vectors": {"path": "x.bvecs"},
        "transform": [{"use": "pca", "dim": 16}],
        "clusterer": {"use": "lloyd", "k": 128, "iterations": 6, "tolerance": 0.0},
        "index": {"use": "faiss"},
        "output": [{"write": "labels", "path": "out/labels.npy"}],
    },
    "hnsw": {
        "vectors": {"path": "x.bvecs", "limit": 4000},
        "clusterer": {"use": "graph-kmeans", "k": 100, "iterations": 6, "tolerance": 0.0},
        "index": {"use": "hnsw", "threads": 1},
        "output": [{"write": "vocabulary", "path": "out/vocabulary"}],
    },
    "palette": {
        "images": {"path": "photos", "limit": 4},
        "featurizer": {"use": "pixels", "space": "lab"},
        "clusterer": {"use": "lloyd", "k": 12},
        "output": [{"write": "palette", "path": "out/palette"}],
    },
    "folders": {
        "images": {"path": "photos"},
        "featurizer": {"use": "colour-histogram"},
        "transform": [{"use": "pca", "dim": 8}],
        "clusterer": {"use": "agglomerative", "similarity": 0.5},
        "output": [{"write": "folders", "path": "out/folders"}],
    },
}
PARTS = (*SPECS, *FAULTS)


def main(options):
    chosen = options.parts or PARTS
    specs = [name for name in SPECS if name in chosen] or list(SPECS)
    faults = [name for name in FAULTS if name in chosen] or list(FAULTS)
    rows, bad = [], []
    with tempfile.TemporaryDirectory(prefix="vwkit-faults-") as folder:
        for name in specs:
            bench = Bench(Path(folder) / name, name, options)
            for fault in faults:
                tally = Tally()
                getattr(bench, fault)(tally)
                rows.append([name, fault, tally.tried, tally.same, tally.refused, len(tally.bad)])
                bad += [f"{name}, {fault}: {text}" for text in tally.bad]
                print(*rows[-1], *tally.notes, flush=True)
            shutil.rmtree(bench.work)
    table(
        f"faults; {options.repeats} of each kind, seed 0",
        ["spec", "fault", "tried", "same bytes", "refused with a clear error", "BAD"],
        rows,
    )
    for text in bad:
        print("BAD:", text)
    if bad:
        sys.exit(1)


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
    """One spec with its data, what it makes in peace, and the faults."""

    def __init__(self, work, name, options):
        self.work, self.name, self.repeats = work, name, options.repeats
        self.random = random.Random(f"0 {name}")
        work.mkdir()
        make_data(work)
        spec = {"vwkit": 1, "seed": 1, **SPECS[name], "run": {"threads": 2}}
        (work / "s.yaml").write_text(json.dumps(spec))
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
        return [sys.executable, "-m", "benchmarks.faults", json.dumps([arguments, task])]

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

    # Faults

    def kills(self, tally):
        """Signals at random moments, several in one run."""
        count = 0
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            for _ in range(self.repeats):
                for _ in range(KILLS):
                    process = subprocess.Popen(
                        self.command("cut"),
                        cwd=self.work,
                        env=self.environment("cache-cut"),
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                    time.sleep(self.random.uniform(0.2, 1.0) * self.seconds)
                    process.send_signal(number)
                    count += 1
                    _, said = process.communicate(timeout=120)
                    if process.returncode not in (0, -number, 130) and not starting(said):
                        tally.bad.append(
                            f"{number.name}: status {process.returncode}: {said[-300:]}"
                        )
                self.finish(tally, "cut", "cache-cut", number.name)
        tally.notes.append(f"({count} kills)")

    def drawn(self, most):
        """Return numbers of operations of the file system: all of them, or as many drawn."""
        every = range(1, self.count + 1)
        return list(every) if len(every) <= most else sorted(self.random.sample(every, most))

    def operations(self, tally):
        """A kill at an operation of the file system, and another one when it is resumed."""
        for at in self.drawn(10 * self.repeats):
            again = self.random.randint(1, self.count)
            for number in (at, again):
                self.run("cut", "cache-cut", {"kill": number})
            self.finish(tally, "cut", "cache-cut", f"killed at operations {at} and {again}")

    def full(self, tally):
        """From some operation on, the file system says that it is full."""
        for at in self.drawn(3 * self.repeats):
            done = self.run("cut", "cache-cut", {"full": at})
            self.clear_error(tally, done, f"full at operation {at}")
            self.finish(tally, "cut", "cache-cut", f"full at operation {at}")

    def limits(self, tally):
        """Files may not grow beyond a size; or memory may not."""
        largest = max(map(len, self.expected.values()))
        for _ in range(self.repeats):
            size = int(2 ** self.random.uniform(9, np.log2(2 * largest)))
            done = self.run("cut", "cache-cut", limits=limited(resource.RLIMIT_FSIZE, size))
            self.clear_error(tally, done, f"files of at most {size} bytes")
            self.finish(tally, "cut", "cache-cut", f"files of at most {size} bytes")
        unclear = 0
        for _ in range(self.repeats):
            size = int(self.memory * self.random.uniform(0.5, 1.0))
            done = self.run("cut", "cache-cut", limits=limited(resource.RLIMIT_AS, size))
            # A library that is refused memory may say so in its own way, or end the process.
            unclear += done.returncode != 0 and not clear(done)
            self.finish(tally, "cut", "cache-cut", f"{size >> 20} MiB of addresses")
        tally.notes.append(f"({unclear} times a library's own word for no memory)")

    def tmpfs(self, tally):
        """Run on a small disk that is really full; then it is made larger."""
        disk = self.work / "disk"
        used = sum(map(len, self.expected.values()))
        for _ in range(self.repeats):
            size = int(used * self.random.uniform(0.3, 2.5)) + (64 << 10)
            disk.mkdir(exist_ok=True)
            mounted = mount(disk, f"size={size}")
            if not mounted:
                tally.notes.append("(no mount allowed here)")
                return
            try:
                done = self.run("disk/cut", "disk/cache")
                self.clear_error(tally, done, f"a disk of {size} bytes")
                mount(disk, f"remount,size={8 * used + (64 << 20)}")
                done = self.run("disk/cut", "disk/cache")
                what = f"a disk of {size} bytes"
                if done.returncode:
                    tally.count(False, f"{what}: not resumed: {done.stderr.strip()[-300:]}")
                else:
                    self.compare(tally, "disk/cut", what)
            finally:
                subprocess.run(["umount", str(disk)], check=False)
            self.clear()

    def flips(self, tally):
        """One byte of a half-finished run's folder is another."""
        for _ in range(3):
            self.run("cut", "cache-cut", {"kill": self.random.randint(self.count // 4, self.count - 1)})  # fmt: skip
            shutil.rmtree(self.work / "kept", ignore_errors=True)
            (self.work / "cut").rename(self.work / "kept")
            shutil.rmtree(self.work / "cache-cut", ignore_errors=True)
            files = [path for path in (self.work / "kept").rglob("*") if path.is_file()]
            for path in self.random.sample(files, min(len(files), 4 * self.repeats)):
                if path.stat().st_size == 0:
                    continue
                shutil.copytree(self.work / "kept", self.work / "cut")
                damaged = self.work / "cut" / path.relative_to(self.work / "kept")
                what = f"{damaged.relative_to(self.work)}, byte {flip(damaged, self.random)}"
                self.tried_here(tally, "cut", "cache-cut", what)
                self.clear("cut", "cache-cut")

    def cache(self, tally):
        """One byte of the cache is another."""
        files = [path for path in (self.work / "cache-0").rglob("*") if path.is_file()]
        for path in self.random.sample(files, min(len(files), 4 * self.repeats)):
            if path.stat().st_size == 0:
                continue
            shutil.copytree(self.work / "cache-0", self.work / "cache-cut")
            damaged = self.work / "cache-cut" / path.relative_to(self.work / "cache-0")
            what = f"{damaged.relative_to(self.work)}, byte {flip(damaged, self.random)}"
            self.tried_here(tally, "cut", "cache-cut", what)
            self.clear("cut", "cache-cut")

    def finished(self, tally):
        """One byte of a finished run is another: it reads the same, or says what is damaged."""
        expected = look(self.work / "whole")
        files = [path for path in (self.work / "whole").rglob("*") if path.is_file()]
        for path in self.random.sample(files, min(len(files), 6 * self.repeats)):
            if path.stat().st_size == 0:
                continue
            before = path.read_bytes()
            what = f"{path.relative_to(self.work)}, byte {flip(path, self.random)}"
            try:
                tally.count(look(self.work / "whole") == expected, f"{what}: reads as another")
            except Exception as error:
                self.refused(tally, error, what)
            path.write_bytes(before)

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


def starting(said):
    """Tell whether a process was interrupted while Python itself was starting."""
    return "KeyboardInterrupt" in said


def limited(which, size):
    def limit():
        resource.setrlimit(which, (size, size))

    return limit


def mount(folder, how):
    command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def flip(path, generator):
    """Change one byte of a file; return its number. A hard link elsewhere keeps what it has."""
    content = bytearray(path.read_bytes())
    place = generator.randrange(len(content))
    content[place] ^= 1 << generator.randrange(8)
    path.unlink()
    path.write_bytes(content)
    return place


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


# The process that is harmed ------------------------------------------------------------------------


def harmed(arguments, task):
    """Run vwkit's command line, with checkpoints as often as can be and a fault at some operation."""
    from vwkit import growing_arrays, jobs
    from vwkit.builtin import lloyd_fit, seeding, transforms
    from vwkit.cli.main import main as vwkit_main

    growing_arrays._EVERY = growing_arrays._SHARE = jobs._CHECKPOINT_SHARE = 0
    for module in (lloyd_fit, seeding, transforms):
        module._WORTH_KEEPING = 0.0
    done = [0]
    for name in (
        "fsync",
        "rename",
        "replace",
        "link",
        "unlink",
        "rmdir",
        "mkdir",
        "posix_fallocate",
    ):
        setattr(os, name, faulty(name, getattr(os, name), task, done))
    try:
        vwkit_main(arguments)
    finally:
        if "count" in task:
            said = Path("/proc/self/status").read_text().splitlines()
            peak = [line for line in said if line.startswith("VmPeak")]
            counted = [done[0], int(peak[0].split()[1]) << 10]
            Path(task["count"]).write_text(json.dumps(counted))


def faulty(name, real, task, done):
    """Return an operation that counts itself, and fails when its time has come."""

    def operation(*args, **more):
        done[0] += 1
        if done[0] == task.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        needs_room = name not in ("unlink", "rmdir", "rename", "replace")
        if needs_room and done[0] >= task.get("full", sys.maxsize):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **more)

    return operation


if __name__ == "__main__":
    harmed(*json.loads(sys.argv[1]))
