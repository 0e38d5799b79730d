"""Rules across the slots of a spec: what fits together, and what cannot be known of one slot."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vwkit.around import Output
from vwkit.artifact import MANIFEST, MARKER
from vwkit.base import Backend
from vwkit.builtin.aggregated import Aggregated
from vwkit.counted import counts_pixels
from vwkit.errors import VwkitError
from vwkit.featurizer import Reader
from vwkit.remote import UrlFile, file_of
from vwkit.spec import Spec, open_source

__all__ = ["KeyPath", "check_rules"]

KeyPath = tuple[str | int, ...]
Report = Callable[[KeyPath, str], None]

# The slots that words can come from.
_MAKERS = ("featurizer", "clusterer")
_ONE_BYTE = 256
_NEEDS_LOCAL = "needs a local featurizer, such as sift, or bag-of-words or vlad of one"


def check_rules(
    spec: Spec, data: Mapping[str, Any], outputs: Sequence[KeyPath], problem: Report
) -> None:
    """Report every rule that a spec breaks.

    Parameters
    ----------
    spec : Spec
        A slot that failed by itself is None in it; it is not told again.
    data : dict
        The spec as it was written.
    outputs : sequence of key paths
        Where each of ``spec.output`` was written.
    problem : callable
        Called with the place and the sentence.
    """
    _sources(spec, data, problem)
    _codes(spec, data, problem)
    _training(spec, data, problem)
    for name in ("rerank", "evaluate"):
        if name in data and "index" not in data:
            problem((name,), "needs an index, such as `index: {use: exact}`")
    if "rerank" in data and "images" not in data:
        problem(("rerank",), "needs images: it compares their features")
    else:
        for i, reranker in enumerate(spec.rerank):
            if "local featurizer" in reranker.needs and not _has_local(spec, data):
                at = ("rerank",) if isinstance(data["rerank"], Mapping) else ("rerank", i)
                problem(at, f"{reranker.name} {_NEEDS_LOCAL}")
    _outputs(spec, data, outputs, problem)
    _sizes(spec, problem)


def _sources(spec: Spec, data: Mapping[str, Any], problem: Report) -> None:
    if spec.images is not None and "featurizer" not in data:
        problem(("images",), "images need a featurizer, such as `featurizer: {use: sift}`")
    if spec.vectors is not None and "featurizer" in data:
        problem(("featurizer",), "vectors are read as they are; a featurizer belongs to images")
    if isinstance(spec.featurizer, Reader):
        name = spec.featurizer.name
        text = f"{name} reads descriptor files: write it as `vectors: {{use: {name}, path: …}}`"
        problem(("featurizer", "use"), text)


def _codes(spec: Spec, data: Mapping[str, Any], problem: Report) -> None:
    clusterer = spec.clusterer
    if clusterer is None or clusterer.consumes != "codes":
        return
    if "quantizer" not in data:
        text = f"{clusterer.name} clusters codes: add `quantizer: {{use: pq, m: …}}`"
        problem(("clusterer", "use"), text)
    elif spec.quantizer is not None and spec.quantizer.structure != "product":
        text = f"{clusterer.name} needs a product quantizer; {spec.quantizer.name} is not one"
        problem(("quantizer", "use"), text)
    elif "uint16" not in clusterer.dtypes:
        ks = _parameter(spec.quantizer, "ks")
        if ks is not None and ks > _ONE_BYTE:
            text = (
                f"{clusterer.name} takes codes of one byte, so at most {_ONE_BYTE} codewords; "
                f"got {ks}"
            )
            problem(("quantizer", "ks"), text)


def _training(spec: Spec, data: Mapping[str, Any], problem: Report) -> None:
    clusterer = spec.clusterer
    if clusterer is None or clusterer.supports_predict or "clusterer" not in spec.trains:
        return
    key = "train" if "train" in data["clusterer"] else "train_rows"
    text = f"{clusterer.name} labels only the rows that it is fitted on; leave {key} out"
    problem(("clusterer", key), text)


def _outputs(
    spec: Spec, data: Mapping[str, Any], outputs: Sequence[KeyPath], problem: Report
) -> None:
    has_words = isinstance(spec.featurizer, Aggregated) or (
        spec.clusterer is not None and spec.clusterer.has_centers
    )
    if any(slot in data and getattr(spec, slot) is None for slot in _MAKERS):
        has_words = True  # a slot that failed has its own problem; do not guess at others
    offered = {
        "images": spec.images is not None,
        "quantizer": spec.quantizer is not None,
        "clusterer": spec.clusterer is not None,
        "vocabulary": has_words,
        "index": spec.index is not None,
        "local featurizer": _has_local(spec, data),
        "clustering of images": _groups_images(spec, data),
        "clustering of pixels": counts_pixels(spec)
        or any(slot in data and getattr(spec, slot) is None for slot in _MAKERS),
        "hierarchical clusterer": getattr(spec.clusterer, "hierarchical", "clusterer" in data),
    }
    for path, output in zip(outputs, spec.output, strict=True):
        for need in output.needs:
            if need not in data and not offered.get(need, False):
                without = "the spec has none"
                if need == "vocabulary" and spec.clusterer is not None:
                    without = f"{spec.clusterer.name} has no centers to make words of"
                problem(path, f"{output.name} needs a {need}, and {without}")
        objection = output._objection(spec)
        if objection:
            problem(path, objection)
        wrong = _place(output)
        if wrong:
            problem((*path, "path"), wrong)
    _overlaps(spec, outputs, problem)


def _has_local(spec: Spec, data: Mapping[str, Any]) -> bool:
    """Tell whether images have local features; a slot that failed by itself is not guessed at."""
    featurizer = spec.featurizer
    if featurizer is None:
        return "featurizer" in data
    return featurizer.local or isinstance(featurizer, Aggregated)


def _groups_images(spec: Spec, data: Mapping[str, Any]) -> bool:
    """Tell whether each image gets one cluster; a slot that failed by itself is not guessed at."""
    one_each = "featurizer" in data and (spec.featurizer is None or not spec.featurizer.local)
    return one_each and "clusterer" in data


def _place(output: Output) -> str | None:
    """Say why an output cannot be written where it should, before any work is done for it."""
    parent = _nearest_existing(output.path.parent)
    if not parent.is_dir():
        return f"{output.path}: {parent} is a file, not a folder"
    if not os.access(parent, os.W_OK):
        return f"{output.path}: {parent} cannot be written"
    if not output.path.exists():
        return None
    if output.writes == "file":
        return (
            f"{output.path}: a folder is in the way of the file" if output.path.is_dir() else None
        )
    if not output.path.is_dir():
        return f"{output.path}: a file is in the way of the folder"
    mark = MANIFEST if output.writes == "artifact" else MARKER
    if any(output.path.iterdir()) and not (output.path / mark).exists():
        return (
            f"{output.path}: holds files that vwkit did not write; "
            "it is not overwritten, move it away or name another"
        )
    return None


def _overlaps(spec: Spec, outputs: Sequence[KeyPath], problem: Report) -> None:
    for i, output in enumerate(spec.output):
        for earlier in spec.output[:i]:
            if output.path.is_relative_to(earlier.path) or earlier.path.is_relative_to(output.path):
                text = f"{output.path}: {earlier.name} is written there, too; name another place"
                problem((*outputs[i], "path"), text)


def _sizes(spec: Spec, problem: Report) -> None:
    rows = dim = None
    if spec.vectors is not None:
        try:
            stream = open_source(spec.vectors, file_of(spec.vectors.path, fetch=False))
        except (VwkitError, OSError) as error:
            if getattr(error, "exit_status", 1) == 2:
                key = "url" if isinstance(spec.vectors.path, UrlFile) else "path"
                problem(("vectors", key), str(error))
            return  # a damaged file is told when it is read
        rows, dim = stream.rows, stream.dim
        for fewer in (spec.vectors.limit, spec.vectors.sample):
            if rows is not None and fewer is not None:
                rows = min(rows, fewer)
    m = _parameter(spec.quantizer, "m")
    if m is not None and spec.featurizer is not None and spec.featurizer.consumes == "images":
        # Asked for only where it matters: a network may have to be fetched to know.
        dim = None if spec.featurizer.trainable else spec.featurizer.dim
    if dim is not None and not spec.transform and m is not None and dim % m:
        problem(("quantizer", "m"), f"{m} does not divide the {dim} dimensions of the data")
    for slot, name, what in (("clusterer", "k", "clusters"), ("quantizer", "ks", "codewords")):
        count = _parameter(getattr(spec, slot), name)
        train = spec.trains.get(slot)
        held = rows if train is None or (train.path is None and train.images is None) else None
        if train is not None and train.rows is not None:
            held = train.rows if held is None else min(held, train.rows)
        if held is not None and count is not None and count > held:
            text = f"{count} {what} need at least {count} rows; there are {held}"
            problem((slot, name), text)


def _parameter(backend: Backend | None, name: str) -> int | None:
    if backend is None or name not in backend.parameters():
        return None
    value = getattr(backend, name)
    return value if isinstance(value, int) else None


def _nearest_existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
