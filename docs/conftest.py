"""Runs the examples of these pages and of README.md, page by page, in a folder of example data.

Every fence counts: Python is executed (with ``>>>`` its output is compared), commands after ``$ ``
are run and what follows them is compared (``...`` stands for anything), specs and parts of specs are
checked. A comment right above a fence changes that:

    <!-- not run: why -->        nothing is done with it
    <!-- needs: vwkit-faiss -->  it is skipped where that package (or one of several) is not installed
    <!-- file: name.py -->       it is written to that file, for later fences

``sh`` (commands to paste, without ``$ ``) and ``text`` are shown only.

A page is run in one go and in order: ``pytest docs README.md``.
"""

from __future__ import annotations

import doctest
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.region import Lexeme

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_MISSING = re.compile(r"it comes with the package (\S+):")


def fences(document: Document) -> Iterator[Region]:
    """Find what is to be run."""
    for found in FENCE.finditer(document.text):
        kind, _, detail = (found["note"] or "").partition(": ")
        if kind == "not run":
            continue
        body = found["body"]
        evaluate: Any = _EVALUATORS.get(found["language"])
        if kind == "file":
            evaluate = _writer(detail)
        if evaluate is None:
            continue  # tests/test_docs.py refuses languages that are not known
        if kind == "needs":
            evaluate = _needing(detail, evaluate)
        lexeme = Lexeme(
            body,
            found.start("body") - found.start(),
            found[0].count("\n", 0, found.start("body") - found.start()) - 1,
        )
        region = Region(found.start(), found.end(), parsed=lexeme, evaluator=evaluate)
        if body.startswith(">>>") and kind != "file":
            for one in DocTestStringParser(DocTestEvaluator(_FLAGS))(body, document.path):
                if kind == "needs":
                    one.evaluator = _needing(detail, one.evaluator)
                one.adjust(region, lexeme)
                yield one
        else:
            yield region


def _needing(packages: str, evaluate: Any) -> Any:
    def skip_or_run(example: Example) -> Any:
        for package in packages.split(", "):
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                where = f"./plugins/{package}" if package.startswith("vwkit-") else package
                pytest.skip(f"{package} is not installed: pip install {where}")
        return evaluate(example)

    return skip_or_run


def _writer(name: str) -> Any:
    def write(example: Example) -> None:
        Path(name).write_text(example.parsed)

    return write


def _check_spec(example: Example) -> None:
    """Check a spec, or a part of one completed to a whole."""
    from vwkit import Pipeline, SpecError

    text = str(example.parsed)
    if not text.startswith("vwkit"):
        part = yaml.safe_load(text)
        whole = {
            "vwkit": 1,
            **({} if "images" in part else {"vectors": {"path": "descriptors.bvecs"}}),
        }
        if "images" in part and "featurizer" not in part:
            whole["featurizer"] = {"use": "pixels"}
        text = yaml.safe_dump({**whole, **part})
    file = Path("page.toml" if text.startswith("vwkit = ") else "page.yaml")
    file.write_text(text)
    try:
        Pipeline.from_file(file)
    except SpecError as error:
        missing = _MISSING.search(str(error))
        if missing:
            pytest.skip(f"{missing[1]} is not installed: pip install ./plugins/{missing[1]}")
        raise


def _run_commands(example: Example) -> None:
    """Run the commands after ``$ `` and compare what they print with what follows them."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    status = 0
    for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        if command == "echo $?":
            got, status = f"{status}\n", 0
        else:
            assert status == 0, f"the command before `{command}` ended with status {status}"
            done = subprocess.run(
                ["bash", "-c", command],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
                check=False,
            )
            got, status = done.stdout, done.returncode
        if expected.strip():
            same = doctest.OutputChecker().check_output(expected, got, _FLAGS)
            assert same, f"`{command}` printed\n{got}\nand the page says\n{expected}"
        elif status:
            raise AssertionError(f"`{command}` ended with status {status}:\n{got}")
    assert status == 0, f"`{command}` ended with status {status}:\n{got}"


_EVALUATORS = {
    "python": PythonEvaluator(),
    "yaml": _check_spec,
    "toml": _check_spec,
    "console": _run_commands,
}


def load_script(name: str) -> Any:
    """Import a file of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Page:
    """Gives every page its own folder of example data and its own cache."""

    def __init__(self) -> None:
        self._before: list[Any] = []

    def setup(self, namespace: dict[str, Any]) -> None:
        folder = tempfile.TemporaryDirectory()
        patch = pytest.MonkeyPatch()
        patch.setenv("VWKIT_CACHE", f"{folder.name}/cache")
        load_script("make_data").make(Path(folder.name))
        # Commands of the pages are typed in the root of a clone.
        (Path(folder.name) / "docs").symlink_to(ROOT / "docs")
        patch.chdir(folder.name)
        self._before = [patch, folder]

    def teardown(self, namespace: dict[str, Any]) -> None:
        patch, folder = self._before
        patch.undo()
        # Arrays of the page may be memory-mapped from files in the folder.
        namespace.clear()
        folder.cleanup()


class _Pages:
    """README.md stands above this folder, so the hook must be known to the whole session."""

    def __init__(self) -> None:
        page = _Page()
        self.pytest_collect_file = Sybil(
            parsers=[fences],
            path=str(ROOT),
            patterns=["README.md", "docs/*.md"],
            setup=page.setup,
            teardown=page.teardown,
        ).pytest()


def pytest_configure(config: pytest.Config) -> None:
    """Let README.md be collected, too."""
    config.pluginmanager.register(_Pages(), "vwkit-pages")
