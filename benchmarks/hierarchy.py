"""Hierarchical clustering beside SciPy, fastcluster and scikit-learn: time, memory, and the tree."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import append, child, lines_of, machine, pinned, table
from benchmarks.memory import Peak

ROWS = (2_000, 10_000, 20_000)
DIM = 64
LINKAGES = ("average", "complete", "weighted", "single", "ward", "centroid")
SIDES = ("vwkit", "vwkit lists", "scipy", "fastcluster", "fastcluster vectors", "scikit-learn")
LIMIT = 3 * 60 * 60
LIBRARIES = ("numpy", "scipy", "fastcluster", "scikit-learn", "vwkit")
# float64 distances of all pairs, held twice
TABLE_BYTES = 8


def fingerprints(rows, kind="groups"):
    """Vectors around as many points as there are fifties of rows; or ``noise``, around one."""
    rng = np.random.default_rng(rows)
    points = rng.normal(size=(rows // 50 if kind == "groups" else 1, DIM))
    return (points[rng.integers(0, len(points), rows)] + rng.normal(size=(rows, DIM))).astype("f4")


def offered(side, linkage):
    """Tell whether a contestant has a linkage."""
    if side == "fastcluster vectors":
        return linkage in ("single", "ward", "centroid")
    return not (side == "scikit-learn" and linkage in ("weighted", "centroid"))


def fit(side, data, linkage):
    """Return the heights of the tree."""
    if side.startswith("vwkit"):
        import vwkit

        method = "lists" if side.endswith("lists") else "auto"
        made = vwkit.create("clusterer", "agglomerative", linkage=linkage, method=method)
        return made.fit(data).tree[:, 2]
    if side == "scipy":
        from scipy.cluster.hierarchy import linkage as tree

        return tree(data, linkage)[:, 2]
    if side == "fastcluster":
        import fastcluster

        return fastcluster.linkage(data, linkage, preserve_input=False)[:, 2]
    if side == "fastcluster vectors":
        import fastcluster

        return fastcluster.linkage_vector(data, linkage)[:, 2]
    from sklearn.cluster import AgglomerativeClustering

    made = AgglomerativeClustering(
        n_clusters=2, linkage=linkage, compute_full_tree=True, compute_distances=True
    )
    return made.fit(data).distances_


def measure(task):
    """Yield what one fit took."""
    import vwkit

    data = fingerprints(task["rows"], task["kind"])
    job = vwkit.Job(threads=task["threads"], memory=task["memory"])
    with vwkit.use_job(job):
        fit(task["side"], data[:300], task["linkage"])  # libraries are loaded, BLAS has begun
        with Peak() as peak:
            begun, cpu = time.perf_counter(), time.process_time()
            heights = fit(task["side"], data, task["linkage"])
            seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    yield {
        "seconds": seconds,
        "cpu": cpu,
        "peak": peak.anonymous,
        "heights": np.quantile(heights, np.linspace(0, 1, 21)).tolist(),
    }


def main(options):
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-hierarchy.jsonl")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kinds = options.parts or ["groups"]
    for kind in kinds:
        for rows in options.rows or ROWS:
            for linkage in LINKAGES:
                tasks = [
                    {
                        "kind": kind,
                        "rows": rows,
                        "linkage": linkage,
                        "side": side,
                        "threads": options.threads,
                        "memory": memory // 2,
                    }
                    for side in SIDES
                    if offered(side, linkage)
                    and not (side == "vwkit lists" and TABLE_BYTES * rows**2 > memory // 2)
                ]
                told = [_told(task, results, options, memory) for task in tasks]
                _show(kind, rows, linkage, [line for line in told if line])


PARTS = ("groups", "noise")


def _told(task, results, options, memory):
    name = f"{task['rows']} {task['linkage']} {task['side']}"
    known = [line for line in lines_of(results) if task.items() <= line.items()]
    wanted = options.only is not None and options.only in name
    if options.only is not None and not wanted:
        return known[-1] if known else None
    if known and not wanted:
        return known[-1]
    line = {**task, "failure": None, "machine": machine(options.threads, LIBRARIES)}
    in_tables = task["side"] in ("scipy", "fastcluster", "scikit-learn")
    needed = TABLE_BYTES * task["rows"] ** 2
    if in_tables and needed > memory:
        line["failure"] = f"its distances need {needed / 1e9:,.0f} GB"
    else:
        with tempfile.TemporaryDirectory(prefix="vwkit-hierarchy-") as folder:
            limit = options.limit or LIMIT
            env = pinned(options.threads)
            told, line["failure"] = child("hierarchy", task, Path(folder), limit, env)
        for one in told:
            line.update(one)
    append(results, line)
    return line


def _show(kind, rows, linkage, lines):
    if not lines:
        return
    ours = next((x for x in lines if x["side"] == "vwkit" and not x["failure"]), None)
    true = next((x for x in lines if x["side"] == "scipy" and not x["failure"]), None)
    cells = []
    for line in lines:
        if line["failure"]:
            cells.append([line["side"], line["failure"], "", "", "", "", ""])
            continue
        off = "" if true is None else _difference(line["heights"], true["heights"])
        cells.append(
            [
                line["side"],
                line["seconds"],
                "" if ours is None else line["seconds"] / ours["seconds"],
                line["cpu"],
                "" if ours is None else line["cpu"] / ours["cpu"],
                f"{line['peak'] / 1e6:,.0f}",
                off,
            ]
        )
    title = f"{linkage}, {rows:,} × {DIM} {kind} ({lines[0]['machine']})"
    head = ["", "wall s", "× ours", "CPU s", "× ours", "peak MB", "heights off"]
    table(title, head, cells)


def _difference(found, true):
    """Return by how much quantiles of the heights differ, as a part of the largest."""
    return f"{np.abs(np.sort(found) - np.sort(true)).max() / max(true):.0e}"


if __name__ == "__main__":
    for step in measure(json.loads(sys.argv[1])):
        print(json.dumps(step), flush=True)
