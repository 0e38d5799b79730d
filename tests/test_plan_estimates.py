"""Every installed backend can be estimated with its default parameters, and tried out."""

import inspect
import math

import numpy as np
import pytest

import vwkit
from vwkit.estimates import Estimate
from vwkit.jobs import COMPILED
from vwkit.planning import trials
from vwkit.planning.data import enlarged, made_rows, made_sparse
from vwkit.planning.measuring import Measurements
from vwkit.planning.spent import Spent
from vwkit.planning.trials import Trial, estimated, shrunk, try_out
from vwkit.plugins import registered, unavailable

ROLES = ("transform", "quantizer", "clusterer", "index")
NEEDED = {"k": 4, "m": 4, "similarity": 0.5}


def made(role, cls):
    """Return one with as few parameters as it takes."""
    params = {}
    for name, one in cls.parameters().items():
        if one.default is inspect.Parameter.empty or name == "similarity":
            if one.nested:
                params[name] = {"use": "lloyd", "k": 4}
            elif name in NEEDED:
                params[name] = NEEDED[name]
            else:
                pytest.skip(f"needs {name}")
    return vwkit.create(role, cls.name, **params)


def all_of(roles):
    found = vwkit.backends()
    return [
        pytest.param(role, cls, id=f"{role}-{name}")
        for role in roles
        for name, cls in found.get(role, {}).items()
    ]


@pytest.mark.parametrize(("role", "cls"), all_of(ROLES))
def test_an_estimate_is_plain_and_grows(role, cls):
    backend = made(role, cls)
    before = None
    for rows in (1, 1000, 10**6, 10**9):
        found = backend._estimate(rows, 32, 4)
        if found is None:
            return
        assert isinstance(found, Estimate)
        for name in ("work", "each_pass", "passes", "least", "reads", "reads_each"):
            value = getattr(found, name)
            assert math.isfinite(value), name
            assert value >= 0, name
        if found.memory is not None:
            assert 0 <= found.memory < 1e15
            # Some refuse to begin with less than they need at most.
            assert found.least <= max(found.memory, 4 * rows * 32) * 1.01 + (32 << 20)
        if before is not None:
            assert found.total() >= before.total()
        before = found
    assert backend._row_work(32) > 0


@pytest.mark.parametrize(("role", "cls"), all_of(ROLES))
def test_a_backend_is_tried_out_on_few_rows(role, cls):
    if unavailable(cls):
        pytest.skip(unavailable(cls))
    backend = made(role, cls)
    if getattr(backend, "consumes", "vectors") == "codes":
        pytest.skip("of codes: tests/test_plan.py")
    if role == "quantizer" and "ks" in cls.parameters():
        backend = vwkit.create(role, cls.name, **{**backend.params(), "ks": 16})
    dtype = np.dtype(cls.dtypes[0] if isinstance(cls.dtypes, tuple) else "float32")
    fits = backend._needs_fit()
    told = Trial(
        try_out(
            backend, lambda n: made_rows(n, 32, dtype), 3000, 0.0, fits=fits,
            applied=role in ("quantizer", "transform"),
        )
    )  # fmt: skip
    assert told
    assert not backend._fitted
    estimate = estimated(backend, 3000, 32, dtype.itemsize)
    spent = told.time(estimate, 3000)
    assert 0 <= spent.clock < 1000
    assert 0 <= spent.cpu < 1000
    assert told.memory(3000) >= 0
    if role in ("quantizer", "transform"):
        assert told.each(backend, 32).cpu > 0


@vwkit.backend("squares")
class Squares(vwkit.Clusterer):
    """Takes time with the square of the rows, and says so."""

    k: vwkit.Positive = 3

    def _fit(self, data, weights):
        self.centers, self.labels = data[: self.k], np.zeros(len(data), np.int32)
        self.objective = [1.0, 0.5]

    def _estimate(self, rows, dim, itemsize):
        return Estimate(each_pass=rows**2, passes=10, memory=rows, disk=7)


@vwkit.backend("compiled")
class Compiled(Squares):
    """Tells that all the time it took, and more, went into compiling what is kept."""

    def _fit(self, data, weights):
        vwkit.job().note(COMPILED, seconds=1000.0)
        super()._fit(data, weights)


def test_what_is_compiled_in_a_trial_is_not_done_again():
    with registered(Compiled):
        rows = made_rows(600, 8, np.dtype(np.float32))
        told = try_out(Compiled(), lambda n: rows[:n], 600, 0.0)
    assert told["cold"] == [0, 0]
    assert [one["time"] for one in told["points"]] == [[0, 0]] * len(told["points"])
    assert told["points"]


@vwkit.backend("slow-at-first")
class SlowAtFirst(vwkit.Transform):
    """Takes long the first time, as what compiles does."""

    trainable = False

    def _transform(self, vectors):
        FakeClock.spent = Spent(1.0 if hasattr(self, "_ready") else 1000.0)
        self._ready = True
        return vectors


class FakeClock:
    """Shows what the backend says."""

    spent = Spent(0.0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_the_first_use_tells_nothing_of_the_others(monkeypatch):
    monkeypatch.setattr(trials, "Clock", FakeClock)
    rows = made_rows(600, 8, np.dtype(np.float32))
    with registered(SlowAtFirst):
        told = try_out(SlowAtFirst(), lambda n: rows[:n], 600, 0.0, fits=False, applied=True)
    assert Trial(told).each(SlowAtFirst(), 8).clock == pytest.approx(1 / 256)


def point(rows, seconds, passes, cut=0.0):
    return {
        "rows": rows, "work": passes * rows**2, "time": [seconds, 2 * seconds], "passes": passes, "most": 10.0,
        "cut": cut,
    }  # fmt: skip


def test_time_grows_as_the_backend_says():
    trial = Trial(
        {"points": [point(100.0, 1.0, 10.0), point(200.0, 4.0, 10.0)], "cold": [0.5, 0.5]}
    )
    spent = trial.time(Squares()._estimate(2000, 4, 4), 2000)
    assert spent.clock == pytest.approx(400.5)
    assert spent.cpu == pytest.approx(800.5)


def test_time_that_is_always_spent_does_not_grow():
    trial = Trial({"points": [point(100.0, 2.0, 10.0), point(200.0, 5.0, 10.0)]})
    assert trial.time(Squares()._estimate(2000, 4, 4), 2000).clock == pytest.approx(401)


def test_more_rows_take_more_passes_but_not_more_than_there_are():
    trial = Trial({"points": [point(100.0, 1.0, 2.0), point(200.0, 1.0, 3.0, cut=1.0)]})
    assert trial.passes(100, 10) == 2
    assert trial.passes(1000, 10) == pytest.approx(2 * 10**0.3)
    assert trial.passes(10**9, 10) == 10


def test_all_rows_tried_out_is_the_answer():
    trial = Trial({"points": [point(100.0, 2.0, 4.0)], "cold": [1.0, 2.0]})
    assert trial.time(Squares()._estimate(100, 4, 4), 100) == Spent(3.0, 6.0)


def test_a_copy_for_few_rows_has_fewer_clusters_and_its_other_parameters():
    lloyd = vwkit.create(
        "clusterer", "lloyd", k=500, iterations=9, assign={"use": "exact"}, init=np.zeros((500, 2))
    )
    small = shrunk(lloyd, 400, 10_000, 3)
    assert (small.k, small.iterations, small.init) == (100, 3, "k-means++")
    assert small.assign is not lloyd.assign
    assert shrunk(lloyd, 400, 400).k == 500


def test_a_backend_that_fails_on_few_rows_is_told_and_not_remembered():
    measured = Measurements(1.0, vwkit.Job(threads=1))
    calls = []

    def fails(seconds):
        calls.append(seconds)
        raise ValueError("too few\nrows")

    for _ in range(2):
        assert measured.of({"what": 1}, fails) == {"error": "ValueError: too few"}
    assert len(calls) == 2


def test_rows_like_those_there_are():
    rows = np.array([[0, 255], [10, 250]], np.uint8)
    more = enlarged(rows, 500)
    assert more.dtype == np.uint8
    assert more.shape == (500, 2)
    assert (more[:2] == rows).all()
    assert more[:, 0].max() <= 255
    assert enlarged(more, 3).shape == (3, 2)
    bags = made_sparse(50, 1000, 20)
    assert bags.shape == (50, 1000)
    assert (np.diff(bags.indptr) <= 20).all()
