"""Write backends.md from what is installed.

    python docs/make_backends.py

Backends of packages that are not ours are left out. A test compares the page with what is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vwkit.catalog import catalog

PAGE = Path(__file__).parent / "backends.md"
PLUGINS = Path(__file__).parent.parent / "plugins"

ROLES = (
    ("featurizer", "Images (or, for a reader, descriptor files) → vectors."),
    ("transform", "Vectors → vectors."),
    ("quantizer", "Vectors → codes → vectors."),
    ("clusterer", "Vectors or codes → centers and labels."),
    ("index", "Vectors → nearest neighbours."),
    ("reranker", "The first matches in a better order."),
    ("evaluator", "A run → scores."),
    ("output", "A run → files."),
    ("executor", "Where the chunks of a run are computed."),
    ("app", "A run → a page to look at it, and an API."),
)
#: What is worth a word for each role, and how to say it.
ABILITIES = {
    "featurizer": ("local", "trainable", "thread_safe"),
    "transform": ("streams", "dtypes"),
    "quantizer": ("structure", "streams", "dtypes"),
    "clusterer": (
        *("consumes", "supports_predict", "supports_weights", "has_centers", "fixed_k"),
        *("hierarchical", "label_agreement", "streams", "dtypes"),
    ),
    "index": (
        *("metrics", "exact", "supports_add", "supports_remove", "supports_filter"),
        *("supports_sparse", "thread_safe", "distance_error", "streams", "dtypes"),
    ),
}
_HEAD = """\
# Backends

The backends of vwkit and of the packages in `plugins/`, with their parameters and abilities.
`vwkit backends` lists what is installed, `vwkit backends ROLE NAME` prints one. What the abilities mean
is in [concepts.md](concepts.md). This page is made by `python docs/make_backends.py`.

A parameter without a default must be given. A *late* one may be changed after loading and for a single
search.
"""


def page() -> str:
    """Return the whole page."""
    parts = [_HEAD]
    found = sections()
    for role, what in ROLES:
        names = sorted(name for of, name in found if of == role)
        if names:
            parts += [f"## {role}\n\n{what}\n", *(found[role, name] for name in names)]
    return "\n".join(parts)


def sections() -> dict[tuple[str, str], str]:
    """Return the text of each installed backend of ours, by role and name."""
    return {(one["role"], one["name"]): _section(one) for one in catalog() if _ours(one["package"])}


def _ours(package: str) -> bool:
    return package == "vwkit" or (PLUGINS / package).is_dir()


def _section(one: dict[str, Any]) -> str:
    origin = "" if one["package"] == "vwkit" else f" Package `{one['package']}`."
    lines = [f"### {one['name']}", "", _code(one["summary"]) + origin]
    if one["choose"]:
        lines += ["", f"**When to choose it:** {_code(one['choose'])}"]
    if one["library"]:
        made = "compiled when it is installed" if one["compiled"] else "has wheels"
        lines += ["", f"Library: `{one['library']}`, {one['license']}, {made}."]
    if one["parameters"]:
        lines += ["", "| parameter | type | default | |", "|---|---|---|---|"]
        lines += [_row(parameter) for parameter in one["parameters"]]
    abilities = [
        f"{name.replace('_', ' ')}: {_said(one['abilities'][name])}"
        for name in (*ABILITIES.get(one["role"], ()), "deterministic")
        if one["role"] in ABILITIES and name in one["abilities"]
    ]
    if abilities:
        lines += ["", f"*{'; '.join(abilities)}*"]
    return "\n".join([*lines, ""])


def _row(parameter: dict[str, Any]) -> str:
    default = "" if parameter["required"] else f"`{_yaml(parameter['default'])}`"
    doc = f"{'*late.* ' if parameter['late'] else ''}{_code(parameter['doc'])}"
    cells = (f"`{parameter['name']}`", parameter["type"], default, doc)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _yaml(value: Any) -> str:
    """Write a default as a spec would."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _code(text: str) -> str:
    return text.replace("``", "`")


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
