"""Specs: every problem at once, with its place and a suggestion."""

import json

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import vwkit
from tests.helpers import blobs, photo_folder
from vwkit.catalog import schema
from vwkit.checking import compile_spec
from vwkit.errors import SpecError
from vwkit.source import from_dict, parse
from vwkit.spec import KEYS, bytes_of


def problems(text, base):
    with pytest.raises(SpecError) as caught:
        compile_spec(parse(text, "s.yaml", format="yaml", base=base))
    return str(caught.value).splitlines()


@pytest.fixture
def folder(tmp_path):
    vwkit.write(tmp_path / "x.bvecs", blobs())
    photo_folder(tmp_path / "photos")
    return tmp_path


def test_all_problems_at_once_in_order_with_places(folder):
    text = """\
vwkit: 1
sead: 3
images: {path: photoz, patern: "*"}
featurizer:
  use: bag-of-words
  local: {use: pixel}
  vocabulary: {use: lloyd, k: 0, tolerence: 3}
index: {use: inverted, metric: l2}
evaluate: {protocol: groups}
run: {memory: lots}
"""
    lines = problems(text, folder)
    assert [line.split(": ")[0] for line in lines] == [
        "s.yaml:2:1",
        "s.yaml:3:10",
        "s.yaml:3:24",
        "s.yaml:6:3",
        "s.yaml:7:28",
        "s.yaml:7:34",
        "s.yaml:8:24",
        "s.yaml:9:1",
        "s.yaml:10:7",
    ]
    assert lines[0].endswith("did you mean seed?")
    assert "did you mean pixels?" in lines[3]
    assert "featurizer.vocabulary.tolerence: lloyd has no such parameter" in lines[5]
    assert lines[5].endswith("did you mean tolerance?")
    assert all("\n" not in line and "Traceback" not in line for line in lines)


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ({}, "exactly one of images and vectors is needed; neither is given"),
        ({"images": {"path": "photos"}}, "images need a featurizer"),
        ({"vectors": {"path": "x.bvecs"}, "featurizer": {"use": "pixels"}}, "vectors are read"),
        ({"vectors": {"path": "x.bvecs"}, "quantizer": {"use": "pq", "m": 3}}, "3 does not divide"),
        ({"vectors": {"path": "x.bvecs"}, "clusterer": {"use": "lloyd", "k": 9999}}, "600"),
        ({"vectors": {"path": "x.bvecs"}, "evaluate": {"protocol": "groups"}}, "needs an index"),
        (
            {"vectors": {"path": "x.bvecs"}, "output": {"write": "codes", "path": "c.npy"}},
            "quantizer",
        ),
        ({"vectors": {"path": "x.bvecs", "use": "pixels"}}, "reads images"),
        ({"vectors": {"path": "x.bvecs", "counts": "photos"}}, "needs images too"),
        ({"vectors": ["x"]}, "a mapping with path or url is needed"),
        ({"vectors": {"path": "x.bvecs"}, "clusterer": {"k": 3}}, "needs use"),
        ({"vectors": {"path": "x.bvecs"}, "clusterer": "lloyd"}, "a mapping with use is needed"),
        (
            {"vectors": {"path": "x.bvecs"}, "run": {"executor": "dsk"}},
            "run.executor: no executor is named 'dsk'",
        ),
        ({"vectors": {"path": "x.bvecs"}, "run": {"on_error": "ignore"}}, "must be skip or stop"),
        (
            {"vectors": {"path": "x.bvecs"}, "transform": {"use": "l2-norm", "train_rows": 0}},
            "least 1",
        ),
        ({"images": {"path": "photos"}, "featurizer": {"use": "bvecs"}}, "reads descriptor files"),
    ],
)
def test_rules_across_slots(folder, slots, said):
    text = json.dumps({"vwkit": 1, **slots})
    assert any(said in line for line in problems(text, folder))


def test_version(folder):
    assert "begins with `vwkit: 1`" in problems("vectors: {path: x.bvecs}", folder)[0]
    assert "newer" in problems("vwkit: 2\nvectors: {path: x.bvecs}", folder)[0]


def test_a_broken_slot_is_not_told_twice(folder):
    text = """\
vwkit: 1
images: {path: photos}
featurizer: {use: bag-of-wrds}
output: {write: words, path: out}
"""
    assert len(problems(text, folder)) == 1


def test_paths_are_relative_to_the_spec_and_seeds_are_derived(folder):
    text = """\
vwkit: 1
seed: 5
vectors: {path: x.bvecs}
transform: [{use: pca, dim: 4, train_rows: 100}]
clusterer: {use: lloyd, k: 4, assign: {use: exact}, init: centers.npy}
output: [{write: vocabulary, path: out/v}]
"""
    np.save(folder / "centers.npy", np.zeros((4, 4), np.float32))
    spec = compile_spec(parse(text, "s.yaml", format="yaml", base=folder))
    assert spec.vectors.path == folder / "x.bvecs"
    assert spec.output[0].path == folder / "out/v"
    assert spec.clusterer.init == folder / "centers.npy"
    assert spec.clusterer.seed == vwkit.derive_seed(5, "clusterer")
    assert spec.trains["transform[0]"].rows == 100
    resolved = spec.resolved()
    assert resolved["clusterer"]["assign"] == {"use": "exact", "metric": "l2"}
    assert yaml.safe_load(yaml.safe_dump(resolved)) == resolved


def test_an_explicit_seed_wins(folder):
    spec = {"vwkit": 1, "vectors": {"path": str(folder / "x.bvecs")},
            "clusterer": {"use": "lloyd", "k": 4, "seed": 11}}  # fmt: skip
    assert compile_spec(from_dict(spec, folder)).clusterer.seed == 11


def test_a_choice_is_not_taken_for_a_path(folder):
    spec = {"vwkit": 1, "vectors": {"path": str(folder / "x.bvecs")},
            "clusterer": {"use": "lloyd", "k": 4, "init": "random"}}  # fmt: skip
    assert compile_spec(from_dict(spec, folder)).clusterer.init == "random"


def test_memory_amounts():
    assert bytes_of("4GB") == 4_000_000_000
    assert bytes_of("1.5 GiB") == 3 << 29
    assert bytes_of(77) == 77
    for wrong in ("", "4 bananas", "-1GB", 0, None, "GB"):
        with pytest.raises(vwkit.ParameterError):
            bytes_of(wrong)


_junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KEYS, "use", "path", "k", "m", "local", "write", "train", "assign"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), _junk, max_size=6))
def test_any_tree_gives_a_spec_or_a_spec_error(tree):
    try:
        compile_spec(from_dict(tree, __import__("pathlib").Path("/nonexistent")))
    except SpecError as error:
        assert str(error)


def test_schema_accepts_what_the_docs_show_and_names_every_backend():
    described = schema()
    assert described["properties"].keys() == set(KEYS)
    names = {
        choice["properties"]["use"]["const"] for choice in described["$defs"]["index"]["anyOf"]
    }
    assert {"exact", "inverted"} <= names
    lloyd = described["$defs"]["clusterer"]["anyOf"][-1]
    assert "k" in next(
        choice for choice in described["$defs"]["clusterer"]["anyOf"]
        if choice["properties"]["use"]["const"] == "lloyd"
    )["required"], lloyd  # fmt: skip
    json.dumps(described)
