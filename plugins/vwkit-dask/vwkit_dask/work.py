"""What runs on a worker: read rows, call the kernel on each chunk, add up."""

from __future__ import annotations

import contextlib
import functools
import pickle
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vwkit.jobs import Job, available_memory, one_blas_thread, use_job
from vwkit_dask.cluster import ClusterError, described, unlike

__all__ = [
    "Dropped",
    "Packed",
    "Result",
    "Shared",
    "combined",
    "compute_chunk",
    "compute_spans",
    "pack",
    "part_of",
    "shared_value",
]

# Of the last passes; a fit goes back and forth between two kernels.
_OPENED = 3


@dataclass
class Packed:
    """Anything, pickled: what is large lies in frames that nobody on the way has to look into."""

    token: str
    frames: list[NDArray[np.uint8]]

    @property
    def nbytes(self) -> int:
        """Bytes that travel."""
        return sum(frame.nbytes for frame in self.frames)

    def __sizeof__(self) -> int:
        return self.nbytes

    def open(self) -> Any:
        """Return the thing."""
        head, *buffers = self.frames
        # Only what came over Dask's own wire, which carries pickles by itself: for trusted networks
        # alone, as docs/dask.md says. Nothing that lies in a file is ever opened so.
        return pickle.loads(head.tobytes(), buffers=buffers)


def pack(thing: Any, token: str = "") -> Packed:
    """Pickle a thing, functions without a module by value, arrays without a copy."""
    import cloudpickle

    buffers: list[pickle.PickleBuffer] = []
    head = cloudpickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
    frames = [np.frombuffer(head, np.uint8)]
    frames += [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
    return Packed(token, frames)


@dataclass
class Shared:
    """What all tasks of one map need."""

    kernel: Callable[..., Any]
    arrays: dict[str, Any]
    reader: Any
    combine: Callable[[Any, Any], Any] | None
    split: Callable[[Any], tuple[Any, Any]] | None
    memory: int  # for each task; 0 for what there is
    versions: dict[str, str]  # what a worker must have that joins in the middle


@dataclass
class Result:
    """What a task brings: its results, and the warnings on the way."""

    values: list[Any]
    warnings: list[tuple[type[Warning], str]] = field(default_factory=list)

    def __sizeof__(self) -> int:
        """Bytes of its arrays, about: Dask adds up where the most of them are."""
        return _size(self.values)


_lock = threading.Lock()
_opened: OrderedDict[str, Shared] = OrderedDict()


def shared_value(packed: Packed) -> Packed:
    """Return what was sent: it becomes a result that workers hand to each other."""
    return packed


def _open(packed: Packed) -> Shared:
    """Unpickle once for all tasks of this process."""
    with _lock:
        found = _opened.get(packed.token)
        if found is None:
            found = packed.open()
            _compare(found.versions)
            _opened[packed.token] = found
        _opened.move_to_end(packed.token)
        while len(_opened) > _OPENED:
            _opened.popitem(last=False)
        return found


_here = functools.cache(described)  # a process keeps what it has imported


def _compare(versions: dict[str, str]) -> None:
    """Refuse to compute with other versions: this worker was not there when the run began."""
    difference = unlike(versions, _here())
    if difference is not None:
        from distributed import get_worker

        name, wanted, own = difference
        raise ClusterError(
            f"executor dask: {name} is {wanted} where the run was begun and {own} on "
            f"{get_worker().address}, a worker that came later; install the same version everywhere, "
            "and go on with --resume"
        )


class Dropped(Exception):
    """Nobody wants the result any more."""


def _dropped() -> bool:
    """Whether the client cancelled this task."""
    from distributed import get_worker

    with contextlib.suppress(ValueError, AttributeError, KeyError):
        worker = get_worker()
        return bool(worker.state.tasks[worker.get_current_task()].state == "cancelled")
    return False


def _share_of_memory() -> int:
    """Return half of what this worker has, for each of its threads."""
    from distributed import get_worker

    worker = get_worker()
    limit = getattr(getattr(worker, "memory_manager", None), "memory_limit", None)
    threads = int(getattr(getattr(worker, "state", None), "nthreads", 1))
    return max(1 << 20, int(limit or available_memory()) // (2 * threads))


@contextlib.contextmanager
def _at_work(shared: Shared, caught: list[tuple[type[Warning], str]]) -> Iterator[None]:
    one_blas_thread()  # for good: a thread of this process computes for us again and again
    with (
        use_job(Job(threads=1, memory=shared.memory or _share_of_memory())),
        warnings.catch_warnings(record=True) as found,
    ):
        warnings.simplefilter("default")
        yield
    caught += [(one.category, str(one.message)) for one in found]


def compute_spans(packed: Packed, spans: list[tuple[int, int]], aligned: Packed | None) -> Result:
    """Read some spans of rows and call the kernel on each; combine the results if it can be done."""
    shared = _open(packed)
    others: list[Any] = aligned.open() if aligned is not None else []
    first = spans[0][0]

    def values() -> Iterator[Any]:
        for start, stop in spans:
            if _dropped():
                raise Dropped
            cut = [other[start - first : stop - first] for other in others]
            yield shared.kernel(shared.reader.read(start, stop), *cut, **shared.arrays)

    caught: list[tuple[type[Warning], str]] = []
    with _at_work(shared, caught):
        if shared.combine is None:
            return Result(list(values()), caught)
        total = _added_up(shared.combine, values())
        return Result(list(shared.split(total)) if shared.split is not None else [total], caught)


def compute_chunk(packed: Packed, chunk: Packed) -> Result:
    """Call the kernel on a chunk that was sent."""
    shared = _open(packed)
    caught: list[tuple[type[Warning], str]] = []
    with _at_work(shared, caught):
        return Result([shared.kernel(*chunk.open(), **shared.arrays)], caught)


def part_of(result: Result, place: int) -> Result:
    """Return one of the results of a task, so that it can travel without the others."""
    return Result([result.values[place]], result.warnings if place == 0 else [])


def combined(packed: Packed, a: Result, b: Result) -> Result:
    """Combine what two neighbouring tasks brought."""
    combine: Any = _open(packed).combine
    return Result([combine(a.values[-1], b.values[-1])], a.warnings + b.warnings)


def _added_up(combine: Callable[[Any, Any], Any], values: Iterator[Any]) -> Any:
    """Combine neighbours of like size, so that what is large is not walked through each time."""
    held: list[tuple[int, Any]] = []
    for value in values:
        size = 1
        while held and held[-1][0] == size:
            before, earlier = held.pop()
            value, size = combine(earlier, value), size + before
        held.append((size, value))
    total = held.pop()[1]
    while held:
        total = combine(held.pop()[1], total)
    return total


def _size(thing: Any) -> int:
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, (list, tuple)):
        return sum(map(_size, thing))
    return sum(map(_size, vars(thing).values())) if hasattr(thing, "__dict__") else 16
