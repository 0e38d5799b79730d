"""Running the suite on an installed backend from the command line."""

from __future__ import annotations

import difflib
import importlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vwkit.errors import ParameterError
from vwkit.plugins import registry
from vwkit.testing.data import DEFAULTS

__all__ = ["SUITES", "run_conformance"]

SUITES = {
    "clusterer": "ClustererTests",
    "featurizer": "FeaturizerTests",
    "index": "IndexTests",
    "quantizer": "QuantizerTests",
    "transform": "TransformTests",
}

_MODULE = """
import json

from vwkit.plugins import registry
from vwkit.testing import {suite}


class Test{title}({suite}):
    backend = registry().entry({role!r}, {name!r}).cls
    params = json.loads({params!r})
    expected_failures = json.loads({failures!r})
{more}"""


def run_conformance(
    role: str,
    name: str,
    params: Mapping[str, Any],
    options: Sequence[str] = (),
    *,
    min_recall: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> int:
    """Run the conformance suite on an installed backend, and print a short report.

    Failures that say the same are told once; see `vwkit.testing.report`. Tracebacks are those of
    pytest itself, in a test module of the author's own.

    Parameters
    ----------
    role, name : str
        Of the backend, as for `vwkit.create`.
    params : dict
        Its parameters in the tests: plain data, as a spec would hold them.
    options : sequence of str
        More options for pytest, such as ``-x``.
    min_recall : float, optional
        The recall that an index promises, from 0 to 1, as `vwkit.testing.IndexTests.min_recall`.
    expected_failures : dict of str to str, optional
        Tests that it is known to fail, and why. It is strict: one that passes counts as failed.

    Returns
    -------
    int
        0 when every test passed, 1 when one failed, 2 when nothing could be run.

    Raises
    ------
    UnknownNameError
        No such backend.
    PluginError
        The backend's library is not installed, or two packages offer it.
    ParameterError
        The role has no suite, or the parameters are wrong; a recall for another role than index or
        outside of 0 to 1; an expected failure that is no test of the suite or has no reason. All of
        them have exit status 2.
    """
    import pytest

    from vwkit.testing.report import ShortReport

    if role not in SUITES:
        raise ParameterError(
            f"there is no conformance suite for the role {role!r}; roles that have one: "
            f"{', '.join(SUITES)}"
        )
    failures = dict(expected_failures or {})
    _check_promises(role, min_recall, failures)
    cls = registry().entry(role, name).cls
    # Wrong parameters are said once, before any test runs.
    given = {key: one for key, one in DEFAULTS.get(role, {}).items() if key in cls.parameters()}
    cls(**{**given, **params})
    text = _MODULE.format(
        suite=SUITES[role],
        title="".join(part.capitalize() for part in name.replace("_", "-").split("-")),
        role=role,
        name=name,
        params=json.dumps(dict(params)),
        failures=json.dumps(failures),
        more="" if min_recall is None else f"    min_recall = {float(min_recall)!r}\n",
    )
    with tempfile.TemporaryDirectory() as folder:
        # A configuration of its own: the settings of the project around are not the suite's.
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        module = Path(folder) / "test_conformance.py"
        module.write_text(text, encoding="utf-8")
        # pytest takes a module of this name that is imported already, such as that of a run before.
        before = sys.modules.pop(module.stem, None)
        status = pytest.main(
            [
                str(module),
                f"--rootdir={folder}",
                f"--config-file={folder}/pytest.ini",
                "--import-mode=importlib",
                "-p", "no:cacheprovider",
                # vwkit was imported before pytest could look into it, which it would mention.
                "-W", "ignore::pytest.PytestAssertRewriteWarning",
                "-q", "--no-header", "--tb=no", "-rX", "--disable-warnings",
                *options,
            ],
            plugins=[ShortReport(_order(role))],
        )  # fmt: skip
        sys.modules.pop(module.stem, None)
        if before is not None:
            sys.modules[module.stem] = before
    return {pytest.ExitCode.OK: 0, pytest.ExitCode.TESTS_FAILED: 1}.get(pytest.ExitCode(status), 2)


def _order(role: str) -> list[str]:
    """Return the tests of a role's suite, those that are most about the role first."""
    suite = getattr(importlib.import_module("vwkit.testing"), SUITES[role])
    own = [name for cls in suite.__mro__ for name in vars(cls) if name.startswith("test_")]
    return list(dict.fromkeys(own))


def _check_promises(role: str, min_recall: float | None, failures: Mapping[str, str]) -> None:
    """Say what is wrong before pytest would, in one line."""
    if min_recall is not None and role != "index":
        raise ParameterError(f"min_recall is a promise of an index; the role {role!r} has none")
    # The comparison is written so that NaN fails it.
    if min_recall is not None and not 0 <= min_recall <= 1:
        raise ParameterError(f"min_recall is a share from 0 to 1; got {min_recall}")
    suite = getattr(importlib.import_module("vwkit.testing"), SUITES[role])
    known = sorted(suite._suite_tests)
    for test, reason in failures.items():
        if test not in known:
            close = difflib.get_close_matches(test, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its tests: {', '.join(known)}"
            raise ParameterError(
                f"expected failure {test!r} is no test of the suite of the role {role!r}; {hint}"
            )
        if not reason.strip():
            raise ParameterError(
                f"expected failure {test!r} needs a reason: what does the backend not promise?"
            )
