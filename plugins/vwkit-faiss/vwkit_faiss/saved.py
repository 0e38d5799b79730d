"""Opening a saved index: looked at before and after FAISS reads it, and mapped where it is large.

An artifact may come from anybody, and its checksums only say that it is as that person made it. FAISS
checks much of what it reads, but not all, and would ask for whatever memory a file claims. So a file is
read with limits drawn from its own size, and what came out is compared with an index freshly made from
the factory string: every number that says where something lies in memory must be the same.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vwkit.errors import ArtifactError
from vwkit.types import Array
from vwkit_faiss.training import counted_parts, parts, quantizers, transforms

__all__ = ["Saved", "open_saved"]

_MAPPED_FROM = 1 << 20
_COPIED = 16 << 20
# Bytes that FAISS asks a Python function for.
_CALLED = 1 << 20
# fourcc, d, ntotal: how every index begins.
_HEAD = struct.Struct("<4s i q")
# Numbers that say how things lie in memory, wherever a part has them.
_LAYOUT = (
    "d", "metric_type", "code_size", "nlist", "M", "M2", "nbits", "ksub", "bbs", "qbs", "implem",
    "by_residual", "search_type", "encode_signs", "qb", "n_levels", "batch_size",
    "code_size_1", "code_size_2", "keep_max_size_level0", "centered",
)  # fmt: skip
_QUANTIZER = (
    "d", "M", "nbits", "dsub", "ksub", "code_size", "qtype", "bits", "search_type", "nsplits",
    "K", "nb_bits", "metric_type", "tot_bits", "total_codebook_size", "max_beam_size", "norm_bits",
)  # fmt: skip
# Settings of a search, which a file may not change.
_SETTINGS = (
    "nprobe", "k_factor", "polysemous_ht", "qbs2", "beam_factor", "quantizer_trains_alone",
)  # fmt: skip

# FAISS's limits belong to the process.
_limits = threading.Lock()


class Saved:
    """The open file of an index.

    It stays readable when its name is gone: a saved index may be replaced while it is in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self.size = os.fstat(self._file).st_size

    def head(self) -> tuple[bytes, int, int]:
        """Return kind, dimensions and number of vectors, which every index begins with."""
        found = os.pread(self._file, _HEAD.size, 0)
        return _HEAD.unpack(found) if len(found) == _HEAD.size else (b"", 0, 0)

    def copy_to(self, path: Path) -> None:
        """Write the same bytes to another file."""
        with path.open("wb") as other:
            for start in range(0, self.size, _COPIED):
                wanted = min(_COPIED, self.size - start)
                found = os.pread(self._file, wanted, start)
                if len(found) != wanted:
                    raise ArtifactError(
                        f"{self._path}: was cut while it was in use; make the index again"
                    )
                other.write(found)

    def mapped(self, faiss: Any, fresh: Any, held: int) -> Any:
        """Return the index as it lies in the file; see `open_saved`.

        FAISS has its own reader that maps a file, but only on Linux, and it reads on behind the end
        of a file that ends inside a number.
        """
        found = np.frombuffer(mmap.mmap(self._file, self.size, access=mmap.ACCESS_READ), np.uint8)
        reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(found), self.size)
        index = self._checked(faiss, fresh, held, reader, lambda: int(reader.rp_))
        index.referenced_objects = [found]  # as FAISS calls what must live as long
        return index

    def into_memory(self, faiss: Any, fresh: Any, held: int) -> Any:
        """Return the index with everything in memory, where it can be changed; see `open_saved`."""
        place = 0

        def read(count: int) -> bytes:
            nonlocal place
            found = os.pread(self._file, count, place)
            place += len(found)
            return found

        reader = faiss.PyCallbackIOReader(read, _CALLED)
        return self._checked(faiss, fresh, held, reader, lambda: place)

    def _checked(
        self, faiss: Any, fresh: Any, held: int, reader: Any, end: Callable[[], int]
    ) -> Any:
        """Let FAISS read; give back what it found if that is what it should be."""
        try:
            with _limited(faiss, self.size, fresh):
                # A file may name another one for its lists. With this flag FAISS refuses that for
                # all readers but one, which is not among ours.
                index = faiss.read_index(reader, faiss.IO_FLAG_ONDISK_SAME_DIR)
        except (RuntimeError, MemoryError, OverflowError) as error:
            reason = " ".join(str(error).split())[-200:]
            raise ArtifactError(f"{self._path}: FAISS cannot read it: {reason}") from None
        # Behind the end nothing may be looked at, also not to compare it.
        whole = end() == self.size
        wrong = _difference(faiss, fresh, index, held) if whole else "it ends elsewhere"
        if wrong:
            raise ArtifactError(
                f"{self._path}: not what the factory of its manifest makes of {held} vectors: "
                f"{wrong}; damaged, make it again"
            )
        for one, other in zip(parts(faiss, fresh), parts(faiss, index), strict=True):
            for name in _SETTINGS:
                if hasattr(one, name):
                    setattr(other, name, getattr(one, name))
            if isinstance(one, faiss.IndexHNSW):
                other.hnsw.efSearch = one.hnsw.efSearch
                other.hnsw.efConstruction = one.hnsw.efConstruction
        return index


def open_saved(
    faiss: Any, path: Path, fresh: Any, held: int, mapped: bool | None = None
) -> tuple[Any, Saved | None]:
    """Read an index and check it; from 1 MiB on (or as `mapped` says) it is mapped, not read.

    Parameters
    ----------
    fresh : faiss.Index
        Made by the factory string for the same dimensions, empty.
    held : int
        Vectors that it should hold.

    Returns
    -------
    index : faiss.Index
    file : Saved or None
        Where it is mapped.

    Raises
    ------
    ArtifactError
    """
    try:
        saved = Saved(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    beginning = faiss.serialize_index(fresh)[:4].tobytes()
    kind, dim, count = saved.head()
    if (kind, dim, count) != (beginning, fresh.d, held):
        raise ArtifactError(
            f"{path}: holds {count} vectors of {dim} dimensions in a {kind!r}, not the {held} of "
            f"{fresh.d} in a {beginning!r} that its manifest names; damaged, make it again"
        )
    if saved.size >= _MAPPED_FROM if mapped is None else mapped:
        return saved.mapped(faiss, fresh, held), saved
    return saved.into_memory(faiss, fresh, held), None


@contextlib.contextmanager
def _limited(faiss: Any, size: int, fresh: Any) -> Iterator[None]:
    """Let FAISS ask for no more memory than a file of this size can need."""
    loops = max(
        1 << 12, max((getattr(part, "nlist", 0) for part in parts(faiss, fresh)), default=0)
    )
    with _limits:
        before = (
            faiss.get_deserialization_loop_limit(),
            faiss.get_deserialization_vector_byte_limit(),
        )
        faiss.set_deserialization_loop_limit(loops)
        faiss.set_deserialization_vector_byte_limit(size + _tables(faiss, size, fresh) + (1 << 20))
        try:
            yield
        finally:
            faiss.set_deserialization_loop_limit(before[0])
            faiss.set_deserialization_vector_byte_limit(before[1])


def _tables(faiss: Any, size: int, fresh: Any) -> int:
    """Return the bytes of the tables that FAISS makes of a file's lists and codewords in reading it."""
    most = 0
    for part in parts(faiss, fresh):
        if isinstance(part, faiss.IndexIVFPQ):
            # No more lists than the file has room for their centers.
            lists = min(part.nlist, size // (4 * part.d))
            most = max(most, 4 * lists * part.pq.M * part.pq.ksub)
    return most


# Comparing -------------------------------------------------------------------------------------


def _difference(faiss: Any, fresh: Any, index: Any, held: int) -> str:
    """Return the first difference in what must be the same, or nothing."""
    if index is None or not index.is_trained:
        return "it is not trained"
    ours, theirs = list(parts(faiss, fresh)), list(counted_parts(faiss, index, held))
    # What is made as a kind for any metric may be read as that for its own.
    same = (isinstance(other, type(one)) for one, (other, _) in zip(ours, theirs, strict=False))
    if len(ours) != len(theirs) or not all(same):
        return "other kinds of index"
    for one, (other, wanted) in zip(ours, theirs, strict=True):
        wrong = (
            _other_number(one, other, _LAYOUT)
            or _other_quantizers(faiss, one, other)
            or _other_transforms(faiss, one, other)
            or _other_content(faiss, one, other, wanted)
        )
        if wrong:
            return f"{type(other).__name__}: {wrong}"
    return ""


def _other_number(one: Any, other: Any, names: tuple[str, ...]) -> str:
    for name in names:
        if hasattr(one, name):
            ours, theirs = _plain(getattr(one, name)), _plain(getattr(other, name))
            if ours != theirs:
                return f"{name} is {theirs}, not {ours}"
    return ""


def _plain(value: Any) -> Any:
    """Return a number, or a vector of them as a list."""
    return (
        [value.at(i) for i in range(min(value.size(), 1 << 12))] if hasattr(value, "at") else value
    )


def _other_quantizers(faiss: Any, one: Any, other: Any) -> str:
    pairs = list(zip(quantizers(faiss, one), quantizers(faiss, other), strict=False))
    pairs += [
        (getattr(one, name), getattr(other, name))
        for name in ("sq", "rabitq")
        if hasattr(one, name)
    ]
    for ours, theirs in pairs:
        wrong = type(ours) is not type(theirs) and "another quantizer"
        wrong = wrong or _other_number(ours, theirs, _QUANTIZER)
        if not getattr(theirs, "is_trained", True):
            wrong = wrong or "not trained"
        if not wrong and hasattr(ours, "codebooks") and not hasattr(ours, "nsplits"):
            size = ours.d * ours.total_codebook_size
            if theirs.codebooks.size() != size:
                wrong = f"codebooks of {theirs.codebooks.size()} numbers, not {size}"
            elif theirs.codebook_offsets.size() != ours.M + 1:
                wrong = "codebooks cut otherwise"
        if wrong:
            return str(wrong)
    return ""


def _other_transforms(faiss: Any, one: Any, other: Any) -> str:
    ours, theirs = transforms(faiss, one), transforms(faiss, other)
    if len(ours) != len(theirs):
        return "other transforms"
    for left, right in zip(ours, theirs, strict=True):
        if left.d_in != right.d_in or left.d_out != right.d_out or not right.is_trained:
            return f"a transform of {right.d_in} to {right.d_out} dimensions"
        linear = isinstance(left, faiss.LinearTransform)
        # What an OPQ matrix, a PCA or a rotation has learnt is saved as a linear transform.
        if not isinstance(right, faiss.LinearTransform if linear else type(left)):
            return f"a transform of kind {type(right).__name__}"
        if linear:
            wanted = (right.d_in * right.d_out, right.d_out if right.have_bias else right.b.size())
            if (right.A.size(), right.b.size()) != wanted:
                return f"a matrix of {right.A.size()} numbers and {right.b.size()} offsets"
        elif isinstance(left, faiss.RemapDimensionsTransform):
            if (
                faiss.vector_to_array(left.map).tolist()
                != faiss.vector_to_array(right.map).tolist()
            ):
                return "another order of dimensions"
        elif isinstance(left, faiss.CenteringTransform) and right.mean.size() != right.d_in:
            return f"a mean of {right.mean.size()} numbers"
    return ""


def _other_content(faiss: Any, one: Any, other: Any, wanted: int) -> str:
    """Look whether a part holds as much as it says."""
    if other.ntotal != wanted:
        return f"{other.ntotal} vectors, not {wanted}"
    if isinstance(other, faiss.IndexIVF):
        return _other_lists(faiss, one, other)
    if isinstance(other, faiss.IndexHNSW):
        return _other_graph(faiss, one.hnsw, other.hnsw)
    if isinstance(other, faiss.IndexFastScan):
        blocks = -(-other.ntotal // other.bbs)
        size = blocks * other.bbs * other.M2 // 2
        if (other.ntotal2, other.codes.size()) != (blocks * other.bbs, size):
            return f"{other.codes.size()} bytes of codes, not {size}"
    elif isinstance(other, faiss.IndexFlatCodes):
        size = other.ntotal * one.code_size
        if other.codes.size() != size:
            return f"{other.codes.size()} bytes of codes, not {size}"
    if hasattr(other, "center") and other.center.size() != other.d:
        return f"a center of {other.center.size()} numbers"
    return ""


def _other_lists(faiss: Any, one: Any, other: Any) -> str:
    if one.direct_map.type != other.direct_map.type or other.invlists is None:
        return "without lists, or with a map beside them"
    ours = faiss.downcast_InvertedLists(one.invlists)
    lists = faiss.downcast_InvertedLists(other.invlists)
    if type(ours) is not type(lists) or lists.nlist != one.nlist:
        return f"{lists.nlist} lists of kind {type(lists).__name__}"
    wrong = _other_number(ours, lists, ("code_size", "n_per_block", "block_size"))
    if wrong:
        return wrong
    if lists.compute_ntotal() != other.ntotal:
        return f"{lists.compute_ntotal()} vectors in its lists, not {other.ntotal}"
    return ""


def _other_graph(faiss: Any, ours: Any, graph: Any) -> str:
    """Look at what FAISS follows without looking: the levels of nodes that are linked."""
    rooms = faiss.vector_to_array(ours.cum_nneighbor_per_level)
    if not np.array_equal(rooms, faiss.vector_to_array(graph.cum_nneighbor_per_level)):
        return "another number of links"
    if graph.assign_probas.size() != ours.assign_probas.size():
        return "other levels"
    levels = faiss.vector_to_array(graph.levels)
    top = int(levels.max(initial=0))
    if top != graph.max_level + 1 or not 0 <= graph.entry_point < len(levels):
        return f"{graph.max_level + 1} levels, not {top}"
    if levels[graph.entry_point] != top:
        return f"an entry at level {levels[graph.entry_point]} of {top}"
    offsets = faiss.vector_to_array(graph.offsets)
    size = graph.neighbors.size()
    if len(offsets) != len(levels) + 1 or int(offsets[-1]) != size:
        return f"{size} links"
    links: Array = faiss.rev_swig_ptr(graph.neighbors.data(), size)
    for level in range(1, top):
        nodes = np.flatnonzero(levels > level)
        span = np.arange(rooms[level], rooms[level + 1])
        for start in range(0, len(nodes), 1 << 16):
            some = nodes[start : start + (1 << 16)]
            linked = links[offsets[some].astype(np.int64)[:, None] + span]
            if (levels[linked[linked >= 0]] <= level).any():
                return f"links of level {level} to nodes below"
    return ""
