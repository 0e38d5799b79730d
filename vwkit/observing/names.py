"""Which stages a spec will have, before any of them has begun."""

from __future__ import annotations

from typing import Any

__all__ = ["stage_names"]


def stage_names(spec: Any, *, colours: bool = False, pixels: bool = False) -> list[str]:
    """Return the names of the stages that are expected, in order.

    Some depend on the data and may not come: ``labels`` of pixels, say.

    Parameters
    ----------
    spec : Spec
    colours : bool
        Whether equal pixels will be counted once.
    pixels : bool
        Whether each pixel will be kept then, too.
    """
    names: list[str] = []
    if spec.images is not None:
        names += _of_images(spec, "colours" if colours else "features")
    elif spec.vectors is not None and spec.vectors.images is not None:
        names.append("source")
    names += [f"transform[{i}]" for i in range(len(spec.transform))]
    clusterer, quantizer = spec.clusterer, spec.quantizer
    if quantizer is not None:
        names.append("quantizer")
        wanted = any("quantizer" in output.needs for output in spec.output)
        if wanted or (clusterer is not None and clusterer.consumes == "codes"):
            names.append("codes")
    if clusterer is not None:
        names.append("clusterer")
        trained = "clusterer" in spec.trains and clusterer.supports_predict
        if trained or (colours and pixels and clusterer.supports_weights):
            names.append("labels")
    if spec.index is not None:
        names.append("index")
    if spec.evaluate is not None:
        names.append("evaluate")
    return [*names, "report", *(f"write {output.name}" for output in spec.output)]


def _of_images(spec: Any, features: str) -> list[str]:
    from_urls = not hasattr(spec.images, "pattern")
    names = ["images"] if from_urls else []
    featurizer = spec.featurizer
    if hasattr(featurizer, "local_") and hasattr(featurizer, "vocabulary"):
        names.append("featurizer.local")
        if not featurizer.vocabulary._fitted:
            names.append("featurizer.vocabulary")
        return [*names, "featurizer.words", "featurizer", "vectors"]
    return [*names, "featurizer", features]
