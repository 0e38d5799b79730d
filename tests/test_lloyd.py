"""Lloyd's k-means: exact, repeatable to the byte, resumable, and without empty clusters."""

from __future__ import annotations

import itertools
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vwkit
from vwkit import jobs, kernels, reference
from vwkit.builtin import lloyd_fit


def make(kind: str, seed: int, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "uint8":
        return rng.integers(0, 256, (n, d)).astype(np.uint8)
    if kind == "few":
        return rng.integers(0, 3, (n, d)).astype(np.uint8)
    if kind == "float":
        return rng.normal(size=(n, d)).astype(np.float32)
    if kind == "offset":
        return (rng.normal(size=(n, d)) + 1e6).astype(np.float32)
    if kind == "far apart":  # tight clusters whose distances dwarf their insides
        return (rng.integers(0, 3, (n, 1)) * 1e6 + rng.normal(size=(n, d))).astype(np.float32)
    if kind == "tiny":
        return (rng.normal(size=(n, d)) * 1e-30).astype(np.float32)
    return (rng.normal(size=(n, d)) * 1e30).astype(np.float32)


KINDS = ("uint8", "few", "float", "offset", "far apart", "tiny", "huge")


def fit(rows, k, weights=None, job=None, **params):
    lloyd = vwkit.create("clusterer", "lloyd", k=k, **params)
    with warnings.catch_warnings(), vwkit.use_job(job or vwkit.Job(threads=1)):
        warnings.simplefilter("ignore", vwkit.FewDistinctRows)
        return lloyd.fit(rows, weights)


def state(lloyd) -> tuple[bytes, ...]:
    return (
        lloyd.centers.tobytes(),
        lloyd.labels.tobytes(),
        np.array(lloyd.objective).tobytes(),
        np.array(lloyd.changed).tobytes(),
    )


def distinct(rows) -> int:
    return len({row.tobytes() for row in rows + rows.dtype.type(0)})


class TestResult:
    @settings(max_examples=150, deadline=None)
    @given(
        kind=st.sampled_from(KINDS),
        seed=st.integers(0, 9999),
        n=st.integers(1, 50),
        d=st.integers(1, 5),
        init=st.sampled_from(["k-means++", "random"]),
        data=st.data(),
    )
    def test_labels_objective_and_clusters(self, kind, seed, n, d, init, data):
        rows = make(kind, seed, n, d)
        k = data.draw(st.integers(1, n))
        iterations = data.draw(st.sampled_from([1, 2, 25]))
        tolerance = data.draw(st.sampled_from([0.0, 1e-4, 0.5]))
        lloyd = fit(rows, k, init=init, iterations=iterations, tolerance=tolerance, seed=seed)
        assert lloyd.centers.shape == (k, d)
        assert lloyd.centers.dtype == np.float32
        assert np.isfinite(lloyd.centers).all()
        # Labels and the last objective belong to the centers.
        assert lloyd.labels.dtype == np.int32
        assert lloyd.labels.tolist() == reference.lloyd.assign(rows, lloyd.centers).tolist()
        assert lloyd.predict(rows).tolist() == lloyd.labels.tolist()
        true = reference.lloyd.objective(rows, lloyd.centers, lloyd.labels)
        spread = float(rows.astype(np.float64).var(axis=0).sum())
        assert lloyd.objective[-1] == pytest.approx(true, rel=1e-8, abs=1e-25 * spread)
        for before, now in itertools.pairwise(lloyd.objective):
            # Centers are float32 and so is what the mean can lose.
            noise = 1e-7 * np.sqrt(before) * float(np.abs(rows.astype(np.float64)).max())
            assert now <= before * (1 + 1e-6) + noise
        # No cluster is empty that need not be.
        counts = np.bincount(lloyd.labels, minlength=k)
        full = min(k, distinct(rows))
        assert (counts > 0).sum() == full
        assert (counts[:full] > 0).all()
        assert (lloyd.centers[full:] == lloyd.centers[full - 1]).all()

    @pytest.mark.parametrize("kind", KINDS)
    def test_k_equal_to_n_gives_every_row_its_own_cluster(self, kind):
        rows = make(kind, 4, 40, 3)
        rows = np.unique(rows, axis=0)
        lloyd = fit(rows, len(rows))
        assert sorted(lloyd.labels.tolist()) == list(range(len(rows)))
        assert lloyd.objective[-1] == 0

    def test_it_is_not_worse_than_the_reference(self):
        rows = make("float", 5, 400, 4)
        lloyd = fit(rows, 12)
        seeds = reference.lloyd.kmeans_plus_plus(rows, 12, 0)
        assert lloyd.objective[-1] <= 1.15 * reference.lloyd.lloyd(rows, seeds, 25)[2][-1]

    @pytest.mark.parametrize("kind", ["tiny", "huge", "offset"])
    def test_seeding_spreads_over_data_of_any_magnitude(self, kind, monkeypatch):
        # Were all seeds the same row, each round of reseeding would count as a step.
        rows = np.repeat(make(kind, 6, 12, 3), 30, axis=0)
        lloyd = fit(rows, 12, iterations=3)
        assert len(lloyd.objective) <= 6
        assert lloyd.objective[-1] == 0

    def test_given_centers(self, tmp_path):
        rows = make("float", 7, 60, 3)
        start = rows[:4].copy()
        one = fit(rows, 4, init=start)
        expected, labels, _ = reference.lloyd.lloyd(rows, start, 25, tolerance=1e-4)
        np.testing.assert_allclose(one.centers, expected, rtol=1e-5, atol=1e-6)
        assert one.labels.tolist() == labels.tolist()
        np.save(tmp_path / "start.npy", start)
        assert state(fit(rows, 4, init=tmp_path / "start.npy")) == state(one)
        assert state(fit(rows, 4, init=start.tolist())) == state(one)
        assert np.array_equal(start, rows[:4])
        with pytest.raises(vwkit.ShapeError, match=r"\(5, 3\)"):
            fit(rows, 5, init=start)
        with pytest.raises(vwkit.DataError, match=r"nowhere\.npy"):
            fit(rows, 4, init=tmp_path / "nowhere.npy")
        with pytest.raises(vwkit.DataError, match="NaN"):
            fit(rows, 4, init=start * np.float32(np.nan))
        with pytest.raises(vwkit.DataError, match="NaN or infinity"):
            fit(rows, 4, init=start.astype(np.float64) + 1e300)
        np.savez(tmp_path / "many.npy.npz", start)
        with pytest.raises(vwkit.DataError, match=r"many\.npy\.npz is not a readable \.npy file"):
            fit(rows, 4, init=tmp_path / "many.npy.npz")

    def test_centers_given_as_an_array_are_saved(self, tmp_path):
        rows = make("uint8", 7, 60, 3)
        one = fit(rows, 40, init=rows[:40].astype(np.float32))
        again = vwkit.load(one.save(tmp_path / "a") or tmp_path / "a")
        assert np.array_equal(again.init, one.init)
        assert state(again) == state(one)

    def test_more_clusters_than_rows_are_refused(self):
        with pytest.raises(vwkit.DataError, match="k = 4 clusters need at least 4 rows; got 3"):
            fit(np.zeros((3, 2), np.float32), 4)


class TestFewDistinctRows:
    def test_surplus_centers_repeat_the_last_and_one_warning_counts(self):
        rows = np.repeat(np.array([[1, 2], [3, 4], [250, 0]], np.uint8), 20, axis=0)
        lloyd = vwkit.create("clusterer", "lloyd", k=10)
        with pytest.warns(vwkit.FewDistinctRows, match="3 distinct rows for k = 10") as caught:
            lloyd.fit(rows)
        assert len(caught) == 1
        assert (lloyd.centers[3:] == lloyd.centers[2]).all()
        assert sorted(Counter(lloyd.labels.tolist())) == [0, 1, 2]
        assert lloyd.objective[-1] == 0

    def test_constant_data(self):
        lloyd = vwkit.create("clusterer", "lloyd", k=3)
        with pytest.warns(vwkit.FewDistinctRows, match="1 distinct"):
            lloyd.fit(np.full((9, 2), 1e-20, np.float32))
        assert lloyd.labels.tolist() == [0] * 9
        assert (lloyd.centers == np.float32(1e-20)).all()

    def test_a_rare_row_among_many_duplicates_gets_its_cluster(self):
        rows = np.zeros((40_000, 2), np.uint8)
        rows[31_234], rows[39_999] = (0, 1), (1, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lloyd = vwkit.create("clusterer", "lloyd", k=3).fit(rows)
        assert sorted(np.bincount(lloyd.labels).tolist()) == [1, 1, 39_998]

    def test_minus_zero_is_no_row_of_its_own(self):
        rows = np.array([[0.0], [-0.0], [1.0]], np.float32)
        lloyd = vwkit.create("clusterer", "lloyd", k=3)
        with pytest.warns(vwkit.FewDistinctRows, match="2 distinct"):
            lloyd.fit(rows)
        assert lloyd.labels[0] == lloyd.labels[1]


class TestSameBytes:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("kind", ["uint8", "float", "offset", "few"])
    def test_for_any_threads_chunks_and_source(self, kind, weighted):
        rows = make(kind, 8, 600, 6)
        weights = np.random.default_rng(1).random(600) if weighted else None
        whole = state(fit(rows, 25, weights))

        def chunks():
            yield from np.array_split(rows, [1, 2, 300, 555])

        stream = vwkit.Stream(chunks, dim=6, dtype=rows.dtype)
        for threads, memory in [(1, 60_000), (2, 200_000), (3, None)]:
            job = vwkit.Job(threads=threads, memory=memory)
            assert state(fit(rows, 25, weights, job)) == whole
            assert state(fit(stream, 25, weights, job)) == whole

    @pytest.mark.parametrize("kind", ["uint8", "float"])
    def test_exact_index_gives_the_same_as_no_index(self, kind):
        rows = make(kind, 9, 300, 4)
        plain = fit(rows, 20)
        indexed = fit(rows, 20, assign={"use": "exact"})
        assert state(indexed) == state(plain)
        assert indexed.predict(rows).tolist() == plain.predict(rows).tolist()

    def test_the_seed_counts_and_the_global_generator_is_left_alone(self):
        rows = make("float", 10, 200, 4)
        before = np.random.get_state()[1].tolist()  # noqa: NPY002 - the point of the test
        assert state(fit(rows, 9, seed=1)) == state(fit(rows, 9, seed=1))
        assert state(fit(rows, 9, seed=1)) != state(fit(rows, 9, seed=2))
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002

    def test_a_second_fit_replaces_the_first(self):
        a, b = make("float", 11, 90, 3), make("float", 12, 80, 5)
        lloyd = vwkit.create("clusterer", "lloyd", k=7)
        assert state(lloyd.fit(a).fit(b)) == state(fit(b, 7))


class TestWeights:
    def test_whole_weights_are_repetitions(self):
        rows = make("uint8", 13, 80, 3)
        times = np.random.default_rng(2).integers(1, 4, 80)
        start = rows[:6].astype(np.float32)
        weighted = fit(rows, 6, times.astype(np.float64), init=start, tolerance=0)
        repeated = fit(np.repeat(rows, times, axis=0), 6, init=start, tolerance=0)
        assert np.array_equal(weighted.centers, repeated.centers)
        np.testing.assert_allclose(weighted.objective, repeated.objective, rtol=1e-9)
        assert np.repeat(weighted.labels, times).tolist() == repeated.labels.tolist()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 9999), st.integers(2, 30), st.integers(1, 3), st.data())
    def test_rows_without_weight_influence_nothing(self, seed, n, d, data):
        rng = np.random.default_rng(seed)
        rows = make(data.draw(st.sampled_from(["few", "float", "far apart"])), seed, n, d)
        weights = rng.random(n) * rng.integers(0, 2, n)
        weights[0] = 1.0
        k = data.draw(st.integers(1, n))
        lloyd = fit(rows, k, weights, init=data.draw(st.sampled_from(["k-means++", "random"])))
        held = weights > 0
        assert lloyd.labels.tolist() == reference.lloyd.assign(rows, lloyd.centers).tolist()
        used = set(lloyd.labels[held].tolist())
        assert len(used) == min(k, distinct(rows[held]))
        true = reference.lloyd.objective(rows, lloyd.centers, lloyd.labels, weights)
        spread = float(rows.astype(np.float64).var(axis=0).sum())
        assert lloyd.objective[-1] == pytest.approx(true, rel=1e-6, abs=1e-15 * (1 + spread))
        # Reseeding does not chase rows that weigh nothing.
        assert len(lloyd.objective) < 200

    @pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e30, 1e290])
    def test_only_proportions_count(self, factor):
        rows = make("float", 14, 60, 3)
        weights = np.random.default_rng(3).random(60) + 0.1
        one, other = fit(rows, 5, weights), fit(rows, 5, weights * factor)
        np.testing.assert_allclose(one.centers, other.centers, rtol=1e-6)
        np.testing.assert_allclose(one.objective, other.objective, rtol=1e-9)

    def test_a_weight_too_small_to_count_ends_too(self):
        rows = np.array([[0.0], [1.0], [2.0]], np.float32)
        lloyd = fit(rows, 3, np.array([1.0, 1.0, 1e-40]))
        assert len(lloyd.objective) < 30

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ([1.0], r"shape \(3,\)"),
            ([1, 2, -1], "row 2 is -1"),
            ([1, np.nan, 1], "row 1 is nan"),
            ([0, 0, 0], "all are 0"),
            ("abc", "numbers"),
            ([[1], [2, 3]], "numbers"),
        ],
    )
    def test_wrong_weights(self, weights, message):
        with pytest.raises(vwkit.DataError, match=message):
            fit(np.eye(3, dtype=np.float32), 2, weights)


class TestResume:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("kind", ["uint8", "float", "offset", "few"])
    def test_from_any_step_the_same_bytes(self, kind, weighted, tmp_path, monkeypatch):
        monkeypatch.setattr(jobs, "_CHECKPOINT_SHARE", 0)
        rows = make(kind, 15, 300, 3)
        weights = np.random.default_rng(1).random(300) if weighted else None
        arguments = (rows, 40, weights)
        params = {"tolerance": 1e-6, "init": "random"}
        whole = state(fit(*arguments, **params))
        for stop in itertools.count(1):
            folder = tmp_path / str(stop)
            passes = 0

            class Stopping(vwkit.Job):
                def checkpoint(self, step, arrays):
                    nonlocal passes
                    super().checkpoint(step, arrays)
                    passes += 1
                    if passes == stop:  # noqa: B023 - called within this round
                        raise vwkit.Interrupted("stop")

            try:
                fit(*arguments, Stopping(threads=1, folder=folder), **params)
            except vwkit.Interrupted:
                pass
            else:
                break
            assert state(fit(*arguments, vwkit.Job(threads=2, folder=folder), **params)) == whole
        assert stop > 3

    def test_a_checkpoint_of_another_fit_is_not_used(self, tmp_path, monkeypatch):
        monkeypatch.setattr(jobs, "_CHECKPOINT_SHARE", 0)
        fit(make("uint8", 1, 50, 3), 4, job=vwkit.Job(threads=1, folder=tmp_path))
        other = make("uint8", 2, 60, 3)
        assert state(fit(other, 4, job=vwkit.Job(threads=1, folder=tmp_path))) == state(
            fit(other, 4)
        )

    def test_an_interruption_is_heard_within_a_pass(self):
        job = vwkit.Job(threads=1, memory=1000)
        job.stop.set()
        with pytest.raises(vwkit.Interrupted):
            fit(make("uint8", 1, 50, 3), 4, job=job)


@vwkit.backend("forgetful")
class Forgetful(vwkit.Index):
    """Finds the first vector, or nothing."""

    never: bool = False

    def _build(self, vectors):
        self._first = vectors[:1]

    def _search(self, queries, k):
        rows = np.full((len(queries), 1), -1 if self.never else 0, np.int64)
        return rows, np.zeros((len(queries), 1), np.float32)


class TestAnyIndex:
    def test_no_cluster_stays_empty_under_the_worst_index(self):
        rows = make("uint8", 16, 50, 3)
        lloyd = fit(rows, 12, assign=Forgetful(), iterations=4)
        assert (np.bincount(lloyd.labels, minlength=12) > 0).all()
        assert len(lloyd.objective) < 60

    def test_what_an_index_loses_is_looked_up_exactly(self):
        rows = make("uint8", 16, 50, 3)
        assert state(fit(rows, 12, assign=Forgetful(never=True))) == state(fit(rows, 12))

    def test_another_metric_is_refused(self):
        with pytest.raises(vwkit.ParameterError, match=r"lloyd\.assign: .*metric l2.*cosine"):
            vwkit.create("clusterer", "lloyd", k=2, assign={"use": "exact", "metric": "cosine"})


class TestMemory:
    def test_a_map_of_bytes_is_never_a_float_copy(self, tmp_path):
        n, d = 200_000, 32
        path = tmp_path / "rows.npy"
        rows = np.lib.format.open_memmap(path, "w+", np.uint8, (n, d))
        rows[:] = np.random.default_rng(0).integers(0, 256, (n, d), np.uint8)
        mapped = np.load(path, mmap_mode="r")
        job = vwkit.Job(threads=1, memory=32 << 20)
        fit(mapped[:1000], 4, iterations=1)  # imports and the like
        tracemalloc.start()
        fit(mapped, 4, job=job, iterations=2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # Labels take 0.8 MB, the sample 2.6 MB, chunks a share of the job's budget.
        assert peak < n * d * 4 // 2

    def test_chunks_keep_to_the_budget(self, monkeypatch):
        sizes = []
        real = kernels.assign_and_accumulate

        def spy(chunk, *aligned, **arrays):
            sizes.append(len(chunk))
            return real(chunk, *aligned, **arrays)

        monkeypatch.setattr(lloyd_fit.kernels, "assign_and_accumulate", spy)
        fit(make("uint8", 1, 500, 4), 3, job=vwkit.Job(threads=2, memory=64_000))
        assert max(sizes) == 64_000 // (8 * 2 * 8 * 8)
