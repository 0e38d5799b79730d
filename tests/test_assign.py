"""Approximate k-means: whatever index is installed can assign the rows, and its result is sound."""

from __future__ import annotations

import numpy as np
import pytest

import vwkit
from vwkit import reference
from vwkit.plugins import HOMES, registry

K, DIM, ITERATIONS = 100, 12, 4


def made(rows, seed):
    """Return uint8 rows around some points, spread so far that their surroundings meet."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).uniform(40, 215, (60, DIM))
    values = centers[rng.integers(0, len(centers), rows)] + rng.normal(0, 30, (rows, DIM))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


ROWS, OTHERS = made(1200, 1), made(300, 2)
START = ROWS[:: len(ROWS) // K][:K].astype(np.float32)

# Settings that are cheap enough to be wrong: (parameters, share of labels that are the nearest
# center all the same, the objective's factor over the exact one). An index that is not here is
# tested with its defaults alone.
CHEAP = {
    "annoy": ({"n_trees": 4, "search_k": 30}, 0.75, 1.1),
    "faiss": ({"factory": "IVF8,Flat", "nprobe": 2}, 0.75, 1.1),
    "flann": ({"trees": 1, "checks": 24}, 0.6, 1.2),
    "hnsw": ({"M": 6, "ef_construction": 20, "ef": 6}, 0.75, 1.2),
    "usearch": ({"dtype": "i8", "connectivity": 6, "expansion_search": 6}, 0.75, 1.2),
}
MORE = {
    "faiss HNSW": ("faiss", {"factory": "HNSW16"}, 0.97, 1.02),
    "faiss SQfp16": ("faiss", {"factory": "SQfp16"}, 0.97, 1.02),
    "flann kmeans": ("flann", {"algorithm": "kmeans"}, 0.97, 1.02),
    "usearch f16": ("usearch", {"dtype": "f16"}, 0.97, 1.02),
}


def offering_l2():
    """Return every index that may assign: those installed, and ours that are not."""
    found = vwkit.backends().get("index", {})
    ours = {name for role, name in HOMES if role == "index"}
    return sorted(
        {name for name, cls in found.items() if "l2" in cls.metrics} | (ours - set(found))
    )


def cases():
    listed = {name: (name, {}, 0.97, 1.02) for name in offering_l2()}
    cheap = {f"{name} cheap": (name, *case) for name, case in CHEAP.items()}
    return {**listed, **MORE, **cheap}


CASES = cases()


@pytest.fixture(params=sorted(CASES))
def case(request):
    name, params, share, factor = CASES[request.param]
    if ("index", name) not in registry().entries:
        pytest.skip(f"needs ./plugins/{HOMES['index', name]}")
    if name not in vwkit.backends()["index"]:
        pytest.skip(f"the library of {name} is not installed")
    return {"use": name, **params}, share, factor


def fit(assign, rows=ROWS, threads=2, **params):
    lloyd = vwkit.create(
        "clusterer", "lloyd",
        **{"k": K, "iterations": ITERATIONS, "tolerance": 0.0, "init": START, **params},
        assign=assign,
    )  # fmt: skip
    with vwkit.use_job(vwkit.Job(threads=threads)):
        return lloyd.fit(rows)


@pytest.fixture(scope="module")
def exact():
    return fit(None)


def alone(assign):
    """Return the same index held to one thread, if it takes a number of them."""
    cls = vwkit.backends()["index"][assign["use"]]
    for name in ("threads", "n_jobs"):
        if name in cls.parameters():
            return {**assign, name: 1}
    return assign


def state(lloyd):
    return lloyd.centers.tobytes(), lloyd.labels.tobytes(), lloyd.objective, lloyd.changed


def test_there_are_indexes_to_try():
    assert "exact" in CASES
    assert {name for role, name in HOMES if role == "index"} <= set(CASES)
    assert {name for name, *_ in CASES.values()} == set(offering_l2())


def test_the_result_is_sound_and_nearly_as_good_as_the_exact_one(case, exact):
    assign, share, factor = case
    lloyd = fit(assign)
    assert lloyd.centers.shape == (K, DIM)
    assert np.isfinite(lloyd.centers).all()
    assert lloyd.labels.dtype == np.int32
    assert (np.bincount(lloyd.labels, minlength=K) > 0).all()
    # Labels and the last objective belong to the centers.
    true = reference.lloyd.objective(ROWS, lloyd.centers, lloyd.labels)
    assert lloyd.objective[-1] == pytest.approx(true, rel=1e-6)
    assert lloyd.objective[-1] < lloyd.objective[0]
    nearest = reference.lloyd.assign(ROWS, lloyd.centers)
    assert (lloyd.labels == nearest).mean() >= share
    assert lloyd.objective[-1] <= factor * exact.objective[-1]
    # A label is never better than the nearest one, and what was missed is not far off.
    assert true >= reference.lloyd.objective(ROWS, lloyd.centers, nearest) * (1 - 1e-9)
    # The words of the training rows are those that a vocabulary gives them.
    assert (lloyd.predict(ROWS) == lloyd.labels).mean() >= min(share, 0.99)
    assert (vwkit.create("quantizer", "vocabulary", clusterer=lloyd).encode(ROWS)[:, 0]
            == lloyd.predict(ROWS)).mean() >= share  # fmt: skip


def test_saved_and_loaded_it_gives_the_same_words(case, tmp_path):
    assign, _, _ = case
    lloyd = fit(assign, iterations=1)
    words = lloyd.predict(OTHERS)
    lloyd.save(tmp_path / "words")
    again = vwkit.load(tmp_path / "words")
    assert again.assign.name == assign["use"]
    assert len(again.assign) == K
    assert state(again) == state(lloyd)
    assert (again.predict(OTHERS) == words).all()
    one_by_one = [again.predict(OTHERS[i : i + 1])[0] for i in range(40)]
    assert np.mean(one_by_one == words[:40]) >= 0.95


def test_the_same_seed_gives_the_same_words(case):
    assign = alone(case[0])
    lloyd = fit(assign, init="random", seed=5, threads=1)
    if not lloyd.deterministic:
        pytest.skip(f"{assign['use']} does not declare that it is deterministic")
    other = fit(assign, init="random", seed=5, threads=1)
    assert state(other) == state(lloyd)
    # Nor do chunks, threads or the container of the rows matter.
    stream = vwkit.Stream(
        lambda: (ROWS[i : i + 473] for i in range(0, len(ROWS), 473)), dim=DIM, dtype="uint8"
    )
    assert state(fit(assign, stream, init="random", seed=5, threads=2)) == state(lloyd)
    assert state(fit(assign, init="random", seed=6, threads=1)) != state(lloyd)


def test_an_index_of_another_metric_is_refused():
    for name in offering_l2():
        if name not in vwkit.backends()["index"]:
            continue
        metrics = vwkit.backends()["index"][name].metrics
        for metric in sorted(metrics - {"l2"}):
            with pytest.raises(vwkit.ParameterError) as caught:
                vwkit.create("clusterer", "lloyd", k=2, assign={"use": name, "metric": metric})
            text = str(caught.value)
            assert text.startswith("lloyd.assign: ")
            assert metric in text
            assert "\n" not in text


def test_what_offers_no_l2_is_refused():
    others = {
        name: cls for name, cls in vwkit.backends()["index"].items() if "l2" not in cls.metrics
    }
    assert "inverted" in others
    for name in others:
        with pytest.raises(vwkit.ParameterError, match=r"lloyd\.assign: .*l2") as caught:
            vwkit.create("clusterer", "lloyd", k=2, assign={"use": name})
        assert "\n" not in str(caught.value)
