"""Guards of completeness: nothing that must be there can be forgotten."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import vwkit
from vwkit.catalog import catalog
from vwkit.plugins import HOMES

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir())


def test_every_plugin_has_what_a_plugin_needs():
    assert PLUGINS
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for folder in PLUGINS:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        assert project["name"] == folder.name
        assert project["version"] == version == vwkit.__version__
        assert any(line.startswith("vwkit>=") for line in project["dependencies"]), folder
        assert "vwkit" in project["entry-points"], folder
        assert (folder / "README.md").is_file()
        text = (folder / "tests/test_conformance.py").read_text()
        assert "Tests" in text, f"{folder} does not subclass the suite"


def test_every_backend_of_the_data_path_is_in_the_suite():
    suite_roles = ("featurizer", "transform", "quantizer", "clusterer", "index")
    for one in catalog():
        ours = one["package"] == "vwkit" or ROOT / "plugins" / one["package"] in PLUGINS
        if ours and one["role"] in suite_roles:
            # Where `python -m benchmarks seeds` finds what it measures.
            folder = ROOT if one["package"] == "vwkit" else ROOT / "plugins" / one["package"]
            text = (folder / "tests/test_conformance.py").read_text()
            cls = vwkit.backends()[one["role"]][one["name"]]
            assert cls.__name__ in text or one["name"] in text, one["name"]


def test_every_parameter_and_backend_is_documented():
    listed = catalog()
    assert len(listed) > 20
    for one in listed:
        assert one["summary"], one["name"]
        for parameter in one["parameters"]:
            inherited = parameter["name"] in ("metric", "seed", "path")
            assert parameter["doc"] or inherited, f"{one['name']}.{parameter['name']}"


def test_homes_name_our_plugins():
    assert set(HOMES.values()) <= {folder.name for folder in PLUGINS}


def test_nothing_is_pickled_or_evaluated():
    files = [*(ROOT / "vwkit").rglob("*.py"), *(ROOT / "plugins").rglob("vwkit_*.py")]
    assert len(files) > 40
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), file
            if isinstance(node, ast.Import) and "testing" not in file.parts:
                assert all(name.name not in ("pickle", "shelve", "marshal") for name in node.names)


def test_importing_vwkit_is_cheap():
    """Only the package itself is loaded; how long that takes is measured in benchmarks/."""
    code = "import sys, vwkit; print(*sorted(m for m in sys.modules if m.startswith('vwkit')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["vwkit"]


def test_public_names_resolve():
    for name in vwkit.__all__:
        assert getattr(vwkit, name) is not None
