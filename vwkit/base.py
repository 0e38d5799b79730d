"""What all backends share: one declaration of parameters, and saving.

A backend is a keyword-only pydantic dataclass. Its annotated fields are, in one place, the
constructor, the checks, the spec's keys, the JSON schema, the saved parameters and the docs table.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, cast

import numpy as np
import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from vwkit.artifact import Artifact, open_artifact
from vwkit.errors import (
    ArtifactError,
    NotFittedError,
    ParameterError,
    Problem,
    UnsupportedError,
    VwkitError,
)
from vwkit.parameters import (
    Field,
    NestedMarker,
    Parameter,
    collected,
    in_one_line,
    parameter_error,
    parameters_of,
    plain_data,
    relaxed,
    roles_of,
    unboxed,
)
from vwkit.plugins import a_role, registry
from vwkit.restoring import check_names
from vwkit.saving import library_version, opened_artifact, packed_files, save_backend, unpacked
from vwkit.types import Array

if TYPE_CHECKING:
    from typing import Self

    from vwkit.estimates import Estimate

__all__ = [
    "Backend",
    "Field",
    "Nested",
    "NestedMarker",
    "Parameter",
    "backend",
    "create",
    "library_version",
    "load",
    "packed_files",
    "roles_of",
]

T = TypeVar("T")
B = TypeVar("B", bound="Backend")


def as_backend(value: Any, roles: tuple[str, ...]) -> Backend:
    """Turn ``{use: name, …}``, a path or a backend into a backend of one of the roles.

    Raises
    ------
    ParameterError
        With `problems` below the keys of `value`.
    """
    wanted = " or ".join(roles)
    if isinstance(value, Backend):
        found = value
    elif isinstance(value, (str, Path)):
        found = load(value)
    elif isinstance(value, Mapping):
        params = dict(value)
        name = params.pop("use", None)
        if not isinstance(name, str):
            problem = Problem((), f"needs use: the name of {a_role(wanted)}")
            raise ParameterError(str(problem), [problem])
        role = next((r for r in roles if (r, name) in registry().entries), roles[0])
        found = create(role, name, **params)
    else:
        raise ParameterError(
            f"got {value!r}; {a_role(wanted)} is needed: a mapping with use, the path of a saved one, "
            "or a backend"
        )
    if found.role not in roles:
        raise ParameterError(f"{found.name} is {a_role(found.role)}; {a_role(wanted)} is needed")
    return found


Nested = Annotated[T, NestedMarker(as_backend)]
"""A field that holds another backend: ``assign: vwkit.Nested[vwkit.Index] | None = None``.

A spec gives it as ``{use: name, …}`` or as the path of a saved one; Python also as an object.
"""


@typing.dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(Field,))
def backend(name: str) -> Callable[[type[B]], type[B]]:
    """Make a class a backend called `name`; its annotated fields become its parameters.

    Returns the same class: not frozen, no slots, equality is identity. Nothing is registered, only
    the hook ``vwkit_backends`` does that.

    Raises
    ------
    TypeError
        The class has no role, or annotates an ability (which would become a parameter).

    Examples
    --------
    >>> import vwkit
    >>> @vwkit.backend("halved")
    ... class Halved(vwkit.Transform):
    ...     "Divide everything by a number."
    ...     by: vwkit.Positive = 2
    ...     def _transform(self, vectors):
    ...         return vectors / self.by
    >>> Halved(by=4)
    Halved(by=4)
    """
    caller = sys._getframe(1)

    def decorate(cls: type[B]) -> type[B]:
        if not (isinstance(cls, type) and issubclass(cls, Backend) and hasattr(cls, "role")):
            raise TypeError(f"{cls!r}: derive it from a role such as vwkit.Index first")
        annotations, defaults = collected(cls, {**caller.f_globals, **caller.f_locals})
        doc = cls.__doc__
        cls._adapt_fields(annotations, defaults)
        for key, annotation in annotations.items():
            annotations[key] = relaxed(annotation)
        cls.__annotations__ = annotations
        for key, default in defaults.items():
            setattr(cls, key, default)
        config = pydantic.ConfigDict(
            extra="forbid", strict=True, arbitrary_types_allowed=True, validate_default=False
        )
        made: Any = pydantic_dataclass(kw_only=True, eq=False, repr=False, config=config)(cls)
        made.name = name
        made.__doc__ = doc
        made._wrap_constructor()
        return cast("type[B]", made)

    return decorate


# The base class --------------------------------------------------------------------------------


class Backend:
    """Base of all roles; backends derive from a role, not from this.

    Abilities are class attributes. The defaults are the cautious ones: a backend that forgets to
    declare an ability is only slower or asked less, never wrong.
    """

    role: ClassVar[str]
    name: ClassVar[str]
    #: Whether the underscored methods take a Stream, so that data need not fit in memory.
    streams: ClassVar[bool] = False
    #: Dtypes that the underscored methods take; the core converts everything else.
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)
    #: Fields that do not change what is fitted; they may be set later and at search time.
    late: ClassVar[frozenset[str]] = frozenset()
    #: Nested fields whose late parameters are late here too: nothing is fitted with them.
    late_through: ClassVar[frozenset[str]] = frozenset()
    #: Raised by one when the same parameters begin to give other results.
    revision: ClassVar[int] = 1
    #: The distribution of the wrapped library; its version is part of the cache's key.
    library: ClassVar[str | None] = None
    #: Modules without which the backend is listed as unavailable.
    requires: ClassVar[tuple[str, ...]] = ()
    #: When to choose it, in a sentence, for listings and docs.
    choose: ClassVar[str] = ""
    #: The wrapped library's licence (an SPDX expression), and whether it has no wheels.
    license: ClassVar[str | None] = None
    compiled: ClassVar[bool] = False

    _fitted: bool = False
    _dim: int | None = None
    _kind: str | None = None
    #: Of the artifact that it was loaded from.
    _fingerprint: str | None = None

    @property
    def deterministic(self) -> bool:
        """Whether the same seed gives the same bytes for any threads and chunks."""
        return False

    # Parameters

    @classmethod
    def _adapt_fields(cls, annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
        """Let a role add or narrow fields before the class is made."""

    @classmethod
    def _wrap_constructor(cls) -> None:
        validate = cls.__init__
        attributes = {key: one.attribute for key, one in cls.parameters().items()}

        def __init__(self: Backend, **params: Any) -> None:
            plain = {attributes.get(key, key): unboxed(value) for key, value in params.items()}
            try:
                validate(self, **plain)
            except pydantic.ValidationError as error:
                raise parameter_error(type(self), error) from None

        __init__.__doc__ = validate.__doc__
        __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
                *(
                    inspect.Parameter(
                        key,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=one.default,
                        annotation=one.annotation,
                    )
                    for key, one in cls.parameters().items()
                ),
            ]
        )
        setattr(cls, "__init__", __init__)  # noqa: B010 - a plain assignment has no type

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """Return the fields by name, in order of declaration."""
        return parameters_of(cls)

    def params(self, late: bool = True) -> dict[str, Any]:
        """Return the parameters as plain data, nested backends as ``{"use": …}``.

        Parameters
        ----------
        late : bool
            Whether to include those that do not change what is fitted.
        """
        return self._plain_params(late)

    def _plain_params(self, late: bool = True, arrays: bool = True) -> dict[str, Any]:
        return {
            name: plain_data(getattr(self, one.attribute), late, arrays)
            for name, one in self.parameters().items()
            if late or not one.late
        }

    def __setattr__(self, name: str, value: Any) -> None:
        if self._fitted and name in getattr(type(self), "__dataclass_fields__", {}):
            if name not in self.late:
                raise ParameterError(
                    f"{self.name}.{name} cannot change after it was fitted; make a new one with "
                    f"vwkit.create({self.role!r}, {self.name!r}, {name}=…)"
                )
            value = self._checked(name, value)
        elif self._fitted and not name.startswith("_") and not hasattr(self, name):
            near = difflib.get_close_matches(name, sorted(self.late), n=1)
            if near:  # a slip of the pen would change nothing, and nobody would know
                raise ParameterError(
                    f"{self.name} has no parameter {name}; did you mean {near[0]}?"
                )
        super().__setattr__(name, value)

    def _checked(self, name: str, value: Any) -> Any:
        params = {key: getattr(self, one.attribute) for key, one in self.parameters().items()}
        return getattr(type(self)(**{**params, name: value}), name)

    def with_late(self, values: Mapping[str, Any]) -> Self:
        """Return a shallow copy with other late parameters; fitted state is shared."""
        if not values:
            return self
        wrong = sorted(set(values) - self.late)
        if wrong:
            allowed = ", ".join(sorted(self.late)) or "none"
            raise ParameterError(
                f"{self.name} takes no {wrong[0]} here; its late parameters: {allowed}"
            )
        other = copy.copy(self)
        for name, value in values.items():
            setattr(other, name, value)
        return other

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={in_one_line(getattr(self, parameter.attribute))}"
            for name, parameter in self.parameters().items()
            if parameter.required
            or in_one_line(getattr(self, parameter.attribute)) != in_one_line(parameter.default)
        )
        return f"{type(self).__name__}({shown})"

    # Copies

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process: as the files that `save` writes, or as parameters."""
        if self._fitted:
            return unpacked, (type(self), packed_files(self.save))
        values = {key: getattr(self, one.attribute) for key, one in self.parameters().items()}
        return _made, (type(self), values)

    # Fitted state

    def _need_fitted(self, method: str = "fit") -> None:
        if not self._fitted:
            raise NotFittedError(
                f"this {self.name} {self.role} is not fitted yet: call {method}() first, "
                "or vwkit.load() a saved one"
            )

    def _state(self) -> dict[str, Array]:
        """Return everything that was fitted as arrays; by default, all array attributes.

        A backend that holds anything else overrides this and `_restore`, or, for a library's own
        file, `_save` and `_load`.
        """
        state = {}
        fields = getattr(type(self), "__dataclass_fields__", {})
        for name, value in vars(self).items():
            if name in fields or name in _CORE_STATE or value is None:
                continue
            if isinstance(value, (np.ndarray, np.generic, int, float)):
                state[name] = np.asarray(value)
            elif isinstance(value, list) and all(
                isinstance(v, (int, float, np.number)) for v in value
            ):
                state[name] = np.asarray(value, np.float64)
            else:
                raise UnsupportedError(
                    f"{self.name} cannot be saved: its attribute {name} is a "
                    f"{type(value).__name__}; its author must write _state() and _restore(state)"
                )
        return state

    def _restore(self, state: dict[str, Array]) -> None:
        """Take back what `_state` returned."""
        fields = getattr(type(self), "__dataclass_fields__", {})
        check_names(type(self), state, _CORE_STATE.union(fields))
        for name, array in state.items():
            value: Any = array.item() if array.ndim == 0 else array
            setattr(self, name, value)

    def _save(self, folder: Path) -> None:
        """Write a library's own files into an empty folder; see also `_load`."""

    def _load(self, folder: Path) -> None:
        """Read what `_save` wrote; the files have passed their checksums."""

    def _check_restored(self) -> None:
        """Look at what was taken back, before anything is computed with it.

        Raises
        ------
        ArtifactError
        """

    def _core_state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return what the role itself must remember: plain data and arrays."""
        return {}, {}

    def _restore_core(self, plain: dict[str, Any], arrays: dict[str, Array]) -> None:
        """Take back what `_core_state` returned."""

    def _estimate(self, rows: int, dim: int, itemsize: int) -> Estimate | None:
        """Say what fitting or building on (rows, dim) numbers takes, for `vwkit plan`.

        None means that it is not known: then two small fits are measured, and time and memory are
        taken to grow with the rows. Budgets are those of `vwkit.job`.
        """
        return None

    def _row_work(self, dim: int) -> float:
        """Say what one row costs when what was fitted is used, in units proportional to time."""
        return 1.0

    def _children(self) -> dict[str, Backend]:
        """Return nested backends that were fitted, by field name; they are saved with this."""
        found = {}
        for name, parameter in self.parameters().items():
            value = getattr(self, parameter.attribute)
            if parameter.nested and isinstance(value, Backend):
                found[name] = value
        return found

    @classmethod
    def _open_child(cls, name: str, folder: Path) -> Any:
        """Open what was saved nested; a class that holds many of them may put it off."""
        return load(folder)

    def _needs_fit(self) -> bool:
        """Tell whether there is anything to fit before use; a stateless one may be saved as is."""
        return True

    def save(self, folder: str | Path) -> None:
        """Write this backend to a folder, atomically; an older artifact there is replaced.

        Raises
        ------
        NotFittedError
            There is nothing to save yet.
        ArtifactError
            The folder holds something else or cannot be written.
        """
        save_backend(self, folder, native=type(self)._save is not Backend._save)

    @classmethod
    def _open(cls, artifact: Artifact) -> Self:
        return opened_artifact(cls, artifact, native=cls._save is not Backend._save)


_CORE_STATE = frozenset({"_fitted", "_dim", "_kind", "_lock", "_ids", "_fingerprint", "_identity"})


def _made(cls: type[Backend], values: Mapping[str, Any]) -> Backend:
    return cls(**values)


def create(role: str, name: str, **params: Any) -> Backend:
    """Make a backend by role and name.

    Parameters
    ----------
    role : str
        Such as ``"clusterer"``; see `vwkit.backends`.
    name : str
        Such as ``"lloyd"``.
    **params
        The backend's own parameters.

    Raises
    ------
    UnknownNameError
        No such backend; the text suggests the nearest name or the package to install.
    ParameterError
        A parameter is unknown, missing or has a wrong value; all problems at once.

    Examples
    --------
    >>> import vwkit
    >>> vwkit.create("index", "exact", metric="cosine")
    Exact(metric='cosine')
    """
    made: Backend = registry().entry(role, name).cls(**params)
    return made


def load(folder: str | Path) -> Any:
    """Open whatever backend was saved in a folder.

    Every file is verified first; large arrays are memory-mapped.

    Raises
    ------
    ArtifactError
        The folder is damaged, truncated, foreign or of a newer vwkit.
    UnknownNameError
        The backend that wrote it is not installed.
    """
    artifact = open_artifact(folder)
    manifest = artifact.manifest
    role, name = manifest.get("role"), manifest.get("name")
    if not isinstance(role, str) or not isinstance(name, str):
        raise ArtifactError(f"{folder}: its manifest names no backend; damaged, make it again")
    cls: type[Backend] = registry().entry(role, name).cls
    try:
        opened = cls._open(artifact)
        opened._fingerprint = artifact.fingerprint
    except VwkitError as error:
        if isinstance(error, ParameterError):
            said = " ".join(str(error).split())[:1000]  # names in it may be a stranger's
            raise ArtifactError(f"{folder}: saved parameters do not fit {name}: {said}") from None
        if isinstance(error, ArtifactError) and str(folder) not in str(error):
            file = manifest.get("arrays", {}).get(error.array)
            raise ArtifactError(f"{Path(folder) / (file or '')}: {error}") from None
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise ArtifactError(f"{folder}: {name} cannot read what was saved: {said}") from error
    return opened
