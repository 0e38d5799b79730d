"""Words per item, in files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.around import Output
from vwkit.base import Field, backend
from vwkit.errors import ArtifactError, DataError
from vwkit.items import read_items, write_items
from vwkit.observing.accounts import held
from vwkit.outputs.files import new_folder
from vwkit.run import Run, Words

__all__ = ["WordsOutput", "read_words"]


@backend("words")
class WordsOutput(Output):
    """The visual words of every item: a folder with ``words.npy`` (uint32), ``offsets.npy`` and
    ``items.jsonl``, and ``keypoints.npy`` where they are known.

    With ``text: true`` there is also one text file per item below ``text/``: the number of words,
    then a line ``word x y scale angle`` (or ``word`` alone) for each.
    """  # noqa: D205

    needs = ("vocabulary",)
    writes = "folder"

    text: bool = Field(default=False, doc="Whether to write one text file per item, too.")

    def _rows(self, run: Run) -> tuple[str, int] | None:
        rows = held(run, "featurizer.words", "labels", "clusterer")
        return None if rows is None else ("words", rows)

    def _rows_written(self, path: Path) -> int:
        words = np.load(path / "words.npy", mmap_mode="r", allow_pickle=False)
        ends = int(np.load(path / "offsets.npy", mmap_mode="r", allow_pickle=False)[-1])
        return min(ends, len(words))

    def _write(self, run: Run, path: Path) -> None:
        said = run.words
        items = run.kept
        with new_folder(path) as folder:
            np.save(folder / "words.npy", np.asarray(said.words, np.uint32))
            np.save(folder / "offsets.npy", np.asarray(said.offsets, np.int64))
            if said.keypoints is not None:
                np.save(folder / "keypoints.npy", np.asarray(said.keypoints, np.float32))
            write_items(folder / "items.jsonl", items)
            if self.text:
                for i, item in enumerate(items):
                    span = slice(int(said.offsets[i]), int(said.offsets[i + 1]))
                    points = None if said.keypoints is None else said.keypoints[span]
                    target = folder / "text" / _file_of(item.id)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(_lines(said.words[span], points), encoding="utf-8")


def _file_of(item: str) -> str:
    """Return a relative file name for an item's id that cannot leave its folder."""
    parts = [part for part in PurePosixPath(item).parts if part not in ("/", "..", ".")]
    return "/".join(parts or ["item"]) + ".txt"


def _lines(words: NDArray[np.uint32], points: NDArray[np.float32] | None) -> str:
    rows = [f"{word}" for word in words.tolist()]
    if points is not None:
        rows = [
            f"{row} {x:.2f} {y:.2f} {scale:.2f} {angle:.2f}"
            for row, (x, y, scale, angle, _) in zip(rows, points.tolist(), strict=True)
        ]
    return "\n".join([str(len(rows)), *rows, ""])


def read_words(folder: str | Path) -> tuple[Words, list[Any]]:
    """Read what ``output: words`` wrote.

    Returns
    -------
    words : Words
    items : list of Item
        As many as ``offsets`` has spans.

    Raises
    ------
    ArtifactError, DataError
        The folder is incomplete, or its files do not fit each other.
    """
    folder = Path(folder)
    arrays: dict[str, Any] = {}
    for name in ("words", "offsets", "keypoints"):
        path = folder / f"{name}.npy"
        if name == "keypoints" and not path.exists():
            continue
        try:
            # A map is checked against the file's size: a header may claim any shape.
            arrays[name] = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        except Exception as error:  # whatever a made-up header leads to
            said = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{path}: not a readable array: {said}") from None
    items = read_items(folder / "items.jsonl")
    words, offsets, points = arrays["words"], arrays["offsets"], arrays.get("keypoints")
    fits = (
        words.ndim == offsets.ndim == 1
        and words.dtype.kind in "iu"
        and offsets.dtype.kind in "iu"
        and (points is None or (points.ndim == 2 and len(points) == len(words)))
        and len(offsets) == len(items) + 1
        and offsets[0] == 0
        and offsets[-1] == len(words)
        and bool((np.diff(offsets) >= 0).all())
    )
    if not fits:
        raise DataError(
            f"{folder}: words of shape {words.shape}, offsets of shape {offsets.shape}"
            f"{'' if points is None else f', keypoints of shape {points.shape}'} and {len(items)} "
            "items do not fit each other"
        )
    return Words(words, offsets, points), items
