"""Parameters of backends: what the annotated fields of a class say, and what is wrong with given ones."""

from __future__ import annotations

import builtins
import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union, cast

import numpy as np
import pydantic
from pydantic_core import PydanticCustomError, PydanticUndefined, core_schema

from vwkit.errors import BackendError, ParameterError, Problem, VwkitError

if TYPE_CHECKING:
    from vwkit.base import Backend

__all__ = [
    "ABILITIES",
    "Field",
    "NestedMarker",
    "Parameter",
    "collected",
    "in_one_line",
    "parameter_error",
    "parameters_of",
    "plain_data",
    "relaxed",
    "roles_of",
    "unboxed",
]


def Field(*, default: Any = ..., doc: str = "") -> Any:
    """Give a field its default (without one it must be given) and one line of documentation."""
    return pydantic.Field(default=default, description=doc)


class NestedMarker:
    """Marks a field that holds another backend; see `vwkit.Nested`.

    Parameters
    ----------
    make : callable
        ``make(value, roles)`` turns what was given into a backend of one of the roles.
    """

    def __init__(self, make: Callable[[Any, tuple[str, ...]], Any]) -> None:
        self.make = make

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        roles = roles_of(source)

        def check(value: Any) -> Any:
            try:
                return self.make(value, roles)
            except ParameterError as error:
                problems = error.problems or (Problem((), str(error)),)
                raise PydanticCustomError("nested", "nested", {"problems": problems}) from None
            except VwkitError as error:
                problems = (Problem((), str(error)),)
                raise PydanticCustomError("nested", "nested", {"problems": problems}) from None

        return core_schema.no_info_plain_validator_function(check)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": ["object", "string"], "vwkit": "nested"}


def roles_of(annotation: Any) -> tuple[str, ...]:
    """Return the roles of a (union of) role class(es)."""
    parts = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    return tuple(part.role for part in parts if isinstance(part, type) and hasattr(part, "role"))


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


def parameters_of(cls: type[Backend]) -> dict[str, Parameter]:
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


def relaxed(annotation: Any) -> Any:
    """Let strict fields take what a spec can write: text for a path, a list for a tuple."""
    if annotation is Path:
        return Annotated[Path, pydantic.Strict(False)]
    origin = typing.get_origin(annotation)
    if annotation is np.ndarray or origin is np.ndarray:
        return Annotated[annotation, pydantic.BeforeValidator(_from_lists)]
    if origin in (tuple, frozenset, set):
        return Annotated[annotation, pydantic.Strict(False)]
    if _is_union(annotation):
        return Union[tuple(relaxed(part) for part in typing.get_args(annotation))]  # noqa: UP007
    return annotation


def _from_lists(value: Any) -> Any:
    """Take the nested lists of a spec for an array."""
    return np.array(value) if isinstance(value, (list, tuple)) else value


#: Names of class attributes that say what a backend can do, and so are no fields.
ABILITIES = frozenset(
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


def collected(cls: type[Any], names: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gather annotated fields and their defaults from the class and its undecorated bases."""
    annotations: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        # A class of code without a module of its own says that it is from there, too.
        if vars(builtins).get(base.__name__) is base:
            continue
        own = _hints(base, names)
        for name, hint in own.items():
            is_class_variable = typing.get_origin(hint) is ClassVar or hint is ClassVar
            if is_class_variable or name.startswith("_") or str(hint).startswith("ClassVar"):
                continue
            if name in ABILITIES:
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


# Values ----------------------------------------------------------------------------------------


def unboxed(value: Any) -> Any:
    """Take NumPy's numbers for what they are."""
    return value.item() if isinstance(value, np.generic) else value


def in_one_line(value: Any) -> str:
    """Show a parameter in one line; an array by its shape."""
    return f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)


def plain_data(value: Any, late: bool, arrays: bool) -> Any:
    """Turn a parameter into what JSON can hold; arrays, which may be large, only if asked for."""
    if hasattr(value, "_plain_params"):  # a backend
        return {"use": value.name, **value._plain_params(late, arrays)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (frozenset, set)):
        return sorted(plain_data(item, late, arrays) for item in value)
    if isinstance(value, (list, tuple)):
        return [plain_data(item, late, arrays) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain_data(item, late, arrays) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist() if arrays else None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise BackendError(f"a parameter of type {type(value).__name__} cannot be saved")


# Messages --------------------------------------------------------------------------------------


def parameter_error(cls: type[Backend], error: pydantic.ValidationError) -> ParameterError:
    """Say what pydantic found in our words, one line for each field."""
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
