"""``python -m benchmarks``: run the named cases, or list them."""

import argparse
import importlib

CASES = {
    "framework": "what vwkit costs on top of bare faiss and hnswlib",
    "lloyd": "a Lloyd fit on a memory-mapped uint8 file: peak memory, and time beside faiss.Kmeans",
    "start": "what importing vwkit and asking for help cost",
}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    lines = "; ".join(f"{name}: {text}" for name, text in CASES.items())
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all by default. {lines}")
    parser.add_argument("--threads", type=int, default=2, help="threads for both sides [2]")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each side [7]")
    parser.add_argument("--data", help="descriptor file with real vectors [made ones]")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    for name in options.cases or CASES:
        importlib.import_module(f"benchmarks.{name}").main(options)


if __name__ == "__main__":
    main()
