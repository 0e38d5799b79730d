"""What the tests of an index are made of: data of its kind, and a check of every answer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import vwkit
from vwkit.index import Index
from vwkit.reference import search as reference
from vwkit.reference.distances import distances
from vwkit.testing.asking import Answer
from vwkit.testing.comparing import same_form, same_numbers
from vwkit.testing.data import Rows
from vwkit.testing.long_work import LongWork
from vwkit.testing.vector_suite import takes_floats
from vwkit.types import Array, Matches

__all__ = ["ROWS", "IndexAnswers", "draw_ids", "slack_of"]

# Every test builds more rows than a library might treat as a special case, unless it is about that.
ROWS = (21, 60)


class IndexAnswers(LongWork, suite=True):
    """Helpers of `IndexTests`."""

    role = Index
    _first_call = "build"

    min_recall: ClassVar[float | None] = None

    def _metrics(self) -> list[str]:
        """Return the metrics that these parameters allow."""
        if "metric" in self.params:
            return [self.params["metric"]]
        found = [self._make().metric]
        others = sorted(self.backend.metrics - set(found))
        return found + [one for one in others if self._make_or_none(metric=one) is not None]

    def _kind(self, index: Any) -> str:
        return "normal" if takes_floats(index) else "bytes"

    def _fitting(self, index: Any, drawn: Rows | NDArray[np.float32]) -> Array:
        """Turn drawn numbers into what the index takes: floats, or bytes."""
        numbers = drawn.make() if isinstance(drawn, Rows) else drawn
        numbers = _stretched(self._enough(numbers), self._step())
        if takes_floats(index):
            return numbers
        whole: Array = np.clip(np.floor(np.abs(numbers) * 7), 0, 255).astype(np.uint8)
        return whole

    def _enough(self, drawn: NDArray[np.float32]) -> NDArray[np.float32]:
        missing = self.min_rows - len(drawn)
        if missing <= 0:
            return drawn
        return np.concatenate([drawn, self._numbers(5, missing, drawn.shape[1])])

    def _rows(self, seed: int = 0, rows: int | None = None, dim: int | None = None) -> Array:
        found = super()._rows(seed, rows, dim)
        return found if takes_floats(self._make()) else found.astype(np.uint8)

    def _queries(self, index: Any, seed: int, count: int, dim: int, scale: float) -> Array:
        found = self._numbers(seed, count, dim, self._kind(index), max(scale, 1e-3))
        return found if takes_floats(index) else found.astype(np.uint8)

    def _fit(self, backend: Any, data: Any) -> Any:
        return backend.build(data)

    def _verify(self, fitted: Any, data: Array) -> None:
        __tracebackhide__ = True
        scale = float(np.abs(data).max())
        queries = self._queries(fitted, 8, 6, data.shape[1], scale)
        queries[:3] = data[:3]
        self._check(fitted, _plain(fitted, data), queries, 7)

    def _assert_same(self, first: Answer, second: Answer, exact: bool, why: str) -> None:
        __tracebackhide__ = True
        for before, after in zip(first, second, strict=True):
            same_form(before, after, why)
        ids, far = (first[0], second[0]), (first[1], second[1])
        if exact:
            same_numbers(*ids, 0.0, f"other ids {why}")
            same_numbers(*far, 0.0, f"other distances {why}")
            return
        same_numbers(ids[0] < 0, ids[1] < 0, 0.0, f"more or fewer neighbours {why}")
        held = ids[0] >= 0
        largest = float(np.abs(far[0][held]).max(initial=1))
        limit = (1e-5 + 8 * self._make().distance_error) * largest
        same_numbers(far[0][held], far[1][held], limit, f"other distances {why}")

    def _trained(self, made: Any) -> Any:
        # Small data are searched without a mistake, whatever the seed.
        return made.build(self._large(made)[0])

    def _trial_answer(self, fitted: Any) -> Answer:
        return self._use(fitted, self._large(fitted)[1])

    # Checking an answer

    def _check(
        self,
        index: Any,
        held: Array,
        queries: Array,
        k: int,
        *,
        ids: NDArray[np.int64] | None = None,
        allowed: NDArray[np.int64] | None = None,
        sparse: bool = False,
        **late: Any,
    ) -> None:
        """Search twice, with different queries of equal shape, and compare with the reference."""
        __tracebackhide__ = True
        queries = np.ascontiguousarray(queries)
        bits = queries.dtype == np.uint8
        others = np.ascontiguousarray(255 - queries[::-1] if bits else -queries[::-1])
        options: dict[str, Any] = dict(late)
        if allowed is not None:
            options["allowed"] = allowed
        kept = queries.copy()
        give = vwkit.Sparse.from_dense if sparse else np.asarray
        found = [index.search(give(queries), k, **options)]
        found.append(index.search(give(others), k, **options))
        assert np.array_equal(queries, kept), "search changed the queries"
        for matches, asked in zip(found, (queries, others), strict=True):
            self._check_matches(index, held, asked, matches, k, ids, allowed)

    def _check_matches(
        self,
        index: Any,
        held: Array,
        queries: Array,
        matches: Matches,
        k: int,
        ids: NDArray[np.int64] | None,
        allowed: NDArray[np.int64] | None,
    ) -> None:
        __tracebackhide__ = True
        names = np.arange(len(held)) if ids is None else ids
        same_form(np.empty((len(queries), k), np.int64), matches.ids, "as ids")
        same_form(np.empty((len(queries), k), np.float32), matches.distances, "as distances")
        table = distances(queries, held, index.metric)
        slack = slack_of(index, queries, held, table)
        permitted = np.ones(len(held), bool) if allowed is None else np.isin(names, allowed)
        place = {int(name): row for row, name in enumerate(names)}
        for i in range(len(queries)):
            asked = f"query {i} of {len(queries)} ({len(held)} vectors, k = {k}, {index.metric})"
            given = matches.ids[i].tolist()
            count = sum(name != -1 for name in given)
            found, far = given[:count], matches.distances[i]
            assert -1 not in found, f"{asked}: neighbours stand behind places without one: {given}"
            empty, held_far = far[count:], far[:count]
            no_neighbours = bool((empty == np.inf).all())
            assert no_neighbours, (
                f"{asked}: where there is no neighbour the distance is +inf; got {empty}"
            )
            finite = bool(np.isfinite(held_far).all())
            assert finite, f"{asked}: the distances of the ids {found} are {held_far}"
            assert len(set(found)) == count, f"{asked}: an id is listed twice: {found}"
            strangers = [name for name in found if name not in place]
            assert not strangers, f"{asked}: {strangers[:1]} is no id of the index (or was removed)"
            rows = [place[name] for name in found]
            others = [name for name, row in zip(found, rows, strict=True) if not permitted[row]]
            assert not others, f"{asked}: {others[0]} is listed, which was not allowed"
            ascending = bool((np.diff(held_far) >= 0).all())
            assert ascending, f"{asked}: distances are not ascending: {held_far}"
            wrong = np.abs(held_far - table[i, rows]) > slack[i, rows]
            if wrong.any():
                j = int(np.flatnonzero(wrong)[0])
                _refuse_distance(asked, index.metric, found[j], far[j], table[i, rows[j]])
            if index.metric in ("l2", "hamming") and count:
                assert far[0] >= 0, (
                    f"{asked}: an {index.metric} distance is never negative: {far[0]}"
                )
            if index.exact:
                self._check_nearest(
                    index, held, queries[i], held_far, k, table[i], slack[i], permitted, asked
                )

    def _check_nearest(
        self,
        index: Any,
        held: Array,
        query: Array,
        far: Array,
        k: int,
        true: NDArray[np.float64],
        slack: NDArray[np.float64],
        permitted: NDArray[np.bool_],
        asked: str,
    ) -> None:
        """Check that an exact index found the nearest ones; ties may be broken either way."""
        __tracebackhide__ = True
        choices = [permitted]
        if index.supports_sparse:
            # An index of words need not list what shares no word with the query.
            choices.append(permitted & ((held != 0) & (query != 0)).any(axis=1))
        for choice in choices:
            best = np.sort(true[choice])[:k]
            limit = slack[choice].max(initial=0.0)
            if len(best) == len(far) and (np.abs(best - far) <= limit).all():
                return
        best = np.sort(true[permitted])[:k]
        raise AssertionError(
            f"{asked}: the {len(best)} nearest have the distances {best.round(5)}; "
            f"returned were {far}"
        )

    def _recall(
        self,
        index: Any,
        held: Array,
        queries: Array,
        ids: NDArray[np.int64] | None = None,
        allowed: NDArray[np.int64] | None = None,
    ) -> float:
        options = {} if allowed is None else {"allowed": allowed}
        found = index.search(queries, 10, **options).ids
        table = distances(queries[:1], held, index.metric)
        near = 1e-6
        if index.exact:
            near += 2 * float(slack_of(index, queries[:1], held, table).max())
        return reference.recall(found, queries, held, index.metric, ids, allowed, near)

    def _judge_recall(self, what: str, value: float, wanted: float) -> None:
        __tracebackhide__ = True
        said = " (`min_recall` of the test class, 0.9 by default; 1 for an exact index)"
        self._judge(what, value, at_least=wanted, said=said)

    def _wanted_recall(self, index: Any) -> float:
        if self.min_recall is not None:
            return self.min_recall
        return 1.0 if index.exact else 0.9

    def _large(self, index: Any, rows: int = 1000) -> tuple[Array, Array]:
        """Return the fixed seeded set: 1,000 vectors and 100 queries of 16 dimensions."""
        dim = -(-16 // self._step()) * self._step()
        every = self._noise(20, self._count(rows) + 100, dim)
        if not takes_floats(index):
            rng = np.random.default_rng(self._seed(20))
            every = rng.integers(0, 256, every.shape).astype(np.uint8)
        return every[:-100], every[-100:]


def draw_ids(seed: int, count: int) -> NDArray[np.int64]:
    """Return unique ids in no order, some of them near the largest there can be."""
    rng = np.random.default_rng([seed, count])
    small = rng.permutation(4 * count)[:count].astype(np.int64)
    return np.where(rng.random(count) < 0.3, small + (2**62 - 4 * count), small)


def slack_of(
    index: Any, queries: Array, held: Array, table: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far each distance may be off: distance_error·(‖q‖² + ‖x‖²), and float32 itself.

    Of the normalised vectors for cosine, of the bits for hamming: these do not grow with the norms.
    """
    if index.metric == "cosine":
        size: Any = 2.0
    elif index.metric == "hamming":
        size = 8.0 * held.shape[1]
    else:
        q, x = queries.astype(np.float64), held.astype(np.float64)
        size = (q * q).sum(axis=1)[:, None] + (x * x).sum(axis=1)[None]
    least = 0 if index.metric == "l2" else 1
    slack: NDArray[np.float64] = 2.0**-21 * np.maximum(least, np.abs(table))
    slack += index.distance_error * size
    return slack


def _refuse_distance(asked: str, metric: str, name: int, far: float, true: float) -> None:
    """Fail, and say what a wrong distance may be instead."""
    __tracebackhide__ = True
    near = 1e-3 * abs(true)
    guess = ""
    if metric == "cosine" and true == 1 and far == 0:
        guess = " (that to a zero vector is 1)"
    elif metric == "l2" and abs(far**2 - true) <= near:
        guess = " (its square root was returned: l2 is the squared distance)"
    elif metric != "l2" and abs((1 - far) - true) <= max(near, 1e-6):
        guess = " (the similarity was returned: the distance is 1 minus it)"
    elif metric == "ip" and abs((1 + far) - true) <= max(near, 1e-6):
        guess = " (1 is missing: the distance is 1 - dot)"
    elif metric == "cosine" and abs(far**2 / 2 - true) <= max(near, 1e-6):
        guess = " (that is sqrt(2 - 2·cos); the distance is 1 - cos)"
    raise AssertionError(
        f"{asked}: id {name} was returned with distance {far:.7g}, but its {metric} distance is "
        f"{true:.7g}{guess}"
    )


def _plain(index: Any, data: Array) -> Array:
    """Return data as the reference takes them: bytes for hamming and for indexes of bytes."""
    return data if takes_floats(index) else data.astype(np.uint8)


def _stretched(rows: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Cut or repeat columns, so that their number is a multiple of `step`."""
    wanted = max(1, rows.shape[1] // step) * step
    return np.ascontiguousarray(np.tile(rows, (1, -(-wanted // rows.shape[1])))[:, :wanted])
