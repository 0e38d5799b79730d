"""A finished run: opened, searched, grown and made smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vwkit.compacting import Compacted, compact_run
from vwkit.growing import add_items, remove_items
from vwkit.run_parts import Cluster, Words
from vwkit.run_search import RunSearch, fitting_vectors
from vwkit.types import Item

__all__ = ["Cluster", "Compacted", "Run", "Words", "fitting_vectors"]


class Run(RunSearch):
    """A finished run.

    Attributes
    ----------
    folder : Path
    manifest : dict
        Versions, seed, stages with timings and peak memory, counts, scores.
    """

    # Changes

    def add(
        self,
        images: Any,
        *,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        existing: str = "refuse",
        on_error: str = "skip",
    ) -> list[Item]:
        """Add pictures to this run, its index and its folder; what is there is not computed again.

        A kill at any moment leaves the run as it was, or with all of them.

        Parameters
        ----------
        images : path, or a list of them
            Pictures, folders of pictures, or, for a run that began from URLs, a metadata file.
        ids : sequence of str, optional
            One for each picture; by default its path below the run's own folder of pictures, else its
            name.
        metadata : sequence of dict, optional
            One for each picture.
        existing : str
            ``refuse``: an id that is there already is an error, and nothing is added; ``skip``: such
            pictures are left out.
        on_error : str
            ``skip``: a picture that cannot be used becomes a skipped item; ``stop``: it is an error.

        Returns
        -------
        list of Item
            The new items, with their rows; skipped ones too.

        Raises
        ------
        UnsupportedError
            The index cannot add, or the run is of a kind that cannot grow.
        DataError, ImageError
            An id is there already, or nothing could be used.
        RunError
            The run is in use, or an interrupted run waits in its folder.
        """
        return add_items(
            self, images, ids=ids, metadata=metadata, existing=existing, on_error=on_error
        )

    def remove(self, ids: Any) -> list[Item]:
        """Remove items: they are not found any more, and their rows are not used again.

        Parameters
        ----------
        ids : str, or a list of them

        Returns
        -------
        list of Item
            The removed items; in `items` their status is ``removed``.

        Raises
        ------
        UnsupportedError, RunError
            As for `add`.
        DataError
            There is no such item, or these are all; nothing is removed.
        """
        return remove_items(self, ids)

    def compact(self) -> Compacted:
        """Let go of what removed items left in the index; nothing else changes.

        Their features, words and vectors are gone since they were removed. An index that only marks
        what is removed is made anew of what is left, by itself or of the run's vectors; of a sharded
        one, only the shards that hold removed rows. A kill at any moment leaves the run as it was, or
        compacted.

        Returns
        -------
        Compacted
            How many vectors were let go, and the folder's bytes before and after.

        Raises
        ------
        UnsupportedError
            The run is of a kind that does not change.
        RunError
            The run is in use, or an interrupted run waits in its folder.
        """
        return compact_run(self)
