"""A table of a run's items."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from vwkit.around import Output
from vwkit.base import Field, backend
from vwkit.errors import ParameterError, Problem
from vwkit.outputs.files import new_file
from vwkit.outputs.spreadsheets import no_formula
from vwkit.outputs.tree import full_height, read_tree
from vwkit.report.clusters import has_clusters
from vwkit.types import Item, Positive

__all__ = ["TableOutput"]

_PLAIN = ("row", "id", "status", "width", "height", "reason", "nearest")


@backend("table")
class TableOutput(Output):
    """A line per item: id, status, size, and its nearest other items with distances; as CSV, or as a
    list in JSON where the path ends in ``.json``.

    Spreadsheets take what begins with ``=``, ``+``, ``-`` or ``@`` for a formula and compute it. In CSV
    an id or a reason that begins so gets a ``'`` before it; ``formulas: true`` leaves it as it is, and
    JSON always does.

    Where the run grouped its images, also the ``cluster`` (empty for none) and how many images are in
    it (``cluster_size``); of a hierarchical clusterer, also the height of the item's first merge
    (``joined_height``) and the ``joined_similarity`` at which that happened: cut there or below, and it
    is together with others.
    """  # noqa: D205

    needs = ("images",)

    neighbours: Positive = Field(
        default=5, doc="How many nearest items to list, where there is an index."
    )

    formulas: bool = Field(
        default=False, doc="Whether CSV has ids that spreadsheets take for formulas as they are."
    )

    def __post_init__(self) -> None:
        if self.path.suffix.lower() in (".html", ".xlsx", ".png"):
            problem = Problem(("path",), f"a table is CSV or JSON; name it …{self.path.stem}.csv")
            raise ParameterError(f"table.{problem}", [problem])

    def _rows(self, run: Any) -> tuple[str, int] | None:
        listed = (run.manifest.get("accounts") or {}).get("items", {}).get("listed")
        return None if listed is None else ("items", int(listed))

    def _rows_written(self, path: Path) -> int:
        with path.open(newline="", encoding="utf-8") as file:
            if path.suffix.lower() == ".json":
                return len(json.load(file))
            return sum(1 for _ in csv.reader(file)) - 1

    def _write(self, run: Any, path: Path) -> None:
        columns = [*_PLAIN, *_Clusters.columns(run)]
        lines = self._lines(run)
        with new_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            if path.suffix.lower() == ".json":
                _write_json(file, columns, lines)
            else:
                _write_csv(file, columns, lines, self.formulas)

    def _lines(self, run: Any) -> Iterator[dict[str, Any]]:
        """Yield what is known of each item; what is not known is left out."""
        clusters = _Clusters(run) if has_clusters(run) else None
        for item in run.items:
            line: dict[str, Any] = {"row": item.row, "id": item.id, "status": item.status}
            if item.size is not None:
                line["width"], line["height"] = item.size
            if item.reason:
                line["reason"] = item.reason
            if item.status == "ok":
                if run.has("index"):
                    line["nearest"] = self._nearest(run, item)
                if clusters is not None:
                    line.update(clusters.of(item))
            yield line

    def _nearest(self, run: Any, item: Item) -> list[tuple[str, float]]:
        found = run.search(item.id, self.neighbours + 1)
        pairs = zip(found.items[0], found.distances[0], strict=True)
        return [
            (other.id, float(distance))
            for other, distance in pairs
            if other is not None and other.row != item.row
        ]


class _Clusters:
    """What is known of each item's cluster."""

    def __init__(self, run: Any) -> None:
        labels = run.item_labels
        self._place = {item.row: i for i, item in enumerate(run.kept)}
        self._labels = labels.tolist()
        self._sizes = {one.number: len(one.items) for one in run.clusters}
        self._heights: list[float] | None = None
        if _has_tree(run):
            clusterer = run.clusterer
            tree = read_tree(clusterer.tree, len(labels))
            heights = np.zeros(tree.rows)
            single = tree.children < tree.rows
            above = np.repeat(tree.heights[tree.rows :, None], 2, axis=1)
            heights[tree.children[single]] = above[single]
            self._heights = heights.tolist()
            self._full = full_height(clusterer, tree.top)

    @staticmethod
    def columns(run: Any) -> list[str]:
        """Return the columns of a run that has clusters."""
        if not has_clusters(run):
            return []
        joined = ["joined_height", "joined_similarity"] if _has_tree(run) else []
        return ["cluster", "cluster_size", *joined]

    def of(self, item: Item) -> dict[str, Any]:
        """Return what is known of an item."""
        place = self._place[item.row]
        found: dict[str, Any] = {}
        label = self._labels[place]
        if label >= 0:
            found = {"cluster": label, "cluster_size": self._sizes[label]}
        if self._heights is not None:
            found["joined_height"] = self._heights[place]
            found["joined_similarity"] = 1 - self._heights[place] / self._full
        return found


def _has_tree(run: Any) -> bool:
    return bool(run.clusterer.hierarchical) and getattr(run.clusterer, "tree", None) is not None


def _write_csv(
    file: IO[str], columns: list[str], lines: Iterator[dict[str, Any]], formulas: bool
) -> None:
    table = csv.writer(file)
    table.writerow(columns)
    for line in lines:
        if "nearest" in line:
            line["nearest"] = "; ".join(f"{name} {far:.4f}" for name, far in line["nearest"])
        for name in ("joined_height", "joined_similarity"):
            if name in line:
                line[name] = f"{line[name]:.6g}"
        cells = [line.get(name, "") for name in columns]
        table.writerow(cells if formulas else [no_formula(cell) for cell in cells])


def _write_json(file: IO[str], columns: list[str], lines: Iterator[dict[str, Any]]) -> None:
    """Write one object a line, so that a long table is still readable."""
    file.write("[")
    for number, line in enumerate(lines):
        if "nearest" in line:
            line["nearest"] = [{"id": name, "distance": far} for name, far in line["nearest"]]
        known = {name: line.get(name) for name in columns}
        file.write(f"{',' if number else ''}\n {json.dumps(known)}")
    file.write("\n]\n")
