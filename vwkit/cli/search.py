"""`vwkit search`, `vwkit evaluate` and `vwkit report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vwkit.cli.text import printable

__all__ = ["evaluate_command", "report_command", "search_command"]


@click.command("search")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option(
    "-k",
    "k",
    metavar="N",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many to list for each.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="EXPRESSION",
    help="Find only items whose metadata fulfil this: \"price < 20 and color == 'red'\".",
)
@click.option("--fields", metavar="NAME,…", help="Metadata to show with each result.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a picture grid to this file.")
@click.option("--png", type=click.Path(path_type=Path), help="The same as one picture.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def search_command(
    run: Path,
    images: tuple[str, ...],
    k: int,
    where: tuple[str, ...],
    fields: str | None,
    html: Path | None,
    png: Path | None,
    as_json: bool,
) -> None:
    """Search RUN by IMAGES: picture files or ids of its items."""
    from vwkit.outputs.files import new_file
    from vwkit.run import Run

    if png is not None and png.suffix.lower() != ".png":
        raise click.BadParameter(f"{png}: a picture grid is a PNG; name it …{png.stem}.png")
    asked = [name.strip() for name in (fields or "").split(",") if name.strip()]
    opened = Run.open(run)
    _check_fields(opened, asked)
    if opened.has("featurizer"):
        k = min(k, max(1, len(opened.kept)))  # answers have a place for each that is asked for
    matches = opened.search(list(images), k, where=where or None)
    rows = list(_rows(images, matches, asked))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        _print(rows, matches, asked)
    if html is not None:
        from vwkit.report import write_search_page

        with new_file(html) as part:
            write_search_page(opened, matches, list(images), part, fields=asked, where=where)
        click.echo(printable(f"page: {html}"), err=as_json)
    if png is not None:
        from vwkit.report import write_search_grid

        with new_file(png) as part:
            write_search_grid(opened, matches, list(images), part, fields=asked)
        click.echo(printable(f"picture: {png}"), err=as_json)


def _check_fields(run: Any, fields: list[str]) -> None:
    import difflib

    from vwkit.metadata import look_up

    for name in fields:
        if not any(look_up(item.metadata, name) is not None for item in run.kept):
            known = sorted({one for item in run.kept for one in item.metadata})
            near = difflib.get_close_matches(name, known, n=1)
            there = f"there are {', '.join(known[:12])}" if known else "they have no metadata"
            hint = f"did you mean {near[0]}?" if near else there
            said = _printable(f"no item has a field {name!r}; {hint}")
            raise click.BadParameter(said, param_hint="--fields")


def _print(rows: list[Any], matches: Any, fields: list[str]) -> None:
    from vwkit.report.search_page import field_texts

    for i, row in enumerate(rows):
        click.echo(_printable(row["query"]))
        found = [item for item in (matches.items[i] if matches.items else []) if item is not None]
        for place, one in enumerate(row["matches"]):
            texts = field_texts(found[place], fields) if found else []
            said = "".join(f"  {name}: {_printable(text)}" for name, text in texts)
            distance = max(0.0, one["distance"])
            click.echo(f"  {one['rank']:>3}  {distance:<10.4f} {_printable(one['id'])}{said}")
        if not row["matches"]:
            click.echo("  nothing found")


def _printable(text: str) -> str:
    """Show control characters, which could steer a terminal, as what they are not."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


def _rows(images: tuple[str, ...], matches: Any, fields: list[str]) -> Any:
    from vwkit.metadata import kept_fields

    for i, query in enumerate(images):
        found = []
        for rank, (one, distance) in enumerate(
            zip(matches.ids[i], matches.distances[i], strict=True)
        ):
            if one < 0:
                continue
            item = matches.items[i][rank] if matches.items is not None else None
            name = item.id if item is not None else str(int(one))
            match: dict[str, Any] = {"rank": rank + 1, "id": name, "distance": float(distance)}
            if item is not None and item.metadata:
                match["metadata"] = (
                    kept_fields(item.metadata, fields) if fields else dict(item.metadata)
                )
            found.append(match)
        yield {"query": query, "matches": found}


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--protocol", help="Instead of the spec's own, such as groups.")
@click.option("--groundtruth", type=click.Path(path_type=Path), help="Its ground truth.")
@click.option("--exclude-query/--include-query", default=None, help="Whether the query counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate_command(
    run: Path,
    protocol: str | None,
    groundtruth: Path | None,
    exclude_query: bool | None,
    as_json: bool,
) -> None:
    """Score RUN by its own protocol and ground truth, or by those given."""
    from vwkit.base import create
    from vwkit.errors import RunError
    from vwkit.run import Run

    opened = Run.open(run)
    params = dict(opened.spec.get("evaluate") or {})
    name = params.pop("protocol", None)
    if protocol is not None and protocol != name:
        name, params = protocol, {}
    if groundtruth is not None:
        params["groundtruth"] = groundtruth
        name = name or "groups"
    if exclude_query is not None:
        params["exclude_query"] = exclude_query
    if name is None:
        raise RunError(f"{run}: its spec has no evaluate; give --groundtruth FILE")
    evaluator: Any = create("evaluator", name, **params)
    scores = evaluator._evaluate(opened)
    if as_json:
        click.echo(json.dumps(scores, indent=1))
        return
    for query, value in scores["average_precision"].items():
        click.echo(f"  {'—' if value is None else f'{value:.3f}'}  {query}")
    shown = "—" if scores["mAP"] is None else f"{scores['mAP']:.3f}"
    counted = "passed over" if params.get("exclude_query") else "counted where it is found"
    click.echo(f"{scores['queries']} queries, the query itself {counted}\nmAP {shown}")


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
def report_command(run: Path) -> None:
    """Write RUN's report again and say where it is."""
    from vwkit.outputs.files import new_file
    from vwkit.report import write_report
    from vwkit.run import Run

    opened = Run.open(run)
    path = opened.folder / "report.html"
    with new_file(path) as part:
        write_report(opened, part)
    click.echo(printable(f"report: {path}"))
