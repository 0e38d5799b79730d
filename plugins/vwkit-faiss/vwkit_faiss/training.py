"""What the parts of an index learn from: how many rows, with which seed, without a word."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from vwkit_faiss.library import seeded

__all__ = [
    "ADVISED_POINTS",
    "POINTS_PER_CENTROID",
    "counted_parts",
    "needed_rows",
    "parts",
    "prepared",
    "quantizers",
    "transforms",
]

# FAISS looks at no more rows for a centroid, and advises the fewer.
POINTS_PER_CENTROID = 256
ADVISED_POINTS = 39
_OPQ_BITS = 8


def parts(faiss: Any, index: Any) -> Iterator[Any]:
    """Yield an index and those inside it."""
    return (part for part, _ in counted_parts(faiss, index, 0))


def counted_parts(faiss: Any, index: Any, held: int) -> Iterator[tuple[Any, int]]:
    """Yield an index of `held` vectors and those inside it, with what each is to hold."""
    yield index, held
    inside: list[Any] = []
    if isinstance(index, faiss.IndexPreTransform):
        inside = [index.index]
    elif isinstance(index, faiss.IndexRefine):
        inside = [index.base_index, index.refine_index]
    elif isinstance(index, faiss.IndexIVF):
        inside, held = [index.quantizer], index.nlist
    elif isinstance(index, faiss.IndexHNSW):
        inside = [index.storage]
    for part in inside:
        if part is not None:
            yield from counted_parts(faiss, faiss.downcast_index(part), held)


def transforms(faiss: Any, index: Any) -> list[Any]:
    """Return the transforms of one part."""
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    chain = index.chain
    return [faiss.downcast_VectorTransform(chain.at(place)) for place in range(chain.size())]


def quantizers(faiss: Any, part: Any) -> list[Any]:
    """Return the quantizers of one part that learn codebooks, those inside others too."""
    found = []
    for name in ("pq", "rq", "lsq", "prq", "plsq"):
        quantizer = getattr(part, name, None)
        if quantizer is not None:
            found.append(quantizer)
            if isinstance(quantizer, faiss.ProductAdditiveQuantizer):
                inner = (quantizer.subquantizer(place) for place in range(quantizer.nsplits))
                found += [faiss.downcast_AdditiveQuantizer(one) for one in inner]
    return found


def needed_rows(faiss: Any, index: Any) -> int:
    """Return the largest number of centroids that a part learns: fewer rows are refused."""
    needed = 1
    for part in parts(faiss, index):
        if isinstance(part, faiss.IndexIVF):
            coarse = faiss.downcast_index(part.quantizer)
            # The lists of an IMI, or of an additive quantizer, are combinations of centroids.
            combined = (faiss.MultiIndexQuantizer, faiss.AdditiveCoarseQuantizer, faiss.IndexPQ)
            if not isinstance(coarse, combined):
                needed = max(needed, part.nlist)
        for quantizer in quantizers(faiss, part):
            if hasattr(quantizer, "ksub"):
                needed = max(needed, quantizer.ksub)
            else:
                bits = faiss.vector_to_array(quantizer.nbits)
                needed = max(needed, *(1 << int(bit) for bit in bits))
        for transform in transforms(faiss, part):
            if isinstance(transform, faiss.OPQMatrix):
                needed = max(needed, 1 << _OPQ_BITS)
    return needed


@contextlib.contextmanager
def prepared(faiss: Any, index: Any, seed: int, every_row: bool) -> Iterator[None]:
    """Seed everything random inside an index, and keep it from writing to stderr.

    With `every_row` a k-means uses all rows that it gets; else FAISS takes 256 for each centroid.
    """
    rotations = []
    for part in parts(faiss, index):
        for owner in (part, *quantizers(faiss, part)):
            clustering = getattr(owner, "cp", None)
            if clustering is not None:
                points = clustering.max_points_per_centroid
                seeded(clustering, seed)
                if not every_row:
                    clustering.max_points_per_centroid = points
            if hasattr(owner, "random_seed"):
                owner.random_seed = seed % (1 << 31)
        if hasattr(part, "do_polysemous_training"):
            # It takes nine tenths of a PQ's training (of 10 bits, for hours) and renumbers the
            # centroids, for a search that no parameter of ours asks for; answers are the same.
            part.do_polysemous_training = False
        for rotation in transforms(faiss, part):
            if isinstance(rotation, faiss.OPQMatrix):
                # It makes a PQ of its own, which prints, unless it is given one.
                quantizer = faiss.ProductQuantizer(rotation.d_out, rotation.M, _OPQ_BITS)
                seeded(quantizer.cp, seed)
                rotation.pq = quantizer
                rotations.append((rotation, quantizer))
    try:
        yield
    finally:
        for rotation, _ in rotations:
            rotation.pq = None  # it would point at freed memory
