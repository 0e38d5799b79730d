"""Spatial verification: the matches whose keypoints lie as the query's do come first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import annotated_types
import numpy as np

from vwkit.around import Reranker
from vwkit.base import Field, backend
from vwkit.geometry import Model, align_many
from vwkit.geometry.comparing import KEYPOINTS, RATIO
from vwkit.types import Features, Fraction, Matches, Positive

__all__ = ["Affine"]


@backend("affine")
class Affine(Reranker):
    """Orders the first matches by how many keypoints agree on one affine map from the query.

    Descriptors are paired by Lowe's ratio test, each pair of keypoints is a similarity to be tried,
    and the best are improved to affine maps (Philbin, Chum, Isard, Sivic, Zisserman 2007, "Object
    retrieval with large vocabularies and fast spatial matching"). Nothing is drawn at random. More
    places that agree come first; those with the same number stay in the order they had, and so do
    matches with fewer than `inliers`.
    """

    choose = (
        "to put photos of the same object first that a bag of words has among the first hundreds."
    )

    needs = ("local featurizer",)

    inliers: Positive = Field(
        default=5, doc="Places that must agree; fewer are chance and count for nothing."
    )
    model: Model = Field(
        default="affine", doc="affine, or similarity (shift, turn and scale only)."
    )
    ratio: Fraction = Field(
        default=RATIO, doc="How much nearer a descriptor must be than the next nearest."
    )
    tolerance: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = Field(
        default=0.01, doc="How far a keypoint may be off, as a share of the picture's diagonal."
    )
    keypoints: Positive = Field(
        default=KEYPOINTS, doc="Only so many keypoints of a picture are compared, the strongest."
    )

    @property
    def deterministic(self) -> bool:
        """Always: nothing is drawn at random."""
        return True

    def _rerank(
        self, query: Features, matches: Matches, features: Callable[[int], Features]
    ) -> Matches:
        looked_at = matches.ids[0, : self.top]
        looked_at = looked_at[looked_at >= 0]
        found = align_many(
            query,
            (features(int(row)) for row in looked_at),
            ratio=self.ratio,
            tolerance=self.tolerance,
            keypoints=self.keypoints,
            model=self.model,
        )
        agreeing = np.array([0 if one is None else one.inliers for one in found], np.int64)
        agreeing[agreeing < self.inliers] = 0
        order = np.arange(matches.ids.shape[1])
        order[: len(agreeing)] = np.argsort(-agreeing, kind="stable")
        return Matches(matches.ids[:, order], matches.distances[:, order])
