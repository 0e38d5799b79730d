"""What is shown while something runs."""

import logging

import pytest

from vwkit.cli.progress import logs_shown, reporter


class Shown:
    def __init__(self):
        self.lines = []

    def __call__(self, stage, done, total, unit, values):
        pass

    def say(self, text):
        self.lines.append(text)


def test_logs_are_shown_for_as_long_as_it_runs():
    log, shown = logging.getLogger("vwkit"), Shown()
    before = log.level, list(log.handlers)
    with logs_shown(shown):
        log.info("%d kernels", 3)
        log.debug("too much")
        logging.getLogger("vwkit.part").warning("careful")
    log.info("too late")
    assert shown.lines == ["3 kernels", "careful"]
    assert (log.level, log.handlers) == before


def test_the_level_comes_back_after_an_error():
    log = logging.getLogger("vwkit")
    level = log.level
    with pytest.raises(ValueError, match="no"), logs_shown(Shown()):
        raise ValueError("no")
    assert log.level == level


def test_lines_where_there_is_no_terminal(capsys):
    with reporter() as shown, logs_shown(shown):
        shown("clusterer", 0, None, "rows", {})
        logging.getLogger("vwkit").info("compiling")
    assert capsys.readouterr().err == "clusterer …\ncompiling\n"


def test_quiet_is_quiet(capsys):
    with reporter(quiet=True) as shown, logs_shown(shown):
        shown("clusterer", 0, None, "rows", {})
        logging.getLogger("vwkit").info("compiling")
    assert capsys.readouterr() == ("", "")


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


def test_lines_tell_the_rate_of_now_and_not_of_what_was_done_before(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("vwkit.cli.progress.time", clock)
    with reporter() as shown:
        shown("clusterer", 0, None, "", {})
        shown("clusterer", 0, None, "", {"resumed": 7.0})
        for done in (1_000_000, 1_000_100, 1_001_000):
            clock.now += 10
            shown("clusterer", done, 1_010_000, "rows", {"iteration": 8.0})
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == [
        "clusterer …",
        "clusterer: goes on at step 7",
        "clusterer: 1,000,000 of 1,010,000 rows, iteration 8",
    ]
    assert told[3] == "clusterer: 1,000,100 of 1,010,000 rows, 10 rows/s, 990 s left, iteration 8"
    assert told[4] == "clusterer: 1,001,000 of 1,010,000 rows, 50 rows/s, 180 s left, iteration 8"


def test_bars_take_up_what_was_done_before(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    clock = Clock()
    monkeypatch.setattr("vwkit.cli.progress.time", clock)
    with reporter() as shown:
        shown("clusterer", 0, None, "", {"resumed": 7.0})
        for done in (1_000_000, 1_000_500):
            clock.now += 5
            shown("clusterer", done, 1_010_000, "rows", {})
        (task,) = shown._progress.tasks
        assert (task.completed, task.total, task.fields["rate"]) == (
            1_000_500,
            1_010_000,
            "100 rows/s",
        )
