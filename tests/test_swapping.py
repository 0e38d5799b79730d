"""Whatever fits a slot can stand in it: every backend that is installed, in the specs of vwkit.

Nothing here names a plugin's backend. What is in the registry is put into each slot of its role, so
that a plugin which comes later is tried, too.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import vwkit
from tests.test_docs import SMALLER, script
from vwkit.cli.new import jobs
from vwkit.outputs.words import read_words
from vwkit.plugins import HOMES, registry

METRICS = ("l2", "cosine", "ip", "hamming")
CASTLES = {f"castle_{view}.jpg" for view in ("far", "left", "right")}
# What a backend needs to be told, and what keeps the runs short; where it has no such parameter,
# it is left out.
GIVEN = {"k": 60, "iterations": 5, "m": 4, "ks": 64}

SLOT = re.compile(r"^( *)(index|assign): \{use: ([\w-]+).*?\}", re.MULTILINE)


def names(role):
    """Return what is installed for a role, and what of ours is not."""
    installed = set(vwkit.backends().get(role, {}))
    return sorted(installed | {name for found, name in HOMES if found == role})


def cls_of(role, name):
    if (role, name) not in registry().entries:
        pytest.skip(f"needs ./plugins/{HOMES[role, name]}")
    if name not in vwkit.backends()[role]:
        pytest.skip(f"the library of {role} {name} is not installed")
    return vwkit.backends()[role][name]


def params_of(cls):
    """Return parameters for a small run, or skip what needs others than are known here."""
    known = {name: value for name, value in GIVEN.items() if name in cls.parameters()}
    needed = [one.name for one in cls.parameters().values() if one.default is inspect._empty]
    missing = sorted(set(needed) - set(known))
    if missing:
        pytest.skip(f"{cls.name} needs {', '.join(missing)}")
    return known


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swapped")
    script("make_data").make(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(data, monkeypatch):
    """One cache for all of these: only the slot that is swapped is computed again."""
    monkeypatch.setenv("VWKIT_CACHE", str(data / "cache"))


def spec_with(data, job, slot, flow):
    """Write a spec with another mapping in its slot; return it and the slot's line."""
    text = jobs()[job]
    (found,) = [one for one in SLOT.finditer(text) if one[2] == slot]
    text = text[: found.start()] + f"{found[1]}{slot}: {flow}" + text[found.end() :]
    path = data / f"{job}.yaml"  # one name for all of a job: names are told in messages
    path.write_text(text)
    return path, text.count("\n", 0, found.start()) + 1


def pipeline(path, overrides=()):
    """Read a spec, or skip it where what stands around the slot is not installed."""
    try:
        return vwkit.Pipeline.from_file(path, overrides)
    except vwkit.SpecError as error:
        missing = sorted(set(re.findall(r"it comes with the package (\S+?);", str(error))))
        if not missing:
            raise
        pytest.skip(" and ".join(f"{path.stem} needs ./plugins/{name}" for name in missing))


def run(data, path, overrides=()):
    made = pipeline(path, overrides)
    with warnings.catch_warnings():
        # Small data are few for what some are made for; what they say of it is not at stake here.
        warnings.simplefilter("ignore", vwkit.FewDistinctRows)
        return made.run(data / "runs" / path.stem)


def having(slot):
    return [job for job, text in jobs().items() if any(m[2] == slot for m in SLOT.finditer(text))]


def test_the_specs_have_slots_to_swap():
    assert {"cnn-search", "retrieval", "search"} <= set(having("index"))
    assert {"approximate-vocabulary", "oxford5k"} <= set(having("assign"))
    assert len(names("index")) > 5


# An index for the photographs --------------------------------------------------------------------


def index_cases():
    """Every index in every spec; in one of them with each of its metrics."""
    for name in names("index"):
        cls = vwkit.backends()["index"].get(name)
        offered = ["cosine"] if cls is None else sorted(cls.metrics - {"hamming"})
        best = "cosine" if "cosine" in offered else "l2"
        for job in having("index"):
            for metric in offered if job == "search" else [best]:
                yield pytest.param(job, name, metric, id=f"{job}-{name}-{metric}")


@pytest.mark.parametrize(("job", "name", "metric"), list(index_cases()))
def test_every_index_searches_the_photographs(data, job, name, metric):
    cls_of("index", name)
    path, _ = spec_with(data, job, "index", f"{{use: {name}, metric: {metric}}}")
    # The pictures of the other specs are no business of the index.
    finished = run(data, path, () if job == "search" else ("output=",))
    assert finished.index.name == name
    assert finished.index.metric == metric
    vectors = finished.indexable(finished.vectors)
    dense = vectors.toarray() if isinstance(vectors, vwkit.Sparse) else np.asarray(vectors)
    rows = np.array([item.row for item in finished.kept])
    exact = vwkit.create("index", "exact", metric=metric).build(dense, rows)
    ids = [item.id for item in finished.kept]
    found, true = finished.search(ids, 5), exact.search(dense, 5)
    # Where nothing was found, what is there has nothing in common with the query.
    nothing = found.ids < 0
    assert (true.distances[nothing] >= 1 - 1e-6).all()
    slack = finished.index.distance_error * 2 * (dense**2).sum(axis=1).max() + 1e-6
    assert np.allclose(
        np.where(nothing, 0, found.distances), np.where(nothing, 0, true.distances), atol=slack
    )
    if metric != "ip":
        assert (found.ids[:, 0] == rows).all()
        assert np.allclose(found.distances[:, 0], 0, atol=slack)
    opened = vwkit.Run.open(finished.folder)
    best = opened.search(str(data / "photos/castle_left.jpg"), 3)
    if metric != "ip" or job == "search":  # vectors of length 1, whose ip is their cosine
        assert {Path(item.path).name for item in best.items[0]} == CASTLES
    if job == "search":
        saved = vwkit.load(data / "out/index")
        assert type(saved) is type(finished.index)
        assert (saved.search(dense, 5).ids == exact.search(dense, 5).ids)[~nothing].mean() > 0.9
        assert "castle_right.jpg" in (data / "out/nearest.csv").read_text()
    else:
        assert job != "retrieval" or finished.scores["mAP"] > 0.9


@pytest.mark.parametrize("name", names("index"))
def test_every_index_searches_descriptors(data, name):
    cls = cls_of("index", name)
    spec = {
        "vwkit": 1,
        "vectors": {"path": str(data / "descriptors.bvecs")},
        "index": {"use": name},
    }
    finished = vwkit.Pipeline.from_dict(spec).run(data / "runs/descriptors")
    metric = finished.index.metric
    assert metric == ("l2" if "l2" in cls.metrics else "cosine")
    rows = vwkit.read(data / "descriptors.bvecs").toarray()
    asked = rows[::100].astype(np.float32) + 1
    true = vwkit.create("index", "exact", metric=metric).build(rows).search(asked, 10)
    found = finished.search(asked, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(found.ids, true.ids, strict=True)]
    assert np.mean(shared) >= 9.5


# What does not fit --------------------------------------------------------------------------------


def refused():
    for name in names("index"):
        cls = vwkit.backends()["index"].get(name)
        for metric in METRICS:
            if cls is not None and metric not in cls.metrics:
                yield name, metric


@pytest.mark.parametrize(("name", "metric"), list(refused()))
def test_a_metric_that_is_not_offered_is_told_in_one_line(data, name, metric):
    offered = vwkit.backends()["index"][name].metrics
    for job in having("index"):
        path, line = spec_with(data, job, "index", f"{{use: {name}, metric: {metric}}}")
        with pytest.raises(vwkit.SpecError) as caught:
            vwkit.Pipeline.from_file(path)
        told = [one for one in str(caught.value).splitlines() if "it comes with" not in one]
        assert len(told) == 1
        assert re.match(rf"{re.escape(str(path))}:{line}:\d+: index\.metric: ", told[0]), told[0]
        assert all(one in told[0] for one in (*offered, metric))


@pytest.mark.parametrize("name", names("index"))
def test_only_l2_assigns(data, name):
    cls = cls_of("index", name)
    for job in having("assign"):
        for metric in sorted(cls.metrics - {"l2"}):
            path, line = spec_with(data, job, "assign", f"{{use: {name}, metric: {metric}}}")
            with pytest.raises(vwkit.SpecError) as caught:
                vwkit.Pipeline.from_file(
                    path, [s for s in SMALLER.get(job, ()) if "train" not in s]
                )
            text = str(caught.value)
            assert "\n" not in text
            assert re.match(rf"{re.escape(str(path))}:{line}:\d+: clusterer\.assign: ", text), text
            assert name in text
            assert metric in text
            assert "l2" in text


@pytest.mark.parametrize("name", names("index"))
def test_what_takes_no_sparse_vectors_says_so_before_memory_runs_out(data, name):
    cls = cls_of("index", name)
    if cls.supports_sparse:
        pytest.skip("it takes them")
    pytest.importorskip("vwkit_opencv")
    path, _ = spec_with(data, "retrieval", "index", f"{{use: {name}}}")
    with pytest.raises(vwkit.DataError) as caught:
        run(data, path, ("output=", "evaluate=", "run.memory=20kB"))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{name} takes no sparse vectors")
    assert "inverted" in text


# An index for the assignment ----------------------------------------------------------------------


@pytest.mark.parametrize("name", names("index"))
@pytest.mark.parametrize("job", having("assign"))
def test_every_index_assigns(data, job, name):
    cls = cls_of("index", name)
    if "l2" not in cls.metrics:
        pytest.skip(f"{name} offers no l2")
    path, _ = spec_with(data, job, "assign", f"{{use: {name}}}")
    smaller = ("clusterer.k=60", "clusterer.iterations=3", *SMALLER.get(job, ()))
    finished = run(data, path, smaller)
    assert finished.clusterer.assign.name == name
    vocabulary = vwkit.load(data / "out/vocabulary")
    assert vocabulary.codebook.shape[:2] == (1, 60)
    rows = finished.transforms[0].transform(source(data, job)) if finished.transforms else None
    rows = source(data, job) if rows is None else rows
    words = np.asarray(finished.words.words)
    near = vwkit.create("index", "exact").build(vocabulary.codebook[0]).search(rows, 1).ids[:, 0]
    assert (words == near).mean() > 0.95
    assert (vocabulary.encode(rows)[:, 0] == near).mean() > 0.95


def source(data, job):
    file = "feat_oxc1_hesaff_sift.bin" if job == "oxford5k" else "descriptors.bvecs"
    if job == "oxford5k":
        return vwkit.create("featurizer", "oxford-sift").read(data / file).toarray()
    return vwkit.read(data / file).toarray()


def test_an_index_assigns_in_a_nested_slot(data):
    """A bag of words whose vocabulary is approximate k-means; each index of its own."""
    pytest.importorskip("vwkit_opencv")
    scores = {}
    for name in ["exact", *names("index")]:
        cls = vwkit.backends()["index"].get(name)
        if name in scores or cls is None or "l2" not in cls.metrics:
            continue
        assign = f"featurizer.vocabulary.assign={{use: {name}}}"
        (data / "retrieval.yaml").write_text(jobs()["retrieval"])
        smaller = ("featurizer.vocabulary.k=100", "featurizer.vocabulary.iterations=1")
        finished = run(data, data / "retrieval.yaml", ("output=", assign, *smaller))
        assert finished.clusterer.assign.name == name
        scores[name] = finished.scores["mAP"]
    assert scores["exact"] > 0.5
    assert min(scores.values()) > 0.9 * scores["exact"], scores


# Quantizers and clusterers ------------------------------------------------------------------------


def error_of(quantizer, rows):
    return float(((quantizer.decode(quantizer.encode(rows)) - rows.astype(np.float64)) ** 2).mean())


@pytest.mark.parametrize("name", names("quantizer"))
def test_every_product_quantizer_makes_codes(data, name):
    cls = cls_of("quantizer", name)
    if "m" not in cls.parameters():
        pytest.skip(f"{name} is no product quantizer: it has no m")
    given = json.dumps({"use": name, **params_of(cls)})
    (data / "codes.yaml").write_text(jobs()["codes"])
    finished = run(data, data / "codes.yaml", (f"quantizer={given}", "quantizer.train_rows=2000"))
    codes = np.load(data / "out/codes.npy")
    rows = source(data, "codes")
    quantizer = finished.quantizer
    assert quantizer.name == name
    assert codes.shape == (3000, 4)
    assert codes.dtype == np.uint8
    assert (quantizer.encode(rows) == codes).all()
    assert codes.max() < 64
    plain = vwkit.create("quantizer", "pq", m=4, ks=64).fit(rows)
    assert error_of(quantizer, rows) < 1.2 * error_of(plain, rows)


def exact_objective(rows, k):
    """What Lloyd comes to from random rows: some start there, which is worse than k-means++."""
    lloyd = vwkit.create("clusterer", "lloyd", k=k, iterations=5, init="random")
    return lloyd.fit(rows).objective[-1]


def swapped_clusterer(data, name, extra=()):
    """Run the vocabulary spec with another clusterer; return the run and the rows."""
    cls = cls_of("clusterer", name)
    given = json.dumps({"use": name, **params_of(cls)})
    (data / "vocabulary.yaml").write_text(jobs()["vocabulary"])
    return run(data, data / "vocabulary.yaml", (f"clusterer={given}", *extra))


@pytest.mark.parametrize("name", names("clusterer"))
def test_every_clusterer_of_vectors_makes_a_vocabulary(data, name):
    cls = cls_of("clusterer", name)
    if cls.consumes != "vectors":
        pytest.skip(f"{name} clusters codes")
    if not (cls.has_centers and cls.fixed_k):
        pytest.skip(f"{name} makes no vocabulary of k words")
    finished = swapped_clusterer(data, name)
    rows = source(data, "vocabulary")
    words, _ = read_words(data / "out/words")
    assert finished.clusterer.name == name
    assert len(np.unique(words.words)) == 60
    again = vwkit.load(data / "out/vocabulary").encode(rows)[:, 0]
    assert (again == words.words).mean() >= finished.clusterer.label_agreement
    assert finished.clusterer.objective[-1] < 1.3 * exact_objective(rows, 60)


@pytest.mark.parametrize("name", names("clusterer"))
def test_every_clusterer_of_codes_makes_a_vocabulary(data, name):
    cls = cls_of("clusterer", name)
    if cls.consumes != "codes":
        pytest.skip(f"{name} clusters vectors")
    with pytest.raises(vwkit.SpecError) as caught:
        swapped_clusterer(data, name)
    assert re.fullmatch(r".*clusterer.*: .*quantizer: .*", str(caught.value))  # one line
    swapped_clusterer(data, name, ("quantizer={use: pq, m: 4, ks: 64}",))
    rows = source(data, "vocabulary")
    words, _ = read_words(data / "out/words")
    assert len(np.unique(words.words)) > 50
    vocabulary = vwkit.load(data / "out/vocabulary")
    equal = vocabulary.encode(rows)[:, 0] == words.words
    assert equal.mean() >= vocabulary.clusterer.label_agreement
    distances = ((vocabulary.codebook[0][words.words] - rows.astype(np.float64)) ** 2).sum(axis=1)
    assert distances.mean() < 2 * exact_objective(rows, 60)


@pytest.mark.parametrize("name", names("clusterer"))
def test_every_clusterer_without_a_vocabulary_still_labels(data, name):
    cls = cls_of("clusterer", name)
    if cls.consumes != "vectors" or (cls.has_centers and cls.fixed_k):
        pytest.skip(f"{name} makes a vocabulary")
    labels = f"output={{write: labels, path: {data}/out/groups.npy}}"
    finished = swapped_clusterer(data, name, ("vectors.limit=300", labels))
    found = np.load(data / "out/groups.npy")
    assert len(found) == 300
    assert len(np.unique(found[found >= 0])) > 1
    assert finished.clusterer.name == name


# All of them together -----------------------------------------------------------------------------

# Native libraries in one process share more than one would think: one that brings its own copy of
# the C++ library can make another die. So each is used before and after each other one.
TOGETHER = """
import importlib, sys, warnings
import numpy as np
import vwkit
warnings.simplefilter("ignore")
rows = np.random.default_rng(0).integers(0, 255, (300, 16)).astype(np.uint8)
found = vwkit.backends()
order = sorted((role, name) for role in found for name in found[role])
for role, name in reversed(order) if sys.argv[1] == "back" else order:
    cls = found[role][name]
    if role == "index":
        vwkit.create(role, name).build(rows).search(rows[:4], 3)
        if name == "faiss":
            vwkit.create(role, name, factory="IVF4,PQ4x2").build(rows).search(rows[:4], 3)
    elif role == "clusterer" and cls.consumes == "vectors" and "k" in cls.parameters():
        vwkit.create(role, name, k=5).fit(rows)
    else:
        for module in cls.requires:
            importlib.import_module(module)
print(*sorted({role for role, _ in order}))
"""


@pytest.mark.parametrize("order", ["forth", "back"])
def test_all_libraries_live_in_one_process(order):
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER, order],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "index" in done.stdout.split()
