"""Imports go down only, and importing costs nothing that is not used."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import vwkit

ROOT = Path(vwkit.__file__).parent

# From the bottom up. A module (or a package, which is one unit) imports only what stands on lines
# above its own here; within a function too, so that no import depends on when it happens.
LAYERS = """
errors estimates hashing hookspecs leftovers _yaml12
types sparse _toml formats reference lock row_readers run_folder manifests
metrics chunks codes image stream checkpoints row_files drafts plugins restoring row_ids source preprocessing
artifact
data jobs blocks
kernels exact_search cache items
palettes growing_arrays observing parameters saving
base geometry fetching downloading metadata
columns remote
where
index quantizer transform featurizer around
clusterer networks
builtin.*
api spec stage_arrays
extraction stages resuming
collecting regrown counted
asked changing
growing
rules run_parts
run_search spec_values
compacting spec_sources
run evaluate
checking duplicates flow_images
catalog flow report planning
outputs pipeline
builtin inspecting demo
testing
cli
__main__
"""
RANKS = {unit: rank for rank, line in enumerate(LAYERS.split("\n")) for unit in line.split()}


class Edge(NamedTuple):
    """One import."""

    module: str
    imported: str
    lazy: bool


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["vwkit", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def edges(module: str) -> set[Edge]:
    """Return the imports of a module, without those for type checkers only."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Edge]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Edge(module, alias.name, lazy)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}: imports are absolute"
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield Edge(module, full if full in MODULES else child.module or "", lazy)
            inner = lazy or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from visit(child, inner)

    return set(visit(ast.parse(MODULES[module].read_text(encoding="utf-8")), lazy=False))


def unit(module: str) -> str:
    """Return the name of a module in `LAYERS`."""
    _, _, below = module.partition(".")
    first, _, rest = below.partition(".")
    return f"{first}.*" if rest and f"{first}.*" in RANKS else first


EDGES = sorted(edge for module in MODULES for edge in edges(module))
OURS = [edge for edge in EDGES if edge.imported.split(".")[0] == "vwkit"]
THEIRS = [edge for edge in EDGES if edge.imported.split(".")[0] != "vwkit"]


def test_the_scan_finds_something():
    assert len(MODULES) > 50
    assert len(OURS) > 100
    assert Edge("vwkit.index", "vwkit.base", False) in OURS
    assert Edge("vwkit.stream", "vwkit.formats", True) in OURS


def test_every_module_has_its_place_and_every_place_a_module():
    found = {unit(module) for module in MODULES} - {""}
    assert found - RANKS.keys() == set(), "put the new module on its line of LAYERS"
    assert RANKS.keys() - found == set(), "take the old module out of LAYERS"


def test_imports_go_down_only():
    upward = [
        f"{edge.module} imports {edge.imported}"
        for edge in OURS
        if edge.imported != "vwkit"
        and unit(edge.module) != unit(edge.imported)
        and RANKS[unit(edge.imported)] >= RANKS.get(unit(edge.module), -1)
    ]
    assert upward == []


def test_no_module_imports_in_a_circle():
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path, module])
        if module not in done:
            for edge in OURS:
                if edge.module == module and not edge.lazy and edge.imported != "vwkit":
                    walk(edge.imported, (*path, module))
            done.add(module)

    for module in MODULES:
        walk(module, ())


def test_the_package_itself_imports_nothing_of_ours():
    assert [edge for edge in OURS if edge.module == "vwkit"] == []


def test_testing_is_imported_by_nobody_but_its_verb():
    importers = {
        (edge.module, edge.lazy)
        for edge in OURS
        if unit(edge.imported) == "testing" and unit(edge.module) != "testing"
    }
    assert importers <= {("vwkit.cli.conformance", True)}


def test_what_tests_need_is_imported_in_testing_only():
    tools = {"pytest", "hypothesis", "_pytest", "unittest", "sybil"}
    found = {edge.module for edge in THEIRS if edge.imported.split(".")[0] in tools}
    assert {module for module in found if unit(module) != "testing"} == set()


def test_only_declared_libraries_are_imported():
    declared = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    names = {
        requirement.split(">")[0].split("[")[0].strip().lower()
        for requirement in declared["project"]["dependencies"]
    }
    imported_as = {"pyyaml": "yaml", "pillow": "PIL"}
    allowed = {imported_as.get(name, name) for name in names} | set(sys.stdlib_module_names)
    # Parts of pydantic, and of it alone.
    allowed |= {"pydantic_core", "annotated_types"}
    foreign = {
        (edge.imported.split(".")[0], edge.lazy)
        for edge in THEIRS
        if unit(edge.module) != "testing" and edge.imported.split(".")[0] not in allowed
    }
    # For those who have it: never needed otherwise.
    optional = ("aiohttp", "fsspec", "isal", "prometheus_client", "pyarrow", "scipy", "skimage")
    assert foreign <= {(name, True) for name in optional}


def loaded(code: str) -> set[str]:
    """Return the modules that some code loads."""
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


class TestCost:
    def test_importing_vwkit_loads_no_other_module(self):
        found = loaded("import vwkit") - loaded("import importlib, typing")
        assert found - {"__future__"} == {"vwkit"}

    def test_a_name_loads_its_own_module_and_no_plugin(self):
        found = loaded("import vwkit; vwkit.Sparse, vwkit.derive_seed, vwkit.VwkitError")
        assert {name for name in found if name.startswith("vwkit.")} == {
            "vwkit.errors",
            "vwkit.hashing",
            "vwkit.sparse",
        }
        found = loaded(
            "import vwkit; vwkit.Index, vwkit.Clusterer, vwkit.Featurizer, vwkit.backend"
        )
        assert "vwkit.builtin" not in found
        assert not found & {"PIL", "yaml", "scipy", "click", "rich", "threadpoolctl"}

    def test_backends_load_no_heavy_library(self):
        found = loaded("import vwkit; vwkit.backends()")
        heavy = {"faiss", "cv2", "onnxruntime", "numba", "sklearn", "torch", "dask", "matplotlib"}
        assert not found & {*heavy, "hnswlib", "annoy", "pyflann", "usearch", "pqkmeans"}
        assert not found & {"pytest", "hypothesis", "vwkit.testing"}

    def test_help_needs_no_numbers(self):
        found = loaded(
            "from vwkit.cli import main\ntry: main(['--help'])\nexcept SystemExit: print()"
        )
        assert not found & {"numpy", "pydantic", "vwkit.base"}


class TestNames:
    @pytest.mark.parametrize("name", sorted(set(vwkit.__all__)))
    def test_every_public_name_is_there(self, name):
        assert getattr(vwkit, name) is getattr(vwkit, name)
        assert name in dir(vwkit)

    def test_type_checkers_see_the_same_names(self):
        tree = ast.parse(MODULES["vwkit"].read_text(encoding="utf-8"))
        (block,) = [node for node in tree.body if isinstance(node, ast.If)]
        seen = {
            (alias.asname, node.module)
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert seen == {(name, f"vwkit.{home}") for name, home in vwkit._HOMES.items()}

    def test_an_unknown_name(self):
        with pytest.raises(AttributeError, match="module 'vwkit' has no attribute 'Clusterers'"):
            vwkit.Clusterers  # noqa: B018
