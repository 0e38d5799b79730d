"""Time of a trial, with other work on the machine and without."""

import types

import numpy as np
import pytest

import vwkit
from vwkit.hashing import rows_key
from vwkit.jobs import use_job
from vwkit.planning import meters
from vwkit.planning.keeping import Keeping
from vwkit.planning.measuring import Measurements
from vwkit.planning.spent import NOTHING, Spent


def spent(monkeypatch, *, clock, cpu, own, system=None, load=0.0, threads=2):
    """Return what is told of a block with these readings."""
    now = {"at": 0}

    def reading(value):
        return lambda: value if now["at"] else 0.0

    told = types.SimpleNamespace(
        perf_counter=reading(clock), process_time=reading(cpu), thread_time=reading(own)
    )
    monkeypatch.setattr(meters, "time", told)
    monkeypatch.setattr(meters, "_system", lambda: system and (system if now["at"] else (0.0, 0.0)))
    monkeypatch.setattr(meters, "busy", lambda: load)
    monkeypatch.setattr(meters.os, "cpu_count", lambda: 2)
    with use_job(vwkit.Job(threads=threads)), meters.Clock() as found:
        now["at"] = 1
    return found.spent


def test_without_other_work_the_clock_is_right(monkeypatch):
    # Half of the time it waited for a file: one of two processors did nothing, and the other half of it.
    assert spent(monkeypatch, clock=2, cpu=1, own=1, system=(3.0, 4.0)) == Spent(2, 1)


def test_waiting_for_processors_that_others_have_does_not_count(monkeypatch):
    told = spent(monkeypatch, clock=10, cpu=2, own=2, system=(0.0, 20.0))
    assert told == Spent(2, 2)


def test_two_threads_share_their_work(monkeypatch):
    assert spent(monkeypatch, clock=10, cpu=4, own=1, system=(0.0, 20.0)) == Spent(2, 4)


def test_waiting_for_files_counts_on_a_busy_machine_too(monkeypatch):
    told = spent(monkeypatch, clock=10, cpu=1, own=1, system=(12.0, 20.0))
    assert told == Spent(6, 1)


@pytest.mark.parametrize(("load", "clock"), [(0.5, 0.05), (4.0, 0.01)])
def test_of_short_times_the_load_decides(monkeypatch, load, clock):
    told = spent(monkeypatch, clock=0.05, cpu=0.01, own=0.01, system=(0.0, 0.1), load=load)
    assert told == Spent(clock, 0.01)


def test_where_the_system_tells_nothing_the_load_decides(monkeypatch):
    assert spent(monkeypatch, clock=3, cpu=1, own=1, load=0.5) == Spent(3, 1)


def test_times_add_up_and_never_fall_below_nothing():
    assert Spent(1, 2) * 2 + Spent(1) == Spent(3, 5)
    assert Spent(1, 5).less(Spent(2, 3)) == Spent(0, 2)
    assert Spent.of({"each": Spent(1, 2).plain()}, "each") == Spent(1, 2)
    assert Spent.of({}, "each") == NOTHING


def test_what_is_kept_takes_time_by_its_size():
    measured = Measurements(1.0, vwkit.Job(threads=1))
    keeping = Keeping.measured(measured)
    assert keeping.each.clock > 0
    assert keeping.of(10) == keeping.each + keeping.byte * 10
    assert Keeping.measured(measured) == keeping  # remembered


def test_rows_are_told_by_their_bytes():
    rows = np.array([0, 3, 2**40])
    assert rows_key(rows) == rows_key(list(rows)) == rows_key(rows[::-1][::-1])
    assert rows_key(rows) != rows_key(rows[::-1])
    assert rows_key(np.empty(0, np.int64)) != rows_key(np.zeros(1, np.int64))
