"""What an executor of processes costs and brings: rows a second, and bytes that travel.

Each stage is run on one thread and on two of this process, and on one Dask worker and two of this
machine, in turn, on the same files. Bytes are those that any process writes to a socket, the
scheduler's among them; what workers hand to each other is counted apart. The last table is arithmetic:
what one pass would take on more workers, from what was measured here.

Every measurement is a line of the results file, and a run goes on from what is there. `--limit` is how
many seconds all of it may take: once they are over, no other measurement is begun, and the tables show
what there is.
"""

import contextlib
import importlib.util
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import append, lines_of, machine, table

DIM = 128
ROWS, WORDS, LIMIT = 200_000, 256, 660
PICTURES, SIZE = 32, 320
IMAGES, VOCABULARY = 1000, 100_000
WARM = 20  # of the rows, one in so many is gone through first: files read, code compiled
LINK = 1.25e9  # bytes a second of a 10 Gbit/s link
BILLION, MILLION, NEIGHBOURS = 10**9, 10**6, 64


def count_bytes():
    """Count what this process writes to sockets from now on."""
    from distributed.comm.tcp import TCP

    if hasattr(TCP, "vwkit_written"):
        return
    plain = TCP.write

    async def write(self, *args, **kwargs):
        written = await plain(self, *args, **kwargs)
        TCP.vwkit_written += int(written)
        return written

    TCP.vwkit_written, TCP.write = 0, write


def counted(dask_worker=None):
    """Return the bytes written so far, and those that a worker took from others."""
    from distributed.comm.tcp import TCP

    log = getattr(dask_worker, "transfer_incoming_log", ())
    return TCP.vwkit_written, sum(one["total"] for one in log)


class Traffic:
    """Bytes between two looks."""

    def __init__(self, executor):
        self.client = executor._cluster.client if executor.distributed else None
        if self.client is not None:
            self.client.run(count_bytes)
            count_bytes()
        self.before = self.now()

    def now(self):
        if self.client is None:
            return np.zeros(2)
        return np.sum([counted(), *self.client.run(counted).values()], axis=0)

    def since(self):
        return self.now() - self.before


# What is measured ---------------------------------------------------------------------------------


def made_rows(path, count):
    """Write rows around 2,000 middles."""
    rng = np.random.default_rng(0)
    middles = rng.integers(0, 160, (2000, DIM))
    made = np.lib.format.open_memmap(path, "w+", np.uint8, (count, DIM))
    for first in range(0, count, 50_000):
        last = min(count, first + 50_000)
        near = middles[rng.integers(0, len(middles), last - first)]
        made[first:last] = near + rng.integers(0, 90, (last - first, DIM))
    made.flush()


def made_pictures(folder, count):
    """Write pictures of random squares, and return their items."""
    from PIL import Image

    from vwkit.types import Item

    folder.mkdir()
    rng = np.random.default_rng(1)
    items = []
    for row in range(count):
        small = rng.integers(0, 256, (SIZE // 8, SIZE // 8, 3)).astype(np.uint8)
        path = folder / f"{row}.png"
        Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.NEAREST).save(path)
        items.append(Item(row, path.name, str(path)))
    return items


def stages(folder, data, words, share):
    """Yield name, rows, and what runs it once, on a share of the data."""
    import vwkit
    from vwkit.cache import Cache
    from vwkit.extraction import extract
    from vwkit.stage_arrays import write_aggregated, write_stream

    runs = iter(range(1 << 30))
    full = np.load(data, mmap_mode="r")
    rows = full[: max(len(full) // share, 4 * words)]
    known = vwkit.plugins.registry().entries

    def place():
        return folder / f"run-{share}-{next(runs)}"

    pictures = folder / "pictures"
    items = made_pictures(pictures, PICTURES) if share > 1 else items_of(pictures)
    items = items[: max(8, len(items) // share)]
    local = "sift" if importlib.util.find_spec("cv2") else "colour-histogram"

    def features():
        featurizer = vwkit.create("featurizer", local)
        with tempfile.TemporaryDirectory() as kept, contextlib.closing(Cache(Path(kept))) as cache:
            hashes = [item.id for item in items]
            extract(place(), featurizer, "scaling", items, hashes, cache, "stop")

    yield f"features ({local})", len(items), features

    def trained():
        some = min(len(rows), 32_768)
        pq = vwkit.create("quantizer", "pq", m=16, ks=256, iterations=4, train_rows=some)
        return pq.fit(rows)

    yield "train pq, m = 16", min(len(rows), 32_768), trained
    pq = vwkit.create("quantizer", "pq", m=16, ks=256, iterations=2, train_rows=8192)
    pq.fit(np.array(full[:8192]))

    def encode():
        write_stream(place(), "codes", pq.encode(vwkit.Stream.from_array(rows)))

    yield "encode pq, m = 16", len(rows), encode
    start = np.array(rows[:: len(rows) // words][:words], np.float32)

    def lloyd():
        vwkit.create("clusterer", "lloyd", k=words, iterations=1, init=start).fit(rows)

    yield f"lloyd, k = {words:,}", 2 * len(rows), lloyd  # one update, one more assignment
    if ("clusterer", "graph-kmeans") in known:
        # Two fits of other lengths: what lies between them are passes, without the start.
        few = len(rows) // 40
        for iterations in (2, 8):

            def graph(iterations=iterations):
                vwkit.create(
                    "clusterer", "graph-kmeans", k=few, iterations=iterations, tolerance=0.0
                ).fit(rows)

            name = f"graph-kmeans, k = {len(full) // 40:,}, {iterations} iterations"
            yield name, iterations * len(rows), graph

        def tree():
            vwkit.create("clusterer", "tree", branch=10, depth=3).fit(rows)

        yield "tree, 10 x 10 x 10", 3 * len(rows), tree
    bags, said, stream = bag_of_words(folder, len(full) * 20 // share, share)

    def aggregate():
        bags.learn(said, stream.offsets)
        write_aggregated(place(), bags, said, stream)

    yield "bag of words", len(said), aggregate
    use = "hnsw" if ("index", "hnsw") in known else "exact"
    fewer = rows[: max(1000, len(rows) // 10)]

    def shards():
        made = vwkit.create("index", "sharded", shards=4, index={"use": use})
        with vwkit.use_job(vwkit.job().within("index", place())):
            made.build(fewer)

    yield f"4 shards of {use}", len(fewer), shards


def items_of(folder):
    from vwkit.types import Item

    return [Item(row, f"{row}.png", str(folder / f"{row}.png")) for row in range(PICTURES)]


def bag_of_words(folder, count, share):
    """Return a bag of words, and the words of made images in a file."""
    import vwkit

    offsets = np.linspace(0, count, max(8, IMAGES // share) + 1).astype(np.int64)
    path = folder / f"words-{share}.npy"
    if not path.exists():
        words = np.random.default_rng(2).zipf(1.3, count) % VOCABULARY
        np.save(path, words.astype(np.uint32))
    said = np.load(path, mmap_mode="r")
    centers = np.zeros((VOCABULARY, 3), np.float32)
    centers[:, 0] = np.arange(VOCABULARY)
    model = vwkit.create("clusterer", "lloyd", k=VOCABULARY, init=centers, iterations=1)
    model.centers, model.labels = centers, np.zeros(0, np.int32)
    model.objective, model.changed = [0.0], [0]
    model._fitted, model._dim = True, 3
    bags = vwkit.create("featurizer", "bag-of-words", local={"use": "pixels"}, vocabulary=model)
    stream = vwkit.Stream.from_array(np.zeros((len(said), 1), np.uint8), offsets=offsets)
    return bags, said, stream


# Who does it --------------------------------------------------------------------------------------


def executors(most):
    """Yield a name, threads of this process, and a backend."""
    import vwkit

    for count in (1, most):
        yield f"{count} thread{'s' * (count > 1)}", count, vwkit.create("executor", "threads")
    for count in (1, most):
        name = f"{count} worker{'s' * (count > 1)}"
        yield name, count, vwkit.create("executor", "dask", workers=count)


def measured(options, folder, results, end):
    """Measure what the results file does not hold yet; return all that it holds of this size."""
    import vwkit

    rows, words = (options.rows or [ROWS])[-1], options.words or WORDS
    data = options.data
    if data is None:
        data = f"{folder}/x.npy"
        made_rows(data, rows)
    of = {"rows": rows, "words": words, "threads": options.threads}
    lines = [line for line in lines_of(results) if line["of"] == of]
    done = {(line["stage"], line["who"], line["repeat"]) for line in lines}
    begun = []
    with contextlib.ExitStack() as stack:
        for name, threads, executor in executors(options.threads):
            job = vwkit.Job(threads=threads)
            stack.enter_context(executor.ready(job))
            begun.append((name, executor, job.using(executor)))
        warm = {name: run for name, _, run in stages(folder, data, words, WARM)}
        asked = [one for one in stages(folder, data, words, 1) if (options.only or "") in one[0]]
        ready = set()
        # Repeat by repeat, so that every stage has been measured when the time is over.
        for repeat, (stage, count, run) in itertools.product(range(options.repeats), asked):
            for name, executor, job in begun:
                if (stage, name, repeat) in done:
                    continue
                if time.perf_counter() > end:
                    print(f"no time is left for {stage}, {name}", file=sys.stderr)
                    continue
                with vwkit.use_job(job):
                    if (stage, name) not in ready:
                        ready.add((stage, name))
                        warm.get(stage, run)()
                    traffic = Traffic(executor)
                    start = time.perf_counter()
                    run()
                    seconds = time.perf_counter() - start
                    moved, between = map(float, traffic.since())
                line = {"stage": stage, "who": name, "repeat": repeat, "of": of, "count": count}
                line |= {"seconds": seconds, "moved": moved, "between": between}
                append(results, line)
                lines.append(line)
                print(f"{stage}, {name}: {seconds:.2f} s", file=sys.stderr)
    return lines


def paper(rows_a_second, workers):
    """Return the seconds of the parts of one pass of graph k-means over SIFT1B, k = 10^6.

    The client and the scheduler share one link of 10 Gbit/s, and every worker has such a link.
    Workers hand centers and sums on in a tree, of which a level takes as long as one transfer.

    Parameters
    ----------
    rows_a_second : float
        Of one worker, measured.
    """
    levels = int(np.ceil(np.log2(workers)))
    center = 4 * (DIM + NEIGHBOURS) + 14
    cluster = 8 * DIM + 52
    # A label and half a runner to the worker; a gap, half a runner and some labels back.
    row = 4 + 2 + 4 + 2 + 1
    return {
        "compute": BILLION / workers / rows_a_second,
        "rows": BILLION * row / LINK,
        "centers": MILLION * center * (1 + levels) / LINK,
        "sums": MILLION * cluster * (levels + 1) / LINK,
    }


def on_paper(rows_a_second):
    """Print what more workers would bring."""
    lines = []
    for workers in (1, 2, 16, 256):
        parts = paper(rows_a_second, workers)
        lines.append(
            [workers, *(round(value, 1) for value in (*parts.values(), sum(parts.values())))]
        )
    table(
        f"On paper: seconds of a pass of graph-kmeans over 10^9 x {DIM}, k = 10^6, "
        f"{rows_a_second:,.0f} rows a second and worker, links of 10 Gbit/s",
        ["workers", *parts, "together"],
        lines,
    )


def main(options):
    begin = time.perf_counter()
    end = begin + (options.limit or LIMIT)
    results = Path(options.results or Path(tempfile.gettempdir()) / "vwkit-scaling.jsonl")
    os.environ.setdefault("VWKIT_CACHE", tempfile.mkdtemp(prefix="vwkit-scaling-cache-"))
    with tempfile.TemporaryDirectory(prefix="vwkit-scaling-") as folder:
        lines = measured(options, Path(folder), results, end)
    kinds = list(dict.fromkeys(line["stage"] for line in lines))
    names = [name for name, _, _ in executors(options.threads)]

    def values(kind, name, what):
        """Return what was measured, repeat by repeat."""
        return {
            line["repeat"]: line[what]
            for line in lines
            if (line["stage"], line["who"]) == (kind, name)
        }

    def median(kind, name, what):
        found = values(kind, name, what).values()
        return statistics.median(found) if found else float("nan")

    def faster(kind, name, other):
        """Return the median over repeats of how many times as fast a name is as another."""
        ours, theirs = values(kind, name, "seconds"), values(kind, other, "seconds")
        ratios = [theirs[repeat] / ours[repeat] for repeat in ours if repeat in theirs]
        return statistics.median(ratios) if ratios else float("nan")

    rows = {line["stage"]: line["count"] for line in lines}
    print(machine(options.threads, ("numpy", "distributed", "vwkit")))
    print(
        f"{results}; {time.perf_counter() - begin:,.0f} s, at most {options.repeats} runs of each"
    )
    one, many, lonely, away = names
    pairs = [(many, one), (lonely, one), (away, lonely), (away, many)]
    table(
        "Rows (pictures, words) a second, medians, and how many times as fast",
        ["stage", *names, *(f"{a} / {b}" for a, b in pairs)],
        [
            [
                kind,
                *(round(rows[kind] / median(kind, name, "seconds"), 1) for name in names),
                *(round(faster(kind, *pair), 2) for pair in pairs),
            ]
            for kind in kinds
        ],
    )
    table(
        "Bytes a row and pass: written to sockets by all processes; of them from worker to worker",
        [
            "stage",
            *(f"{name}: {what}" for name in names[2:] for what in ("all", "between workers")),
        ],
        [
            [
                kind,
                *(
                    round(median(kind, name, what) / rows[kind], 2)
                    for name in names[2:]
                    for what in ("moved", "between")
                ),
            ]
            for kind in kinds
        ],
    )
    graph = [kind for kind in kinds if kind.startswith("graph")]
    if len(graph) == 2:
        few, more = graph
        passes = median(more, lonely, "seconds") - median(few, lonely, "seconds")
        if passes > 0:
            on_paper((rows[more] - rows[few]) / passes)
