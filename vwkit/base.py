"""What all backends share: one declaration of parameters, and saving.

A backend is a keyword-only pydantic dataclass. Its annotated fields are, in one place, the
constructor, the checks, the spec's keys, the JSON schema, the saved parameters and the docs table.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import importlib.metadata
import inspect
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, Union, cast

import numpy as np
import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError, PydanticUndefined, core_schema

from vwkit.artifact import Artifact, open_artifact, write_artifact
from vwkit.errors import (
    ArtifactError,
    BackendError,
    NotFittedError,
    ParameterError,
    Problem,
    UnsupportedError,
    VwkitError,
)
from vwkit.plugins import a_role, registry
from vwkit.restoring import check_names, whole
from vwkit.types import Array

if TYPE_CHECKING:
    from typing import Self

    from vwkit.estimates import Estimate

__all__ = ["Backend", "Field", "Nested", "Parameter", "backend", "create", "load"]

T = TypeVar("T")
B = TypeVar("B", bound="Backend")


class NestedMarker:
    """Marks a field that holds another backend; see `Nested`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        roles = roles_of(source)

        def check(value: Any) -> Any:
            try:
                return as_backend(value, roles)
            except ParameterError as error:
                problems = error.problems or (Problem((), str(error)),)
                raise PydanticCustomError("nested", "nested", {"problems": problems}) from None
            except VwkitError as error:
                problems = (Problem((), str(error)),)
                raise PydanticCustomError("nested", "nested", {"problems": problems}) from None

        return core_schema.no_info_plain_validator_function(check)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": ["object", "string"], "vwkit": "nested"}


Nested = Annotated[T, NestedMarker()]
"""A field that holds another backend: ``assign: vwkit.Nested[vwkit.Index] | None = None``.

A spec gives it as ``{use: name, …}`` or as the path of a saved one; Python also as an object.
"""


def Field(*, default: Any = ..., doc: str = "") -> Any:
    """Give a field its default (without one it must be given) and one line of documentation."""
    return pydantic.Field(default=default, description=doc)


def roles_of(annotation: Any) -> tuple[str, ...]:
    """Return the roles of a (union of) role class(es)."""
    parts = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    return tuple(part.role for part in parts if isinstance(part, type) and hasattr(part, "role"))


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


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


# Fields ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One field of a backend, as the spec, the docs and the cache see it.

    Attributes
    ----------
    name : str
        In specs and calls.
    attribute : str
        On the object: the same, but for a trailing underscore where the name is an ability's.
    annotation : type
    default : object
        `inspect.Parameter.empty` when it must be given.
    doc : str
        One line, or "".
    late : bool
        Whether it may change after a fit.
    nested : tuple of str
        The roles it may hold; empty for a plain value.
    is_path : bool
        Whether it names a file, so that a spec reads it relative to itself.
    """

    name: str
    attribute: str
    annotation: Any
    default: Any
    doc: str
    late: bool
    nested: tuple[str, ...]
    is_path: bool

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty


def _walk(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in typing.get_args(annotation):
        yield from _walk(part)


def _nested_roles(annotation: Any) -> tuple[str, ...]:
    for part in _walk(annotation):
        if typing.get_origin(part) is Annotated and any(
            isinstance(extra, NestedMarker) for extra in part.__metadata__
        ):
            return roles_of(typing.get_args(part)[0])
    return ()


def _relaxed(annotation: Any) -> Any:
    """Let strict fields take what a spec can write: text for a path, a list for a tuple."""
    if annotation is Path:
        return Annotated[Path, pydantic.Strict(False)]
    origin = typing.get_origin(annotation)
    if annotation is np.ndarray or origin is np.ndarray:
        return Annotated[annotation, pydantic.BeforeValidator(_from_lists)]
    if origin in (tuple, frozenset, set):
        return Annotated[annotation, pydantic.Strict(False)]
    if _is_union(annotation):
        return Union[tuple(_relaxed(part) for part in typing.get_args(annotation))]  # noqa: UP007
    return annotation


def _from_lists(value: Any) -> Any:
    """Take the nested lists of a spec for an array."""
    return np.array(value) if isinstance(value, (list, tuple)) else value


_ABILITIES = frozenset(
    {
        "batch_invariant", "batch_size", "choose", "compiled", "consumes", "deterministic", "distance_error", "dtypes",
        "exact", "fixed_k", "frees_removed", "has_centers", "hierarchical", "label_agreement", "late", "late_through",
        "library", "license", "local", "memory_mapped", "metrics", "name", "requires", "revision", "role", "streams", "structure",
        "supports_add", "supports_compact", "supports_filter", "supports_predict", "supports_remove",
        "supports_sparse", "supports_weights", "thread_safe", "trainable",
    }
)  # fmt: skip


def _hints(cls: type[Any], names: dict[str, Any]) -> dict[str, Any]:
    """Return the types of a class's own annotations; texts are looked up where they were written.

    For a class made inside a function, that is also the names of the function.
    """
    own = inspect.get_annotations(cls)
    try:
        found = typing.get_type_hints(cls, include_extras=True)
    except NameError:
        try:
            found = typing.get_type_hints(cls, localns=names, include_extras=True)
        except NameError:
            # One that only type checkers know must not hide what the others are.
            found = {name: _resolved(cls, one, names) for name, one in own.items()}
    return {name: found.get(name, own[name]) for name in own}


def _resolved(cls: type[Any], annotation: Any, names: dict[str, Any]) -> Any:
    holder = type("_", (), {"__annotations__": {"one": annotation}, "__module__": cls.__module__})
    try:
        return typing.get_type_hints(holder, localns=names, include_extras=True)["one"]
    except NameError:
        return annotation  # pydantic says which name it does not know


def _collect(cls: type[Any], names: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gather annotated fields and their defaults from the class and its undecorated bases."""
    annotations: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if not issubclass(base, Backend) and base.__module__ == "builtins":
            continue
        own = _hints(base, names)
        for name, hint in own.items():
            is_class_variable = typing.get_origin(hint) is ClassVar or hint is ClassVar
            if is_class_variable or name.startswith("_") or str(hint).startswith("ClassVar"):
                continue
            if name in _ABILITIES:
                raise TypeError(
                    f"{cls.__name__}.{name}: an ability is a plain class attribute; "
                    f"write `{name} = …` without a type, or it would become a parameter"
                )
            annotations[name] = hint
            if name in base.__dict__ and not isinstance(
                base.__dict__[name], types.MemberDescriptorType
            ):
                defaults[name] = base.__dict__[name]
        for name in annotations:
            # A subclass may change a default without repeating the type.
            if name in base.__dict__ and name not in own:
                defaults[name] = base.__dict__[name]
    return annotations, defaults


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
        annotations, defaults = _collect(cls, {**caller.f_globals, **caller.f_locals})
        doc = cls.__doc__
        cls._adapt_fields(annotations, defaults)
        for key, annotation in annotations.items():
            annotations[key] = _relaxed(annotation)
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
            plain = {attributes.get(key, key): _plain(value) for key, value in params.items()}
            try:
                validate(self, **plain)
            except pydantic.ValidationError as error:
                raise _parameter_error(type(self), error) from None

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
        found = {}
        for item in dataclasses.fields(cast("Any", cls)):
            default = item.default
            doc = ""
            if isinstance(default, pydantic.fields.FieldInfo):
                doc, default = default.description or "", default.get_default()
                if default is PydanticUndefined:
                    default = inspect.Parameter.empty
            if default is dataclasses.MISSING:
                default = inspect.Parameter.empty
            name = item.name.removesuffix("_")
            found[name] = Parameter(
                name,
                item.name,
                item.type,
                default,
                doc,
                name in cls.late,
                _nested_roles(item.type),
                Path in list(_walk(item.type)) and not _nested_roles(item.type),
            )
        return found

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
            name: _as_plain_data(getattr(self, one.attribute), late, arrays)
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
            f"{name}={_shown(getattr(self, parameter.attribute))}"
            for name, parameter in self.parameters().items()
            if parameter.required
            or _shown(getattr(self, parameter.attribute)) != _shown(parameter.default)
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
            return _unpacked, (type(self), packed_files(self.save))
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
        if self._needs_fit():
            self._need_fitted()
        entry = registry().entries.get((self.role, self.name), [None])[0]
        plain, core_arrays = self._core_state()
        native = type(self)._save is not Backend._save
        manifest: dict[str, Any] = {
            "role": self.role,
            "name": self.name,
            "params": self._plain_params(arrays=False),
            "package": {
                "name": entry.package if entry else type(self).__module__.split(".")[0],
                "version": entry.version if entry else "0",
            },
            "library": library_version(self.library),
            "revision": self.revision,
            "metric": getattr(self, "metric", None),
            "fitted": self._fitted,
            "identity": {"kind": self._kind, "dim": self._dim},
            "core": plain,
        }
        with write_artifact(folder, manifest) as draft:
            for name, parameter in self.parameters().items():
                value = getattr(self, parameter.attribute)
                if isinstance(value, np.ndarray):
                    draft.array(f"param.{name}", value)
            for name, array in core_arrays.items():
                draft.array(f"core.{name}", array)
            if self._fitted:
                if native:
                    draft.native(self._save)
                else:
                    for name, array in self._state().items():
                        draft.array(name, array)
            for name, child in self._children().items():
                if child._fitted or not child._needs_fit():
                    draft.child(name, child.save)

    @classmethod
    def _open(cls, artifact: Artifact) -> Self:
        manifest = artifact.manifest
        arrays = artifact.arrays()
        _refuse_paths(cls, manifest["params"])
        params = {**manifest["params"], **_pop(arrays, "param.")}
        core = _pop(arrays, "core.")
        kept: dict[str, Any] = {}
        for name in manifest.get("children", {}):
            child = cls._open_child(name, cast("Path", artifact.child(name)))
            if name in cls.parameters():
                params[name] = child
            elif getattr(cls, f"_{name}", None) is None:
                kept[f"_{name}"] = child
            else:
                raise ArtifactError(f"it has no place for a {name}; damaged, make it again")
        self = cls(**params)
        vars(self).update(kept)
        identity = manifest.get("identity") or {}
        dim, kind = identity.get("dim"), identity.get("kind")
        self._dim = None if dim is None else whole("dim", dim)
        self._kind = None if kind is None else str(kind)
        self._restore_core(manifest.get("core") or {}, core)
        if manifest.get("fitted"):
            native = artifact.native
            if (native is None) == (cls._save is not Backend._save):
                raise ArtifactError("it lacks the files of its kind; damaged, make it again")
            if native is not None:
                self._load(native)
            else:
                self._restore(arrays)
            self._check_restored()
            self._fitted = True
        return self


_CORE_STATE = frozenset({"_fitted", "_dim", "_kind", "_lock", "_ids", "_fingerprint", "_identity"})


def _refuse_paths(cls: type[Backend], params: Mapping[str, Any]) -> None:
    """Refuse a manifest that names folders for nested backends: they lie in the artifact, or are new.

    Raises
    ------
    ArtifactError
    """
    for name, parameter in cls.parameters().items():
        if not parameter.nested:
            continue
        value = params.get(name)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                raise ArtifactError(
                    f"its parameter {name} names a path, {one[:80]!r}; an artifact holds what it "
                    "needs, so it is damaged or a stranger's: make it again"
                )
            if isinstance(one, Mapping):
                for role in parameter.nested:
                    for entry in registry().entries.get((role, str(one.get("use"))), []):
                        _refuse_paths(entry.cls, one)


def library_version(library: str | None) -> str | None:
    """Return the installed version of a distribution."""
    if library is None:
        return None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{library} {importlib.metadata.version(library)}"
    return None


def packed_files(save: Callable[[Path], Any]) -> dict[str, bytes]:
    """Return the files of what `save` writes to a folder, by their paths in it."""
    with tempfile.TemporaryDirectory(prefix="vwkit-") as name:
        folder = Path(name) / "packed"
        save(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _unpacked(cls: type[Backend], files: Mapping[str, bytes]) -> Backend:
    with tempfile.TemporaryDirectory(prefix="vwkit-") as name:
        for path, content in files.items():
            target = Path(name) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        artifact = open_artifact(name)
        made = cls._open(artifact)
        made._fingerprint = artifact.fingerprint
        return made


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
            raise ArtifactError(f"{folder}: {error}") from None
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise ArtifactError(f"{folder}: {name} cannot read what was saved: {said}") from error
    return opened


# Messages --------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Take NumPy's numbers for what they are."""
    return value.item() if isinstance(value, np.generic) else value


def _shown(value: Any) -> str:
    """Show a parameter in one line; an array by its shape."""
    return f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)


def _pop(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays.pop(name) for name in names}


def _as_plain_data(value: Any, late: bool, arrays: bool) -> Any:
    """Turn a parameter into what JSON can hold; arrays, which may be large, only if asked for."""
    if isinstance(value, Backend):
        return {"use": value.name, **value._plain_params(late, arrays)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (frozenset, set)):
        return sorted(_as_plain_data(item, late, arrays) for item in value)
    if isinstance(value, (list, tuple)):
        return [_as_plain_data(item, late, arrays) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _as_plain_data(item, late, arrays) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist() if arrays else None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise BackendError(f"a parameter of type {type(value).__name__} cannot be saved")


def _parameter_error(cls: type[Backend], error: pydantic.ValidationError) -> ParameterError:
    problems: list[Problem] = []
    known = list(cls.parameters())
    for detail in error.errors(include_url=False):
        path = tuple(detail["loc"])
        if path and isinstance(path[0], str) and path[0] not in known:
            path = (path[0].removesuffix("_"), *path[1:])
        if detail["type"] == "nested":
            problems += [p.under(path[0]) for p in detail["ctx"]["problems"]]
        elif isinstance(detail.get("ctx", {}).get("error"), VwkitError):  # of __post_init__
            own = detail["ctx"]["error"]
            problems += getattr(own, "problems", ()) or [Problem((), str(own))]
        elif detail["type"] == "unexpected_keyword_argument":
            problems.append(Problem(path, _unknown_parameter(cls, str(path[0]), known)))
        elif detail["type"] in ("missing_keyword_only_argument", "missing_argument", "missing"):
            problems.append(Problem(path, f"{cls.name} needs it"))
        else:
            problems.append(Problem(path[:1], _wrong_value(detail)))
    merged = _merged(problems)
    text = "; ".join(f"{cls.name}.{one}" if one.path else str(one) for one in merged)
    return ParameterError(text, merged)


def _merged(problems: list[Problem]) -> list[Problem]:
    """Join what pydantic says of each member of a union into one line per field."""
    by_path: dict[tuple[str | int, ...], list[str]] = {}
    for problem in problems:
        by_path.setdefault(problem.path, []).append(problem.message)
    return [
        Problem(
            path, messages[0] if len(set(messages)) == 1 else " or ".join(dict.fromkeys(messages))
        )
        for path, messages in by_path.items()
    ]


def _unknown_parameter(cls: type[Backend], given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    if not near:
        folded = {name.replace("_", "").lower(): name for name in known}
        near = (
            [folded[given.replace("_", "").lower()]]
            if given.replace("_", "").lower() in folded
            else []
        )
    if near:
        return f"{cls.name} has no such parameter; did you mean {near[0]}?"
    return f"{cls.name} has no such parameter; it has {', '.join(known) or 'none'}"


def _wrong_value(detail: Any) -> str:
    message = detail["msg"][0].lower() + detail["msg"][1:]
    message = message.replace("input should be", "must be").replace("value error, ", "")
    return f"{message}; got {detail['input']!r}"
