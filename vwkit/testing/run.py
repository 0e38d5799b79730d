"""Running the suite on an installed backend from the command line."""

from __future__ import annotations

import json
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
"""


def run_conformance(
    role: str, name: str, params: Mapping[str, Any], options: Sequence[str] = ()
) -> int:
    """Run the conformance suite on an installed backend; pytest prints its report.

    Parameters
    ----------
    role, name : str
        Of the backend, as for `vwkit.create`.
    params : dict
        Its parameters in the tests: plain data, as a spec would hold them.
    options : sequence of str
        More options for pytest, such as ``-x``.

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
        The role has no suite, or the parameters are wrong. All of them have exit status 2.
    """
    import pytest

    if role not in SUITES:
        raise ParameterError(
            f"there is no conformance suite for the role {role!r}; roles that have one: "
            f"{', '.join(SUITES)}"
        )
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
    )
    with tempfile.TemporaryDirectory() as folder:
        # A configuration of its own: the settings of the project around are not the suite's.
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        module = Path(folder) / "test_conformance.py"
        module.write_text(text, encoding="utf-8")
        status = pytest.main(
            [
                str(module),
                f"--rootdir={folder}",
                f"--config-file={folder}/pytest.ini",
                "--import-mode=importlib",
                "-p", "no:cacheprovider",
                # vwkit was imported before pytest could look into it, which it would mention.
                "-W", "ignore::pytest.PytestAssertRewriteWarning",
                "-q", "--no-header", "--tb=short", "-rfEX",
                *options,
            ]
        )  # fmt: skip
    return {pytest.ExitCode.OK: 0, pytest.ExitCode.TESTS_FAILED: 1}.get(pytest.ExitCode(status), 2)
