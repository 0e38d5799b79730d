"""Runs that are killed, starved of disk and memory, and damaged: does --resume end in the same bytes?

Each spec is run twice in peace; files that differ between these two are told and left out. Then every
fault is done to a real `vwkit run` (or to what is left of one), the run is resumed until it ends, and
what it made is compared byte by byte. A fault may also be refused, with one clear line.
"""

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
from benchmarks.faults_bench import Bench, Tally, clear, look

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


def main(options):
    chosen = options.parts or PARTS
    specs = [name for name in SPECS if name in chosen] or list(SPECS)
    faults = [name for name in FAULTS if name in chosen] or list(FAULTS)
    rows, bad = [], []
    with tempfile.TemporaryDirectory(prefix="vwkit-faults-") as folder:
        for name in specs:
            bench = Bench(Path(folder) / name, name, SPECS[name], options.repeats)
            for fault in faults:
                tally = Tally()
                FAULTS[fault](bench, tally)
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


def kills(bench, tally):
    """Signals at random moments, several in one run."""
    count = 0
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        for _ in range(bench.repeats):
            for _ in range(KILLS):
                process = subprocess.Popen(
                    bench.command("cut"),
                    cwd=bench.work,
                    env=bench.environment("cache-cut"),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                time.sleep(bench.random.uniform(0.2, 1.0) * bench.seconds)
                process.send_signal(number)
                count += 1
                _, said = process.communicate(timeout=120)
                if process.returncode not in (0, -number, 130) and not starting(said):
                    tally.bad.append(f"{number.name}: status {process.returncode}: {said[-300:]}")
            bench.finish(tally, "cut", "cache-cut", number.name)
    tally.notes.append(f"({count} kills)")


def operations(bench, tally):
    """A kill at an operation of the file system, and another one when it is resumed."""
    for at in bench.drawn(10 * bench.repeats):
        again = bench.random.randint(1, bench.count)
        for number in (at, again):
            bench.run("cut", "cache-cut", {"kill": number})
        bench.finish(tally, "cut", "cache-cut", f"killed at operations {at} and {again}")


def full(bench, tally):
    """From some operation on, the file system says that it is full."""
    for at in bench.drawn(3 * bench.repeats):
        done = bench.run("cut", "cache-cut", {"full": at})
        bench.clear_error(tally, done, f"full at operation {at}")
        bench.finish(tally, "cut", "cache-cut", f"full at operation {at}")


def limits(bench, tally):
    """Files may not grow beyond a size; or memory may not."""
    largest = max(map(len, bench.expected.values()))
    for _ in range(bench.repeats):
        size = int(2 ** bench.random.uniform(9, np.log2(2 * largest)))
        done = bench.run("cut", "cache-cut", limits=limited(resource.RLIMIT_FSIZE, size))
        bench.clear_error(tally, done, f"files of at most {size} bytes")
        bench.finish(tally, "cut", "cache-cut", f"files of at most {size} bytes")
    unclear = 0
    for _ in range(bench.repeats):
        size = int(bench.memory * bench.random.uniform(0.5, 1.0))
        done = bench.run("cut", "cache-cut", limits=limited(resource.RLIMIT_AS, size))
        # A library that is refused memory may say so in its own way, or end the process.
        unclear += done.returncode != 0 and not clear(done)
        bench.finish(tally, "cut", "cache-cut", f"{size >> 20} MiB of addresses")
    tally.notes.append(f"({unclear} times a library's own word for no memory)")


def tmpfs(bench, tally):
    """Run on a small disk that is really full; then it is made larger."""
    disk = bench.work / "disk"
    used = sum(map(len, bench.expected.values()))
    for _ in range(bench.repeats):
        size = int(used * bench.random.uniform(0.3, 2.5)) + (64 << 10)
        disk.mkdir(exist_ok=True)
        mounted = mount(disk, f"size={size}")
        if not mounted:
            tally.notes.append("(no mount allowed here)")
            return
        try:
            done = bench.run("disk/cut", "disk/cache")
            bench.clear_error(tally, done, f"a disk of {size} bytes")
            mount(disk, f"remount,size={8 * used + (64 << 20)}")
            done = bench.run("disk/cut", "disk/cache")
            what = f"a disk of {size} bytes"
            if done.returncode:
                tally.count(False, f"{what}: not resumed: {done.stderr.strip()[-300:]}")
            else:
                bench.compare(tally, "disk/cut", what)
        finally:
            subprocess.run(["umount", str(disk)], check=False)
        bench.clear()


def flips(bench, tally):
    """One byte of a half-finished run's folder is another."""
    for _ in range(3):
        bench.run("cut", "cache-cut", {"kill": bench.random.randint(bench.count // 4, bench.count - 1)})  # fmt: skip
        shutil.rmtree(bench.work / "kept", ignore_errors=True)
        (bench.work / "cut").rename(bench.work / "kept")
        shutil.rmtree(bench.work / "cache-cut", ignore_errors=True)
        damaged(bench, tally, "kept", "cut")


def damaged(bench, tally, kept, place):
    """Go on from copies of a folder with a byte flipped in some of its files each."""
    files = [path for path in (bench.work / kept).rglob("*") if path.is_file()]
    for path in bench.random.sample(files, min(len(files), 4 * bench.repeats)):
        if path.stat().st_size == 0:
            continue
        shutil.copytree(bench.work / kept, bench.work / place)
        file = bench.work / place / path.relative_to(bench.work / kept)
        what = f"{file.relative_to(bench.work)}, byte {flip(file, bench.random)}"
        bench.tried_here(tally, "cut", "cache-cut", what)
        bench.clear("cut", "cache-cut")


def cache(bench, tally):
    """One byte of the cache is another."""
    damaged(bench, tally, "cache-0", "cache-cut")


def finished(bench, tally):
    """One byte of a finished run is another: it reads the same, or says what is damaged."""
    expected = look(bench.work / "whole")
    files = [path for path in (bench.work / "whole").rglob("*") if path.is_file()]
    for path in bench.random.sample(files, min(len(files), 6 * bench.repeats)):
        if path.stat().st_size == 0:
            continue
        before = path.read_bytes()
        what = f"{path.relative_to(bench.work)}, byte {flip(path, bench.random)}"
        try:
            tally.count(look(bench.work / "whole") == expected, f"{what}: reads as another")
        except Exception as error:
            bench.refused(tally, error, what)
        path.write_bytes(before)


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


# In the order of the table.
FAULTS = {
    "kills": kills,
    "operations": operations,
    "full": full,
    "limits": limits,
    "tmpfs": tmpfs,
    "flips": flips,
    "cache": cache,
    "finished": finished,
}
PARTS = (*SPECS, *FAULTS)
