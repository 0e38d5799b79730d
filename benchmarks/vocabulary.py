"""Vocabularies: k-means at large k by vwkit and by other libraries, in named cases.

``python -m benchmarks vocabulary k4096 predict`` runs two of them, without names all. A case brings
its rivals, each in a process of its own with so many threads and a limit in seconds; whoever reaches
it is stopped, and the table says after how many iterations. Kernels are compiled by another process
before ("compiling s"); they are loaded, and threads begun, on few rows before the clock runs ("first
s"). The objective is the mean squared distance of the same 50,000 rows to their nearest centers,
found exactly for all alike; what a library itself tells stands beside it. Memory is that of the whole
process. Results are appended to a file of JSON lines; what it holds already is not measured again.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import graph_parts, rivals
from benchmarks.common import (
    LIBRARIES,
    append,
    child,
    drawn,
    lines_of,
    machine,
    pinned,
    table,
    vectors,
)
from benchmarks.memory import Peak
from benchmarks.vocabulary_cases import CASES

SAMPLE, ASKED = 50_000, 262_144
#: For importing, compiling, reading, and for the objective, which are not on the clock.
SPARE = 240
PARTS = tuple(CASES)
#: The parameter that says how many iterations, where a task may leave it to its default.
FEW = {
    "graph-kmeans": "iterations",
    "graph-pqkmeans": "iterations",
    "sklearn_minibatch": "max_iter",
}
#: What numba compiles: uses of vwkit's clusterers, sides, steps, libraries.
KINDS = ("use", "side", "step", "library")
NUMBA = ("graph-kmeans", "graph-pqkmeans", "tree", "graph_start", "upkeep", "graph")


# One contestant, in a process of its own ----------------------------------------------------------


def measure(task):
    """Fit; yield what is known before, then times and memory, then the objective."""
    side = rivals.SIDES[task["side"]]
    rows = np.load(task["rows"], mmap_mode="r")
    if task["side"] not in rivals.BYTES:
        rows = np.asarray(rows, np.float32)  # nor is this on the clock
    task["rows_count"] = len(rows)
    missing = _missing(task)
    if missing:
        yield {"missing": missing}
        return
    few = {**task, "params": dict(task.get("params", {})), "iterations": 2}
    # None of them needs more than two, nor its default, to have called everything once.
    for name in ("iterations", "iters", "max_iter"):
        if name in few["params"] or name == FEW.get(task.get("use", task["side"])):
            few["params"][name] = 2
    start = time.perf_counter()
    try:
        side(np.array(rows[:8192]), min(2048, task["k"]), few, 1e6)
    except ImportError as error:
        yield {"missing": error.name or str(error)}
        return
    first = {"first": time.perf_counter() - start}
    if task.get("compile"):
        yield first
        return
    yield first
    ready = rivals.compiled()
    with Peak() as peak:
        start, cpu = time.perf_counter(), time.process_time()
        fitted = side(rows, task["k"], task, task["limit"])
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    line = {
        "wall": wall,
        "cpu": cpu,
        "iterations": fitted.iterations,
        "stopped": fitted.stopped,
        "own": fitted.own,
        "note": fitted.note,
        "step": _step(fitted, wall),
        "anonymous": peak.anonymous,
        "mapped": peak.mapped,
    }
    if rivals.compiled() > ready:
        line["note"] = f"{rivals.compiled() - ready} kernels were loaded on the clock"
    yield line
    if fitted.centers is not None:
        yield {"objective": _objective(task, rows, fitted.centers), "made": len(fitted.centers)}


def _missing(task):
    """Return the backend that is not there, if so."""
    if task["side"] != "vwkit":
        return None
    import vwkit

    assign = (task.get("params") or {}).get("assign") or {}
    known = vwkit.backends()
    wanted = [("clusterer", task["use"])] + ([("index", assign["use"])] if assign else [])
    return next((name for role, name in wanted if name not in known[role]), None)


def _step(fitted, wall):
    """Return seconds an iteration: the median of those behind the first, which holds the start."""
    if len(fitted.ends) > 1:
        return statistics.median(np.diff(fitted.ends).tolist())
    if fitted.ends:
        return fitted.ends[0]
    return wall / fitted.iterations if fitted.iterations else None


def _objective(task, rows, centers):
    sample = rows[_sample(len(rows))]
    if "codebook" in task:
        book = np.load(task["codebook"])
        sample, centers = _decoded(sample, book), _decoded(centers, book)
    return rivals.mean_distance(sample, centers, task["threads"])


def _sample(count):
    rng = np.random.default_rng(2)
    return np.sort(rng.choice(count, min(SAMPLE, count), replace=False))


def _decoded(codes, book):
    return np.concatenate([book[j][codes[:, j]] for j in range(len(book))], axis=1)


# A case -------------------------------------------------------------------------------------------


def main(options):
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-vocabulary.jsonl")
    data = Path(options.data).name if options.data else "made data"
    with tempfile.TemporaryDirectory(prefix="vwkit-vocabulary-") as outer:
        for name in options.parts or PARTS:
            case = CASES[name]
            for words in [options.words] if options.words else case.words:
                own = {"case": name, "data": data, "rows": (options.rows or [case.rows])[0]}
                own.update(k=words, threads=options.threads)
                # Beside it lie the compiled kernels, for all cases.
                with tempfile.TemporaryDirectory(dir=outer) as folder:
                    _fill(results, case, own, Path(folder), options)
                _print(results, case, own)


def _fill(results, case, own, folder, options):
    """Measure the contestants that the file does not hold."""
    known = {line["what"] for line in _lines(results, own) if "missing" not in line}
    files = None
    for label, contestant in case.contestants.items():
        if options.only:
            if options.only not in label:
                continue
        elif label in known:
            continue
        task = {**own, **contestant}
        if options.limit:
            task["limit"] = options.limit
        if own["case"] == "notebook":
            told, failure = _notebook(task, folder, options)
        else:
            files = files or _prepared(case, own, folder, options)
            task.update(files, init=files["init"] if task.get("init") else None)
            told, failure = _child(task, folder, own)
        libraries = (*LIBRARIES, "numba", "scikit-learn", "superkmeans", "pqkmeans")
        line = {**own, "what": label, "failure": failure, "limit": task.get("limit")}
        line["parts"] = [one for one in told if "label" in one]
        for one in told:
            line.update({} if "label" in one else one)
        append(results, {**line, "machine": machine(own["threads"], libraries)})


def _child(task, folder, own):
    """Run a contestant; kernels were compiled before, by a process whose seconds are told."""
    env = pinned(own["threads"])
    limit = task.setdefault("limit", 300) + SPARE
    kind = next((one for one in map(task.get, KINDS) if one in NUMBA), None)
    compiling = []
    if kind:
        cache = folder.parent / f"compiled-{kind}"
        env["NUMBA_CACHE_DIR"] = str(cache)
        if not cache.exists():
            begun, _ = child("vocabulary", {**task, "compile": True}, folder, SPARE, env)
            (cache / "seconds").write_text(json.dumps([one["first"] for one in begun]))
        compiling = [{"compiling": one} for one in json.loads((cache / "seconds").read_text())]
    told, failure = child("vocabulary", task, folder, limit, env)
    if failure and failure.startswith("over "):
        known = any("wall" in one for one in told)
        failure = None if known else f"ended by force after {limit} s, iterations unknown"
    return compiling + told, failure


def _prepared(case, own, folder, options):
    """Write what the contestants share; return where."""
    found = drawn(own["rows"] + (ASKED if own["case"] == "predict" else 0), options.data)
    if own["case"] == "predict":
        mixed = np.random.default_rng(1).permutation(len(found))
        asked = max(1, min(ASKED, len(found) // 4))
        np.save(folder / "asked.npy", found[mixed[:asked]])
        found = found[np.sort(mixed[asked:])][: own["rows"]]
    if case.codes:
        return _prepared_codes(own, folder, found)
    np.save(folder / "rows.npy", found)
    start = np.random.default_rng(1).choice(len(found), own["k"], replace=False)
    np.save(folder / "init.npy", found[np.sort(start)].astype(np.float32))
    files = {name: str(folder / f"{name}.npy") for name in ("rows", "init", "asked")}
    files["words"] = str(folder / "words")
    if own["case"] == "predict":
        task = {**own, **files, "step": "fit_for_lookups", "iterations": 3, "limit": 600}
        told, failure = _child(task, folder, own)
        if failure or not told:
            sys.exit(f"vocabulary predict: no words to look up: {failure}")
    return files


def _prepared_codes(own, folder, found):
    import vwkit

    with vwkit.use_job(vwkit.Job(threads=own["threads"])):
        quantizer = vwkit.create("quantizer", "pq", m=4, ks=256).fit(found)
        np.save(folder / "codes.npy", quantizer.encode(found))
    quantizer.save(folder / "quantizer")
    np.save(folder / "codebook.npy", quantizer.codebook)
    return {
        "rows": str(folder / "codes.npy"),
        "quantizer": str(folder / "quantizer"),
        "codebook": str(folder / "codebook.npy"),
        "init": None,
    }


# The whole pipeline -------------------------------------------------------------------------------


def _notebook(task, folder, options):
    """Run ``vwkit run`` on a file; return the total, its stages, and the objective."""
    import vwkit

    path, origin = _file(task["rows"], folder, options)
    spec = {
        "vwkit": 1,
        "vectors": {"path": str(path)},
        "run": {"threads": task["threads"]},
        "clusterer": {"use": "graph-kmeans", "k": task["k"]},
        "output": {"write": "vocabulary", "path": str(folder / "vocabulary")},
    }
    few, _ = _file(min(task["rows"], 20_000), folder, options, "few.npy")
    small = {
        **spec,
        "vectors": {"path": str(few)},
        "output": {"write": "vocabulary", "path": "few"},
    }
    small["clusterer"] = {**spec["clusterer"], "k": min(task["k"], 2_048), "iterations": 4}
    (folder / "few.yaml").write_text(json.dumps(small))
    (folder / "spec.yaml").write_text(json.dumps(spec))
    env = {
        **os.environ,
        **pinned(task["threads"]),
        "VWKIT_CACHE": str(folder / "cache"),
        "NUMBA_CACHE_DIR": str(folder / "compiled"),
    }
    command = [sys.executable, "-m", "vwkit", "run", "--json"]
    begun = {}
    for what in ("compiling", "first"):  # with an empty cache of numba, and with a full one
        start = time.perf_counter()
        small_run = [*command, "few.yaml", "--out", what]
        subprocess.run(small_run, cwd=folder, env=env, capture_output=True, check=True)
        begun[what] = time.perf_counter() - start
        shutil.rmtree(folder / "cache")
        shutil.rmtree(folder / "few")
    command += ["spec.yaml", "--out", "out"]
    start = time.perf_counter()
    with (folder / "told").open("w") as out, (folder / "errors").open("w") as errors:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=errors)
        with Peak(process.pid) as peak:
            status, cpu = rivals.ended(process, task["limit"])
    wall = time.perf_counter() - start
    line = {
        "wall": wall,
        "cpu": cpu,
        "anonymous": peak.anonymous,
        "mapped": peak.mapped,
        "file": path.stat().st_size,
        "note": origin,
        **begun,
    }
    if status:
        errors = (folder / "errors").read_text()
        last = (re.findall(r"iteration\D*(\d+)", errors) or ["unknown"])[-1]
        stopped = f"stopped after {task['limit']} s; last iteration told: {last}"
        why = stopped if status < 0 else " ".join(errors.strip().splitlines()[-1:])
        return [line], why
    manifest = json.loads((folder / "told").read_text())
    stages = [
        {"label": f"of it: {name}", "wall": one["seconds"], "anonymous": one["peak_memory"]}
        for name, one in manifest["stages"].items()
    ]
    words = vwkit.load(folder / "vocabulary").clusterer
    sample = vwkit.read(path).take(_sample(task["rows"]))
    line["objective"] = rivals.mean_distance(sample, words.centers, task["threads"])
    line["own"] = float(words.objective[-1])
    line["iterations"] = len(words.objective) - 1
    return [line, *stages], None


def _file(rows, folder, options, name="rows.npy"):
    """Return a file with so many rows, and where they come from.

    The one that was given, if it has as many; else its rows again and again, from the second time on
    with small noise.
    """
    import vwkit

    if options.data:
        source = vwkit.read(options.data)
        if source.count() == rows:
            return Path(options.data), "the file as it is"
    else:
        source = vwkit.Stream.from_array(vectors(min(rows, 1_000_000)))
    path = folder / name
    made = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, source.dim))
    rng, done, again = np.random.default_rng(0), 0, False
    while done < rows:
        for chunk in source:
            part = chunk[: rows - done]
            if again:
                noise = rng.integers(-2, 3, part.shape, np.int8)
                part = np.clip(part + noise.astype(np.int16), 0, 255)
            made[done : done + len(part)] = part
            done += len(part)
            if done == rows:
                break
        again = True
    made.flush()
    few = f"{source.count():,} rows, again with noise of ±2" if source.count() < rows else "a part"
    return path, f"{few} of what was given"


# The table ----------------------------------------------------------------------------------------


def _lines(results, own):
    """Return the last line of each contestant that was measured for these numbers."""
    lines = [line for line in lines_of(results) if own.items() <= line.items()]
    return list({line["what"]: line for line in lines}.values())


COLUMNS = (
    "iterations",
    "runs",
    "wall s",
    "CPU s",
    "wall ÷ rival",
    "CPU ÷ rival",
    "s/iteration",
    "iteration ÷",
    "build s",
    "rows/s",
    "rows/s ÷",
    "recall",
    "objective",
    "objective ÷",
    "its own",
    "anon MiB",
    "mapped MiB",
    "anon ÷ file",
    "first s",
    "compiling s",
    "note",
)


def _print(results, case, own):
    lines = _lines(results, own)
    if not lines:
        return
    order = {label: place for place, label in enumerate(case.contestants)}
    lines.sort(key=lambda line: order.get(line["what"], len(order)))
    rows = []
    for line in lines:
        whole = [] if line["parts"] and "wall" not in line else [{**line, "label": line["what"]}]
        rows += whole + [
            {"failure": None, "compiling": line.get("compiling"), **part, "limit": line["limit"]}
            for part in line["parts"]
        ]
        if line["failure"] and not whole:
            rows.append({**line, "label": line["what"]})
    rival = next((row for row in rows if row["label"] == case.rival), {})
    cells = [_cells(row, rival) for row in rows]
    used = [name for name in COLUMNS if any(one.get(name) for one in cells)]
    shown = [
        [row["label"], *(one.get(name, "") for name in used)]
        for row, one in zip(rows, cells, strict=True)
    ]
    title = (
        f"{own['case']}: {case.text}; here {own['rows']:,} rows of {own['data']}, k = {own['k']:,}"
    )
    title += f"; rival: {case.rival}" if case.rival else ""
    table(f"{title} ({lines[-1]['machine']})", ["what", *used], shown)


def _cells(row, rival):
    """Return what is known of a row, by column."""
    if row.get("missing"):
        return {"note": f"not installed: {row['missing']}"}
    cells = {}
    plain = {
        "wall": ("wall s", ".2f"),
        "cpu": ("CPU s", ".2f"),
        "step": ("s/iteration", ".3g"),
        "build": ("build s", ".2f"),
        "recall": ("recall", ".4f"),
        "objective": ("objective", ",.1f"),
        "own": ("its own", ",.1f"),
        "first": ("first s", ".1f"),
        "compiling": ("compiling s", ".1f"),
        "runs": ("runs", "d"),
    }
    for key, (name, form) in plain.items():
        if row.get(key) is not None:
            cells[name] = format(row[key], form)
    for key, name in (("anonymous", "anon MiB"), ("mapped", "mapped MiB")):
        if row.get(key) is not None:
            cells[name] = f"{row[key] / 2**20:,.0f}"
    if row.get("file") and row.get("anonymous"):
        cells["anon ÷ file"] = f"{row['anonymous'] / row['file']:.3f}"
    ratios = {
        "wall": "wall ÷ rival",
        "cpu": "CPU ÷ rival",
        "step": "iteration ÷",
        "objective": "objective ÷",
    }
    if "looked_up" in row:
        cells["rows/s"] = f"{row['looked_up'] / row['wall']:,.0f}"
        ratios = {"objective": "objective ÷"}  # not all look up as many
        if rival.get("wall"):
            own, other = (one["looked_up"] / one["wall"] for one in (row, rival))
            cells["rows/s ÷"] = f"{own / other:.2f}"
    for key, name in ratios.items():
        if row.get(key) is not None and rival.get(key):
            digits = 4 if key == "objective" else 3
            # Who was stopped would have taken longer.
            early = (bool(row.get("stopped")), bool(rival.get("stopped")))
            sign = {(True, False): "> ", (False, True): "< "}.get(early, "")
            sign = sign if key in ("wall", "cpu") else ""
            cells[name] = f"{sign}{row[key] / rival[key]:.{digits}f}"
    if row.get("iterations") is not None:
        cells["iterations"] = str(row["iterations"])
    notes = [row.get("failure"), row.get("note")]
    if row.get("stopped"):
        notes.insert(0, f"stopped at {row['limit']} s")
    if row.get("made") not in (None, row.get("k")):
        notes.append(f"{row['made']:,} words")
    cells["note"] = "; ".join(note for note in notes if note)
    return cells


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    steps = {
        "upkeep": graph_parts.upkeep,
        "fit_for_lookups": graph_parts.fit_for_lookups,
        None: graph_parts.lookup if "library" in given else measure,
    }
    for told in steps[given.get("step")](given):
        print(json.dumps(told), flush=True)
