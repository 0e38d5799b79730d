"""The process that `faults` harms: ``python -m benchmarks.harmed TASK``."""

import errno
import json
import os
import signal
import sys
from pathlib import Path


def harmed(arguments, task):
    """Run vwkit's command line, with checkpoints as often as can be and a fault at some operation."""
    from vwkit import growing_arrays, jobs
    from vwkit.builtin import lloyd_fit, seeding, transforms
    from vwkit.cli.main import main as vwkit_main

    growing_arrays._EVERY = growing_arrays._SHARE = jobs._CHECKPOINT_SHARE = 0
    for module in (lloyd_fit, seeding, transforms):
        module._WORTH_KEEPING = 0.0
    done = [0]
    for name in (
        "fsync",
        "rename",
        "replace",
        "link",
        "unlink",
        "rmdir",
        "mkdir",
        "posix_fallocate",
    ):
        setattr(os, name, faulty(name, getattr(os, name), task, done))
    try:
        vwkit_main(arguments)
    finally:
        if "count" in task:
            said = Path("/proc/self/status").read_text().splitlines()
            peak = [line for line in said if line.startswith("VmPeak")]
            counted = [done[0], int(peak[0].split()[1]) << 10]
            Path(task["count"]).write_text(json.dumps(counted))


def faulty(name, real, task, done):
    """Return an operation that counts itself, and fails when its time has come."""

    def operation(*args, **more):
        done[0] += 1
        if done[0] == task.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        needs_room = name not in ("unlink", "rmdir", "rename", "replace")
        if needs_room and done[0] >= task.get("full", sys.maxsize):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **more)

    return operation


if __name__ == "__main__":
    harmed(*json.loads(sys.argv[1]))
