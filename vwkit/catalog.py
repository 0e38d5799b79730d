"""The installed backends as plain data: for listings, docs tables and the JSON schema."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vwkit.base import Backend, Parameter
from vwkit.plugins import Entry, registry, unavailable
from vwkit.spec import KEYS

__all__ = ["catalog", "describe", "schema"]

_ABILITIES = (
    "metrics", "exact", "supports_add", "supports_remove", "supports_compact", "frees_removed",
    "memory_mapped", "supports_filter", "supports_sparse",
    "thread_safe", "distance_error", "consumes", "supports_predict", "supports_weights",
    "has_centers", "fixed_k", "hierarchical", "label_agreement", "structure", "local", "trainable",
    "batch_invariant", "streams", "dtypes", "deterministic",
)  # fmt: skip


#: What is said of the vectors that a backend takes, and the roles that take some.
_OF_VECTORS = frozenset({"streams", "dtypes"})
_TAKES_VECTORS = frozenset({"transform", "quantizer", "clusterer", "index"})


def catalog() -> list[dict[str, Any]]:
    """Return every installed backend, by role and name; see `describe`."""
    known = registry()
    return [
        describe(entry)
        for role in known.roles()
        for name in known.names(role)
        for entry in known.entries[role, name]
    ]


def describe(entry: Entry) -> dict[str, Any]:
    """Describe one backend: names, package, summary, parameters, abilities."""
    cls: type[Backend] = entry.cls
    return {
        "role": cls.role,
        "name": cls.name,
        "package": entry.package,
        "version": entry.version,
        "summary": summary_of(cls),
        "unavailable": unavailable(cls),
        "choose": cls.choose,
        "library": cls.library,
        "license": cls.license,
        "compiled": cls.compiled,
        "parameters": [_parameter(one) for one in cls.parameters().values()],
        "abilities": _abilities(cls),
    }


def summary_of(cls: type[Any]) -> str:
    """Return the first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", text)[0]


def _abilities(cls: type[Backend]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _ABILITIES:
        value = inspect.getattr_static(cls, name, None)
        if value is None or (name in _OF_VECTORS and cls.role not in _TAKES_VECTORS):
            continue
        if isinstance(value, property):
            found[name] = "depends on parameters" if _own(cls, name) else False
        elif isinstance(value, frozenset):
            found[name] = sorted(value)
        elif isinstance(value, tuple):
            found[name] = list(value)
        else:
            found[name] = value
    return found


def _own(cls: type[Any], name: str) -> bool:
    return inspect.getattr_static(cls, name) is not inspect.getattr_static(Backend, name, None)


def _parameter(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "type": _type_text(one.annotation),
        "required": one.required,
        "default": None if one.required else _plain(one.default),
        "late": one.late,
        "doc": one.doc,
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _type_text(annotation: Any) -> str:
    """Write a field's type as a person would say it."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        from vwkit.parameters import NestedMarker, roles_of

        if any(isinstance(extra, NestedMarker) for extra in annotation.__metadata__):
            return " or ".join(roles_of(parts[0])) + " {use: …}"
        limits = [_limit(extra) for extra in annotation.__metadata__]
        return " ".join([_type_text(parts[0]), *filter(None, limits)])
    if origin is Literal:
        return " | ".join(str(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_text(part) for part in parts)
    names = {int: "whole number", float: "number", str: "text", bool: "true or false",
             Path: "path", type(None): "none"}  # fmt: skip
    if annotation in names:
        return names[annotation]
    if annotation is np.ndarray or origin is np.ndarray:
        return "array"
    return getattr(annotation, "__name__", str(annotation))


def _limit(extra: Any) -> str:
    for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
        if hasattr(extra, name):
            return f"{sign} {getattr(extra, name)}"
    return ""


# JSON schema -----------------------------------------------------------------------------------

_SLOTS = (
    ("featurizer", "featurizer", "use", False),
    ("transform", "transform", "use", True),
    ("quantizer", "quantizer", "use", False),
    ("clusterer", "clusterer", "use", False),
    ("index", "index", "use", False),
    ("rerank", "reranker", "use", True),
    ("evaluate", "evaluator", "protocol", False),
    ("output", "output", "write", True),
)


def schema() -> dict[str, Any]:
    """Return a JSON schema (2020-12) of specs with the installed backends."""
    definitions: dict[str, Any] = {}
    for role in registry().roles():
        if role == "app":
            continue  # `vwkit serve` takes it; no spec names one
        word = {"evaluator": "protocol", "output": "write"}.get(role, "use")
        choices = list(_choices(role, word, definitions))
        definitions[role] = {"anyOf": choices}
    properties: dict[str, Any] = {
        "vwkit": {"const": 1, "description": "Version of the spec language."},
        "seed": {"type": "integer", "minimum": 0},
        "images": {
            "anyOf": [
                _object(
                    {
                        "path": _TEXT,
                        "pattern": _TEXT,
                        "limit": _COUNT,
                        "sample": _COUNT,
                        "metadata": _TEXT,
                        "file_field": _TEXT,
                        "id_field": _TEXT,
                        "fields": _TEXTS,
                    },
                    ["path"],
                ),
                _object(
                    {
                        "urls": _TEXT,
                        "url_field": {**_TEXT, "default": "url"},
                        "id_field": _TEXT,
                        "fields": _TEXTS,
                        "cache": _TEXT,
                        "limit": _COUNT,
                        "sample": _COUNT,
                        "parallel": {**_COUNT, "maximum": 256, "default": 16},
                        "per_host": {**_COUNT, "maximum": 256, "default": 8},
                        "timeout": {"type": "number", "exclusiveMinimum": 0, "default": 30},
                        "max_bytes": {"type": ["string", "integer"], "default": 20_000_000},
                        "retries": {"type": "integer", "minimum": 0, "default": 3},
                        "retry": {"enum": ["temporary", "failed", "never"]},
                        "allow_private": {"type": "boolean", "default": False},
                    },
                    ["urls", "cache"],
                ),
            ]
        },
        "vectors": {
            **_object(
                {
                    "path": _TEXT,
                    "url": _TEXT,
                    "sha256": _TEXT,
                    "use": _TEXT,
                    "images": _TEXT,
                    "counts": _TEXT,
                    "limit": _COUNT,
                    "sample": _COUNT,
                },
                [],
            ),
            "oneOf": [{"required": ["path"]}, {"required": ["url"]}],
            "additionalProperties": True,
        },
        "run": _object(
            {
                "memory": {"type": ["string", "integer"]},
                "threads": _COUNT,
                "executor": {"anyOf": [_TEXT, {"$ref": "#/$defs/executor"}]},
                "scheduler": _TEXT,
                "on_error": {"enum": ["skip", "stop"]},
            },
            [],
        ),
    }
    for slot, role, _, many in _SLOTS:
        if role in definitions:
            one = {"$ref": f"#/$defs/{role}"}
            properties[slot] = {"anyOf": [one, {"type": "array", "items": one}]} if many else one
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vwkit spec",
        "type": "object",
        "properties": {key: properties[key] for key in KEYS if key in properties},
        "required": ["vwkit"],
        "oneOf": [{"required": ["images"]}, {"required": ["vectors"]}],
        "additionalProperties": False,
        "$defs": definitions,
    }


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_COUNT = {"type": "integer", "minimum": 1}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _choices(role: str, word: str, definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in registry().names(role):
        cls: type[Backend] = registry().entries[role, name][0].cls
        properties: dict[str, Any] = {word: {"const": name, "description": summary_of(cls)}}
        required = [word]
        for one in cls.parameters().values():
            properties[one.name] = _field_schema(one)
            if one.required:
                required.append(one.name)
        if role in ("transform", "quantizer", "clusterer"):
            properties.setdefault("train", {"type": "object"})
            properties.setdefault("train_rows", _COUNT)
        yield {"title": f"{role} {name}", **_object(properties, required)}


def _field_schema(one: Parameter) -> dict[str, Any]:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    if one.nested:
        found: dict[str, Any] = {
            "anyOf": [{"$ref": f"#/$defs/{role}"} for role in one.nested] + [_TEXT]
        }
    else:
        try:
            found = TypeAdapter(
                one.annotation, config={"arbitrary_types_allowed": True}
            ).json_schema()
        except (PydanticSchemaGenerationError, PydanticUserError):
            found = {}  # an array, say: what a spec may hold there is checked by the backend
    if one.doc:
        found["description"] = one.doc
    if not one.required and (one.default is None or isinstance(one.default, (str, int, float))):
        found["default"] = one.default
    return found
