"""An executor that is far away without being anywhere: whatever it is given is pickled."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from vwkit.jobs import Chunks, Job, use_job

__all__ = ["Far"]


class Far:
    """Computes chunks here, of what has been pickled; arrays that come out cannot be written to.

    Parameters
    ----------
    adds : bool
        Whether results are added up two and two before they are given back, last ones first.
    dumps : callable
        Such as that of cloudpickle, for functions within functions.
    """

    distributed = True

    def __init__(self, *, adds: bool = True, dumps: Any = pickle.dumps) -> None:
        self.adds, self.dumps = adds, dumps
        self.chunks = self.calls = 0
        self.shared_bytes = self.row_bytes = self.result_bytes = self.sum_bytes = 0

    def sent(self, thing: Any) -> tuple[Any, int]:
        """Return what arrives, and its bytes."""
        buffers: list[pickle.PickleBuffer] = []
        head = self.dumps(thing, protocol=5, buffer_callback=buffers.append)
        frames = [bytes(buffer.raw()) for buffer in buffers]
        return pickle.loads(head, buffers=frames), len(head) + sum(map(len, frames))

    def map(self, kernel: Any, chunks: Chunks, arrays: Any) -> Iterator[Any]:
        (kernel, arrays), size = self.sent((kernel, dict(arrays)))
        self.calls += 1
        self.shared_bytes += size
        found = []
        for task in self.tasks(chunks):
            with use_job(Job(threads=1, memory=1 << 28)):
                found.append(kernel(*task, **arrays))
            self.chunks += 1
        if chunks.combine is None or not self.adds:
            yield from map(self.returned, found)
            return
        if chunks.split is not None:
            parts = [chunks.split(one) for one in found]
            yield from (self.returned(rows) for rows, _ in parts)
            found = [sums for _, sums in parts]
        while len(found) > 1:
            last = found.pop()
            found[-1], size = self.sent(chunks.combine(found[-1], last))
            self.sum_bytes += size
        yield from found

    def tasks(self, chunks: Chunks) -> Iterator[tuple[Any, ...]]:
        if chunks.spans is None:
            for chunk in chunks:
                task, size = self.sent(chunk)
                self.row_bytes += size
                yield task
            return
        reader, _ = self.sent(chunks.reader)
        for start, stop in chunks.spans:
            own, size = self.sent([one[start:stop] for one in chunks.aligned])
            self.row_bytes += size
            yield (reader.read(start, stop), *own)

    def returned(self, result: Any) -> Any:
        back, size = self.sent(result)
        self.result_bytes += size
        return back
