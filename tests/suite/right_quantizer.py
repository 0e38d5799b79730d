"""Quantizers that are right, some of them unusual."""

from __future__ import annotations

import numpy as np

import vwkit
from vwkit.quantizer import code_dtype
from vwkit.reference import lloyd
from vwkit.reference import pq as reference
from vwkit.reference.distances import distances


@vwkit.backend("plain-pq")
class PlainPQ(vwkit.Quantizer):
    """The reference product quantizer behind the interface."""

    deterministic = True

    m: vwkit.Positive = 2
    ks: vwkit.Positive = 16
    rounds: vwkit.Positive = 12

    def _fit(self, vectors):
        if self.ks > 256:  # the reference's seeding looks at all rows for every codeword
            self.codebook = self._first_rows(vectors)
            return
        book = reference.train(vectors, self.m, self.ks, self._rng_seed(), self.rounds)
        self.codebook = book.astype(np.float32)

    def _rng_seed(self):
        return self.seed

    def _first_rows(self, vectors):
        width = vectors.shape[1] // self.m
        parts = [vectors[: self.ks, j * width : (j + 1) * width] for j in range(self.m)]
        return np.stack(parts).astype(np.float32)

    def _encode(self, vectors):
        return reference.encode(vectors, self.codebook)


@vwkit.backend("turned-pq")
class TurnedPQ(PlainPQ):
    """Turns vectors before it cuts them, as OPQ does."""

    def _fit(self, vectors):
        rng = np.random.default_rng(self.seed)
        d = vectors.shape[1]
        self.rotation = np.linalg.qr(rng.normal(0, 1, (d, d)))[0].astype(np.float32)
        super()._fit(vectors.astype(np.float64) @ self.rotation)

    def _encode(self, vectors):
        return super()._encode((vectors.astype(np.float64) @ self.rotation).astype(np.float32))

    def _decode(self, codes):
        return super()._decode(codes) @ self.rotation.T


@vwkit.backend("residual")
class Residual(vwkit.Quantizer):
    """Additive: each codebook quantizes what the ones before left over."""

    structure = "additive"
    deterministic = True

    m: vwkit.Positive = 2
    ks: vwkit.Positive = 16

    def _fit(self, vectors):
        left, books = vectors.astype(np.float64), []
        for j in range(self.m):
            if self.ks > 256:  # as above
                start = left[
                    np.random.default_rng((self.seed, j)).permutation(len(left))[: self.ks]
                ]
                books.append(start.astype(np.float32))
            else:
                start = lloyd.kmeans_plus_plus(left, self.ks, (self.seed, j))
                books.append(lloyd.lloyd(left, start, 10)[0].astype(np.float32))
            left = left - books[-1][lloyd.assign(left, books[-1])]
        self.codebook = np.stack(books)

    def _encode(self, vectors):
        left = vectors.astype(np.float64)
        codes = np.empty((len(vectors), self.m), code_dtype(self.ks))
        for j in range(self.m):
            codes[:, j] = lloyd.assign(left, self.codebook[j])
            left = left - self.codebook[j][codes[:, j]]
        return codes


@vwkit.backend("steps")
class Steps(vwkit.Quantizer):
    """A scale of equal steps for each number, as many codes as dimensions; reads a Stream."""

    streams = True
    deterministic = True

    ks: vwkit.Positive = 32

    def _fit(self, vectors):
        chunks = [vectors] if isinstance(vectors, np.ndarray) else self._chunks(vectors)
        low = np.min([chunk.min(axis=0) for chunk in chunks], axis=0)
        high = np.max([chunk.max(axis=0) for chunk in chunks], axis=0)
        share = np.linspace(0, 1, self.ks, dtype=np.float32)
        self.codebook = (low + share[:, None] * (high - low)).T[:, :, None].astype(np.float32)

    def _chunks(self, vectors):
        return list(vectors)


@vwkit.backend("hurried")
class Hurried(PlainPQ):
    """Looks at three codewords of four: `code_agreement` says so."""

    def _encode(self, vectors):
        codes = np.empty((len(vectors), len(self.codebook)), code_dtype(self.ks))
        width = self.codebook.shape[2]
        for j, book in enumerate(self.codebook):
            table = distances(vectors[:, j * width : (j + 1) * width], book, "l2")
            # By the row alone, so that it does not depend on its neighbours.
            skipped = np.floor(np.abs(vectors[:, :1]) * 997).astype(np.int64) % 4
            table[np.arange(len(book)) % 4 == skipped] = np.inf
            codes[:, j] = table.argmin(axis=1)
        return codes
