"""``python -m benchmarks``: list the cases; with names, run these."""

import argparse
import importlib
import sys

CASES = {
    "assign": "approximate k-means: what each index costs as `assign`, and how well it assigns",
    "duplicates": "copies made of real photographs: which are found, and told right",
    "faults": "runs that are killed, starved and damaged, then resumed: are the bytes the same?",
    "fetching": "pictures a second by URL from a server on this machine, beside a loop of urllib",
    "fuzz": "hostile bytes for every reader of strangers' files; names of targets may follow",
    "flat": "codes and 1,000 clusters of 10^6 rows and more (--rows): memory, which does not grow",
    "framework": "what vwkit costs on top of bare faiss and hnswlib",
    "growth": "how the time of graph k-means grows with the rows and with k",
    "hierarchy": "hierarchical clustering beside SciPy, fastcluster and scikit-learn",
    "lloyd": "a Lloyd fit on a memory-mapped uint8 file: peak memory, and time beside faiss.Kmeans",
    "palette": "pictures in k colours, beside Pillow, libimagequant and scikit-learn (--data: a folder)",
    "pq": "product quantizers: training and encoding, beside faiss and pqkmeans",
    "plan": "what `vwkit plan` says of the documented specs and of large jobs, beside what they take",
    "questions": "what repeated descriptors, smaller training sets and codes cost a vocabulary",
    "recall": "what each index finds, how fast, in how much memory, beside its bare library",
    "remote": "rows a second from a web server on this machine, in place, beside a local file",
    "scaling": "rows a second on threads and on Dask workers, and the bytes that travel",
    "seeds": "how far every backend is from the conformance suite's thresholds, over many seeds",
    "serve": "vwkit serve: requests a second and latency with 1, 8 and 64 clients (--data: a run)",
    "shards": "indexes in shards beside whole ones: peak memory of build and search, recall, speed",
    "start": "what importing vwkit and asking for help cost",
    "vocabulary": "k-means at large k beside other libraries; names of its parts may follow",
}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="without any they are listed")
    parser.add_argument("--threads", type=int, default=2, help="threads for both sides [2]")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each side [7]")
    parser.add_argument("--data", help="descriptor file with real vectors [made ones]")
    kept = "assign, hierarchy, pq, recall, scaling, seeds, vocabulary"
    parser.add_argument(
        "--rows",
        type=int,
        action="append",
        help="rows, where they can vary; recall and hierarchy take several",
    )
    parser.add_argument("--words", type=int, help="assign, vocabulary: clusters")
    parser.add_argument("--results", help=f"{kept}: file of JSON lines to go on with")
    parser.add_argument(
        "--only", help=f"{kept}: just what holds this text, even if measured already"
    )
    parser.add_argument("--seeds", type=int, default=200, help="seeds: how many [200]")
    parser.add_argument(
        "--limit",
        type=int,
        help="fuzz, hierarchy, vocabulary: seconds for each contestant; scaling: of all [660]",
    )
    parser.add_argument(
        "--cases",
        dest="count",
        type=int,
        help="fuzz: of each target [100,000 of cheap ones, 10,000]",
    )
    parser.add_argument(
        "--engine", choices=("atheris", "own"), help="fuzz: led by coverage [if atheris is there]"
    )
    parser.add_argument(
        "--failures",
        default="fuzz-failures",
        help="fuzz: folder for inputs that fail [%(default)s]",
    )
    parser.add_argument("--plot", help="growth: PNG to draw (needs matplotlib)")
    parser.add_argument(
        "--soak", type=float, metavar="MINUTES", help="serve: ask for so long, and print its memory"
    )
    options = parser.parse_args()
    if not options.cases:
        # All of them take days, and nobody means that by naming none.
        print("name the cases to run:")
        for name, text in CASES.items():
            print(f"  {name:<{max(map(len, CASES))}}  {text}")
        sys.exit(2)
    for name, parts in _asked(options.cases, parser):
        options.parts = parts
        importlib.import_module(f"benchmarks.{name}").main(options)


def _asked(names, parser):
    """Return the cases, each with its parts: the names behind a case that it knows as such."""
    asked, known = [], ()
    for name in names:
        if name in known:
            asked[-1][1].append(name)
            continue
        if name not in CASES:
            there = (
                f"its parts are {', '.join(known)}" if known else f"there are {', '.join(CASES)}"
            )
            parser.error(f"no such case: {name}; {there}")
        asked.append((name, []))
        # Only a case that is asked for is imported.
        known = getattr(importlib.import_module(f"benchmarks.{name}"), "PARTS", ())
    return asked


if __name__ == "__main__":
    main()
