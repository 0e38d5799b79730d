"""Around the library: importing it, its threads, what it says, and numbers that it bears."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.errors import PluginError
from vwkit.jobs import Job, job
from vwkit.stream import Stream
from vwkit.types import Array

__all__ = ["Frame", "frame_of", "load_faiss", "omp_threads", "quiet_job", "seeded", "told"]

# FAISS adds squares of all rows in float32: between these they neither overflow nor vanish.
_TINY, _HUGE = 1e-12, 1e12
# Where the mean is this many times the spread, float32 squares lose what tells rows apart.
_FAR = 1e4
_LARGEST_INT = (1 << 31) - 1


def load_faiss(who: str) -> Any:
    """Import the library when it is first used.

    Raises
    ------
    PluginError
        It is not installed, or broken.
    """
    try:
        import faiss
    except ImportError as error:
        raise PluginError(
            f"{who}: needs the library faiss ({error}): pip install faiss-cpu"
        ) from None
    return faiss


@contextlib.contextmanager
def omp_threads(faiss: Any, threads: int) -> Iterator[None]:
    """Hold FAISS to the job's threads. OpenMP keeps the number for each calling thread."""
    before = faiss.omp_get_max_threads()
    if before == threads:
        yield
        return
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextlib.contextmanager
def told(kind: type[Exception], what: str) -> Iterator[None]:
    """Say what FAISS refuses in one line and one of our errors."""
    try:
        yield
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise kind(f"{what}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """Take FAISS's sentence out of the file names and signatures around it."""
    text = " ".join(str(error).split())
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text)
    text = re.sub(r"^Error: '.*?' failed: ?", "", text)
    return text or ("not enough memory" if isinstance(error, MemoryError) else "refused by FAISS")


def seeded(clustering: Any, seed: int) -> None:
    """Give a ClusteringParameters its seed, all points it is handed, and silence."""
    clustering.seed = seed % (1 << 31)  # a negative one would be the time of day
    clustering.max_points_per_centroid = _LARGEST_INT
    # Below 39 points a centroid FAISS prints.
    clustering.min_points_per_centroid = 1


def quiet_job(part: str) -> Job:
    """Return a job for one part of the work: its own checkpoints, and no progress to show."""
    inner = job().within(part)
    inner._progress = None
    return inner


# Numbers that FAISS bears ----------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """Brings data to where float32 squares are accurate: ``(x - shift) * scale``.

    Attributes
    ----------
    shift : (d,) float32
    scale : float
        A power of two, which rounds nothing.
    """

    shift: NDArray[np.float32]
    scale: float

    def into(self, rows: Array) -> NDArray[np.float32]:
        """Return rows (n, d) in the frame; a number that float32 cannot hold becomes infinite."""
        moved = rows.astype(np.float64, order="C")
        moved -= self.shift
        moved *= self.scale
        with np.errstate(over="ignore"):
            return moved.astype(np.float32)

    def back(self, rows: Array) -> NDArray[np.float32]:
        """Return rows in the frame as they are in the data."""
        return (rows.astype(np.float64) / self.scale + self.shift).astype(np.float32)


def frame_of(stream: Stream) -> Frame | None:
    """Return the frame that the data need, or None where FAISS can take them as they are.

    One pass over float data; bytes need none. FAISS itself would give wrong clusters for data far
    from the origin, and end the process where squares overflow.
    """
    if stream.dtype == np.uint8:
        return None
    total = np.zeros(stream.dim)
    squares = largest = 0.0
    for chunk in stream:
        wide = chunk.astype(np.float64)
        total += wide.sum(axis=0)
        squares += float(np.square(wide).sum())
        largest = max(largest, float(np.abs(wide).max()))
    rows = stream.count()
    mean = total / rows
    offset = float(mean @ mean)
    spread = squares / rows - offset
    if math.sqrt(max(spread, 0)) > _TINY and largest < _HUGE and offset < _FAR * spread:
        return None
    shift = mean.astype(np.float32)
    farthest = 0.0
    for chunk in stream:
        farthest = max(farthest, float(np.abs(chunk.astype(np.float64) - shift).max()))
    return Frame(shift, 2.0 ** -math.frexp(farthest)[1] if farthest else 1.0)
