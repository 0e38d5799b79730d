"""Targets: saved backends, changed by somebody who computes the checksums anew.

A case is the number of a file of a valid artifact and its new content; then all checksums above it are made
right again, as an attacker would. What opens is used: searched, asked to predict, to encode.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzing.target import Wrong, target

_MANIFEST = "manifest.json"
_DIM = 6
_WORDS = (
    b'"fitted": true', b'"native"', b'"children"', b'"arrays"', b'"files"', b'"params"', b'"core"', b'"identity"',
    b'"rows": ', b'"dim": ', b'"../x"', b'"/etc/passwd"', b"null", b"1e999", b"NaN", b"'shape': (", b"'descr': '",
    b"<f4", b"<i8", b"|u1", b"<U4", b"'fortran_order': True", b'"metric": "ip"', b'"late"', b'"use": ',
)  # fmt: skip


def vectors(rows: int = 60) -> Any:
    """Return the vectors that everything here is fitted to, (rows, 6) uint8."""
    return np.random.default_rng(5).integers(0, 255, (rows, _DIM)).astype(np.uint8)


# What an attacker does --------------------------------------------------------------------------


def split(folder: Path) -> dict[str, bytes]:
    """Return a saved folder's files; manifests without their own hash."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == _MANIFEST:
                held = json.loads(content)
                held.pop("sha256", None)
                content = _text(held)
            files[path.relative_to(folder).as_posix()] = content
    return files


def _text(manifest: Any) -> bytes:
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def sealed(files: dict[str, bytes], folder: Path, changed: str | None = None) -> None:
    """Write files with all checksums right, but for what is no manifest any more.

    Where a manifest itself is what was changed, what it says of its files stays.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    manifests = [name for name in files if name.rpartition("/")[2] == _MANIFEST]
    for name in sorted(manifests, key=lambda one: -one.count("/")):  # nested ones first
        _seal(folder / name, keep=name == changed)


def _seal(path: Path, keep: bool) -> None:
    try:
        manifest = json.loads(path.read_bytes())
        if not keep:
            for name, entry in manifest["files"].items():
                content = (path.parent / name).read_bytes()
                entry["bytes"], entry["sha256"] = len(content), hashlib.sha256(content).hexdigest()
            for entry in manifest.get("children", {}).values():
                content = (path.parent / entry["folder"] / _MANIFEST).read_bytes()
                entry["sha256"] = hashlib.sha256(content).hexdigest()
        manifest["sha256"] = hashlib.sha256(_text(manifest)).hexdigest()
        path.write_bytes(_text(manifest))
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError):
        pass  # so be it: a manifest that is none


_kept: dict[str, dict[str, bytes]] = {}


def files_of(name: str, make: Callable[[], Any], folder: Path | None = None) -> dict[str, bytes]:
    """Return the files of a backend that was fitted and saved, made once."""
    if name not in _kept:
        import tempfile

        place = Path(tempfile.mkdtemp("", "vwkit-fuzz-saved-"))
        try:
            make().save(place / "x")
            _kept[name] = split(place / "x")
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return _kept[name]


# What a user does -------------------------------------------------------------------------------


def use(backend: Any) -> None:
    """Ask a loaded backend what users ask."""
    import vwkit

    asked = vectors(9).astype(np.float32)
    if isinstance(backend, vwkit.Index):
        if backend.supports_sparse:
            asked = vwkit.Sparse.from_scipy(_scipy(asked))
        found = backend.search(asked, 4)
        if found.ids.shape != (9, 4) or found.distances.shape != (9, 4):
            raise Wrong(f"ids of shape {found.ids.shape}")
        len(backend)
        if backend.supports_filter:
            ids = found.ids[found.ids >= 0][:3]
            if len(ids):
                backend.search(asked, 2, allowed=np.unique(ids))
    elif isinstance(backend, vwkit.Quantizer):
        codes = backend.encode(asked)
        backend.decode(codes)
        backend.identity  # noqa: B018
    elif isinstance(backend, vwkit.Clusterer):
        if backend.consumes == "vectors" and backend.supports_predict:
            labels = backend.predict(asked)
            if labels.shape != (9,):
                raise Wrong(f"labels of shape {labels.shape}")
        elif backend.supports_predict:
            backend.predict(np.zeros((3, 2), np.uint8))
        np.asarray(backend.labels[:3])
        np.asarray(backend.objective[:3])
        if backend.has_centers:
            np.asarray(backend.centers[:3])
    elif isinstance(backend, vwkit.Transform):
        backend.transform(asked)
    elif isinstance(backend, vwkit.Featurizer):
        image = np.full((24, 20, 3), 90, np.uint8)
        image[5:15, 5:12] = 200
        for one in backend.extract([image]):
            if not isinstance(one, vwkit.Sparse) and one.ndim != 2:
                raise Wrong(f"vectors of shape {one.shape}")


def _scipy(array: Any) -> Any:
    import scipy.sparse

    return scipy.sparse.csr_matrix(array)


def artifact(name: str, make: Callable[[], Any], needs: tuple[str, ...] = ()) -> None:
    """Register an artifact as a target."""

    def seeds(folder: Path) -> list[bytes]:
        return [bytes([at]) + content for at, content in enumerate(files_of(name, make).values())]

    def run(data: bytes, folder: Path) -> None:
        import vwkit

        files = files_of(name, make)
        names = list(files)
        which = names[(data[0] if data else 0) % len(names)]
        place = folder / "saved"
        sealed({**files, which: data[1:]}, place, which)
        use(vwkit.load(place))
        outside = {one.name for one in folder.iterdir()} - {"saved"}
        if outside:
            raise Wrong(f"files outside the artifact: {outside}")

    target(
        f"artifact-{name}",
        seeds,
        words=_WORDS,
        cheap=False,
        largest=1 << 16,
        guided=False,
        needs=needs,
    )(run)


def _made(role: str, name: str, **params: Any) -> Callable[[], Any]:
    def make() -> Any:
        import vwkit

        backend: Any = vwkit.create(role, name, **params)
        rows = vectors()
        if role == "index":
            if backend.supports_sparse:
                return backend.build(vwkit.Sparse.from_scipy(_scipy(rows.astype(np.float32))))
            ids = np.arange(len(rows)) * 3 if name in ("exact", "hnsw") else None
            backend.build(rows.astype(np.float32), ids)
            if backend.supports_remove:
                backend.remove([3] if ids is not None else [5])
            return backend
        if getattr(backend, "consumes", "") == "codes":
            pq: Any = vwkit.create("quantizer", "pq", m=2, ks=8)
            return backend.fit(pq.fit(rows).encode(rows), quantizer=pq)
        return backend.fit(rows) if backend._needs_fit() else backend

    return make


def _vocabulary() -> Any:
    import vwkit

    clusterer: Any = vwkit.create("clusterer", "lloyd", k=5, iterations=3)
    made: Any = vwkit.create("quantizer", "vocabulary", clusterer=clusterer.fit(vectors()))
    return made.fit(vectors())


def _bag(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import vwkit

        images = list(np.random.default_rng(0).integers(0, 255, (3, 12, 10, 3)).astype(np.uint8))
        bag: Any = vwkit.create(
            "featurizer",
            name,
            local={"use": "pixels"},
            vocabulary={"use": "lloyd", "k": 4, "iterations": 3},
        )
        return bag.fit(images)

    return make


_BACKENDS: tuple[tuple[str, Callable[[], Any], tuple[str, ...]], ...] = (
    ("exact", _made("index", "exact"), ()),
    ("inverted", _made("index", "inverted", metric="cosine"), ("scipy",)),
    ("faiss", _made("index", "faiss", factory="Flat"), ("faiss",)),
    ("faiss-ivf", _made("index", "faiss", factory="IVF4,Flat"), ("faiss",)),
    ("faiss-ivfpq", _made("index", "faiss", factory="IVF4,PQ2x4"), ("faiss",)),
    ("faiss-hnsw", _made("index", "faiss", factory="HNSW8"), ("faiss",)),
    ("faiss-opq-sq", _made("index", "faiss", factory="PCA4,SQ8"), ("faiss",)),
    ("hnsw", _made("index", "hnsw", M=4, threads=1), ("hnswlib",)),
    ("annoy", _made("index", "annoy", n_trees=5), ("annoy",)),
    ("flann", _made("index", "flann"), ("pyflann_ibeis",)),
    ("flann-kmeans", _made("index", "flann", algorithm="kmeans", branching=4), ("pyflann_ibeis",)),
    (
        "flann-composite",
        _made("index", "flann", algorithm="composite", trees=2),
        ("pyflann_ibeis",),
    ),
    ("flann-autotuned", _made("index", "flann", algorithm="autotuned"), ("pyflann_ibeis",)),
    ("flann-linear", _made("index", "flann", algorithm="linear"), ("pyflann_ibeis",)),
    ("usearch", _made("index", "usearch"), ("usearch",)),
    ("usearch-i8", _made("index", "usearch", dtype="i8"), ("usearch",)),
    ("sharded", _made("index", "sharded", index={"use": "exact"}, rows_per_shard=16), ()),
    (
        "sharded-hnsw",
        _made("index", "sharded", index={"use": "hnsw", "M": 4}, rows_per_shard=30),
        ("hnswlib",),
    ),
    ("lloyd", _made("clusterer", "lloyd", k=5, iterations=3), ()),
    ("graph-kmeans", _made("clusterer", "graph-kmeans", k=8, iterations=3), ("numba",)),
    ("graph-pqkmeans", _made("clusterer", "graph-pqkmeans", k=6, iterations=3), ("numba",)),
    ("tree", _made("clusterer", "tree", branch=3, depth=2), ("numba",)),
    ("pqkmeans", _made("clusterer", "pqkmeans", k=5, iterations=3), ("pqkmeans",)),
    ("faiss-kmeans", _made("clusterer", "faiss-kmeans", k=5, iterations=3), ("faiss",)),
    ("breathing-kmeans", _made("clusterer", "breathing-kmeans", k=5), ()),
    ("agglomerative", _made("clusterer", "agglomerative", similarity=0.5), ("scipy",)),
    ("pq", _made("quantizer", "pq", m=2, ks=8), ()),
    ("opq", _made("quantizer", "opq", m=2, ks=8), ("faiss",)),
    ("rq", _made("quantizer", "rq", m=2, ks=8), ("faiss",)),
    ("sq", _made("quantizer", "sq"), ("faiss",)),
    ("faiss-pq", _made("quantizer", "faiss-pq", m=2, ks=16), ("faiss",)),
    ("fast-pq", _made("quantizer", "fast-pq", m=2, ks=8), ("numba",)),
    ("fast-opq", _made("quantizer", "fast-opq", m=2, ks=8), ("numba",)),
    ("vocabulary", _vocabulary, ()),
    ("pca", _made("transform", "pca", dim=3), ()),
    ("root-sift", _made("transform", "root-sift"), ()),
    ("pixels", _made("featurizer", "pixels"), ()),
    ("bag-of-words", _bag("bag-of-words"), ()),
    ("vlad", _bag("vlad"), ()),
)

for _name, _make, _needs in _BACKENDS:
    artifact(_name, _make, _needs)
