"""The parts of a report that say what each stage took, and what became of every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vwkit.report.markup import Html, join, tag
from vwkit.report.numbers import duration, memory, rate
from vwkit.report.page import definitions, section, table

__all__ = ["account_section", "stage_section"]

_FROM = {"cache": "the cache", "computed": "computing"}


def stage_section(run: Any) -> Html:
    """Return what each stage got, gave and took."""
    stages = list(run.manifest["stages"].values())
    accounts = _accounts(run).get("stages", {})
    longest = max((float(stage["seconds"]) for stage in stages), default=0.0) or 1.0
    rows = [
        (
            stage["name"],
            _bar(float(stage["seconds"]) / longest),
            duration(stage["seconds"]),
            *_counts(accounts.get(stage["name"], {})),
            _rate(stage, accounts.get(stage["name"], {})),
            memory(stage["peak_memory"]),
            memory(stage["bytes"]) if "bytes" in stage else "",
            f"{stage['checkpoints']:,}" if stage.get("checkpoints") else "",
            _FROM.get(stage["from"], stage["from"]),
        )
        for stage in stages
    ]
    if not rows:
        return section("Stages", note="No stage: nothing had to be computed.")
    head = ("Stage", "", "Time", "In", "Out", "Per second", "Peak memory", "On disk",
            "Checkpoints", "Result from")  # fmt: skip
    # A column that says nothing of any stage is left out.
    shown = [i for i in range(len(head)) if any(row[i] != "" for row in rows)]
    numbers = [place for place, i in enumerate(shown) if i not in (0, 1, 9)]
    cells = [[row[i] for i in shown] for row in rows]
    return section("Stages", table("Stages", [head[i] for i in shown], cells, numbers=numbers))


def account_section(run: Any) -> Html | None:
    """Return what became of every input, and how many rows the outputs hold."""
    said = _accounts(run)
    items = said.get("items")
    if not items:
        return None
    facts: list[tuple[str, object]] = []
    if run.spec.get("vectors") is None or int(items["listed"]) > 1:
        facts += [("inputs", f"{items['listed']:,}"), ("used", f"{items['ok']:,}")]
        skipped = items.get("skipped") or {}
        if skipped:
            lines = [tag("div", f"{count:,} × {reason}") for reason, count in skipped.items()]
            facts.append(("skipped", join(lines)))
    for name, shown in (
        ("removed", "removed since"),
        ("ignored", "files that are no pictures"),
        ("left out", "left out by limit or sample"),
        ("records left out", "records left out"),
        ("rows left out", "rows left out by limit or sample"),
    ):
        if items.get(name):
            facts.append((shown, f"{items[name]:,}"))
    for output in said.get("outputs", []):
        facts.append((f"written: {output['write']}", f"{output['rows']:,} {output['unit']}"))
    if not facts:
        return None
    note = (
        "Counted at the end of the run: what each stage was given is what it holds, but for what was "
        "skipped with a reason."
    )
    return section("Accounts", definitions(facts), note=note)


def _accounts(run: Any) -> Mapping[str, Any]:
    said = run.manifest.get("accounts")
    return said if isinstance(said, Mapping) else {}


def _counts(account: Mapping[str, Any]) -> tuple[str, str]:
    """Write what went in and what came out: ``8 images``, ``6 (1,234 rows)``."""
    given, kept, rows = account.get("in"), account.get("out"), account.get("rows")
    into = "" if given is None else f"{given:,} {account.get('unit', 'rows')}"
    out = "" if kept is None else f"{kept:,}"
    return into, out if rows in (None, kept) else f"{out} ({rows:,} rows)"


def _rate(stage: Mapping[str, Any], account: Mapping[str, Any]) -> str:
    given, seconds = account.get("in"), float(stage["seconds"])
    if not given or stage["from"] != "computed" or seconds <= 0:
        return ""
    return rate(given, seconds)  # of what went in; the column before says what that is


def _bar(share: float) -> Html:
    filled = tag("i", style=f"width:{100 * share:.1f}%")
    return tag("span", filled, class_="meter", aria_hidden="true")
