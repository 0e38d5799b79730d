"""What can go wrong, and the exit status that the command line gives it.

Every error that vwkit expects is a `VwkitError`: its text is one clear sentence that says what was
given, what is allowed, what to do, and where. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "ArtifactError",
    "BackendError",
    "CacheWarning",
    "CheckpointWarning",
    "DataError",
    "FewDistinctRows",
    "FormatError",
    "ImageError",
    "Interrupted",
    "NotFittedError",
    "ParameterError",
    "PluginError",
    "PluginWarning",
    "Problem",
    "RunError",
    "ShapeError",
    "SkippedItems",
    "SpecError",
    "UnknownNameError",
    "UnsupportedError",
    "VwkitError",
]


class VwkitError(Exception):
    """Base of all expected errors; `exit_status` is what the command line returns for it."""

    exit_status = 1


class DataError(VwkitError, ValueError):
    """The data cannot be used: NaN, infinity, zero rows, or not what was promised."""


class ShapeError(DataError):
    """An array has another shape than the one asked for; the text names both."""


class FormatError(DataError):
    """A descriptor file is truncated or not in the format it claims; the text names file and row."""


class ImageError(DataError):
    """An image cannot be read, is truncated, or is larger than allowed; the text names it."""


class ArtifactError(VwkitError):
    """A saved folder is damaged, truncated, foreign, or of a newer vwkit.

    Attributes
    ----------
    array : str or None
        The saved array that it is about, where it is about one: whoever knows its file names that.
    """

    array: str | None = None


class NotFittedError(VwkitError):
    """A backend was used before `fit` or `build`; the text says what to call."""


class UnsupportedError(VwkitError):
    """A backend was asked for an ability that it does not declare."""


class BackendError(VwkitError):
    """A backend broke its contract with the core (wrong shape or type of result)."""


class RunError(VwkitError):
    """A run folder cannot be used: missing, foreign, in use, or another spec's."""

    exit_status = 2


class PluginError(VwkitError):
    """A plugin failed to import, or two packages offer the same name."""

    exit_status = 2


class Interrupted(VwkitError):
    """The user or the system asked the running work to stop; what was done is kept."""

    exit_status = 130


@dataclass(frozen=True)
class Problem:
    """One thing wrong with parameters or a spec.

    Attributes
    ----------
    path : tuple of str or int
        Where: the keys from the top down, such as ``("clusterer", "assign", "leaf_sizes")``.
    message : str
        What: one sentence without the path.
    """

    path: tuple[str | int, ...]
    message: str

    def under(self, *prefix: str | int) -> Problem:
        """Return the same problem seen from further up."""
        return Problem((*prefix, *self.path), self.message)

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


def dotted(path: Iterable[str | int]) -> str:
    """Write a key path as people do: ``output[1].path``."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += f".{key}" if text else key
    return text


class ParameterError(VwkitError, ValueError):
    """A backend's parameters are wrong; `problems` lists all of them at once."""

    exit_status = 2

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, parameter: str, message: str) -> ParameterError:
        """Return the error of one parameter, for a backend's own checks."""
        problem = Problem((parameter,), message)
        return cls(str(problem), [problem])


class UnknownNameError(ParameterError):
    """No backend of that role has that name; the text suggests the nearest or what to install."""


class SpecError(VwkitError):
    """A spec is wrong. One line per problem: ``file:line:column: key.path: what is wrong``."""

    exit_status = 2


class FewDistinctRows(UserWarning):
    """The data hold fewer distinct rows than the clusters asked for."""


class PluginWarning(UserWarning):
    """An installed plugin could not be used; everything else works."""


class CacheWarning(UserWarning):
    """The cache folder cannot be written; work is done without it."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written; the work goes on, and a kill would cost more.

    Attributes
    ----------
    reason : str
        What the system said.
    """

    def __init__(self, text: str = "", reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason


class SkippedItems(UserWarning):
    """Some inputs were skipped; the run lists each with its reason."""
