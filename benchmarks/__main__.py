"""``python -m benchmarks``: run the named cases, or list them."""

import argparse
import importlib

CASES = {
    "assign": "approximate k-means: what each index costs as `assign`, and how well it assigns",
    "framework": "what vwkit costs on top of bare faiss and hnswlib",
    "lloyd": "a Lloyd fit on a memory-mapped uint8 file: peak memory, and time beside faiss.Kmeans",
    "recall": "what each index finds, how fast, in how much memory, beside its bare library",
    "start": "what importing vwkit and asking for help cost",
}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    lines = "; ".join(f"{name}: {text}" for name, text in CASES.items())
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all by default. {lines}")
    parser.add_argument("--threads", type=int, default=2, help="threads for both sides [2]")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each side [7]")
    parser.add_argument("--data", help="descriptor file with real vectors [made ones]")
    parser.add_argument(
        "--rows", type=int, action="append", help="recall, assign: rows; recall takes several"
    )
    parser.add_argument("--words", type=int, help="assign: clusters [4096]")
    parser.add_argument("--results", help="recall, assign: file of JSON lines to go on with")
    parser.add_argument("--only", help="recall, assign: just the indexes that hold this text")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    for name in options.cases or CASES:
        importlib.import_module(f"benchmarks.{name}").main(options)


if __name__ == "__main__":
    main()
