"""The command of the benchmarks, none of which is run here."""

import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import CASES

ROOT = Path(__file__).parents[1]


def test_without_a_case_they_are_listed_and_none_is_run():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    listed = [line.split(None, 1) for line in done.stdout.splitlines()[1:]]
    assert [(name, text) for name, text in listed] == list(CASES.items())


def test_every_case_is_a_module_of_its_name():
    for name in CASES:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name
