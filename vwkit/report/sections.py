"""The parts of a report that are text, numbers and charts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import yaml

from vwkit.report.clusters import has_clusters
from vwkit.report.markup import Html, join, tag
from vwkit.report.numbers import duration, memory
from vwkit.report.page import definitions, section, table
from vwkit.report.pictures import Pictures, spread
from vwkit.report.searches import average_precisions, picture
from vwkit.report.svg import bar_chart, compact, line_chart
from vwkit.sparse import Sparse

__all__ = [
    "change_section",
    "image_section",
    "lead",
    "learning_section",
    "score_section",
    "skipped_section",
    "spec_section",
    "tiles",
    "title",
]

_SLOTS = ("featurizer", "transform", "quantizer", "clusterer", "index", "rerank", "evaluate")
_ROWS = 500
#: Folder names that say nothing without the one above.
_GENERIC = ("data", "images", "photos", "pictures", "pics")
_SPEC_LETTERS = 60_000
_IMAGES = 12
#: Parameters that say most of a backend in few words.
_TELLING = ("k", "m", "ks", "metric", "weighting", "variance", "similarity")
_OBJECTIVES = {"l2": "mean squared distance", "cosine": "mean cosine distance"}


def title(run: Any) -> str:
    """Name a run after its data."""
    spec = run.spec
    source = spec.get("images") or spec.get("vectors") or {}
    named = (source[key] for key in ("path", "urls", "url") if key in source)
    path = PurePath(str(next(named, "run")))
    if path.name in _GENERIC and path.parent.name:
        return f"{path.parent.name}/{path.name}"
    return path.name or str(path)


def lead(run: Any) -> Html:
    """Say what was run, slot by slot."""
    spec = run.spec
    steps: list[Any] = []
    for slot in _SLOTS:
        value = spec.get(slot) or []
        steps += value if isinstance(value, list) else [value]
    arrow = tag("span", "→", class_="arrow")
    return join((tag("b", described(step)) for step in steps), between=arrow)


def described(slot: Mapping[str, Any]) -> str:
    """Write a slot in a few words: ``bag-of-words (sift, lloyd (k 500), tf-idf)``."""
    said = []
    for key, value in slot.items():
        if isinstance(value, Mapping) and "use" in value:
            said.append(described(value))
        elif key in _TELLING and isinstance(value, (int, float)):
            said.append(f"{key} {value:,}")
        elif key in _TELLING and isinstance(value, str):
            said.append(value)
    name = str(slot.get("use", slot.get("protocol", "")))
    return f"{name} ({', '.join(said)})" if said else name


# Numbers ---------------------------------------------------------------------------------------


def tiles(run: Any) -> Html:
    """Return the summary."""
    counts = run.manifest["counts"]
    shown: list[tuple[str, object, object]] = []
    files = run.spec.get("vectors") is not None and counts["items"] == 1
    if not files:
        skipped = counts["skipped"]
        shown.append(("Images", f"{counts['ok']:,}", f"{skipped:,} skipped" if skipped else None))
    if "descriptors" in counts:
        name = "Vectors" if files else "Pixels" if run.has("colours") else "Descriptors"
        shown.append((name, _many(counts["descriptors"]), None))
    if has_clusters(run):
        alone = len(run.unclustered)
        said = f"{alone:,} in none" if alone else None
        shown.append(("Clusters", f"{len(run.clusters):,}", said))
    elif "words" in counts:
        name = "Colours" if run.has("colours") else "Words"
        shown.append((name, f"{counts['words']:,}", None))
    dimensions = _dimensions(run)
    if dimensions is not None:
        shown.append(("Dimensions", f"{dimensions:,}", None))
    score = (run.scores or {}).get("mAP")
    if isinstance(score, (int, float)):
        queries = (run.scores or {}).get("queries")
        shown.append(("mAP", f"{score:.3f}", f"{queries} queries" if queries else None))
    if "seconds" in run.manifest:
        shown.append(("Time", duration(run.manifest["seconds"]), None))
    if "peak_memory" in run.manifest:
        shown.append(("Peak memory", memory(run.manifest["peak_memory"]), None))
    return tag(
        "dl",
        *(
            tag(
                "div",
                tag("dt", name),
                tag("dd", value, None if small is None else tag("small", small)),
                class_="tile best" if name == "mAP" else "tile",
            )
            for name, value, small in shown
        ),
        class_="tiles",
    )


def _dimensions(run: Any) -> int | None:
    if run.has("index"):
        return int(run.index.dim)
    if run.has("vectors") or run.has("features"):
        vectors = run.vectors
        return int(vectors.shape[1] if isinstance(vectors, Sparse) else vectors.shape[-1])
    for stage in ("quantizer", "clusterer"):
        if run.has(stage):
            dim = run.load(stage)._dim
            return None if dim is None else int(dim)
    return None


def _many(count: int) -> str:
    return f"{count:,}" if count < 10_000_000 else compact(count)


# Parts -----------------------------------------------------------------------------------------


def learning_section(run: Any) -> Html | None:
    """Return how the objective fell, and how many labels changed, where a clusterer says so."""
    stages = ("featurizer.vocabulary", "clusterer")
    found = [_learning(run.load(stage)) for stage in stages if run.has(stage)]
    return section("Learning", *found) if any(found) else None


def _learning(model: Any) -> Html | None:
    model = getattr(model, "clusterer", model)  # a vocabulary around a clusterer
    said = _finite(getattr(model, "objective", None))
    changed = _finite(getattr(model, "changed", None))
    charts = []
    if said:
        measure = _OBJECTIVES.get(getattr(model, "metric", "l2"), "mean distance")
        charts.append(("Objective", line_chart(
            said, title=f"Objective, {measure}, at each iteration", x_label="iteration",
            y_label=measure, whole_x=True,
        )))  # fmt: skip
    if changed:
        charts.append(("Labels that changed", line_chart(
            changed, title="Labels that changed at each iteration", x_label="iteration",
            y_label="labels", whole_x=True, y_zero=True,
        )))  # fmt: skip
    if not charts:
        return None
    text = f"{model.name}: one assignment."
    if len(said) > 1 and said[0][1] > 0:
        first, last = said[0][1], said[-1][1]
        by = 100 * (1 - last / first)
        text = (
            f"{model.name}: {compact(first)} at the first assignment, {compact(last)} after "
            f"{said[-1][0] - 1:.0f} iterations ({by:.1f} % less)."
        )
    figures = (tag("figure", tag("figcaption", name), chart) for name, chart in charts)
    return join([tag("p", text, class_="note"), tag("div", *figures, class_="columns")])


def _finite(values: Any) -> list[tuple[float, float]]:
    """Pair values with their iteration, from 1; at most a few hundred."""
    if not isinstance(values, (list, tuple, np.ndarray)):
        return []
    pairs = [(i + 1.0, float(value)) for i, value in enumerate(values)]
    pairs = [pair for pair in pairs if math.isfinite(pair[1])]
    return [pairs[i] for i in spread(len(pairs), 300)]


def score_section(run: Any) -> Html | None:
    """Return the scores: numbers, their spread, and each query's in a list to open."""
    scores = run.scores
    if not scores:
        return None
    facts: list[tuple[str, object]] = []
    for name, value in scores.items():
        if isinstance(value, float):
            facts.append((_words(name), f"{value:.4f}"))
        elif value is not None and not isinstance(value, (dict, list)):
            facts.append((_words(name), value))
    each = average_precisions(run)
    chart = details = None
    if each:
        edges = [i / 10 for i in range(11)]
        bins = np.histogram(np.clip(list(each.values()), 0, 1), edges)[0]
        drawn = bar_chart(
            bins.tolist(), edges, title="How many queries reach which average precision",
            x_label="average precision", y_label="queries",
        )  # fmt: skip
        chart = tag("figure", drawn)
        ranked = sorted(each, key=lambda name: -each[name])
        rows = [(name, _meter(each[name]), f"{each[name]:.4f}") for name in ranked[:_ROWS]]
        shown = table("Queries", ("Query", "", "Average precision"), rows, numbers=(2,))
        more = _more(len(ranked), "the manifest")
        details = tag("details", tag("summary", f"Every query ({len(each):,})"), shown, more)
    content = tag("div", chart, definitions(facts), class_="columns")
    return section("Scores", content, details)


def _meter(share: float) -> Html:
    bar = tag("i", style=f"width:{100 * min(1.0, max(0.0, share)):.1f}%")
    return tag("span", bar, class_="meter", aria_hidden="true")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _more(count: int, where: str) -> Html | None:
    if count <= _ROWS:
        return None
    return tag("p", f"… and {count - _ROWS:,} more; {where} has them all.", class_="note")


def skipped_section(run: Any) -> Html | None:
    """Return which inputs were skipped and why."""
    skipped = [item for item in run.items if item.status == "skipped"]
    if not skipped:
        return None
    rows = [(item.id, _short(item.reason or "")) for item in skipped[:_ROWS]]
    return section(
        "Skipped",
        table("Skipped", ("Item", "Reason"), rows),
        _more(len(skipped), "items.jsonl"),
        note=f"{len(skipped):,} of {len(run.items):,} inputs could not be used.",
    )


def change_section(run: Any) -> Html | None:
    """Return what was added and removed since the run was made."""
    changes = run.manifest.get("changes") or []
    added, removed = (sum(int(one.get(key, 0)) for one in changes) for key in ("added", "removed"))
    if not added and not removed:
        return None
    said = " and ".join(
        f"{count:,} {'item was' if count == 1 else 'items were'} {verb}"
        for count, verb in ((added, "added"), (removed, "removed"))
        if count
    )
    return section(
        "Added and removed",
        note=f"After the run {said}. Fitted parts, timings and outputs are of the run itself.",
    )


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def spec_section(run: Any) -> Html:
    """Return everything that it takes to repeat the run."""
    manifest = run.manifest
    facts = [
        (name, manifest[key])
        for name, key in (
            ("vwkit", "vwkit"),
            ("Python", "python"),
            ("NumPy", "numpy"),
            ("seed", "seed"),
            ("threads", "threads"),
            ("fingerprint", "fingerprint"),
        )
        if key in manifest
    ]
    text = yaml.safe_dump(run.spec, sort_keys=False, allow_unicode=True, width=100)
    if len(text) > _SPEC_LETTERS:
        text = f"{text[:_SPEC_LETTERS]}\n# … shortened; spec.yaml in the run's folder has it all"
    return section(
        "To repeat it",
        definitions(facts),
        tag(
            "details",
            tag("summary", "The spec with every default"),
            tag("pre", text, tabindex="0", role="region", aria_label="The spec"),
        ),
    )


def image_section(run: Any, pictures: Pictures) -> Html | None:
    """Return a few of the images, where the page shows no others."""
    kept = [item for item in run.kept if item.path]
    if not (run.has("featurizer") and kept):
        return None
    items = [kept[i] for i in spread(len(kept), _IMAGES)]
    found = [(item, uri) for item in items if (uri := pictures.thumbnail(item)) is not None]
    if not found:
        return None
    note = f"{len(found)} of {len(kept):,}." if len(kept) > len(found) else None
    shown = (
        picture(None, uri, item.id, "{} \u00d7 {}".format(*item.size) if item.size else None)
        for item, uri in found
    )
    return section("Images", tag("ul", *shown, class_="pictures"), note=note)
