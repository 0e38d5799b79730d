"""Near-duplicates as a page to look at, or as a table for programs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import annotated_types

from vwkit.around import Output
from vwkit.base import Field, backend
from vwkit.duplicates import CANDIDATES, Group, find_duplicates
from vwkit.errors import ParameterError, Problem
from vwkit.geometry.comparing import INLIERS, KEYPOINTS, OVERLAP, RATIO, SHARE, TOLERANCE
from vwkit.outputs.files import new_file
from vwkit.outputs.spreadsheets import no_formula
from vwkit.types import Fraction, Positive

__all__ = ["Duplicates"]

_COLUMNS = (
    *("group", "item", "of", "words", "mirrored", "angle", "scale", "stretch", "kept", "covered"),
    *("inliers", "share"),
)


@backend("duplicates")
class Duplicates(Output):
    """Groups of copies: cropped, scaled, turned, mirrored, recompressed, or the same file twice.

    By its name, an HTML page that shows each group, how each copy was made in words, and where one
    picture lies in the other; or the same as ``.json`` (with the transformations) or ``.csv`` (a line
    per pair). Pictures are compared by keypoints, so what has none (a plain area) is found only where
    files have the same bytes.
    """

    needs = ("images", "local featurizer", "index")

    candidates: Positive = Field(
        default=CANDIDATES,
        doc="Nearest pictures in the index that each picture is compared with; as many for its mirror image.",
    )
    mirrored: bool = Field(default=True, doc="Whether to look for mirrored copies, too.")
    inliers: Positive = Field(default=INLIERS, doc="Places that must agree.")
    share: Fraction = Field(
        default=SHARE,
        doc="Of the keypoints in the common part, so many must agree; lower finds other photos of the same thing, too.",
    )
    overlap: Fraction = Field(
        default=OVERLAP, doc="The common part must be this share of one of the two pictures."
    )
    ratio: Fraction = Field(
        default=RATIO, doc="How much nearer a descriptor must be than the next nearest."
    )
    tolerance: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = Field(
        default=TOLERANCE,
        doc="How far a keypoint may be off, as a share of the picture's diagonal.",
    )
    keypoints: Positive = Field(
        default=KEYPOINTS, doc="Only so many keypoints of a picture are compared, the strongest."
    )
    groups: Positive = Field(default=200, doc="A page shows at most so many groups, the largest.")
    per_group: Positive = Field(default=24, doc="A page shows at most so many pictures of a group.")
    thumbnail: Positive = Field(default=240, doc="Longer side of each picture in pixels.")

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in (".html", ".htm", ".json", ".csv"):
            text = f"duplicates are written as .html, .json or .csv; got {self.path.name}"
            raise ParameterError(f"duplicates.path: {text}", [Problem(("path",), text)])

    def _write(self, run: Any, path: Path) -> None:
        groups = find_duplicates(
            run,
            candidates=self.candidates,
            mirrored=self.mirrored,
            inliers=self.inliers,
            share=self.share,
            overlap=self.overlap,
            ratio=self.ratio,
            tolerance=self.tolerance,
            keypoints=self.keypoints,
        )
        with new_file(path) as part:
            if path.suffix.lower() == ".csv":
                _write_table(part, groups)
            elif path.suffix.lower() == ".json":
                text = json.dumps([_plain(group) for group in groups], indent=1)
                part.write_text(text + "\n", encoding="utf-8")
            else:
                from vwkit.report.duplicates_page import duplicates_page

                text = duplicates_page(
                    run, groups, most=self.groups, per_group=self.per_group, size=self.thumbnail
                )
                part.write_text(text, encoding="utf-8")


def _plain(group: Group) -> dict[str, Any]:
    pairs = []
    for pair in group.pairs:
        how = {"words": pair.words} if pair.how is None else pair.how.as_dict()
        pairs.append(
            {"of": pair.first.id, "item": pair.second.id, "identical": pair.how is None, **how}
        )
    return {"items": [item.id for item in group.items], "pairs": pairs}


def _write_table(path: Path, groups: list[Group]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for number, group in enumerate(groups, 1):
            for pair in group.pairs:
                how = {} if pair.how is None else pair.how.as_dict()
                line = {"group": number, "item": pair.second.id, "of": pair.first.id, **how}
                line["words"] = pair.words
                table.writerow([no_formula(_text(line.get(name, ""))) for name in _COLUMNS])


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value
