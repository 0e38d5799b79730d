"""Finding backends: one pluggy hook, the entry-point group ``vwkit``, and clear answers.

Plugins are looked for at the first question, never on import. A broken one hurts only itself.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import os
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pluggy

from vwkit import hookspecs
from vwkit.errors import PluginError, PluginWarning, UnknownNameError

__all__ = ["GROUP", "Registry", "a_role", "registered", "registry"]

GROUP = "vwkit"

# Where the backends live that are ours but may not be installed.
HOMES: dict[tuple[str, str], str] = {
    ("clusterer", "agglomerative"): "vwkit-scipy",
    ("app", "web"): "vwkit-serve",
    ("executor", "dask"): "vwkit-dask",
    ("clusterer", "faiss-kmeans"): "vwkit-faiss",
    ("clusterer", "faiss-superkmeans"): "vwkit-faiss",
    ("clusterer", "graph-kmeans"): "vwkit-numba",
    ("clusterer", "graph-pqkmeans"): "vwkit-numba",
    ("clusterer", "pqkmeans"): "vwkit-pqkmeans",
    ("clusterer", "tree"): "vwkit-numba",
    ("featurizer", "onnx"): "vwkit-onnx",
    ("featurizer", "sift"): "vwkit-opencv",
    ("featurizer", "torch"): "vwkit-torch",
    ("index", "annoy"): "vwkit-annoy",
    ("index", "faiss"): "vwkit-faiss",
    ("index", "flann"): "vwkit-flann",
    ("index", "hnsw"): "vwkit-hnswlib",
    ("index", "usearch"): "vwkit-usearch",
    ("quantizer", "faiss-pq"): "vwkit-faiss",
    ("quantizer", "fast-opq"): "vwkit-numba",
    ("quantizer", "fast-pq"): "vwkit-numba",
    ("quantizer", "opq"): "vwkit-faiss",
    ("quantizer", "rq"): "vwkit-faiss",
    ("quantizer", "sq"): "vwkit-faiss",
}


@dataclass(frozen=True)
class Entry:
    """One backend class and the distribution that brought it."""

    cls: type[Any]
    package: str
    version: str


@dataclass
class Registry:
    """All backends that were found, by role and name.

    Attributes
    ----------
    entries : dict of (role, name) to list of Entry
        More than one entry is a clash, refused when the name is asked for.
    broken : dict of package to str
        Plugins that could not be used, and why.
    """

    entries: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()

    def add(self, cls: type[Any], package: str, version: str) -> None:
        """Take one class in; a class that is already here is not taken twice."""
        role, name = getattr(cls, "role", None), getattr(cls, "__dict__", {}).get("name")
        if not isinstance(role, str) or not isinstance(name, str):
            raise PluginError(
                f"{cls!r} is not a backend: derive it from a role such as vwkit.Index and "
                'decorate it with @vwkit.backend("its-name")'
            )
        known = self.entries.setdefault((role, name), [])
        if all(entry.cls is not cls for entry in known):
            known.append(Entry(cls, package, version))

    def discard(self, cls: type[Any]) -> None:
        """Take one class out again."""
        for key, known in list(self.entries.items()):
            known[:] = [entry for entry in known if entry.cls is not cls]
            if not known:
                del self.entries[key]

    def roles(self) -> list[str]:
        """Return the roles that have a backend."""
        return sorted({role for role, _ in self.entries})

    def names(self, role: str) -> list[str]:
        """Return the names of one role, sorted."""
        return sorted(name for found, name in self.entries if found == role)

    def entry(self, role: str, name: str) -> Entry:
        """Return the one backend of that role and name.

        Raises
        ------
        UnknownNameError
            There is none; the text suggests the nearest name or the package to install.
        PluginError
            Two packages offer it, or its library is not installed.
        """
        if not isinstance(role, str) or not isinstance(name, str):
            raise UnknownNameError(f"role and name are text; got {role!r} and {name!r}")
        known = self.entries.get((role, name), [])
        if not known:
            raise UnknownNameError(self._unknown(role, name))
        if len(known) > 1:
            packages = " and ".join(sorted({entry.package for entry in known}))
            raise PluginError(
                f"{role} {name}: offered by {packages}; uninstall one, or block it with "
                f"VWKIT_BLOCK={known[-1].package}"
            )
        reason = unavailable(known[0].cls)
        if reason:
            raise PluginError(f"{role} {name}: {reason}")
        return known[0]

    def _unknown(self, role: str, name: str) -> str:
        names = self.names(role)
        home = HOMES.get((role, name))
        if not names and home is None and role not in self.roles():
            return f"no such role: {role}; roles with a backend here: {', '.join(self.roles())}"
        text = f"no {role} is named {name!r}"
        if home in self.broken:
            return f"{text}: the plugin {home} is broken: {self.broken[home]}"
        if home in self.blocked:
            return f"{text}: the plugin {home} is blocked by VWKIT_BLOCK"
        if home:
            return f"{text} here; it comes with the package {home}; from a clone: pip install ./plugins/{home}"
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        other = sorted({found for found, known in self.entries if known == name})
        if near:
            text += f"; did you mean {near[0]}?"
        elif other:
            text += f"; {name} is {' and '.join(map(a_role, other))}."
        text += (
            f" Installed: {', '.join(names)}."
            if near or other
            else f"; installed: {', '.join(names)}"
        )
        if self.broken:
            text = text if text.endswith(".") else f"{text}."
            text += f" Broken plugins: {'; '.join(f'{p}: {why}' for p, why in self.broken.items())}"
        return text


def unavailable(cls: type[Any]) -> str | None:
    """Return why a class cannot be used on this machine, or None."""
    from importlib.util import find_spec

    def is_missing(module: str) -> bool:
        try:
            return find_spec(module) is None
        except (ImportError, ValueError):  # the package above it is missing or broken
            return True

    missing = [module for module in getattr(cls, "requires", ()) if is_missing(module)]
    if not missing:
        return None
    library = getattr(cls, "library", None)
    remedy = f": pip install {library}" if library else ""
    return f"needs {', '.join(missing)}, which is not installed{remedy}"


def _normal(package: str) -> str:
    """Write a distribution's name as package indexes do."""
    return re.sub(r"[-_.]+", "-", package.strip()).lower()


def a_role(role: str) -> str:
    """Write a role with its article."""
    return f"an {role}" if role[0] in "aeio" else f"a {role}"


def _blocked() -> frozenset[str]:
    names = os.environ.get("VWKIT_BLOCK", "").split(",")
    return frozenset(_normal(name) for name in names if name.strip())


def _origin(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """Return the distribution's name and version, as far as its metadata are whole."""
    name = version = None
    with contextlib.suppress(Exception):
        name, version = (point.dist.name, point.dist.version) if point.dist else (None, None)
    return _normal(name or point.module), version or "0"


def discover() -> Registry:
    """Load every plugin of the entry-point group, each by itself."""
    found = Registry(blocked=_blocked())
    manager = pluggy.PluginManager("vwkit")
    manager.add_hookspecs(hookspecs)
    for point in importlib.metadata.entry_points(group=GROUP):
        package, version = _origin(point)
        if package in found.blocked:
            continue
        try:
            plugin = point.load()
            if manager.is_registered(plugin):
                continue  # two entry points of one module
            manager.register(plugin, name=f"{package}:{point.name}")
            offers = [
                hook.function
                for hook in manager.hook.vwkit_backends.get_hookimpls()
                if hook.plugin is plugin
            ]
            if not offers:
                raise PluginError(
                    f"{point.value} has no hook vwkit_backends (decorated with @vwkit.hookimpl)"
                )
            for offer in offers:
                for cls in cast("list[type[Any]]", offer()):
                    found.add(cls, package, version)
        except (Exception, SystemExit) as error:  # whatever a stranger's import raises
            found.broken[package] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            warnings.warn(
                f"the plugin {package} cannot be used: {found.broken[package]}",
                PluginWarning,
                stacklevel=3,
            )
    for (role, name), known in found.entries.items():
        if len(known) > 1:
            packages = " and ".join(sorted({entry.package for entry in known}))
            warnings.warn(
                f"{role} {name} is offered by {packages} and refused until one of them goes",
                PluginWarning,
                stacklevel=3,
            )
    return found


_lock = threading.RLock()
_registry: Registry | None = None


def registry() -> Registry:
    """Return the backends of this process, looking for them on the first call."""
    global _registry
    with _lock:
        if _registry is None:
            _registry = discover()
        return _registry


@contextlib.contextmanager
def registered(cls: type[Any]) -> Iterator[None]:
    """Make a class known by its name within a ``with`` block, as if its package were installed."""
    known = registry()
    role, name = getattr(cls, "role", ""), getattr(cls, "name", "")
    held = known.entries.pop((role, name), None)
    known.add(cls, cls.__module__.split(".")[0], "0")
    try:
        yield
    finally:
        known.discard(cls)
        if held is not None:
            known.entries[role, name] = held
