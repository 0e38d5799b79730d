"""What a vocabulary depends on: repeated descriptors, the training subset, and codes for vectors.

The figure is always the mean squared distance of descriptors that took no part in the fit to their
nearest word, by exact search.
"""

import numpy as np

from benchmarks.common import drawn, machine, table

ROWS, WORDS, HELD_OUT = 1_000_000, 16_384, 50_000
PARTS = ("repeats", "subset", "codes")


def main(options):
    rows = (options.rows or [ROWS])[0]
    words = options.words or WORDS
    found = drawn(rows + HELD_OUT, options.data)
    # Neighbours in the file come from the same picture: what is held out is drawn among all.
    order = np.random.default_rng(0).permutation(len(found))
    unseen, data = found[order[:HELD_OUT]], found[np.sort(order[HELD_OUT:])]
    told = f"{len(data):,} × {data.shape[1]}, {words:,} words ({machine(options.threads)})"
    for part in options.parts or PARTS:
        {"repeats": repeats, "subset": subset, "codes": codes}[part](
            data, unseen, words, told, options.threads
        )


def repeats(data, unseen, words, told, threads):
    """Some descriptors many times: as rows, as weights, and only once."""
    rng = np.random.default_rng(1)
    often = np.sort(rng.choice(len(data), len(data) // 10, replace=False))
    times = 10
    weights = np.ones(len(data))
    weights[often] = times
    again = np.concatenate([data, np.repeat(data[often], times - 1, axis=0)])
    lines = []
    for what, fit in (
        ("each once", lambda: _fitted(data, words, threads)),
        ("repeated, as rows", lambda: _fitted(again, words, threads)),
        ("repeated, folded", lambda: _fitted(again, words, threads, fold=True)),
        ("repeated, as weights", lambda: _fitted(data, words, threads, weights=weights)),
    ):
        made, seconds = fit()
        rest = np.ones(len(data), bool)
        rest[often] = False
        sample = np.flatnonzero(rest)[:: max(1, len(data) // HELD_OUT)]
        lines.append(
            [
                what,
                len(made.labels),
                seconds,
                _error(unseen, made.centers),
                _error(data[often][:HELD_OUT], made.centers),
                _error(data[sample], made.centers),
            ]
        )
    head = ["descriptors", "rows", "CPU s", "unseen", "the repeated tenth", "the others"]
    table(f"A tenth of the descriptors {times} times: {told}", head, lines)


def subset(data, unseen, words, told, threads):
    """Vocabularies of parts of the data."""
    order = np.random.default_rng(2).permutation(len(data))
    lines, whole = [], None
    for share in (1, 2, 4, 8, 16, 32):
        part = data[np.sort(order[: len(data) // share])]
        if len(part) < words:
            break
        made, seconds = _fitted(part, words, threads)
        error = _error(unseen, made.centers)
        whole = whole or error
        lines.append(
            [f"{len(part):,}", f"{len(part) / words:.0f}", seconds, error, f"{error / whole:.4f}"]
        )
    head = ["trained on", "a word", "CPU s", "unseen", "÷ all"]
    table(f"How many descriptors are enough: {told}", head, lines)


def codes(data, unseen, words, told, threads):
    """Clustering codes, and clustering vectors."""
    import vwkit

    made, seconds = _fitted(data, words, threads)
    exact = _error(unseen, made.centers)
    lines = [["vectors", data.shape[1], "–", seconds, exact, "1.0000"]]
    for m in (4, 8, 16, 32):
        pq = vwkit.create("quantizer", "fast-pq", m=m).fit(data)
        lost = float(((pq.decode(pq.encode(unseen)) - unseen.astype(float)) ** 2).sum(1).mean())
        made, seconds = _fitted(pq.encode(data), words, threads, "graph-pqkmeans", quantizer=pq)
        error = _error(unseen, pq.decode(made.centers))
        lines.append([f"codes, m = {m}", m, lost, seconds, error, f"{error / exact:.4f}"])
    head = ["clustered", "bytes", "lost by the code", "CPU s", "unseen", "÷ vectors"]
    table(f"What codes cost: {told}", head, lines)


def _fitted(data, words, threads, use="graph-kmeans", fold=False, **given):
    import time

    import vwkit

    few = data[:300]
    kept = {name: value for name, value in given.items() if name == "quantizer"}
    with vwkit.use_job(vwkit.Job(threads=threads)):
        vwkit.create("clusterer", use, k=20, iterations=2, fold=fold).fit(few, **kept)
        start = time.process_time()
        made = vwkit.create("clusterer", use, k=words, iterations=20, fold=fold).fit(data, **given)
        return made, time.process_time() - start


def _error(rows, centers):
    """Return the mean squared distance to the nearest center, exactly."""
    from vwkit import kernels

    centers = np.ascontiguousarray(centers, np.float32)
    total = 0.0
    for first in range(0, len(rows), 10_000):
        part = np.ascontiguousarray(rows[first : first + 10_000])
        near = centers[kernels.nearest_rows(part, centers)]
        total += float(((part.astype(np.float64) - near) ** 2).sum())
    return total / len(rows)
