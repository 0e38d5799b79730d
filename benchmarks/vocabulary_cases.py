"""The named cases of ``python -m benchmarks vocabulary``, each with its rivals and their limits."""

from dataclasses import dataclass

from benchmarks.graph_parts import CHECKED


@dataclass(frozen=True)
class Case:
    """Contestants by label; `rival` is the label that the others are divided by."""

    text: str
    rival: str
    contestants: dict
    rows: int = 1_000_000
    words: tuple = ()
    codes: bool = False


def _graph(limit, **params):
    return {"side": "vwkit", "use": "graph-kmeans", "params": params, "limit": limit}


def _lloyd(limit, assign, **more):
    params = {"assign": assign, "init": "random", "iterations": 25, "tolerance": 0.0}
    return {"side": "vwkit", "use": "lloyd", "params": params, "limit": limit, **more}


def _faiss(limit, iterations, side="faiss_kmeans"):
    return {"side": side, "iterations": iterations, "limit": limit}


def _flat_superkmeans(limit, iterations):
    params = {
        "hierarchical": False,
        "iters": iterations,
        "sampling_fraction": 1.0,
        "max_points_per_cluster": 1 << 31,
        "early_termination": False,
    }
    return {"side": "superkmeans", "params": params, "limit": limit}


def _codes(limit, use, **params):
    return {"side": "vwkit", "use": use, "params": params, "limit": limit}


_SAME = {"init": True}  # all from the same rows drawn at random
_PQ = {"init": "random", "iterations": 5, "tolerance": 0.0}

CASES = {
    "k4096": Case(
        "a million rows into 4,096 words",
        "faiss.Kmeans, 25",
        {
            "graph-kmeans": _graph(60),
            "graph-kmeans, neighbours 96, 16": _graph(60, neighbours=96, iterations=16),
            "faiss.Kmeans, 25": _faiss(300, 25),
            "faiss.SuperKMeans, 25": _faiss(120, 25, "faiss_superkmeans"),
            "superkmeans, flat, all rows, 25": _flat_superkmeans(100, 25),
            "superkmeans, as is": {"side": "superkmeans", "params": {}, "limit": 60},
            "scikit-learn KMeans, 25": _faiss(150, 25, "sklearn_kmeans"),
            "MiniBatchKMeans": {"side": "sklearn_minibatch", "params": {}, "limit": 60},
            "MiniBatchKMeans, batch 16,384": {
                "side": "sklearn_minibatch",
                "params": {"batch_size": 16_384},
                "limit": 60,
            },
            "lloyd, 25": _lloyd(150, None),
            "tree, depth 3": _codes(60, "tree", depth=3),
        },
        words=(4_096,),
    ),
    "k16384": Case(
        "a million rows into 16,384 words",
        "faiss.Kmeans, 10",
        {
            "graph-kmeans, 20": _graph(120, iterations=20),
            "faiss.Kmeans, 10": _faiss(540, 10),
            "faiss.SuperKMeans, 10": _faiss(270, 10, "faiss_superkmeans"),
            "superkmeans, flat, all rows, 10": _flat_superkmeans(200, 10),
            "superkmeans, as is": {"side": "superkmeans", "params": {}, "limit": 60},
        },
        words=(16_384,),
    ),
    "k65536": Case(
        "a million rows into 65,536 words",
        "faiss.Kmeans, 8",
        {
            "graph-kmeans, 8": _graph(60, iterations=8),
            "graph-kmeans, 10": _graph(60, iterations=10),
            "graph-kmeans, 25": _graph(120, iterations=25),
            "faiss.Kmeans, 8": _faiss(1_400, 8),
        },
        words=(65_536,),
    ),
    "k131072": Case(
        "three million rows into 131,072 words, beside approximate k-means",
        "lloyd by flann, one pass",
        {
            "graph-kmeans, 10": _graph(240, iterations=10),
            "graph-kmeans from the same rows, 1": {**_graph(120, iterations=1), **_SAME},
            "lloyd by flann, one pass": _lloyd(
                340, {"use": "flann", "trees": 4, "checks": 128}, passes=1, **_SAME
            ),
            "lloyd by hnsw, ef 16, one pass": _lloyd(
                340, {"use": "hnsw", "ef": 16}, passes=1, **_SAME
            ),
            "lloyd by faiss IVF512, nprobe 8, one pass": _lloyd(
                340, {"use": "faiss", "factory": "IVF512,Flat", "nprobe": 8}, passes=1, **_SAME
            ),
        },
        rows=3_000_000,
        words=(131_072,),
    ),
    "notebook": Case(
        "`vwkit run`, from a file of 16,334,970 rows to a saved vocabulary of 131,072 words",
        "",
        {"vwkit run, graph-kmeans": {"limit": 1_200}},
        rows=16_334_970,
        words=(131_072,),
    ),
    "start": Case(
        "where k-means starts",
        "one iteration of faiss.Kmeans",
        {
            "start of graph-kmeans": {"side": "graph_start", "limit": 60},
            "rows at random": {"side": "random_rows", "limit": 60},
            "k-means++ of lloyd": {"side": "plus_plus", "limit": 200},
            "one iteration of faiss.Kmeans": _faiss(280, 1),
        },
        words=(4_096, 65_536),
    ),
    "upkeep": Case(
        "the parts of graph k-means, one by one",
        "exact assignment by faiss.IndexFlatL2",
        {"parts": {"step": "upkeep", "limit": 500}},
        words=(4_096, 65_536),
    ),
    "predict": Case(
        "the words of new rows",
        "faiss.IndexFlatL2",
        {
            "graph-kmeans": {"library": "graph", "settings": [4, 8, 16, 32]},
            "faiss.IndexFlatL2": {"library": "flat", "most": CHECKED},
            "faiss HNSW32": {"library": "faiss_hnsw", "settings": [16, 64, 128]},
            "hnswlib": {"library": "hnswlib", "settings": [10, 50, 100]},
        },
        words=(65_536, 131_072),
    ),
    "pqkmeans": Case(
        "a million codes of 4 bytes into 16,384 words that are codes",
        "pqkmeans, 5",
        {
            "graph-pqkmeans, 5": _codes(60, "graph-pqkmeans", iterations=5, tolerance=0.0),
            "graph-pqkmeans, 5, 32 neighbours": _codes(
                60, "graph-pqkmeans", iterations=5, tolerance=0.0, neighbours=32
            ),
            "graph-pqkmeans": _codes(120, "graph-pqkmeans"),
            "pqkmeans, 5": {"side": "pqkmeans", "iterations": 5, "limit": 500},
            "pqkmeans by vwkit, 5": _codes(500, "pqkmeans", **_PQ),
        },
        words=(16_384,),
        codes=True,
    ),
}
