"""Seeds, row hashes and content keys: everything random or cached is derived from here.

Random draws belong to rows, not to the order of reading: a sample of t rows is the t rows with the
smallest ``hash(seed, row)``. So the same sample comes out of any chunk size, thread or worker.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "content_key",
    "derive_seed",
    "file_sha256",
    "row_hash",
    "row_uniform",
    "rows_key",
    "sample_rows",
]

_BLOCK = 1 << 20


def derive_seed(seed: int, path: str) -> int:
    """Return the seed of one slot of a spec.

    Parameters
    ----------
    seed : int
        The spec's own ``seed``.
    path : str
        The slot's dotted path, such as ``"clusterer"`` or ``"featurizer.vocabulary"``.

    Returns
    -------
    int
        In 0…2^31 − 1, a range that every wrapped library takes.

    Examples
    --------
    >>> from vwkit import derive_seed
    >>> derive_seed(7, "clusterer") == derive_seed(7, "clusterer")
    True
    >>> derive_seed(7, "clusterer") == derive_seed(8, "clusterer")
    False
    """
    digest = hashlib.sha256(f"{int(seed)}/{path}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


def row_hash(seed: int, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash row numbers to 64 well-mixed bits (SplitMix64; Steele, Lea, Flood 2014)."""
    start = int.from_bytes(hashlib.sha256(b"%d" % int(seed)).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(start)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def row_uniform(seed: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return one number in (0, 1) for each row."""
    return ((row_hash(seed, rows) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def sample_rows(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """Draw `count` of `rows` row numbers without replacement, in ascending order.

    Memory is proportional to `count`, not to `rows`.
    """
    if count >= rows:
        return np.arange(rows, dtype=np.int64)
    kept = np.zeros(0, np.int64)
    hashes = np.zeros(0, np.uint64)
    for start in range(0, rows, _BLOCK):
        block = np.arange(start, min(rows, start + _BLOCK), dtype=np.int64)
        kept = np.concatenate([kept, block])
        hashes = np.concatenate([hashes, row_hash(seed, block)])
        if len(kept) > count:
            # Hashes of different rows differ (SplitMix64 is a bijection), so the cut is unique.
            best = np.argpartition(hashes, count)[:count]
            kept, hashes = kept[best], hashes[best]
    return np.sort(kept)


def content_key(value: Any) -> str:
    """Hash plain data (dicts, lists, text, numbers, None) to 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def rows_key(rows: Any) -> str:
    """Return the SHA-256 of numbers of rows, (n,) int64: their bytes, whatever the machine."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<i8").data).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
