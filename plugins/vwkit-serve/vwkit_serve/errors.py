"""What can go wrong with a request: a status and one sentence."""

from __future__ import annotations

from vwkit.errors import ImageError, Interrupted, ParameterError, UnsupportedError, VwkitError

__all__ = ["RequestError", "status_of"]


class RequestError(Exception):
    """A request that is answered with an error.

    Attributes
    ----------
    status : int
        Of HTTP.
    close : bool
        Whether the connection ends with the answer, because not all of the request was read.
    """

    def __init__(self, status: int, message: str, *, close: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.close = close


def status_of(error: VwkitError) -> int:
    """Return the status for an error of vwkit."""
    if isinstance(error, ImageError):
        return 415
    if isinstance(error, UnsupportedError):
        return 404  # this run has no such part
    if isinstance(error, ParameterError):
        return 422
    return 503 if isinstance(error, Interrupted) else 500
