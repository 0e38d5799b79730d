"""The suite in pytest runs of other projects."""

import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import vwkit
from tests.suite.faults import run_test
from vwkit.testing import TransformTests

MODULE = """
import numpy as np
import vwkit
from vwkit.testing import TransformTests


@vwkit.backend("doubled")
class Doubled(vwkit.Transform):
    "Times two."
    deterministic = True

    def _transform(self, vectors):
        return vectors * np.float32(2)


@vwkit.backend("spoilt")
class Spoilt(Doubled):
    "Times two, into the caller's array."

    def _transform(self, vectors):
        vectors *= np.float32(2)
        return vectors


@vwkit.backend("absent")
class Absent(Doubled):
    "Needs what is not there."
    requires = ("no_such_library",)


class TestDoubled(TransformTests):
    backend = Doubled


class TestSpoilt(TransformTests):
    backend = Spoilt
    expected_failures = {SPOILT}


class TestAbsent(TransformTests):
    backend = Absent
"""


def run_pytest(folder, text, *options):
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (folder / "test_mine.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfEXxs"]
    done = subprocess.run(
        [*command, "--import-mode=importlib", "--strict-markers", "--strict-config", *options],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What pytest says in a strict project, of the marked tests of all three classes."""
    folder = tmp_path_factory.mktemp("plain")
    status, text = run_pytest(folder, MODULE.replace("{SPOILT}", "{}"), "-m", "conformance")
    assert status == 1, text
    return text


def failed(text):
    return {
        line.split()[1].partition("::")[2] for line in text.splitlines() if line[:7] == "FAILED "
    }


def test_only_what_is_wrong_fails_in_a_strict_project(plain):
    assert all(name.startswith("TestSpoilt::test_") for name in failed(plain))
    assert "TestSpoilt::test_inputs_are_left_alone" in failed(plain)
    assert "ERROR" not in plain
    assert "deselected" not in plain, "a test without the marker"
    passed = int(re.findall(r"(\d+) passed", plain)[-1])
    assert passed > len(TransformTests._suite_tests), "TestDoubled, and what holds of TestSpoilt"


def test_a_failure_says_what_to_check(plain):
    # Its part of what pytest shows, up to the next test's.
    text = plain.partition("_ TestSpoilt.test_inputs_are_left_alone _")[2].partition("\n____")[0]
    assert "the rows asked about were changed" in text
    assert "If this fails, check for operators such as ``*=``" in text
    # The helpers of the suite stay out of the traceback.
    assert "comparing.py" not in plain


def test_a_missing_library_skips(plain):
    skipped = [line for line in plain.splitlines() if "needs no_such_library" in line]
    counts = [int(re.match(r"SKIPPED \[(\d+)\]", line)[1]) for line in skipped]
    assert sum(counts) == len(TransformTests._suite_tests)


def test_expected_failures_are_strict(plain, tmp_path):
    """Those that fail are xfails, and one that passes is a failure."""
    reasons = {name.rpartition("::")[2]: "writes in place" for name in failed(plain)}
    given = repr({**reasons, "test_has_a_docstring": "I thought so"})
    status, text = run_pytest(tmp_path, MODULE.replace("{SPOILT}", given), "-k", "Spoilt")
    assert status == 1
    assert failed(text) == {"TestSpoilt::test_has_a_docstring"}
    assert "[XPASS(strict)] I thought so" in text
    xfails = [line for line in text.splitlines() if line.startswith("XFAIL ")]
    assert len(xfails) == len(reasons)
    assert all("writes in place" in line for line in xfails)


def test_a_heavy_import_is_caught(tmp_path, monkeypatch):
    (tmp_path / "heavy_library.py").write_text("")
    source = """
    import heavy_library
    import vwkit

    @vwkit.backend("heavy")
    class Heavy(vwkit.Transform):
        "Loads its library at once."
        requires = ("heavy_library",)

        def _transform(self, vectors):
            return vectors
    """
    (tmp_path / "heavy_backend.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    heavy = importlib.import_module("heavy_backend").Heavy
    with pytest.raises(AssertionError, match="also imports heavy_library"):
        run_test(TransformTests, heavy, "test_import_is_light")


def test_the_pytest_plugin_is_light():
    code = (
        "import sys; import vwkit.testing.plugin; "
        "print([m for m in ('numpy', 'hypothesis', 'pydantic', 'vwkit.base') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_asking_needs_neither_pytest_nor_hypothesis():
    code = (
        "import sys; import vwkit.testing.asking; "
        "print([m for m in ('pytest', 'hypothesis') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_nothing_else_imports_pytest_or_hypothesis():
    folder = Path(vwkit.__file__).parent
    sources = [path for path in folder.rglob("*.py") if "testing" not in path.parts]
    assert len(sources) > 20
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "import pytest" not in text, path
        assert "import hypothesis" not in text, path
        assert "from hypothesis" not in text, path
