"""Vectors to vectors: L2 normalisation, RootSIFT, PCA and whitening."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vwkit.errors import ParameterError

__all__ = ["l2_norm", "pca_fit", "pca_transform", "root_sift"]


def l2_norm(vectors: ArrayLike) -> NDArray[np.float64]:
    """Return x / ‖x‖₂ for each row; zero rows stay zero.

    Parameters
    ----------
    vectors : (n, d) numbers

    Returns
    -------
    (n, d) float64
    """
    x = np.asarray(vectors, np.float64)
    lengths: NDArray[np.float64] = np.sqrt((x**2).sum(axis=1, keepdims=True))
    return np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 0)


def root_sift(vectors: ArrayLike) -> NDArray[np.float64]:
    """Return √(x / ‖x‖₁) for each row; zero rows stay zero.

    Arandjelović, Zisserman 2012, "Three things everyone should know to improve object retrieval".
    SIFT has no negative entries; where there are some, the root keeps their sign, so that rows
    still have L2 norm 1.

    Parameters
    ----------
    vectors : (n, d) numbers

    Returns
    -------
    (n, d) float64
    """
    x = np.asarray(vectors, np.float64)
    sums: NDArray[np.float64] = np.abs(x).sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(x, sums, out=np.zeros_like(x), where=sums > 0)
    return np.sign(shares) * np.sqrt(np.abs(shares))


def pca_fit(
    vectors: ArrayLike, dim: int | None = None, variance: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the leading eigenvectors of the covariance Σ (x - μ)(x - μ)ᵀ / (n - 1).

    Pearson 1901, "On lines and planes of closest fit to systems of points in space". The sign of an
    eigenvector is arbitrary, so its largest entry by magnitude is made positive.

    Parameters
    ----------
    vectors : (n, d) numbers
    dim : int or None
        Components to keep, at most d; all by default.
    variance : float or None
        Instead of `dim`: keep the fewest components that hold at least this share of the variance.

    Returns
    -------
    mean : (d,) float64
    components : (dim, d) float64
        Orthonormal rows, the largest variance first.
    explained_variance : (dim,) float64
        Variance along each component.

    Raises
    ------
    ParameterError
        Both `dim` and `variance`, or one out of range.
    """
    x = np.asarray(vectors, np.float64)
    d = x.shape[1]
    if dim is not None and variance is not None:
        raise ParameterError("pca takes dim or variance, not both")
    if dim is not None and not 1 <= dim <= d:
        raise ParameterError(f"dim is {dim}; vectors of dimension {d} allow 1 to {d}")
    if variance is not None and not 0 < variance <= 1:
        raise ParameterError(f"variance is {variance}; it is a share above 0 and at most 1")
    mean = x.mean(axis=0)
    # One row has no variance; dividing by 0 would not say so.
    covariance = (x - mean).T @ (x - mean) / max(len(x) - 1, 1)
    values, columns = np.linalg.eigh(covariance)
    values, components = np.maximum(values[::-1], 0), columns.T[::-1].copy()
    for component in components:
        size = np.abs(component)
        # The first of the near-equal largest, so that rounding cannot turn the sign.
        if component[np.flatnonzero(size >= size.max() * (1 - 1e-6))[0]] < 0:
            component *= -1
    keep = d if dim is None else dim
    if variance is not None:
        held = np.cumsum(values)
        keep = int(np.flatnonzero(held >= variance * held[-1])[0]) + 1
    return mean, components[:keep], values[:keep]


def pca_transform(
    vectors: ArrayLike,
    mean: ArrayLike,
    components: ArrayLike,
    explained_variance: ArrayLike,
    whiten: bool = False,
) -> NDArray[np.float64]:
    """Return (x - μ) Cᵀ, each column divided by its standard deviation if `whiten`.

    Whitening makes a column whose variance is under 1e-12 of the largest zero: it holds rounding
    only.

    Parameters
    ----------
    vectors : (n, d) numbers
    mean, components, explained_variance
        As `pca_fit` returns them.
    whiten : bool

    Returns
    -------
    (n, dim) float64
    """
    centered = np.asarray(vectors, np.float64) - np.asarray(mean, np.float64)
    values = centered @ np.asarray(components, np.float64).T
    if not whiten:
        return values
    spread = np.asarray(explained_variance, np.float64)
    real = spread > 1e-12 * spread.max()
    return np.where(real, values / np.sqrt(np.where(real, spread, 1)), 0)
