"""Backends that are right pass the whole suite, however unusual they are."""

import pytest

from tests.suite import (
    right_clusterer,
    right_featurizer,
    right_index,
    right_long_work,
    right_quantizer,
    right_transform,
    right_trees,
    wrong_clusterer,
    wrong_clusterer_fits,
    wrong_clusterer_kinds,
    wrong_featurizer,
    wrong_index,
    wrong_index_changes,
    wrong_index_sizes,
    wrong_long_work,
    wrong_quantizer,
    wrong_traces,
    wrong_transform,
    wrong_trees,
)
from tests.suite.faults import run_test
from vwkit.testing import (
    ClustererTests,
    FeaturizerTests,
    IndexTests,
    QuantizerTests,
    TransformTests,
)

RIGHT = [
    (IndexTests, right_index.Plain, {}),
    (IndexTests, right_index.KDTree, {"params": {"leaf_size": 4}, "min_recall": 1.0}),
    (IndexTests, right_index.Half, {}),
    (IndexTests, right_index.Cells, {"min_recall": 0.6}),
    (IndexTests, right_index.BytesOnly, {}),
    (IndexTests, right_index.Bits, {}),
    (IndexTests, right_index.BytesAndFloats, {}),
    (IndexTests, right_index.Lazy, {}),
    (IndexTests, right_index.Capped, {"min_recall": 0.8}),
    (IndexTests, right_index.Narrowed, {}),
    (IndexTests, right_index.OnDisk, {}),
    (IndexTests, right_index.OddArrays, {}),
    (IndexTests, right_index.HighestTies, {}),
    (IndexTests, right_index.OwnThreads, {}),
    (IndexTests, right_index.Mapped, {}),
    (IndexTests, right_index.Rounded, {"min_recall": 0.9}),
    (IndexTests, right_index.Postings, {}),
    (IndexTests, right_index.Needy, {"min_rows": 8, "dim_step": 2}),
    (ClustererTests, right_clusterer.KMeans, {}),
    (ClustererTests, right_long_work.Patient, {}),
    (ClustererTests, right_clusterer.Batches, {}),
    (ClustererTests, right_clusterer.CodeKMeans, {}),
    (ClustererTests, right_clusterer.Chain, {}),
    (ClustererTests, right_clusterer.Sketchy, {}),
    (ClustererTests, right_clusterer.OnlyLabels, {}),
    (ClustererTests, right_clusterer.Directions, {}),
    (ClustererTests, right_clusterer.Leaders, {}),
    (ClustererTests, right_trees.Joined, {}),
    (QuantizerTests, right_quantizer.PlainPQ, {}),
    (QuantizerTests, right_quantizer.TurnedPQ, {}),
    (QuantizerTests, right_quantizer.Residual, {}),
    (QuantizerTests, right_quantizer.Steps, {}),
    (QuantizerTests, right_quantizer.Hurried, {"code_agreement": 0.4, "distortion_factor": 2.0}),
    (TransformTests, right_transform.Scaled, {}),
    (
        TransformTests,
        right_transform.Standard,
        {"reference": staticmethod(right_transform.standardised)},
    ),
    (TransformTests, right_transform.Backwards, {}),
    (TransformTests, right_transform.Projected, {}),
    (FeaturizerTests, right_featurizer.MeanColour, {}),
    (FeaturizerTests, right_featurizer.BrightSpots, {}),
    (FeaturizerTests, right_featurizer.RowsOfPixels, {}),
    (FeaturizerTests, right_featurizer.ColourWords, {}),
    (FeaturizerTests, right_featurizer.AboveAverage, {}),
    (FeaturizerTests, right_featurizer.Wobbling, {}),
    (right_featurizer.PairsTests, right_featurizer.Pairs, {}),
]
FAULTS = [
    one
    for module in (
        wrong_index,
        wrong_index_changes,
        wrong_index_sizes,
        wrong_long_work,
        wrong_traces,
        wrong_clusterer,
        wrong_clusterer_fits,
        wrong_clusterer_kinds,
        wrong_quantizer,
        wrong_transform,
        wrong_trees,
        wrong_featurizer,
    )
    for one in module.FAULTS
]


@pytest.mark.parametrize(
    ("suite", "backend", "attributes", "name"),
    [
        pytest.param(suite, backend, attributes, name, id=f"{backend.name}-{name[5:]}")
        for suite, backend, attributes in RIGHT
        for name in sorted(suite._suite_tests)
    ],
)
def test_a_backend_that_is_right_passes(suite, backend, attributes, name):
    run_test(suite, backend, name, **attributes)


def test_faults_are_many_and_each_is_one_change_of_a_backend_that_passes():
    assert len(FAULTS) > 200
    assert len({one.cls for one in FAULTS}) == len(FAULTS)
    passing = {backend for _, backend, _ in RIGHT}
    for one in FAULTS:
        assert one.test in one.suite._suite_tests
        # The class without the fault is one that passes, but for the metrics that are tried.
        assert set(one.mended.__mro__[:2]) & passing, one


def test_nearly_every_check_has_a_fault_that_it_catches():
    """What checks the core alone cannot fail where the author overrides nothing."""
    of_the_core = {
        "test_bad_ids_are_refused",
        "test_bad_weights_are_refused",
        "test_codes_need_their_quantizer",
        "test_generator_is_refused",
        "test_nan_is_refused",
        "test_no_images",
        "test_no_queries",
        "test_no_rows_are_refused",
        "test_other_metrics_are_refused",
        "test_sparse_is_refused_or_taken",
        "test_wrong_shape_is_refused",
        "test_a_reader_takes_no_images",
        "test_import_is_light",  # needs a module of its own; see test_in_pytest.py
        "test_abilities_of_an_index",
    }
    caught = {one.test for one in FAULTS}
    every = {name for suite, _, _ in RIGHT for name in suite._suite_tests}
    assert every - caught - of_the_core == set()
    assert of_the_core <= every
