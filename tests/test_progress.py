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
