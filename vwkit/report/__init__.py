"""Pages to look at: one HTML file each, without scripts, fonts or anything to fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["write_report", "write_search_grid", "write_search_page"]


def write_report(run: Any, path: Path) -> None:
    """Write the report of a run: what was done, how it went, and what came out, in pictures.

    Images that are gone since are left out; nothing else of the run may be missing.

    Parameters
    ----------
    run : Run
    path : Path
        The HTML file.

    Raises
    ------
    ArtifactError
        A part of the run is damaged.
    """
    from vwkit.report import clusters, colours, sections, stages, words
    from vwkit.report.page import page
    from vwkit.report.pictures import Pictures
    from vwkit.report.searches import find_examples, search_section

    pictures = Pictures()
    examples = find_examples(run)
    said = words.words_of(run)
    patches = used = None
    if said is not None:
        counts = words.word_counts(said.words, words.vocabulary_size(run))
        shown = [item for example in examples for item in example.items]
        patches = words.patch_section(run, said, counts, pictures, shown)
        used = words.word_section(run, said, counts)
    groups = clusters.cluster_section(run, pictures) if clusters.has_clusters(run) else None
    looks = search_section(examples, pictures)
    if looks is None and groups is None:
        looks = sections.image_section(run, pictures)
    body = [
        sections.change_section(run),
        looks,
        sections.score_section(run),
        patches,
        groups,
        colours.colour_section(run),
        used,
        sections.learning_section(run),
        stages.stage_section(run),
        stages.account_section(run),
        sections.skipped_section(run),
        sections.spec_section(run),
    ]
    style = colours.SWATCHES if run.has("colours") else ""
    text = page(sections.title(run), sections.lead(run), body, top=sections.tiles(run), style=style)
    path.write_text(text, encoding="utf-8")


def write_search_page(run: Any, matches: Any, queries: Any, path: Path, **more: Any) -> None:
    """Write what a search found; see `vwkit.report.search_page.write_search_page`."""
    from vwkit.report.search_page import write_search_page as write

    write(run, matches, queries, path, **more)


def write_search_grid(run: Any, matches: Any, queries: Any, path: Path, **more: Any) -> None:
    """Write what a search found as a PNG; see `vwkit.report.search_grid.write_search_grid`."""
    from vwkit.report.search_grid import write_search_grid as write

    write(run, matches, queries, path, **more)
