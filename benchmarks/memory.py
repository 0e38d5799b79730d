"""The memory of a process, looked at by another one.

A thread of its own would wait for Python's lock, which some libraries hold for minutes.
"""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

EVERY = 0.05  # seconds


class Peak:
    """While open, looks at a process (this one by default) every 50 ms.

    Attributes
    ----------
    anonymous, mapped : int
        The largest RssAnon + RssShmem, and the largest RssFile, in bytes: all that the process has,
        nothing is taken off.
    """

    def __init__(self, pid=None):
        self.pid = pid or os.getpid()
        self.anonymous = self.mapped = 0

    def __enter__(self):
        self.watcher = subprocess.Popen(
            # Isolated, so that it begins at once.
            [sys.executable, "-ISE", str(Path(__file__).absolute()), str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.watcher.stdout.readline()  # it has looked for the first time
        return self

    def __exit__(self, *_):
        told, _ = self.watcher.communicate()
        self.anonymous, self.mapped = json.loads(told)


def watch(pid):
    """Look at a process until the input ends; write the peaks."""
    path, anonymous, mapped, begun = Path(f"/proc/{pid}/status"), 0, 0, False
    while True:
        try:
            lines = path.read_text().splitlines()
        except OSError:  # it has ended
            lines = []
        sizes = {
            line.split(":")[0]: int(line.split()[1]) << 10
            for line in lines
            if line.startswith(("RssAnon:", "RssShmem:", "RssFile:"))
        }
        anonymous = max(anonymous, sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0))
        mapped = max(mapped, sizes.get("RssFile", 0))
        if not begun:
            print("begun", flush=True)
            begun = True
        if select.select([sys.stdin], [], [], EVERY)[0]:  # closed
            break
    print(json.dumps([anonymous, mapped]), flush=True)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
