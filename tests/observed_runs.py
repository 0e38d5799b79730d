"""What a run wrote of itself, and a small one to watch, for tests."""

from tests.helpers import vector_spec
from vwkit.observing import read_log
from vwkit.observing.progress import PROGRESS, read_progress


def lines(folder):
    return list(read_log(folder))


def events(folder, *names):
    return [line for line in lines(folder) if line["event"] in names]


def small_spec(folder, **slots):
    return vector_spec(folder, clusterer={"use": "lloyd", "k": 6, "iterations": 3}, **slots)


def progress_of(folder):
    return read_progress(folder / ".run" / PROGRESS)
