"""Targets: run folders, checkpoints, the cache, and the ledger of fetched pictures."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.saved import sealed, split
from benchmarks.fuzzing.target import Wrong, target

_SPEC = {
    "vwkit": 1,
    "featurizer": {"use": "colour-histogram", "bins": 2},
    "transform": [{"use": "pca", "dim": 4}],
    "clusterer": {"use": "lloyd", "k": 2, "iterations": 2},
    "index": {"use": "exact"},
}
_WORDS = (
    b'"stages"', b'"kind": "run"', b'"format": ', b'"spec"', b'"items_sha256"', b'"scores"', b'"counts"', b'"../x"',
    b'"/etc"', b'"."', b'".."', b"null", b"1e999", b"[[", b"{", b'"status": "removed"', b'"size": [', b'"row": ', b'"new"',
    b'"old"', b'"transform"', b'"metadata": {', b"NaN", b"\\ud800", b'"index"',
)  # fmt: skip
#: Files of a run that are changed; of its artifacts, which have targets of their own, only one.
_CHANGED = ("manifest.json", "items.jsonl", "spec.yaml", "index/manifest.json")


def _pictures(folder: Path) -> None:
    import PIL.Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        small = rng.integers(0, 255, (4, 4, 3)).astype(np.uint8)
        PIL.Image.fromarray(small).resize((16, 12)).save(folder / f"{i}.png")


_made: dict[str, dict[str, bytes]] = {}


def _run_files() -> dict[str, bytes]:
    """Return the files of a finished run, made once."""
    if not _made:
        import vwkit

        place = Path(tempfile.mkdtemp("", "vwkit-fuzz-run-"))
        before = os.environ.get("VWKIT_CACHE")
        os.environ["VWKIT_CACHE"] = str(place / "cache")
        try:
            _pictures(place / "photos")
            spec = {**_SPEC, "images": {"path": str(place / "photos")}}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                vwkit.Pipeline.from_dict(spec).run(place / "run")
            shutil.rmtree(place / "run" / ".run", ignore_errors=True)
            _made["run"] = split(place / "run")
            text = (place / "run" / "manifest.json").read_bytes()
            _made["run"]["manifest.json"] = text  # a run's manifest has no hash of its own
            _made["run"].pop("report.html", None)
        finally:
            os.environ.pop("VWKIT_CACHE")
            if before is not None:
                os.environ["VWKIT_CACHE"] = before
            shutil.rmtree(place, ignore_errors=True)
    return _made["run"]


def _run_seeds(folder: Path) -> list[bytes]:
    files = _run_files()
    return [bytes([at]) + files[name] for at, name in enumerate(_CHANGED)]


def _write_run(folder: Path, changed: dict[str, bytes]) -> Path:
    """Write the run with other files; the hash of its items is made right, if that can be."""
    files = {**_run_files(), **changed}
    run = folder / "run"
    artifacts = {name: content for name, content in files.items() if "/" in name}
    for stage in {name.partition("/")[0] for name in artifacts}:
        inside = {k.partition("/")[2]: v for k, v in artifacts.items() if k.startswith(stage + "/")}
        which = next((k.partition("/")[2] for k in changed if k.startswith(stage + "/")), None)
        sealed(inside, run / stage, which)
    for name, content in files.items():
        if "/" not in name:
            (run / name).write_bytes(content)
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        manifest = json.loads(files["manifest.json"])
        manifest["items_sha256"] = hashlib.sha256(files["items.jsonl"]).hexdigest()
        (run / "manifest.json").write_text(json.dumps(manifest))
    return run


@target("run", _run_seeds, words=_WORDS, cheap=False, largest=1 << 16, guided=False)
def run(data: bytes, folder: Path) -> None:
    """A run folder with one file changed: opened, inspected, searched, shown."""
    import vwkit
    from vwkit.errors import VwkitError
    from vwkit.inspecting import inspect_path

    name = _CHANGED[(data[0] if data else 0) % len(_CHANGED)]
    place = _write_run(folder, {name: data[1:]})
    opened = vwkit.Run.open(place)
    errors: list[Exception] = []
    for ask in (
        lambda: inspect_path(place),
        lambda: opened.search([opened.kept[0].id] if opened.kept else [], 2),
        lambda: opened.search(np.full((9, 9, 3), 80, np.uint8), 2),
        lambda: opened.search(np.full((9, 9, 3), 80, np.uint8), 2, where="id != 'x'"),
        lambda: (opened.clusters, opened.unclustered, opened.words, opened.vectors),
        lambda: (opened.spec, opened.scores, opened.rerankers, opened.features, repr(opened)),
    ):
        try:
            ask()
        except VwkitError as error:
            errors.append(error)
    outside = {one.name for one in folder.iterdir()} - {"run"}
    if outside:
        raise Wrong(f"files outside the run: {outside}")
    if errors:
        raise errors[0]


# What an unfinished run and a replaced one leave ------------------------------------------------

_INNER = {
    "commit.json": b'{"new": ["manifest.json", "items.jsonl", "index"], "old": ["report.html", "spec.yaml"]}',
    "state.json": b'{"spec": {"vwkit": 1}, "begun": 1}',
    "checkpoints/stages.json": b'{"index": {"name": "index", "key": "abc", "from": "computed"}}',
    "lock": b'{"pid": 12, "host": "x"}',
}


def _inner_seeds(folder: Path) -> list[bytes]:
    return [bytes([at]) + content for at, content in enumerate(_INNER.values())]


@target("run-inner", _inner_seeds, words=_WORDS, cheap=False, guided=False)
def inner(data: bytes, folder: Path) -> None:
    """What ``.run`` holds: the journal of a commit, the state, the stages' ledger, the lock."""
    from vwkit.errors import VwkitError
    from vwkit.lock import holder
    from vwkit.run_folder import finish_commit

    names = list(_INNER)
    name = names[(data[0] if data else 0) % len(names)]
    bystander = folder / "kept"
    bystander.write_bytes(b"kept")
    place = folder / "run"
    for where in (place / ".run" / "next", place / ".run" / "checkpoints", place / "index"):
        where.mkdir(parents=True)
    (place / ".run" / "next" / "manifest.json").write_bytes(b"{}")
    (place / "manifest.json").write_bytes(b"{}")
    (place / ".run" / name).write_bytes(data[1:])
    error = None
    try:
        holder(place / ".run" / "lock")
        if name == "commit.json":
            finish_commit(place)
        else:
            _resume(place, folder)
    except VwkitError as one:
        error = one
    if bystander.read_bytes() != b"kept":
        raise Wrong("a file outside the run was changed")
    left = {one.name for one in folder.iterdir()} - {"kept", "run", "x.npy"}
    if left:
        raise Wrong(f"files outside the run: {left}")
    if error is not None:
        raise error


def _resume(place: Path, folder: Path) -> None:
    """Resume a tiny run in a folder whose state is hostile."""
    import vwkit

    (place / "manifest.json").unlink(missing_ok=True)
    np.save(folder / "x.npy", np.arange(12, dtype=np.float32).reshape(6, 2))
    spec = {
        "vwkit": 1,
        "vectors": {"path": str(folder / "x.npy")},
        "transform": [{"use": "l2-norm"}],
    }
    vwkit.Pipeline.from_dict(spec).run(place, resume=True)


# Archives of arrays -----------------------------------------------------------------------------

_ARRAYS: dict[str, Any] = {
    "centers": np.arange(12, dtype=np.float32).reshape(3, 4),
    "changed": np.array([3, 2]),
    "moment": np.array(1.5),
}


def _archives(folder: Path) -> list[bytes]:
    import io

    from vwkit.checkpoints import write_checkpoint

    write_checkpoint(folder, 3, _ARRAYS)
    made = [(folder / "step-000000003.npz").read_bytes()]
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **_ARRAYS)
        made.append(file.getvalue())
    bomb = io.BytesIO()
    np.savez_compressed(bomb, x=np.zeros(64 << 20, np.uint8))
    return [*made, bomb.getvalue()]


@target("checkpoint", _archives, words=(b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"'shape': (", b"<f4", b"|O", b"centers.npy"),
        largest=1 << 17)  # fmt: skip
def checkpoint(data: bytes, folder: Path) -> None:
    """A checkpoint of an interrupted fit, and one that is damaged behind it."""
    from vwkit.jobs import Job

    place = folder / "checkpoints"
    place.mkdir()
    (place / "step-000000004.npz").write_bytes(data)
    job = Job(folder=place, resumable=True)
    found = job.resume()
    if found is not None and sum(one.nbytes for one in found[1].values()) > len(data):
        raise Wrong("more numbers than the file has bytes")


@target("cache-features", _archives, words=(b"PK\x01\x02", b"PK\x03\x04", b"'shape': (", b"<f4", b"|O", b"centers.npy"),
        largest=1 << 17)  # fmt: skip
def features(data: bytes, folder: Path) -> None:
    """The features of one image in the cache."""
    from vwkit.cache import Cache

    cache = Cache(folder / "cache")
    cache.keep_features("a" * 40, "b" * 40, {"x": np.zeros(2)})
    (path,) = (folder / "cache").rglob("*.npz")
    path.write_bytes(data)
    cache.features("a" * 40, "b" * 40)
    cache.close()


@target("cache-stage", lambda _: [bytes([i]) + c for i, c in enumerate(_stage_files().values())], cheap=False, words=_WORDS,
        largest=1 << 16)  # fmt: skip
def stage(data: bytes, folder: Path) -> None:
    """A finished stage in the cache."""
    from vwkit.cache import Cache

    cache = Cache(folder / "cache")
    files = _stage_files()
    name = list(files)[(data[0] if data else 0) % len(files)]
    place = folder / "cache" / "stages" / "ab" / "abcd"
    sealed({**files, name: data[1:]}, place, name)
    cache.restore("abcd", folder / "target")
    cache.close()
    left = {one.name for one in folder.iterdir()} - {"cache", "target"}
    if left:
        raise Wrong(f"files outside the cache: {left}")


def _stage_files() -> dict[str, bytes]:
    from benchmarks.fuzzing.saved import _made as of
    from benchmarks.fuzzing.saved import files_of

    return files_of("lloyd", of("clusterer", "lloyd", k=5, iterations=3))


_LEDGER = (
    b'{"url": "http://x/a.jpg", "file": "ab/' + b"0" * 40 + b'.jpg", "bytes": 3}\n'
    b'{"url": "http://x/b.jpg", "reason": "HTTP 404", "temporary": false, "runs": 2}\n'
)


@target(
    "ledger",
    lambda _: [_LEDGER],
    words=(b'"file"', b'"bytes": ', b'"../', b"null", b"1e999", b"[[[[", b'"runs": '),
)
def ledger(data: bytes, folder: Path) -> None:
    """The ledger of a cache of pictures."""
    from vwkit.downloading.ledger import Ledger

    (folder / "cache").mkdir()
    (folder / "cache" / "ledger.jsonl").write_bytes(data)
    held = Ledger(folder / "cache")
    for url in ("http://x/a.jpg", "http://x/b.jpg", ""):
        held.entry(url)
        found: Any = held.picture(url)
        if found is not None and not found.resolve().is_relative_to(folder.resolve()):
            raise Wrong(f"a picture outside the cache: {found}")
    held.close()
