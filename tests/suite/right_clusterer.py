"""Clusterers that are right, some of them unusual."""

from __future__ import annotations

from typing import Annotated

import annotated_types
import numpy as np

import vwkit
from vwkit.clusterer import warn_few_distinct
from vwkit.reference import lloyd as reference
from vwkit.reference import pqkmeans as codes_reference
from vwkit.reference.distances import distances


@vwkit.backend("kmeans")
class KMeans(vwkit.Clusterer):
    """The reference k-means behind the interface; slow."""

    supports_weights = True
    deterministic = True

    k: vwkit.Positive
    iterations: vwkit.Positive = 30

    def _fit(self, data, weights):
        start = self._start(data, weights)
        centers, _, objective = reference.lloyd(data, start, self.iterations, weights)
        self._finish(data, weights, centers, objective)

    def _start(self, data, weights):
        return reference.kmeans_plus_plus(data, self.k, self.seed, weights)

    def _assigned(self, data):
        return reference.assign(data, self.centers)

    def _finish(self, data, weights, centers, objective):
        self.centers = centers.astype(np.float32)
        self.labels = self._assigned(data)
        last = reference.objective(data, self.centers, self.labels, weights)
        self.objective = [*objective[:-1], last]
        self._repeat_surplus(weights)

    def _repeat_surplus(self, weights):
        used = np.unique(self.labels if weights is None else self.labels[weights > 0])
        if len(used) < self.k:
            self.centers[np.setdiff1d(np.arange(self.k), used)] = self.centers[used[-1]]
            self._warn(len(used))

    def _warn(self, distinct):
        warn_few_distinct(distinct, self.k)


@vwkit.backend("batches")
class Batches(vwkit.Clusterer):
    """Reads a Stream chunk by chunk in every pass; not deterministic over chunk sizes."""

    streams = True
    dtypes = ("uint8", "float32")

    k: vwkit.Positive

    def _fit(self, data, weights):
        rows = vwkit.Stream.from_array(data) if isinstance(data, np.ndarray) else data
        distinct = np.unique(self._sample(rows), axis=0)
        start = reference.kmeans_plus_plus(distinct, self.k, self.seed)
        self.centers = start.astype(np.float32)
        self.objective = []
        for turn in range(31):
            sums, counts, total, labels = 0.0, 0.0, 0.0, []
            worst = []
            for chunk in rows:
                table = distances(chunk, self.centers, "l2")
                label = table.argmin(axis=1)
                labels.append(label)
                own = table[np.arange(len(chunk)), label]
                total += own.sum()
                worst += [(float(d), chunk[i].astype(np.float32)) for i, d in enumerate(own)]
                member = np.eye(self.k)[label]
                sums, counts = sums + self._sum(member, chunk), counts + member.sum(axis=0)
            self.labels = np.concatenate(labels).astype(np.int32)
            self.objective.append(total / len(self.labels))
            empty = np.flatnonzero(counts == 0)
            if len(empty) and max(far for far, _ in worst) > 0:
                self.centers[empty[0]] = max(worst, key=lambda one: one[0])[1]
                continue
            if turn >= 25:
                break
            full = counts > 0
            self.centers[full] = (sums[full] / counts[full, None]).astype(np.float32)
        used = np.unique(self.labels)
        if len(used) < self.k:
            self.centers[np.setdiff1d(np.arange(self.k), used)] = self.centers[used[-1]]
            warn_few_distinct(len(used), self.k)

    def _sample(self, rows):
        return rows.take(np.arange(rows.count()))

    def _sum(self, member, chunk):
        return member.T @ chunk


@vwkit.backend("code-kmeans")
class CodeKMeans(vwkit.Clusterer):
    """The reference k-means of codes, whose centers are codes."""

    consumes = "codes"
    supports_weights = True
    deterministic = True

    k: vwkit.Positive

    def _fit(self, data, weights):
        book = self.quantizer.codebook
        allowed = data if weights is None else data[weights > 0]
        start = np.unique(allowed, axis=0)
        start = np.random.default_rng(self.seed).permutation(start)[: self.k]
        start = np.concatenate([start, np.repeat(start[-1:], self.k - len(start), axis=0)])
        found = codes_reference.pqkmeans(data, book, start, 25, weights)
        self.centers, self.labels, self.objective = found
        used = np.unique(self.labels if weights is None else self.labels[weights > 0])
        if len(used) < self.k:
            self.centers[np.setdiff1d(np.arange(self.k), used)] = self.centers[used[-1]]
            warn_few_distinct(len(used), self.k)

    def _predict(self, data):
        return codes_reference.assign(data, self.centers, self.quantizer.codebook)


@vwkit.backend("chain")
class Chain(vwkit.Clusterer):
    """Single linkage cut at a height: no centers, no predict, and a tree."""

    fixed_k = False
    has_centers = False
    supports_predict = False
    hierarchical = True
    deterministic = True
    late = frozenset({"height"})

    height: Annotated[float, annotated_types.Ge(0)] = 40.0

    def _fit(self, data, weights):
        n = len(data)
        table = np.sqrt(distances(data, data, "l2"))
        name, size = np.arange(n), np.ones(2 * n)
        tree = np.empty((n - 1, 4))
        for step in range(n - 1):
            apart = np.where(name[:, None] != name[None], table, np.inf)
            i, j = np.unravel_index(int(apart.argmin()), apart.shape)
            left, right = sorted((name[i], name[j]))
            size[n + step] = size[left] + size[right]
            tree[step] = left, right, apart[i, j], size[n + step]
            name[(name == left) | (name == right)] = n + step
        self.tree = tree
        self.objective = []

    @property
    def labels(self):
        return self._cut(self.height)

    def _cut(self, most):
        n = len(self.tree) + 1
        group = list(range(2 * n - 1))
        # From the top: what is joined below the height belongs to what it is joined into.
        for step in range(n - 2, -1, -1):
            left, right, height, _ = self.tree[step]
            if height <= most:
                group[int(left)] = group[int(right)] = group[n + step]
        _, labels, counts = np.unique(group[:n], return_inverse=True, return_counts=True)
        return np.where(counts[labels] > 1, labels, -1).astype(np.int32)


@vwkit.backend("sketchy")
class Sketchy(KMeans):
    """Labels some rows with their second-nearest center, and says how many at most."""

    supports_weights = False
    label_agreement = 0.8

    def _assigned(self, data):
        return self._predict(data)

    def _predict(self, data):
        table = distances(data, self.centers, "l2")
        order = np.argsort(table, axis=1, kind="stable")
        # By the row alone, and only where both are about as near.
        near, second = table[np.arange(len(data)), order[:, 0]], order[:, min(1, self.k - 1)]
        other = table[np.arange(len(data)), second] <= 1.05 * near
        return np.where(other, second, order[:, 0]).astype(np.int32)


@vwkit.backend("only-labels")
class OnlyLabels(KMeans):
    """Has centers, and cannot label new rows."""

    supports_predict = False


@vwkit.backend("directions")
class Directions(vwkit.Clusterer):
    """Spherical k-means: cosine distance, centers of length one."""

    deterministic = True
    metric = "cosine"

    k: vwkit.Positive

    def _fit(self, data, weights):
        lengths = np.linalg.norm(data.astype(np.float64), axis=1, keepdims=True)
        unit = np.divide(data, lengths, out=np.zeros(data.shape), where=lengths > 0)
        distinct = np.unique(np.round(unit[lengths[:, 0] > 0], 4) + 0.0, axis=0)
        if len(distinct) == 0:
            distinct = np.ones((1, data.shape[1]))
        centers = reference.kmeans_plus_plus(distinct, self.k, self.seed)
        self.objective = []
        for _ in range(30):
            self.centers = centers.astype(np.float32)
            table = distances(data, self.centers, "cosine")
            self.labels = table.argmin(axis=1).astype(np.int32)
            own = table[np.arange(len(data)), self.labels]
            self.objective.append(float(own.mean()))
            empty = np.setdiff1d(np.arange(self.k), self.labels)
            far = np.where(lengths[:, 0] > 0, own, 0)
            if len(empty) and far.max() > 1e-9:
                centers = self.centers.astype(np.float64)
                centers[empty[0]] = unit[far.argmax()]
                continue
            if len(empty):
                break
            sums = reference.update(unit, self.labels, self.k) * np.bincount(self.labels)[:, None]
            sizes = np.linalg.norm(sums, axis=1, keepdims=True)
            centers = np.divide(sums, sizes, out=self.centers.astype(np.float64), where=sizes > 0)
        used = np.unique(self.labels)
        if len(used) < self.k:
            # Behind those that have rows, so that the lowest of equal centers is one of them.
            repeats = np.repeat(used[-1:], self.k - len(used))
            self.centers = self.centers[np.concatenate([used, repeats])]
            self.labels = np.searchsorted(used, self.labels).astype(np.int32)
            warn_few_distinct(len(used), self.k)

    def _predict(self, data):
        return distances(data, self.centers, "cosine").argmin(axis=1).astype(np.int32)


@vwkit.backend("leaders")
class Leaders(vwkit.Clusterer):
    """As many clusters as the data need, with centers; some rows belong to none."""

    fixed_k = False
    deterministic = True

    radius: Annotated[float, annotated_types.Gt(0)] = 60.0

    def _fit(self, data, weights):
        centers = data[:1]
        for i in range(1, len(data)):
            if distances(data[i : i + 1], centers, "l2").min() > self.radius**2:
                centers = np.concatenate([centers, data[i : i + 1]])
        self.centers = np.array(centers)
        nearest = self._predict(data)
        lonely = np.bincount(nearest, minlength=len(centers))[nearest] < 2
        own = distances(data, self.centers, "l2")[np.arange(len(data)), nearest]
        self.objective = [float(own.mean())]
        self.labels = np.where(lonely, -1, nearest).astype(np.int32)

    @property
    def label_agreement(self):
        return 0.5
