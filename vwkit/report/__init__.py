"""Pages to look at: one HTML file each, without scripts, fonts or anything to fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["write_report", "write_search_page"]


def write_report(run: Any, path: Path) -> None:
    """Write the report of a run: what was done, how it went, and what came out, in pictures.

    Images that are gone since are left out; nothing else of the run may be missing.

    Parameters
    ----------
    run : Run
    path : Path
        The HTML file; it is replaced when the new one is complete.

    Raises
    ------
    RunError
        It cannot be written.
    ArtifactError
        A part of the run is damaged.
    """
    from vwkit.outputs.files import new_file
    from vwkit.report import sections, words
    from vwkit.report.page import page
    from vwkit.report.pictures import Pictures
    from vwkit.report.searches import find_examples, search_section

    pictures = Pictures()
    examples = find_examples(run)
    said = []
    if words.has_words(run):
        counts = words.word_counts(run)
        shown = [
            item for one in examples for item in (one.query, *(found for found, _ in one.found))
        ]
        said = [
            words.patch_section(run, counts, pictures, shown),
            words.cluster_section(run, counts, pictures),
            words.word_section(run, counts),
        ]
    looks = search_section(examples, pictures) or sections.image_section(run, pictures)
    body = [
        looks,
        sections.score_section(run),
        *said,
        sections.learning_section(run),
        sections.stage_section(run),
        sections.skipped_section(run),
        sections.spec_section(run),
    ]
    text = page(sections.title(run), sections.lead(run), body, top=sections.tiles(run))
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_search_page(run: Any, matches: Any, queries: Any, path: Path) -> None:
    """Write what a search found; see `vwkit.report.search_page.write_search_page`."""
    from vwkit.report.search_page import write_search_page as write

    write(run, matches, queries, path)
