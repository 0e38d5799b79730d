"""The log of a run: whole lines whatever happens, and the messages and warnings it hears."""

import logging
import os
import threading
import warnings

import numpy as np

from tests.observed_runs import lines
from vwkit.observing import read_log
from vwkit.observing.listening import listening
from vwkit.observing.log import RunLog

# The log -----------------------------------------------------------------------------------------


def inner(folder):
    (folder / ".run").mkdir()
    return folder / ".run" / "log.jsonl"


def test_lines_are_plain_json(tmp_path):
    log = RunLog(inner(tmp_path), "abc")
    log.write("one", "hé\u202e\x1b[2J", stage="s", values={"n": np.int64(3), "x": np.float32(0.5)})
    log.write("two", level="warning", values={"bad": float("nan"), "path": tmp_path, "l": (1, 2)})
    log.close()
    raw = log.path.read_bytes()
    assert raw.isascii()
    first, second = lines(tmp_path)
    assert first["run"] == "abc"
    assert first["values"] == {"n": 3, "x": 0.5}
    assert first["message"] == "hé\u202e\x1b[2J"
    assert first["time"].endswith("Z")
    assert second["values"] == {"bad": None, "path": str(tmp_path), "l": [1, 2]}


def test_a_torn_line_costs_itself_alone(tmp_path):
    log = RunLog(inner(tmp_path), "abc")
    log.write("one")
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00Z", "level": "in')
    again = RunLog(log.path, "abc")
    again.write("two")
    again.close()
    assert [line["event"] for line in lines(tmp_path)] == ["one", "two"]


def test_what_is_no_line_of_ours_is_passed_over(tmp_path):
    inner(tmp_path).write_bytes(b'\xff\xfe\n[1]\n{"a": 1}\n' + b"[" * 100_000 + b"\n\n")
    assert lines(tmp_path) == []
    assert list(read_log(tmp_path / "nowhere")) == []


def test_a_full_disk_is_no_reason_to_fail(tmp_path, monkeypatch):
    log = RunLog(inner(tmp_path), "abc")
    log.write("one")
    write = os.write

    def half(file, text):
        return write(file, text[: len(text) // 2])

    monkeypatch.setattr(os, "write", half)
    log.write("torn")

    def full(file, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.write("lost")
    monkeypatch.setattr(os, "write", write)
    log.write("two")
    assert [line["event"] for line in lines(tmp_path)] == ["one", "two"]


def test_a_log_that_cannot_be_opened_is_left_out(tmp_path):
    inner(tmp_path).mkdir()
    log = RunLog(tmp_path / ".run/log.jsonl", "abc")
    log.write("one")
    log.close()
    assert lines(tmp_path) == []


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    inner(tmp_path).symlink_to(tmp_path / "mine.txt")
    log = RunLog(tmp_path / ".run/log.jsonl", "abc")
    log.write("one")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_it_does_not_grow_without_bound(tmp_path):
    log = RunLog(inner(tmp_path), "abc", largest=2000)
    for i in range(100):
        log.write("step", values={"i": i})
    sizes = {path.name: path.stat().st_size for path in (tmp_path / ".run").iterdir()}
    assert set(sizes) == {"log.jsonl", "log.1.jsonl"}
    assert max(sizes.values()) <= 2000
    kept = [line["values"]["i"] for line in lines(tmp_path)]
    assert kept == list(range(kept[0], 100))
    assert len(kept) > 10


def test_a_line_has_a_length(tmp_path):
    log = RunLog(inner(tmp_path), "abc")
    log.write("long", "x" * 100_000, values={str(i): "y" * 3000 for i in range(100)})
    (line,) = lines(tmp_path)
    assert line["message"].startswith("xxx")
    assert log.path.stat().st_size < 10_000


def test_threads_write_whole_lines(tmp_path):
    log = RunLog(inner(tmp_path), "abc")

    def work(name):
        for i in range(50):
            log.write("step", "m" * 500, values={"who": name, "i": i})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(tmp_path)) == 200


# Messages and warnings ---------------------------------------------------------------------------


def test_messages_and_warnings_are_heard_and_nobody_else_hears_more(caplog):
    log = logging.getLogger("vwkit")
    before = log.level, list(log.handlers), list(log.filters), warnings.showwarning
    heard = []
    with warnings.catch_warnings(record=True) as shown, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        with listening(lambda *said: heard.append(said)):
            log.debug("no")
            log.info("%d words", 3)
            log.warning("careful")
            log.info("%d %d", 1)  # its parts do not fit: whoever listens goes on
            warnings.warn("thin ice", UserWarning, stacklevel=1)
        log.info("too late")
    assert heard == [
        ("info", "message", "3 words"),
        ("warning", "message", "careful"),
        ("warning", "warning", "UserWarning: thin ice"),
    ]
    assert [record.getMessage() for record in caplog.records] == ["careful"]
    assert [str(one.message) for one in shown] == ["thin ice"]
    assert (log.level, log.handlers, log.filters, warnings.showwarning) == before


def test_two_runs_at_once_hear_their_own(monkeypatch):
    log, heard = logging.getLogger("vwkit"), {"a": [], "b": []}
    both = threading.Barrier(2, timeout=30)

    def work(name):
        with listening(lambda level, event, message: heard[name].append(message)):
            both.wait()
            log.info("of %s", name)
            both.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {"a": ["of a"], "b": ["of b"]}
    assert not log.isEnabledFor(logging.DEBUG)
