"""Training of product quantizers: k-means in every slice, on more and more of the rows.

Most of the way is gone on a small part of the rows, drawn at random; each larger part starts where
the smaller one ended, and needs few iterations (Bottou and Bengio 1995 on why; Newling and Fleuret
2016, "Nested mini-batch k-means"). All sums are of whole numbers, so that the codebook is the same
for any number of threads.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit import kernels as core
from vwkit.clusterer import warn_few_distinct
from vwkit.hashing import derive_seed, row_hash, row_uniform
from vwkit.jobs import Job
from vwkit.quantizer import code_dtype
from vwkit.types import Array
from vwkit_numba.pq_tables import RoughTable, Table, reach_of, rounding_of

__all__ = ["Training", "encoded"]

_CHUNK = 8192
#: Rows for each codeword of the smallest part, and how much larger each next part is.
_SMALLEST, _GROWTH = 64, 2
#: Up to so many codewords are drawn far from each other; more are just drawn.
_CAREFUL = 2048
_START_ROWS, _START_AT_LEAST = 64, 1024
# An iteration that improves the error by less than this share is the last one on its rows.
_TOLERANCE = 3e-4
# Codewords are rounded to bytes while they are learned if that adds less than this share of the error.
_ROUGHNESS = 4e-3
_LEAST, _MOST = 1e-25, 1e25
_RESEED_ROUNDS = 1000


def encoded(table: Table, rows: Array, ks: int, threads: int) -> Array:
    """Return the codes of rows (n, d), uint8 or float32, on so many threads."""
    from vwkit_numba import pq_kernels

    kernel: Any = pq_kernels.encode
    rows = readable(rows)
    codes = np.empty((len(rows), len(table.words)), code_dtype(ks))

    def one(first: int, last: int) -> None:
        kernel(rows, first, last, *table.arrays, codes)

    spread(one, len(rows), threads)
    return codes


def readable(rows: Array) -> Array:
    """Return a view that numba sees as one type, whether it is mapped, writable or not."""
    view: Array = np.ascontiguousarray(rows).view(np.ndarray)[:]
    view.flags.writeable = False
    return view


def spread(function: Any, rows: int, threads: int) -> None:
    """Call ``function(first, last)`` for all chunks of the rows, on threads."""
    chunks = iter(range(0, rows, _CHUNK))

    def worker() -> None:
        for first in chunks:  # a range's iterator is safe to share: it moves under Python's lock
            function(first, min(rows, first + _CHUNK))

    workers = min(threads, -(-rows // _CHUNK))
    if workers <= 1:
        worker()
        return
    with ThreadPoolExecutor(workers, "vwkit-numba") as pool:
        for done in [pool.submit(worker) for _ in range(workers)]:
            done.result()


class Training:
    """One running training.

    Parameters
    ----------
    sample : (n, d) uint8 or float32
        The rows to learn from, at least ks.
    m, ks, iterations, seed : int
    job : Job
    """

    def __init__(
        self, sample: Array, m: int, ks: int, iterations: int, seed: int, job: Job
    ) -> None:
        self.sample = readable(sample)
        self.m, self.ks, self.iterations, self.seed = m, ks, iterations, seed
        self.width = sample.shape[1] // m
        self.job = job
        self.bytes = sample.dtype == np.uint8
        self.origins = np.zeros((m, self.width))
        self.unit = 1.0
        #: Of each slice, what its rows as bytes begin with, and how much 255 stands for.
        self.low = np.zeros((m, self.width))
        self.range = np.full(m, 255.0)
        #: Of each slice, the mean squared error on the smallest part.
        self.errors = np.zeros(m)
        self.squares: NDArray[np.float64] | None = None
        #: Of each slice, how much less its squared errors are than the squares of its rows.
        self.explained = np.zeros(m)
        #: Of each slice, whether bytes are fine enough for its codewords while they are learned.
        self.rough = np.zeros(m, np.bool_)
        #: The fewest codewords of a slice that were enough for all of its rows.
        self.used = ks
        self.steps = 0

    def run(self) -> NDArray[np.float32]:
        """Return the codebook, (m, ks, width), and warn where rows are too few for it."""
        sizes = self._sizes()
        hashes = self._hashes()
        # Each part holds the smaller ones.
        limits = np.partition(hashes, [size - 1 for size in sizes])
        if not self.bytes:
            self._measure()
        begin, step, active = self._taken_up(len(sizes)) or (0, 0, np.arange(self.m))
        if self.steps == 0:
            self.codebook = self.start()
        for level in range(begin, len(sizes)):
            last = sizes[level] == len(self.sample)
            part = self.sample
            if not last:
                part = readable(self.sample[hashes <= limits[sizes[level] - 1]])
            self.job.progress(level, len(sizes), "parts of the rows")
            self._level(part, level, step, active, last)
            step, active = 0, np.arange(self.m)
        self.job.progress(len(sizes), len(sizes), "parts of the rows")
        if self.used < self.ks:
            warn_few_distinct(self.used, self.ks)
        return self.codebook

    def start(self) -> NDArray[np.float32]:
        """Return rows as codewords, (m, ks, width): where an iteration may begin."""
        wanted = min(len(self.sample), max(_START_ROWS * self.ks, _START_AT_LEAST))
        chosen = np.argpartition(self._hashes(), wanted - 1)[:wanted]
        return self._start(self.sample[np.sort(chosen)])

    def _hashes(self) -> NDArray[np.uint64]:
        return row_hash(derive_seed(self.seed, "part"), np.arange(len(self.sample)))

    def refined(self, codebook: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a codebook after `iterations` more on all rows; see `errors` for what they left."""
        if not self.bytes:
            self._measure()
        self.codebook = codebook
        self._level(self.sample, 0, 0, np.arange(self.m), last=False)
        return self.codebook

    def _sizes(self) -> list[int]:
        """Return how many rows are learned from, one number after the other."""
        whole = len(self.sample)
        sizes = [_SMALLEST * self.ks]
        while sizes[-1] * _GROWTH < whole:
            sizes.append(sizes[-1] * _GROWTH)
        return [size for size in sizes if 2 * size <= whole] + [whole]

    def _measure(self) -> None:
        """Choose what floating-point rows are shifted by and counted in."""
        low = self.sample.min(axis=0).astype(np.float64)
        high = self.sample.max(axis=0).astype(np.float64)
        middle = low + (high - low) / 2
        self.origins = middle.reshape(self.m, self.width)
        largest = float(np.maximum(high - middle, middle - low).max())
        self.unit = 2.0 ** core.fixed_point_scale(len(self.sample), largest)
        self.low = low.reshape(self.m, self.width)
        self.range = (high - low).reshape(self.m, self.width).max(axis=1)

    def _taken_up(self, levels: int) -> tuple[int, int, NDArray[np.int64]] | None:
        """Go on from a checkpoint, if there is one of such a training."""
        saved = self.job.resume()
        if saved is None:
            return None
        shapes = {name: array.shape for name, array in saved[1].items()}
        own = {"codebook": (self.m, self.ks, self.width), "at": (3,)}
        own.update(dict.fromkeys(("errors", "explained", "rough"), (self.m,)))
        if shapes != {**own, "active": shapes.get("active")}:
            return None
        level, step, self.used = (int(number) for number in saved[1]["at"])
        if not 0 <= level < levels:
            return None
        self.steps = saved[0]
        self.codebook = np.ascontiguousarray(saved[1]["codebook"], np.float32)
        self.errors = saved[1]["errors"].astype(np.float64)
        self.explained = saved[1]["explained"].astype(np.float64)
        self.rough = saved[1]["rough"].astype(np.bool_)
        active = np.unique(saved[1]["active"].astype(np.int64))
        return level, step, active[(active >= 0) & (active < self.m)]

    # Start

    def _start(self, rows: Array) -> NDArray[np.float32]:
        """Return rows as codewords, far from each other where that takes no long time."""
        book = np.empty((self.m, self.ks, self.width), np.float32)
        careful = self.ks <= _CAREFUL

        def one(j: int) -> None:
            part = rows[:, j * self.width : (j + 1) * self.width]
            seed = derive_seed(self.seed, f"slice {j}")
            picked = _far_apart(part, self.ks, seed) if careful else _drawn(part, self.ks, seed)
            book[j] = part[picked]

        self.job.check()
        with ThreadPoolExecutor(self.job.threads, "vwkit-numba") as pool:
            list(pool.map(one, range(self.m)))
        return book

    # Iterations

    def _level(
        self, rows: Array, level: int, begin: int, active: NDArray[np.int64], last: bool
    ) -> None:
        """Iterate on some of the rows until that improves little."""
        small: Array | None = rows if self.bytes else None
        for step in range(begin, self.iterations + _RESEED_ROUNDS):
            if not len(active):
                break
            if small is None and self.rough[active].any():
                small = self._small(rows)
            sums, counts = self._pass(rows, small, active)
            fresh, gained = self._means(sums, counts, active, step)
            if level == 0:
                self._remember(rows, fresh, counts, active)
            going = gained > _TOLERANCE * len(rows) * self.errors
            if step + 1 >= self.iterations:
                going[:] = False
            for j in active:
                if not counts[j].all():
                    # Where codewords vanish, rounding may be what does not tell them apart.
                    self.rough[j] = False
                    going[j] |= self._reseed(rows, fresh, counts[j], j, last)
            self.codebook = fresh
            self.steps += 1
            active = active[going[active]]
            state: dict[str, Array] = {
                "codebook": fresh,
                "errors": self.errors,
                "explained": self.explained,
                "rough": self.rough,
                "active": active,
                "at": np.array([level, step + 1, self.used]),
            }
            self.job.checkpoint(self.steps, state)

    def _pass(
        self, rows: Array, small: Array | None, active: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Add up the rows of each codeword: sums (m, ks, width) and counts (m, ks)."""
        from vwkit_numba import pq_kernels

        coarse: Any = pq_kernels.learn_roughly
        fine: Any = pq_kernels.learn
        held: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        rough, exact = active[self.rough[active]], active[~self.rough[active]]
        # Slices that are done need no table, but then their numbers would not be their places.
        few = None
        if len(rough):
            per = 255 / np.where(self.range > 0, self.range, 255.0)[:, None, None]
            few = RoughTable.of((self.codebook - self.low[:, None]) * per)
        full = None
        if len(exact):
            full = Table.of(self.codebook, rows.dtype, reach_of(self.codebook, rows))

        def one(first: int, last: int) -> None:
            self.job.check()
            thread = threading.get_ident()
            if thread not in held:
                held[thread] = self._nothing()
            own = held[thread]
            if few is not None:
                frame = self.origins, self.unit
                coarse(rows, first, last, rough, small, few.words, few.starts, *frame, *own)
            if full is not None:
                fine(rows, first, last, exact, *full.arrays, self.origins, self.unit, *own)

        spread(one, len(rows), self.job.threads)
        sums, counts = self._nothing()
        for part in held.values():
            sums += part[0]
            counts += part[1]
        return sums, counts

    def _small(self, rows: Array) -> Array:
        """Return rows of floats as bytes; those of slices where that is no use mean nothing."""
        from vwkit_numba import pq_kernels

        kernel: Any = pq_kernels.to_bytes
        fits = (self.range > _LEAST) & (self.range < _MOST)
        scale = np.where(fits, 255 / np.where(fits, self.range, 1), 0.0)
        low = np.where(fits[:, None], self.low, 0.0).ravel().astype(np.float32)
        per = np.repeat(scale, self.width).astype(np.float32)
        small = np.empty(rows.shape, np.uint8)
        spread(
            lambda first, last: kernel(rows, first, last, low, per, small),
            len(rows),
            self.job.threads,
        )
        return readable(small)

    def _nothing(self) -> tuple[NDArray[Any], NDArray[Any]]:
        shape = (self.m, self.ks)
        return np.zeros((*shape, self.width), np.int64), np.zeros(shape, np.int64)

    def _means(
        self,
        sums: NDArray[np.int64],
        counts: NDArray[np.int64],
        active: NDArray[np.int64],
        step: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return the means, and by how much the squared errors of each slice become less."""
        fresh = self.codebook.copy()
        gained = np.zeros(self.m)
        for j in active:
            full = counts[j] > 0
            mean = sums[j][full] / self.unit / counts[j][full, None]
            # The errors about the means are a constant less this, so that they can be compared
            # without a look at the rows.
            before = self.explained[j]
            self.explained[j] = float(counts[j][full] @ (mean**2).sum(axis=1))
            moved = ((mean + self.origins[j] - fresh[j][full]) ** 2).sum(axis=1)
            gained[j] = float(counts[j][full] @ moved)
            if step:
                # Where codewords are rounded, they move for ever.
                gained[j] = min(gained[j], self.explained[j] - before)
            fresh[j][full] = mean + self.origins[j]
        return fresh, gained

    def _remember(
        self,
        rows: Array,
        fresh: NDArray[np.float32],
        counts: NDArray[Any],
        active: NDArray[np.int64],
    ) -> None:
        """Note the mean squared error of each slice about its means."""
        if self.squares is None:
            self.squares = np.zeros(self.m)
            for j in range(self.m):
                part = rows[:, j * self.width : (j + 1) * self.width] - self.origins[j]
                self.squares[j] = (part**2).sum()
        for j in active:
            own = counts[j] @ ((fresh[j] - self.origins[j]) ** 2).sum(axis=1)
            self.errors[j] = max(0.0, self.squares[j] - own) / len(rows)
            lost = rounding_of(fresh[j])
            if not self.bytes:
                lost += self.width * (self.range[j] / 255) ** 2 / 12
            fits = _LEAST < self.range[j] < _MOST  # float32 holds all that is made of it
            self.rough[j] = fits and lost < _ROUGHNESS * self.errors[j]

    def _reseed(
        self, rows: Array, fresh: NDArray[np.float32], counts: NDArray[Any], j: int, last: bool
    ) -> bool:
        """Put codewords that no row has onto rows far from theirs; tell whether there are any."""
        part = readable(rows[:, j * self.width : (j + 1) * self.width])
        words = fresh[j]
        table = Table.of(words[None], part.dtype, reach_of(words[None], part))
        codes = encoded(table, part, self.ks, self.job.threads)[:, 0]
        used = np.unique(codes)
        uniform = row_uniform(derive_seed(self.seed, f"reseed {self.steps}"), np.arange(len(part)))
        apart = core.row_distances(part, codes, centers=words)
        with np.errstate(divide="ignore", over="ignore"):
            # The smallest of exponential variables with these rates: a draw in proportion.
            race = np.where(apart > 0, -np.log(uniform) / apart, np.inf)
        order = np.lexsort((np.arange(len(part)), race))[: np.isfinite(race).sum()]
        empty = np.setdiff1d(np.flatnonzero(counts == 0), used)
        seen: set[bytes] = set()
        picked: list[int] = []
        for row in order:
            if len(picked) == len(empty):
                break
            if (key := part[row].tobytes()) not in seen:
                seen.add(key)
                picked.append(row)
        words[empty[: len(picked)]] = part[picked]
        if last and not picked and not len(order):
            # Every row is a codeword: those that are left over come last, as copies of the last.
            words[: len(used)] = words[used]
            words[len(used) :] = words[len(used) - 1]
            self.used = min(self.used, len(used))
        return bool(picked)


def _far_apart(part: Array, ks: int, seed: int) -> NDArray[np.int64]:
    """Draw rows by k-means++ (Arthur and Vassilvitskii 2007)."""
    from vwkit_numba import pq_kernels

    middle = part.mean(axis=0, dtype=np.float64)
    moved = part.astype(np.float64) - middle
    moved *= 2.0 ** -math.frexp(float(np.abs(moved).max()))[1]
    chosen = np.empty(ks, np.int64)
    uniform = row_uniform(seed, np.arange(ks))
    held = pq_kernels.plus_plus(np.ascontiguousarray(moved.T.astype(np.float32)), uniform, chosen)
    chosen[held:] = chosen[held - 1]
    return chosen


def _drawn(part: Array, ks: int, seed: int) -> NDArray[np.int64]:
    """Draw rows one like the other."""
    order = np.argsort(row_hash(seed, np.arange(len(part))), kind="stable")
    return order[:ks]
