"""CPU seconds of importing vwkit, and of the command line's first words."""

import os
import statistics
import subprocess
import sys

from benchmarks.common import machine, table


def _cpu(code):
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


_HELP = "import sys; sys.argv = ['vwkit', '--help']; from vwkit.cli import main; main()"


def main(options):
    cases = {
        "python": "pass",
        "import numpy, pydantic": "import numpy, pydantic",
        "… and vwkit": "import numpy, pydantic, vwkit",
        "… and its first backend": "import numpy, pydantic, vwkit; vwkit.create('index', 'exact')",
        "vwkit --help": _HELP,
    }
    # In turn, so that a busy moment of the machine touches all alike.
    seconds = {name: [] for name in cases}
    for _ in range(max(5, options.repeats)):
        for name, code in cases.items():
            seconds[name].append(_cpu(code))
    rows = [[name, statistics.median(took)] for name, took in seconds.items()]
    table(f"Start ({machine(1)})", ["", "CPU s"], rows)
