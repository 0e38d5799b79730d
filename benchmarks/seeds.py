"""How far every backend is from the thresholds of the conformance suite, over many seeds.

Data and the backends' own seeds are drawn anew for each: a check that fails with one of them would
fail by chance one day. Every class of tests of the repository is measured in a process of its own,
``--threads`` at a time; one whose library crashes is named, and the others go on. With ``--results`` they are kept in a file of JSON lines; what it holds
already, for as many seeds, is not measured again.
"""

import importlib.util
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import LIBRARIES, append, lines_of, machine

ROOT = Path(__file__).parents[1]
FILES = [
    ROOT / "tests/test_conformance.py",
    *sorted(ROOT.glob("plugins/*/tests/test_conformance.py")),
]


def owner(path):
    """Return the package whose tests a file holds."""
    return "vwkit" if path.parents[1] == ROOT else path.parents[1].name


def suites(path):
    """Return the classes of tests in a file, by name."""
    from vwkit.testing.suite import Suite

    name = f"conformance_of_{owner(path).replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        name: found
        for name, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, Suite) and found.__module__ == spec.name
    }


def measured(path, name, seeds):
    """Measure one class of tests; return a line with seconds and what `measure` returns."""
    from vwkit.testing.seeds import measure

    start = time.perf_counter()
    found = [asdict(spread) for spread in measure(suites(path)[name], range(seeds))]
    seconds = time.perf_counter() - start
    return {"owner": owner(path), "class": name, "seeds": seeds, "seconds": seconds, "found": found}


def apart(path, name, seeds):
    """Do the same in a process of its own."""
    # Spawned: libraries with threads of their own do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measured, path, name, seeds).result()


def main(options):
    from vwkit.testing.checks import is_statistical
    from vwkit.testing.seeds import Spread, table

    tasks = []
    for path in FILES:
        try:
            found = suites(path)
        except ImportError as error:  # a plugin that is not installed
            print(f"{path.relative_to(ROOT)}: left out, {error}", file=sys.stderr)
            continue
        for name, suite in found.items():
            measures = any(is_statistical(getattr(suite, test)) for test in suite._suite_tests)
            asked = not options.only or options.only in f"{owner(path)} {name}"
            if measures and asked and hasattr(suite, "backend"):
                tasks.append((path, name))
    results = Path(options.results) if options.results else None
    lines = {
        (line["owner"], line["class"]): line
        for line in (lines_of(results) if results else [])
        if line["seeds"] == options.seeds
    }
    missing = [task for task in tasks if (owner(task[0]), task[1]) not in lines]
    crashed = []
    with ThreadPoolExecutor(options.threads) as pool:
        futures = {pool.submit(apart, *one, options.seeds): one for one in missing}
        for future in as_completed(futures):
            path, name = futures[future]
            try:
                line = future.result()
            except BrokenProcessPool:
                crashed.append(f"{owner(path)} {name}")
                print(f"   the process crashed: {crashed[-1]}", file=sys.stderr, flush=True)
                continue
            lines[owner(path), name] = line
            if results:
                append(results, line)
            alarms = sum(len(one["alarms"]) for one in line["found"])
            text = f"{line['seconds']:7.1f} s  {alarms} false alarms  {owner(path)} {name}"
            print(text, file=sys.stderr, flush=True)
    rows = [
        Spread(**{**one, "suite": f"{name} ({owner(path)})"})
        for path, name in tasks
        if (owner(path), name) in lines
        for one in lines[owner(path), name]["found"]
    ]
    print(f"\nConformance over {options.seeds} seeds ({machine(options.threads, LIBRARIES)})\n")
    print(table(rows))
    alarms = sum(len(spread.alarms) for spread in rows)
    checks = sum(len(spread.values) for spread in rows)
    count = len(tasks) - len(crashed)
    print(f"\n{alarms} false alarms in {checks:,} checks of {count} classes of tests")
    if crashed:
        print(f"crashed: {', '.join(crashed)}")
