"""The plugin door: fake packages on the path, one process each, as an installation would be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import vwkit
from vwkit import plugins

INDEX = """
    import vwkit

    @vwkit.backend({name!r})
    class Index(vwkit.Index):
        "An index."
        {body}
        def _build(self, vectors): ...

    @vwkit.hookimpl
    def vwkit_backends():
        return [Index]
"""


class Site:
    """A folder of fake installed packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, package, code, *, version="1.5", point=None, metadata=True):
        module = package.replace("-", "_").replace(".", "_").lower()
        (self.folder / f"{module}.py").write_text(textwrap.dedent(code))
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        points = point or f"{module} = {module}"
        (info / "entry_points.txt").write_text(f"[vwkit]\n{points}\n")
        if metadata:
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
            )
        return self

    def index(self, package, name, body="", **more):
        return self.add(package, INDEX.format(name=name, body=body), **more)

    def run(self, code, **environment):
        """Return what `show` was called with, and the warnings."""
        lines = [
            "import json, sys, warnings",
            f"sys.path.insert(0, {str(self.folder)!r})",
            "shown = []",
            "show = lambda value: shown.append(value)",
            "def error(call):",
            "    try: call()",
            "    except vwkit.VwkitError as e: shown.append([type(e).__name__, str(e)])",
            "    else: shown.append(None)",
            "with warnings.catch_warnings(record=True) as caught:",
            "    warnings.simplefilter('always')",
            "    import vwkit",
            textwrap.indent(textwrap.dedent(code), "    "),
            "print(json.dumps([shown, [[w.category.__name__, str(w.message)] for w in caught]]))",
        ]
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines)],
            capture_output=True,
            text=True,
            env={"PATH": "", "HOME": str(self.folder), **environment},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        shown, warned = json.loads(done.stdout)
        ours = [w for w in warned if w[0] == "PluginWarning"]
        assert ours == warned
        return shown, [text for _, text in ours]


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


class TestFound:
    def test_an_installed_backend_is_there(self, site):
        site.index("Visual.Trees", "kdtree", "leaf_size: vwkit.Positive = 16")
        shown, warned = site.run(
            """
            show(repr(vwkit.create("index", "kdtree", leaf_size=4)))
            show("kdtree" in vwkit.backends()["index"])
            show("exact" in vwkit.backends()["index"])
            from vwkit.plugins import registry
            entry = registry().entry("index", "kdtree")
            show([entry.package, entry.version])
            """
        )
        assert shown == ["Index(leaf_size=4)", True, True, ["visual-trees", "1.5"]]
        assert warned == []

    def test_nothing_is_looked_for_on_import(self, site):
        site.add("side-effects", "raise SystemExit('imported')")
        shown, warned = site.run(
            """
            vwkit.Index, vwkit.Stream, vwkit.backend
            show("side_effects" in sys.modules)
            """
        )
        assert shown == [False]
        assert warned == []

    def test_a_saved_artifact_names_its_package(self, site):
        site.add(
            "halving",
            """
            import vwkit

            @vwkit.backend("halved")
            class Halved(vwkit.Transform):
                "Half."
                def _transform(self, vectors): return vectors / 2

            @vwkit.hookimpl
            def vwkit_backends(): return [Halved]
            """,
        )
        folder = site.folder / "saved"
        shown, _ = site.run(
            f"""
            vwkit.create("transform", "halved").save({str(folder)!r})
            show(vwkit.load({str(folder)!r}).transform([[2.0]]).tolist())
            """
        )
        assert shown == [[[1.0]]]
        package = json.loads((folder / "manifest.json").read_text())["package"]
        assert package == {"name": "halving", "version": "1.5"}
        shown, _ = site.run(f"error(lambda: vwkit.load({str(folder)!r}))", VWKIT_BLOCK="halving")
        assert shown[0][0] == "UnknownNameError"

    def test_two_entry_points_of_one_module(self, site):
        site.index("twice", "kdtree", point="a = twice\nb = twice")
        shown, warned = site.run("show(repr(vwkit.create('index', 'kdtree')))")
        assert shown == ["Index()"]
        assert warned == []


BROKEN = {
    "import": ("import numpie", "ModuleNotFoundError: No module named 'numpie'"),
    "syntax": ("def f(:", "SyntaxError"),
    "error": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exit": ("raise SystemExit(3)", "SystemExit"),
    "lines": ("raise ValueError('one\\ntwo')", "ValueError: one two"),
    "no hook": ("x = 1", "has no hook vwkit_backends"),
    "another hook": (
        "import vwkit\n@vwkit.hookimpl\ndef vwkit_backend(): return []",
        "has no hook vwkit_backends",
    ),
    "arguments": ("import vwkit\n@vwkit.hookimpl\ndef vwkit_backends(x): return []", "x"),
    "none": ("import vwkit\n@vwkit.hookimpl\ndef vwkit_backends(): pass", "TypeError"),
    "not a class": (
        "import vwkit\n@vwkit.hookimpl\ndef vwkit_backends(): return [3]",
        "3 is not a backend",
    ),
    "undecorated": (
        "import vwkit\nclass A(vwkit.Index): pass\n@vwkit.hookimpl\ndef vwkit_backends(): return [A]",
        "is not a backend.*decorate it",
    ),
}


class TestBroken:
    def test_each_hurts_only_itself_and_is_told_once(self, site):
        for number, (code, _) in enumerate(BROKEN.values()):
            site.add(f"broken-{number}-", code)
        site.index("fine-one", "kdtree")
        shown, warned = site.run(
            """
            show(repr(vwkit.create("index", "kdtree")))
            show(sorted(vwkit.backends()))
            error(lambda: vwkit.create("index", "somewhere"))
            """
        )
        assert shown[0] == "Index()"
        assert "clusterer" in shown[1]
        assert len(warned) == len(BROKEN)
        for number, (kind, (_, reason)) in enumerate(BROKEN.items()):
            (text,) = [text for text in warned if f"plugin broken-{number}- " in text]
            assert re.search(f"cannot be used: .*{reason}", text), kind
            assert re.search(f"Broken plugins: .*broken-{number}-: .*{reason}", shown[2][1]), kind
            assert "\n" not in text
        assert "\n" not in shown[2][1]

    def test_a_module_that_is_not_there(self, site):
        site.add("gone", "", point="a = not_there:attribute")
        shown, warned = site.run("show(len(vwkit.backends()) > 3)")
        assert shown == [True]
        assert "gone" in warned[0]
        assert "not_there" in warned[0]

    def test_damaged_metadata(self, site):
        site.index("headless", "kdtree", metadata=False)
        shown, warned = site.run("show(repr(vwkit.create('index', 'kdtree')))")
        assert shown == ["Index()"]
        assert warned == []

    def test_the_error_is_shown_when_one_of_ours_is_asked_for(self, site):
        site.add("vwkit-opencv", "import cv9")
        shown, _ = site.run('error(lambda: vwkit.create("featurizer", "sift"))')
        name, text = shown[0]
        assert name == "UnknownNameError"
        assert "vwkit-opencv is broken: ModuleNotFoundError: No module named 'cv9'" in text


class TestClash:
    def test_both_packages_are_named(self, site):
        site.index("first-one", "kdtree").index("second-one", "kdtree").index("third", "other")
        shown, warned = site.run(
            """
            error(lambda: vwkit.create("index", "kdtree"))
            show("kdtree" in vwkit.backends()["index"])
            show(repr(vwkit.create("index", "other")))
            """
        )
        name, text = shown[0]
        assert name == "PluginError"
        assert "first-one and second-one" in text
        assert "VWKIT_BLOCK=" in text
        assert shown[1:] == [False, "Index()"]
        assert len(warned) == 1
        assert "first-one and second-one" in warned[0]

    def test_not_even_a_built_in_is_replaced(self, site):
        site.index("impostor", "exact")
        shown, _ = site.run('error(lambda: vwkit.create("index", "exact"))')
        assert "impostor and vwkit" in shown[0][1]

    @pytest.mark.parametrize("blocked", ["second-one", " Second_One ,", "x,second.one"])
    def test_blocking_one_solves_it(self, site, blocked):
        site.index("first-one", "kdtree").index("second-one", "kdtree", "depth: int = 1")
        shown, warned = site.run(
            """
            error(lambda: vwkit.create("index", "kdtree"))
            error(lambda: vwkit.create("index", "kdtree", depth=1))
            """,
            VWKIT_BLOCK=blocked,
        )
        assert shown[0] is None
        assert shown[1][0] == "ParameterError"
        assert warned == []

    def test_a_blocked_plugin_is_not_imported(self, site):
        site.add("bad-one", "raise SystemExit")
        shown, warned = site.run(
            'vwkit.backends(); show("bad_one" in sys.modules)', VWKIT_BLOCK="bad-one"
        )
        assert shown == [False]
        assert warned == []

    def test_a_blocked_one_of_ours_is_named(self, site):
        site.index("vwkit-faiss", "faiss")
        shown, _ = site.run(
            'error(lambda: vwkit.create("index", "faiss"))', VWKIT_BLOCK="vwkit_faiss"
        )
        assert "vwkit-faiss is blocked by VWKIT_BLOCK" in shown[0][1]


class TestUnavailable:
    @pytest.mark.parametrize("requires", ["numpie", "numpie.linalg", "numpy.no_such_part"])
    def test_a_missing_library(self, site, requires):
        site.index("needy", "kdtree", f"requires = ({requires!r}, 'json')")
        shown, warned = site.run(
            """
            error(lambda: vwkit.create("index", "kdtree"))
            show("kdtree" in vwkit.backends()["index"])
            """
        )
        assert shown == [
            ["PluginError", f"index kdtree: needs {requires}, which is not installed"],
            False,
        ]
        assert warned == []


class TestNames:
    @pytest.mark.parametrize(
        ("role", "name", "message"),
        [
            ("index", "exct", "no index is named 'exct'; did you mean exact?"),
            ("clusterer", "Lloyd", "did you mean lloyd?"),
            ("index", "lloyd", "lloyd is a clusterer"),
            ("index", "zzzz", "installed: .*exact"),
            ("index", "", "installed: .*exact"),
            ("indexx", "exact", "no such role: indexx; roles with a backend here: .*index"),
            ("index", 3, "role and name are text; got 'index' and 3"),
            (None, "exact", "role and name are text; got None"),
            (["index"], "exact", "role and name are text"),
        ],
    )
    def test_unknown_ones_suggest(self, role, name, message):
        with pytest.raises(vwkit.UnknownNameError, match=message) as caught:
            vwkit.create(role, name)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_status == 2

    def test_a_name_of_our_plugins_says_what_to_install(self, monkeypatch):
        known = plugins.registry()
        monkeypatch.setattr(plugins, "_registry", plugins.Registry(entries=dict(known.entries)))
        for (role, name), home in plugins.HOMES.items():
            plugins.registry().entries.pop((role, name), None)
            with pytest.raises(vwkit.UnknownNameError, match=f"pip install ./plugins/{home}"):
                vwkit.create(role, name)

    def test_every_home_is_a_package_of_ours(self):
        assert plugins.HOMES
        assert all(home.startswith("vwkit-") for home in plugins.HOMES.values())


class TestRegistered:
    def test_for_a_while_only_and_over_an_installed_one(self):
        @vwkit.backend("exact")
        class Mine(vwkit.Index):
            """Mine."""

        before = vwkit.backends()["index"]["exact"]
        with plugins.registered(Mine):
            assert type(vwkit.create("index", "exact")) is Mine
        with pytest.raises(KeyError), plugins.registered(Mine):
            raise KeyError
        assert vwkit.backends()["index"]["exact"] is before

    def test_the_same_class_is_taken_once(self):
        registry = plugins.Registry()
        cls = vwkit.backends()["index"]["exact"]
        registry.add(cls, "a", "1")
        registry.add(cls, "b", "1")
        assert registry.entry("index", "exact").package == "a"
        registry.discard(cls)
        assert registry.roles() == []
