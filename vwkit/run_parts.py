"""A finished run: its folder opened, its parts loaded when they are asked for."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vwkit.artifact import open_artifact, open_whole
from vwkit.base import create, load
from vwkit.builtin.vocabulary import Vocabulary
from vwkit.counted import Counted
from vwkit.errors import ArtifactError, RunError, UnsupportedError, VwkitError
from vwkit.featurizer import Featurizer
from vwkit.hashing import file_sha256
from vwkit.index import Index
from vwkit.items import read_items
from vwkit.lock import holder, locked
from vwkit.quantizer import Quantizer
from vwkit.run_folder import INNER, JOURNAL, MANIFEST, finish_commit, read_manifest
from vwkit.sparse import Sparse
from vwkit.stage_arrays import one_per_item
from vwkit.stream import Stream
from vwkit.transform import Transform
from vwkit.types import Array, Item, in_notebook

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Cluster", "Clusters", "RunParts", "Words"]

_PATIENCE = 60.0  # seconds for another process to put a change in its place, which takes moments


@dataclass(frozen=True)
class Words:
    """The visual words of a run's items.

    Attributes
    ----------
    words : (n,) uint32
    offsets : (items + 1,) int64
        Words ``offsets[i]`` to ``offsets[i + 1]`` belong to the i-th item that was not skipped.
    keypoints : (n, 5) float32 or None
        x, y, scale, angle, response.
    """

    words: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    keypoints: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Cluster:
    """One cluster of a run's items.

    Attributes
    ----------
    number : int
        Its label.
    items : list of Item
        In the order of the run's items; never empty.
    """

    number: int
    items: list[Item]

    def _repr_html_(self) -> str:
        return in_notebook("cluster_html", self)


class Clusters(list[Cluster]):
    """A list of clusters, which a notebook shows with pictures."""

    def _repr_html_(self) -> str:
        return in_notebook("clusters_html", self)


class RunParts:
    """The folder of a finished run, and what is in it.

    Attributes
    ----------
    folder : Path
    manifest : dict
        Versions, seed, stages with timings and peak memory, counts, scores.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._stamp: tuple[int, int, int] | None = None  # of the manifest, where it was opened

    @classmethod
    def open(cls, out: str | Path) -> Self:
        """Open a run folder.

        Raises
        ------
        RunError
            There is no finished run in it.
        ArtifactError
            It is damaged or of a newer vwkit.
        """
        folder = Path(out)
        if not folder.is_dir():
            raise RunError(
                f"{folder}: no such run folder; make one with `vwkit run SPEC --out {folder}`"
            )
        path = folder / MANIFEST
        while True:
            _settled(folder)
            stamp = _stamp(path)
            try:
                manifest = read_manifest(path)
            except ArtifactError:
                if stamp is not None and _stamp(path) == stamp:
                    raise
                # Perhaps another process is just putting a change in its place.
                if not (folder / INNER / JOURNAL).is_file() and _stamp(path) is None:
                    raise _unfinished(folder) from None
                continue
            if _stamp(path) == stamp:
                break
        run = cls(folder, manifest)
        run._stamp = stamp
        return run

    def reopen(self) -> None:
        """Look at the folder again: for a run that was changed since it was opened."""
        fresh = type(self).open(self.folder)
        self.__dict__.clear()  # with everything that was loaded
        self.__dict__.update(fresh.__dict__)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {len(self.items)} items)"

    def _repr_html_(self) -> str:
        return in_notebook("run_html", self)

    # Parts

    @functools.cached_property
    def items(self) -> list[Item]:
        """All inputs in order, skipped ones too."""
        path = self.folder / "items.jsonl"
        with self._whole():
            if path.is_file() and file_sha256(path) != self.manifest.get("items_sha256"):
                raise ArtifactError(f"{path}: its checksum does not match; damaged, run again")
            return read_items(path)

    @functools.cached_property
    def kept(self) -> list[Item]:
        """The items that were not skipped."""
        return [item for item in self.items if item.status == "ok"]

    def check(self) -> None:
        """Verify the items and every file of every stage; otherwise that is done with what is used.

        Raises
        ------
        ArtifactError
            It names what is missing or damaged.
        """
        _ = self.items
        for stage in self.manifest["stages"]:
            open_whole(self.path(stage))

    @property
    def spec(self) -> dict[str, Any]:
        """The resolved spec."""
        return dict(self.manifest["spec"])

    @property
    def scores(self) -> dict[str, Any] | None:
        """What the evaluation found."""
        return self.manifest.get("scores")

    def has(self, stage: str) -> bool:
        """Tell whether the run has a stage."""
        return stage in self.manifest["stages"]

    def path(self, stage: str) -> Path:
        """Return a stage's folder."""
        if not self.has(stage):
            names = ", ".join(self.manifest["stages"])
            raise UnsupportedError(f"{self.folder}: this run has no {stage}; it has {names}")
        self._need_unchanged()
        return self.folder / stage

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Read a part that is of this version of the run, even if another process changes it now."""
        self._need_unchanged()
        try:
            yield
        except (VwkitError, OSError):
            self._need_unchanged()  # then that is why it failed
            raise
        self._need_unchanged()

    def _need_unchanged(self) -> None:
        """Refuse to put parts of two versions of a run together."""
        if self._stamp is not None and _stamp(self.folder / MANIFEST) != self._stamp:
            raise RunError(
                f"{self.folder}: was changed since it was opened (items added or removed, or run "
                "again); open it again"
            )

    def load(self, stage: str) -> Any:
        """Load a stage's backend."""
        with self._whole():
            return load(self.path(stage))

    def arrays(self, stage: str) -> dict[str, Array]:
        """Open a stage's arrays, memory-mapped."""
        with self._whole():
            return open_artifact(self.path(stage)).arrays()

    @functools.cached_property
    def featurizer(self) -> Featurizer:
        """The featurizer, ready to use."""
        if not self.has("featurizer"):
            raise UnsupportedError(f"{self.folder}: this run began from vectors, not images")
        found: Featurizer = self.load("featurizer")
        return found

    @functools.cached_property
    def transforms(self) -> list[Transform]:
        """The fitted transforms in order."""
        count = len(self.spec.get("transform", []))
        return [self.load(f"transform[{i}]") for i in range(count)]

    @functools.cached_property
    def quantizer(self) -> Quantizer:
        """The fitted quantizer."""
        found: Quantizer = self.load("quantizer")
        return found

    @functools.cached_property
    def clusterer(self) -> Any:
        """The fitted clusterer: the slot's own, or the one that made a bag of words' words."""
        return self.load("clusterer" if self.has("clusterer") else "featurizer.vocabulary")

    @functools.cached_property
    def vocabulary(self) -> Quantizer:
        """The visual words as a quantizer."""
        found = self.clusterer
        if not getattr(found, "has_centers", True) and self.has("featurizer.vocabulary"):
            found = self.load("featurizer.vocabulary")  # the slot's own clusters the bags
        return found if isinstance(found, Quantizer) else Vocabulary(clusterer=found)

    @functools.cached_property
    def index(self) -> Index:
        """The search index."""
        found: Index = self.load("index")
        return found

    @functools.cached_property
    def rerankers(self) -> list[Any]:
        """The rerankers in order."""
        listed = [dict(one) for one in self.spec.get("rerank", [])]
        return [create("reranker", one.pop("use"), **one) for one in listed]

    @functools.cached_property
    def features(self) -> Stream:
        """The vectors that the featurizer gave: one row per item, or local ones with offsets."""
        if self.has("colours"):
            return self.counted.every(self.kept)
        name = "featurizer.local" if self.has("featurizer.local") else "features"
        arrays = self.arrays(name)
        columns = {"keypoints": arrays["keypoints"]} if "keypoints" in arrays else {}
        return Stream.from_array(
            arrays["vectors"], offsets=arrays["offsets"], items=self.kept, columns=columns
        )

    @functools.cached_property
    def counted(self) -> Counted:
        """The distinct colours of a run that clusters pixels, and how often each occurs."""
        return Counted.of(self.arrays("colours"), str(self.spec["featurizer"]["space"]))

    @functools.cached_property
    def vectors(self) -> Array | Sparse:
        """One vector per item, as the transforms receive them."""
        if self.has("colours"):
            return self.features.toarray()
        arrays = self.arrays("vectors" if self.has("vectors") else "features")
        vectors: Array | Sparse = one_per_item(arrays)
        return vectors

    @functools.cached_property
    def words(self) -> Words:
        """The visual words of all items."""
        if self.has("featurizer.words"):
            arrays = self.arrays("featurizer.words")
            keypoints = self.features.columns.get("keypoints")
            return Words(arrays["words"], arrays["offsets"], keypoints)
        if self.has("colours") and not self.has("labels") and self.counted.pixels is None:
            raise UnsupportedError(
                f"{self.folder}: equal pixels were counted once, and no word was kept for each pixel; "
                "add the output labels to the spec"
            )
        words = self.arrays("labels")["labels"] if self.has("labels") else self.clusterer.labels
        offsets, keypoints = np.array([0, len(words)]), None
        if self.has("colours"):
            offsets = self.counted.offsets
        elif self.has("features"):
            arrays = self.arrays("features")
            offsets, keypoints = arrays["offsets"], arrays.get("keypoints")
        elif self.has("source"):
            offsets = self.arrays("source")["offsets"]
        # A view: labels may be a memory map larger than memory.
        words = words.view(np.uint32) if words.dtype == np.int32 else np.asarray(words, np.uint32)
        return Words(words, offsets, keypoints)

    @functools.cached_property
    def item_labels(self) -> NDArray[np.int32]:
        """The label of each item that was not skipped, in order; −1 is in no cluster.

        Raises
        ------
        UnsupportedError
            The run has no clusterer, or what was clustered is not one vector per item.
        """
        if not self.has("clusterer"):
            raise UnsupportedError(
                f"{self.folder}: this run has no clusters; its spec needs a clusterer"
            )
        labels = self.arrays("labels")["labels"] if self.has("labels") else self.clusterer.labels
        single = self.has("vectors")
        if not single and self.has("features"):
            offsets = self.arrays("features")["offsets"]
            single = np.array_equal(offsets, np.arange(len(self.kept) + 1))
        if not single or len(labels) != len(self.kept):
            raise UnsupportedError(
                f"{self.folder}: the {len(labels):,} labels are not of {len(self.kept):,} items, one "
                "each: clusters of items need images and one vector for each of them"
            )
        return np.asarray(labels)

    @functools.cached_property
    def clusters(self) -> list[Cluster]:
        """The clusters of items, the largest first; of equal ones, the lowest number.

        Items that are in no cluster are not among them; see `unclustered`.

        Raises
        ------
        UnsupportedError
            The run has no clusterer, or what was clustered is not one vector per item.
        """
        labels = self.item_labels
        order = np.argsort(labels, kind="stable")
        numbers, starts = np.unique(labels[order], return_index=True)
        parts = np.split(order, starts[1:])
        found = [
            Cluster(int(number), [self.kept[i] for i in part])
            for number, part in zip(numbers, parts, strict=False)
            if number >= 0
        ]
        return Clusters(sorted(found, key=lambda one: (-len(one.items), one.number)))

    @functools.cached_property
    def unclustered(self) -> list[Item]:
        """The items that are in no cluster (label −1), in order.

        Raises
        ------
        UnsupportedError
            The run has no clusterer, or what was clustered is not one vector per item.
        """
        return [self.kept[i] for i in np.flatnonzero(self.item_labels < 0)]


def _unfinished(folder: Path) -> RunError:
    """Say why there is no finished run in a folder."""
    if not (folder / INNER).is_dir():
        return RunError(f"{folder}: not a run folder of vwkit (it has no {MANIFEST})")
    by = holder(folder / INNER / "lock")
    return RunError(
        f"{folder}: this run is being made by {by}; wait for it"
        if by
        else f"{folder}: this run was interrupted or failed; run it again, or go on with --resume"
    )


def _settled(folder: Path) -> None:
    """Roll a change forward that was cut short, or wait for the process that is about to end it.

    Only who holds the lock may move parts about: two at once would throw away what is new.
    """
    end = time.monotonic() + _PATIENCE
    while (folder / INNER / JOURNAL).is_file():
        try:
            with locked(folder / INNER / "lock", folder):
                finish_commit(folder)
        except RunError as error:
            if error.__cause__ is not None or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _stamp(manifest: Path) -> tuple[int, int, int] | None:
    try:
        status = manifest.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
