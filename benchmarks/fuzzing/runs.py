"""Targets: what every verb makes of a run folder with hostile files in it, and what ``--resume`` does."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.fuzzing.folders import _pictures, _run_files, _write_run
from benchmarks.fuzzing.saved import sealed, split
from benchmarks.fuzzing.target import Wrong, target

_WORDS = (
    b'"progress"', b'"state": "running"', b'"stage"', b'"done": ', b'"total": ', b'"rate_now": ', b'"eta_seconds": ', b'"values": {',
    b'"stages_done": [', b'"lock"', b'"pid": ', b'"host"', b'"level": "error"', b'"message": ', b'"event"', b'"time"', b"null",
    b"1e999", b"-1", b"NaN", b'"\\ud800"', b'"\\u001b[31m"', b"[[[[", b"{}", b'"left": ', b'"key": ', b'"at": ', b'"notes": ',
    b'"arrays": ', b'"dim": ', b'"dtype": ', b'"rows": ', b'"crc": ', b'"../x"', b'"from": ', b'"counts"', b'"accounts"',
    b'"skipped"', b'"seconds": ', b'"scores"', b"'shape': (", b"'descr': ", b"PK\x01\x02",
)  # fmt: skip


# A finished run ---------------------------------------------------------------------------------


def _document() -> dict[str, Any]:
    from vwkit.observing.progress import Progress

    made = Progress(
        "abc", 1, "run", 12, "x", ["index"], [{"name": "a", "from": "cache", "seconds": 1}]
    )
    made.begin("clusterer")
    document: dict[str, Any] = json.loads(json.dumps(made.document()))
    return document


@functools.cache
def _files() -> dict[str, bytes]:
    """Return what may be changed: files of a run, and those that ``.run`` holds."""
    run = _run_files()
    names = (
        "manifest.json",
        "items.jsonl",
        "spec.yaml",
        "features/manifest.json",
        "index/manifest.json",
    )
    log = {
        "time": "2026-01-01T00:00:00Z",
        "level": "warning",
        "event": "x",
        "run": "abc",
        "message": "m",
    }
    return {
        **{name: run[name] for name in names if name in run},
        ".run/progress.json": json.dumps(_document()).encode(),
        ".run/log.jsonl": (json.dumps(log) + "\n" + json.dumps({**log, "level": "error"}) + "\n").encode(),
        ".run/log.1.jsonl": b"",
        ".run/lock": b'{"pid": 12, "host": "x", "id": "abc"}',
        ".run/outputs.json": b'{"left": [0], "key": "x"}',
        ".run/commit.json": b'{"new": ["manifest.json"], "old": ["report.html"]}',
    }  # fmt: skip


def _status(run: Path) -> None:
    from vwkit.cli.status import line, report
    from vwkit.observing import status
    from vwkit.observing.metrics import write_metrics

    found = status(run)
    json.dumps(found)
    for text in (report(found), line(found)):
        if not all(one.isprintable() for one in text.split("\n")):
            raise Wrong(f"a status that is no plain text: {text!r}")
    with contextlib.suppress(ImportError):
        write_metrics(found, run.parent / "x.prom")
        (run.parent / "x.prom").unlink(missing_ok=True)


def _picture(folder: Path) -> Path:
    import PIL.Image

    path = folder / "new.png"
    PIL.Image.fromarray(np.full((9, 9, 3), 80, np.uint8)).save(path)
    return path


def _search(run: Path) -> None:
    import vwkit
    from vwkit.report import write_search_page

    opened = vwkit.Run.open(run)
    asked = [str(_picture(run.parent))]
    matches = opened.search(asked, 3)
    write_search_page(opened, matches, asked, run.parent / "new.html", fields=(), where=None)


def _add(run: Path) -> None:
    import vwkit

    opened = vwkit.Run.open(run)
    opened.add([_picture(run.parent)])
    vwkit.Run.open(run).search([str(_picture(run.parent))], 2)


def _compact(run: Path) -> None:
    import vwkit

    opened = vwkit.Run.open(run)
    opened.remove([opened.kept[0].id] if opened.kept else [])
    vwkit.Run.open(run).compact()
    vwkit.Run.open(run).search([str(_picture(run.parent))], 2)


def _report(run: Path) -> None:
    import vwkit
    from vwkit.report import write_report

    write_report(vwkit.Run.open(run), run.parent / "new.html")


def _serve(run: Path) -> None:
    from vwkit_serve.served import Served

    import vwkit

    Served(vwkit.Run.open(run), 1 << 20)


_VERBS: dict[str, Callable[[Path], None]] = {
    "status": _status,
    "search": _search,
    "add": _add,
    "compact": _compact,
    "report": _report,
    "serve": _serve,
}


def _verb(name: str) -> None:
    def seeds(folder: Path) -> list[bytes]:
        return [bytes([at]) + content for at, content in enumerate(_files().values())]

    def run(data: bytes, folder: Path) -> None:
        files = _files()
        changed = list(files)[(data[0] if data else 0) % len(files)]
        inner = {one: files[one] for one in (".run/progress.json", ".run/log.jsonl", ".run/lock")}
        inside = changed.startswith(".run/")
        place = _write_run(folder, {} if inside else {changed: data[1:]})
        for one, content in {**inner, **({changed: data[1:]} if inside else {})}.items():
            (place / one).parent.mkdir(exist_ok=True)
            (place / one).write_bytes(content)
        bystander = folder / "kept"
        bystander.write_bytes(b"kept")
        try:
            with _cached(folder / "cache"):
                _VERBS[name](place)
        finally:
            left = {one.name for one in folder.iterdir()} - {
                "run",
                "kept",
                "cache",
                "new.png",
                "new.html",
            }
            if left or bystander.read_bytes() != b"kept":
                raise Wrong(f"files outside the run: {left}")

    needs = ("vwkit_serve", "starlette") if name == "serve" else ()
    target(f"run-{name}", seeds, words=_WORDS, cheap=False, guided=name == "status", needs=needs,
           largest=1 << 16)(run)  # fmt: skip


for _name in _VERBS:
    _verb(_name)


# An interrupted one -----------------------------------------------------------------------------

_FIT = {
    "vwkit": 1,
    "transform": [{"use": "l2-norm"}],
    "quantizer": {"use": "pq", "m": 2, "ks": 4},
    "clusterer": {"use": "lloyd", "k": 3, "iterations": 6, "tolerance": 0},
}
_ROWS = {
    "vwkit": 1,
    "featurizer": {"use": "colour-histogram", "bins": 2},
    "transform": [{"use": "pca", "dim": 4}],
}


@contextlib.contextmanager
def _cached(folder: Path) -> Iterator[None]:
    with mock.patch.dict(os.environ, {"VWKIT_CACHE": str(folder)}):
        yield


def _spec(folder: Path, where: str) -> dict[str, Any]:
    """Write what a run reads; return its spec."""
    if where == "rows":
        _pictures(folder / "photos")
        return {**_ROWS, "images": {"path": str(folder / "photos")}}
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.save(folder / "x.npy", rows)
    return {**_FIT, "vectors": {"path": str(folder / "x.npy")}}


def _interrupted(folder: Path, where: str) -> None:
    """Make a run that stops in the rows of a stage, or at a checkpoint of a fit."""
    import vwkit
    from vwkit.errors import Interrupted
    from vwkit.growing_arrays import GrowingArrays
    from vwkit.jobs import Job

    step, checkpoint = GrowingArrays.step, Job.checkpoint

    def in_rows(self: Any, position: int, note: Any = None) -> None:
        self._free_from = 0
        step(self, position, note)
        raise Interrupted("here")

    def in_fit(self: Any, number: int, arrays: Any) -> None:
        self._free_from = 0
        checkpoint(self, number, arrays)
        if number >= 3:
            raise Interrupted("here")

    patch = mock.patch.object(GrowingArrays, "step", in_rows) if where == "rows" else mock.patch.object(Job, "checkpoint", in_fit)  # fmt: skip
    with patch, _cached(folder / "cache"), contextlib.suppress(Interrupted):
        vwkit.Pipeline.from_dict(_spec(folder, where)).run(folder / "run")
        raise RuntimeError(f"the run was not interrupted in its {where}")


@functools.cache
def _unfinished() -> dict[str, dict[str, bytes]]:
    """Return the files of two interrupted runs."""
    made = {}
    for where in ("rows", "fit"):
        place = Path(tempfile.mkdtemp("", "vwkit-fuzz-resume-"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _interrupted(place, where)
            files = split(place / "run")
            made[where] = {
                # The spec that it was begun with names this folder.
                name: content.replace(str(place).encode(), b"@PLACE@")
                for name, content in files.items()
            }
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return made


def _resume_places() -> list[tuple[str, str]]:
    return [(where, name) for where, files in _unfinished().items() for name in files]


def _summed(journal: bytes) -> bytes:
    """Make the checksum of each line right, as an attacker would."""
    lines = []
    for line in journal.split(b"\n"):
        text = line[9:]
        lines.append(b"%08x %s" % (zlib.crc32(text), text) if len(line) > 9 else line)
    return b"\n".join(lines)


@target("run-resume", lambda _: [bytes([at]) + _unfinished()[where][name] for at, (where, name) in enumerate(_resume_places())],
        words=_WORDS, cheap=False, guided=False, largest=1 << 16)  # fmt: skip
def resume(data: bytes, folder: Path) -> None:
    """An interrupted run with one of its files changed: resumed, in a process with threads."""
    import vwkit

    places = _resume_places()
    where, changed = places[(data[0] if data else 0) % len(places)]
    files = {**_unfinished()[where], changed: data[1:]}
    spec = _spec(folder, where)
    run = folder / "run"
    at = str(folder).encode()
    content = {name: held.replace(b"@PLACE@", at) for name, held in files.items()}
    for name, held in content.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(_summed(held) if name.endswith("/journal") else held)
    for stage in {
        name.split("/")[2]
        for name in files
        if name.startswith(".run/next/") and name.count("/") > 2
    }:
        prefix = f".run/next/{stage}/"
        inside = {
            name.removeprefix(prefix): held
            for name, held in content.items()
            if name.startswith(prefix)
        }
        sealed(
            inside,
            run / prefix,
            changed.removeprefix(prefix) if changed.startswith(prefix) else None,
        )
    bystander = folder / "kept"
    bystander.write_bytes(b"kept")
    threads = threading.active_count()
    try:
        with _cached(folder / "cache"):
            done = vwkit.Pipeline.from_dict(spec).run(run, resume=True)
            if {one["name"] for one in done.manifest["stages"].values()} != set(
                done.manifest["stages"]
            ):
                raise Wrong("no whole run came of it")
    finally:
        left = {one.name for one in folder.iterdir()} - {"run", "kept", "cache", "x.npy", "photos"}
        if left or bystander.read_bytes() != b"kept":
            raise Wrong(f"files outside the run: {left}")
    if threading.active_count() > threads + 1:
        raise Wrong(f"{threading.active_count() - threads} threads are left")


# Parts of it alone, for many more cases -----------------------------------------------------------


def _journal_seeds(folder: Path) -> list[bytes]:
    files = _unfinished()["rows"]
    rows = {name.rpartition("/")[2]: held for name, held in files.items() if "/rows/" in name}
    names = ("journal", "sizes.npy", "offsets.npy", "vectors.npy")
    return [bytes([at]) + rows[name] for at, name in enumerate(names)]


@target("rows-journal", _journal_seeds, words=_WORDS, cheap=False)
def journal(data: bytes, folder: Path) -> None:
    """The rows of a stage that a killed process left, and the journal that tells of them."""
    from vwkit.artifact import write_artifact
    from vwkit.growing_arrays import GrowingArrays
    from vwkit.jobs import Job

    seeds = _journal_seeds(folder)
    names = ("journal", "sizes.npy", "offsets.npy", "vectors.npy")
    chosen = names[(data[0] if data else 0) % len(names)]
    rows = folder / "job" / "rows"
    rows.mkdir(parents=True)
    for name, held in zip(names, seeds, strict=True):
        content = data[1:] if name == chosen else held[1:]
        (rows / name).write_bytes(_summed(content) if name == "journal" else content)
    job = Job(folder=folder / "job", resumable=True)
    with (
        write_artifact(folder / "made", {"role": "stage", "name": "x"}) as draft,
        GrowingArrays(draft, job) as growing,
    ):
        growing.array("vectors", 8, np.float32)
        growing.append("vectors", np.ones((2, 8), np.float32))
        if growing.rows("vectors") > 2 + len(data) // 32 + 8:
            raise Wrong(f"{growing.rows('vectors')} rows of {len(data)} bytes")
        growing.step(growing.position + 1)
        growing.close()
    left = {one.name for one in folder.iterdir()} - {"job", "made"}
    if left:
        raise Wrong(f"files outside: {left}")


def _told_seeds(folder: Path) -> list[bytes]:
    files = _files()
    return [bytes([at]) + files[name] for at, name in enumerate(_TOLD)]


_TOLD = (".run/progress.json", ".run/log.jsonl", ".run/lock", "manifest.json", ".run/outputs.json")


@target("told", _told_seeds, words=_WORDS)
def told(data: bytes, folder: Path) -> None:
    """What a run says of itself, as ``vwkit status`` and ``--resume`` read it, without the run."""
    from vwkit.resuming import Pending

    chosen = _TOLD[(data[0] if data else 0) % len(_TOLD)]
    run = folder / "run"
    (run / ".run").mkdir(parents=True)
    for name in _TOLD:
        (run / name).write_bytes(data[1:] if name == chosen else _files()[name])
    _status(run)
    pending = Pending(run, 3)
    [number in pending for number in range(3)]
    pending.done(1)
