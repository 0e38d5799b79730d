"""Whatever plugin is missing, all else works, and who asks for it learns which package to install."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import vwkit
from tests.helpers import blobs
from vwkit import plugins
from vwkit.catalog import catalog, schema

ROOT = Path(__file__).parents[1]
OURS = {path.name for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").is_file()}
DATA_PATH = ("featurizer", "transform", "quantizer", "clusterer", "index")
PACKAGES = sorted(
    {plugins._origin(point)[0] for point in importlib.metadata.entry_points(group="vwkit")}
    - {"vwkit"}
)
# Not `vwkit.create`, which would look for plugins here and now, before a test blocks one.
COMPILED = sorted(
    {
        entries[0].package
        for entries in plugins.registry().entries.values()
        if entries[0].cls.compiled
    }
)

needs_plugins = pytest.mark.skipif(not PACKAGES, reason="no plugin is installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without")
    vwkit.write(folder / "x.npy", blobs(300))
    (folder / "groups.csv").write_text("query,item,what\na,b,relevant\n")
    (folder / "photos").mkdir()
    for name in ("a", "b"):
        PIL.Image.new("RGB", (8, 8), (90, 120, 200)).save(folder / "photos" / f"{name}.png")
    return folder


def use(monkeypatch, *, blocked=(), missing=()):
    """Make this process one in which some packages are blocked, or not installed at all."""
    monkeypatch.setenv("VWKIT_BLOCK", ",".join((*blocked, *missing)))
    found = plugins.discover()
    if missing:
        found.blocked = frozenset()
    monkeypatch.setattr(plugins, "_registry", found)
    return found


def given(cls, data):
    """Return what a backend must be told, as far as it is known here; None if it is not."""
    known = {
        "k": 5,
        "m": 4,
        "groundtruth": str(data / "groups.csv"),
        "local": {"use": "pixels"},
        "vocabulary": {"use": "lloyd", "k": 3},
        "clusterer": {"use": "lloyd", "k": 5},
    }
    # Outputs that write other files than pictures.
    endings = {"duplicates": ".html", "gallery": ".html", "table": ".csv"}
    known["path"] = str(data / f"out{endings.get(cls.name, '.png')}")
    needed = [one.name for one in cls.parameters().values() if one.default is inspect._empty]
    return {name: known[name] for name in needed} if set(needed) <= set(known) else None


def spec(data, **slots):
    return {"vwkit": 1, "vectors": {"path": str(data / "x.npy")}, **slots}


def check_what_is_left(left, data):
    """Everything that is listed can be made, and the built-in ones do their work."""
    listed = catalog()
    assert {(one["role"], one["name"]) for one in listed} == set(left.entries)
    assert left.broken == {}
    assert json.dumps(schema())
    made = 0
    for role, names in vwkit.backends().items():
        for name, cls in names.items():
            params = given(cls, data)
            if params is not None:
                assert type(vwkit.create(role, name, **params)) is cls
                made += 1
    assert made >= 15
    slots = {
        "transform": {"use": "l2-norm"},
        "quantizer": {"use": "pq", "m": 4, "ks": 16},
        "clusterer": {"use": "lloyd", "k": 5, "assign": {"use": "exact"}},
        "index": {"use": "exact", "metric": "cosine"},
        "output": {"write": "vocabulary", "path": str(data / "vocabulary")},
    }
    run = vwkit.Pipeline.from_dict(spec(data, **slots)).run(data / "run")
    rows = vwkit.read(data / "x.npy").toarray()
    found = run.search(rows[:5], 1)
    assert np.allclose(found.distances, 0, atol=1e-6)
    assert vwkit.load(data / "vocabulary").codebook.shape == (1, 5, 8)


def asking(role, name, data):
    """Return a spec that names a backend in the slot of its role."""
    slot = {"use": name}
    if role == "index":
        return spec(data, index=slot)
    if role == "clusterer":
        return spec(data, quantizer={"use": "pq", "m": 4, "ks": 16}, clusterer=slot)
    if role in ("transform", "quantizer"):
        return spec(data, **{role: slot})
    if role == "featurizer":
        return {"vwkit": 1, "images": {"path": str(data / "photos")}, "featurizer": slot}
    return None


def told(role, name, data):
    """Return what is said to who asks for a backend: by a spec where there is a slot for it."""
    wanted = asking(role, name, data)
    if wanted is None:
        with pytest.raises(vwkit.UnknownNameError) as caught:
            vwkit.create(role, name)
        return str(caught.value)
    with pytest.raises(vwkit.SpecError) as caught:
        vwkit.Pipeline.from_dict(wanted)
    place, _, text = str(caught.value).partition(": ")
    assert place == f"{role}.use"
    return text


def test_there_are_packages_to_take_away():
    assert OURS
    assert set(COMPILED) <= set(PACKAGES)
    if set(PACKAGES) >= OURS:  # all of ours are installed
        assert {"vwkit-annoy", "vwkit-hnswlib"} <= set(COMPILED)


@needs_plugins
@pytest.mark.parametrize("package", PACKAGES)
def test_without_one(package, data, monkeypatch):
    brought = [key for key, one in plugins.registry().entries.items() if one[0].package == package]
    assert brought, f"{package} brings nothing"
    left = use(monkeypatch, blocked=[package])
    assert not set(brought) & set(left.entries)
    check_what_is_left(left, data)
    for role, name in brought:
        text = told(role, name, data)
        assert "\n" not in text
        assert f"no {role} is named {name!r}" in text
        if package in OURS:
            assert f"the plugin {package} is blocked by VWKIT_BLOCK" in text
    use(monkeypatch, missing=[package])
    for role, name in brought:
        text = told(role, name, data)
        assert "\n" not in text
        if package in OURS:
            assert f"pip install ./plugins/{package}" in text


@needs_plugins
def test_without_any(data, monkeypatch):
    left = use(monkeypatch, blocked=PACKAGES)
    assert set(left.roles()) >= set(DATA_PATH)
    assert {entries[0].package for entries in left.entries.values()} == {"vwkit"}
    check_what_is_left(left, data)


@pytest.mark.skipif(not COMPILED, reason="no plugin is installed that is compiled from source")
def test_without_the_compiled_ones_every_role_has_its_backends(data, monkeypatch):
    before = plugins.registry().roles()
    left = use(monkeypatch, blocked=COMPILED)
    assert left.roles() == before
    check_what_is_left(left, data)
    if {"vwkit-faiss", "vwkit-opencv"} <= set(PACKAGES):  # these have wheels
        assert len(left.names("index")) > 3
        assert "sift" in left.names("featurizer")


CHILD = """
import sys, vwkit
from vwkit.plugins import registry
folder = sys.argv[1]
pipeline = vwkit.Pipeline.from_dict({
    "vwkit": 1, "vectors": {"path": folder + "/x.npy"},
    "clusterer": {"use": "lloyd", "k": 5}, "index": {"use": "exact"},
})
assert len(pipeline.run(folder + "/child").index) == 300
blocked = [one.replace("-", "_") for one in sys.argv[2:]]
print(*[name for name in sys.modules if name.split(".")[0] in blocked])
print(*registry().broken)
"""


@needs_plugins
def test_in_a_process_of_its_own_nothing_of_them_is_imported(data):
    """As above, but from the start: what is blocked is never imported, and nothing is warned of."""
    environment = {**os.environ, "VWKIT_BLOCK": ",".join(PACKAGES)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(data), *PACKAGES],
        capture_output=True, text=True, check=False, env=environment, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
