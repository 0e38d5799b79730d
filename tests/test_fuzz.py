"""A few cases of every target of `python -m benchmarks fuzz`, and the tools that make them."""

import functools
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from benchmarks.fuzzing.mutating import mutated
from benchmarks.fuzzing.saved import split
from benchmarks.fuzzing.shrinking import smaller
from benchmarks.fuzzing.target import Case, Wrong, judge, targets
from vwkit.errors import DataError, SpecError

TARGETS = targets()
#: What has no artifact of its own among the targets, and why.
NOT_SAVED = {
    "onnx": "the target onnx gives it hostile models",
    "torch": "plugins/vwkit-torch/tests/test_trust.py gives it hostile models",
    "sift": "it saves its parameters only, as pixels does",
    "colour-histogram": "it saves its parameters only, as pixels does",
    "l2-norm": "it saves its parameters only, as root-sift does",
    "faiss-superkmeans": "it is saved as faiss-kmeans is",
}


@functools.cache
def seeds_of(name):
    folder = Path(tempfile.mkdtemp(prefix="vwkit-fuzz-"))
    try:
        return sorted(TARGETS[name].seeds(folder), key=lambda one: (len(one), one))
    finally:
        shutil.rmtree(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_only_errors_of_ours_come_out(name, tmp_path):
    target = TARGETS[name]
    if target.missing():
        pytest.skip(f"needs {target.missing()}")
    seeds = seeds_of(name)
    case = Case(target, tmp_path / "case")
    for data in seeds:
        case(data)

    @settings(
        max_examples=25 if target.cheap else 5, deadline=None, derandomize=True, database=None
    )
    @given(st.integers(0, 2**32 - 1))
    def cases(number):
        case(mutated(seeds, target.words, target.largest, random.Random(number)))

    cases()


def test_every_saved_kind_is_a_target():
    covered = {name.removeprefix("artifact-") for name in TARGETS}
    roles = ("index", "clusterer", "quantizer", "transform", "featurizer")
    found = {
        name
        for role in roles
        for name, cls in vwkit.backends()[role].items()
        if getattr(cls, "consumes", "") != "files"
    }
    assert len(found) > 10
    assert {name for name in found if name not in covered} <= NOT_SAVED.keys()


# The tools --------------------------------------------------------------------------------------


def test_a_case_repeats():
    seeds = [b"abc 12", bytes(range(200))]
    first = [mutated(seeds, (b"word",), 300, random.Random(i)) for i in range(300)]
    assert first == [mutated(seeds, (b"word",), 300, random.Random(i)) for i in range(300)]
    assert len(set(first)) > 250
    assert max(map(len, first)) <= 300
    assert any(b"word" in one for one in first)


def raising(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), MemoryError(), Wrong("x")])
def test_other_errors_are_failures(error):
    with pytest.raises(type(error)):
        judge(raising(error))


@pytest.mark.parametrize("text", ["", "  ", "two\nlines"])
def test_errors_that_say_nothing_or_too_much_are_failures(text):
    with pytest.raises(Wrong):
        judge(raising(DataError(text)))


def test_errors_of_ours_are_answers():
    judge(raising(DataError("x.npy: row 3 holds NaN")))
    judge(raising(DataError("x.npy: a name with \x1b[31m in it, and " + 9999 * "long")))
    judge(raising(SpecError("a:1:1: one\na:2:1: two")))


def test_an_input_is_made_smaller():
    assert smaller(bytes(range(256)), lambda data: b"\x07" in data and b"\xf0" in data, 9999) == (
        b"\x07\xf0"
    )
    assert smaller(b"abc", lambda data: False, 99) == b"abc"


def test_checksums_are_made_right_again(tmp_path):
    from benchmarks.fuzzing.saved import sealed

    made = vwkit.create("transform", "pca", dim=1).fit([[0.0, 1.0], [1.0, 3.0], [2.0, 2.0]])
    made.save(tmp_path / "a")
    files = split(tmp_path / "a")
    sealed(files, tmp_path / "b")
    assert (vwkit.load(tmp_path / "b").components == made.components).all()
    name = next(one for one in files if one.startswith("mean"))
    changed = files[name][:-8] + bytes(8)
    sealed({**files, name: changed}, tmp_path / "c")
    assert not vwkit.load(tmp_path / "c").mean.any()  # nothing but the checksum had told
