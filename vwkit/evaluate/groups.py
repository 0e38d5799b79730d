"""The protocol ``groups``: a CSV of query, item, relevant or junk."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.around import Evaluator
from vwkit.base import Field, backend
from vwkit.errors import DataError
from vwkit.evaluate.average_precision import average_precision
from vwkit.formats import MissingFileError
from vwkit.jobs import job

__all__ = ["Groups", "read_groups"]

_AT_ONCE = 64


@backend("groups")
class Groups(Evaluator):
    """Mean average precision over the queries of a CSV ``query,item,relevant|junk``.

    The header line is optional. Queries and items are item ids of the run. Average precision is
    that of the Oxford protocol.
    """

    groundtruth: Path = Field(doc="The CSV file.")
    exclude_query: bool = Field(
        default=False, doc="Whether to pass over the query itself where it is found."
    )

    def _evaluate(self, run: Any) -> dict[str, Any]:
        truth = read_groups(self.groundtruth)
        known = {item.id for item in run.items}
        for query, (positives, junk) in truth.items():
            strangers = [name for name in (query, *positives, *junk) if name not in known]
            if strangers:
                raise DataError(
                    f"{self.groundtruth}: {strangers[0]!r} is not an item of this run; "
                    f"its items are named like {run.items[0].id!r}"
                )
        usable = {item.id for item in run.kept}
        scores: dict[str, float] = {}
        queries = list(truth)
        for start in range(0, len(queries), _AT_ONCE):
            block = queries[start : start + _AT_ONCE]
            for query in block:
                scores[query] = self._score(run, query, *truth[query], query in usable)
            job().progress(min(len(queries), start + _AT_ONCE), len(queries), "queries")
        counted = [score for score in scores.values() if not np.isnan(score)]
        return {
            "protocol": self.name,
            "mAP": float(np.mean(counted)) if counted else None,
            "queries": len(counted),
            "without_positives": len(scores) - len(counted),
            "average_precision": {
                name: None if np.isnan(score) else score for name, score in scores.items()
            },
        }

    def _score(
        self, run: Any, query: str, positives: set[str], junk: set[str], usable: bool
    ) -> float:
        if self.exclude_query:
            positives, junk = positives - {query}, junk | {query}
        if not positives:
            return float("nan")
        if not usable:
            return 0.0  # an unreadable query finds nothing
        found = run.search(query, len(run.kept)).items[0]
        return average_precision([one.id for one in found if one is not None], positives, junk)


def read_groups(path: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Read ground truth: for each query, its relevant items and its junk.

    Raises
    ------
    DataError
        A line is not ``query,item,relevant|junk``; the text names it.
    """
    truth: dict[str, tuple[set[str], set[str]]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if not row or (number == 1 and row[:2] == ["query", "item"]):
                    continue
                if len(row) != 3 or row[2].strip() not in ("relevant", "junk"):
                    raise DataError(
                        f"{path}:{number}: a line is query,item,relevant or query,item,junk; "
                        f"got {','.join(row)[:100]!r}"
                    )
                query, item, what = (cell.strip() for cell in row)
                positives, junk = truth.setdefault(query, (set(), set()))
                (positives if what == "relevant" else junk).add(item)
    except FileNotFoundError:
        raise MissingFileError(f"no such file: {path}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV in UTF-8: {error}") from None
    if not truth:
        raise DataError(f"{path}: no query in it")
    return truth
