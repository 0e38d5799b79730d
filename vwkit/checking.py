"""From a spec's tree to backends ready to run, with all problems at once.

Three steps: slots and their fields (each backend checks its own), paths, rules across slots. No
data are read: at most a descriptor file's header.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from vwkit.base import Parameter, create
from vwkit.errors import ParameterError, Problem, SpecError, VwkitError, dotted
from vwkit.formats.urls import is_url
from vwkit.hashing import derive_seed
from vwkit.plugins import registry
from vwkit.rules import KeyPath, check_rules
from vwkit.source import Source
from vwkit.spec import FORMAT, KEYS, RunSettings, Spec, Train, bytes_of
from vwkit.spec_sources import checked_file, checked_images, checked_vectors
from vwkit.spec_values import Values

__all__ = ["compile_spec"]

_RUN_KEYS = ("memory", "threads", "executor", "scheduler", "on_error")
_TRAIN_KEYS = ("path", "url", "sha256", "images", "rows")

# Where a path is wanted, a backend may take this, too.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def compile_spec(source: Source) -> Spec:
    """Check a spec and make its backends.

    Raises
    ------
    SpecError
        One line per problem, all of them at once.
    """
    checker = _Checker(source)
    spec = checker.run()
    if checker.problems:
        raise SpecError("\n".join(checker.lines()))
    return spec


class _Checker(Values):
    def __init__(self, source: Source) -> None:
        super().__init__(source)
        # A slot that is null is switched off, so that --set can do that.
        self.data = {key: value for key, value in source.data.items() if value is not None}
        self.trains: dict[str, Train] = {}
        self.output_paths: list[KeyPath] = []
        self.seed = 0

    # Steps

    def run(self) -> Spec:
        data = self.data
        self.unknown_keys((), data, KEYS, "a spec")
        self._version(data)
        spec = Spec(self.source, trains=self.trains)
        spec.seed = self.seed = self.whole((), data, "seed", 0) or 0
        spec.images = (
            checked_images(self, data.get("images"), ("images",)) if "images" in data else None
        )
        spec.vectors = (
            checked_vectors(self, data["vectors"], self._slot_of) if "vectors" in data else None
        )
        if ("images" in data) == ("vectors" in data):
            both = "both are given" if "images" in data else "neither is given"
            self.problem((), f"exactly one of images and vectors is needed; {both}")
        spec.featurizer = self._slot("featurizer", ("featurizer",))
        spec.transform = list(self._slots("transform", "transform"))
        spec.quantizer = self._slot("quantizer", ("quantizer",))
        spec.clusterer = self._slot("clusterer", ("clusterer",))
        spec.index = self._slot("index", ("index",))
        spec.rerank = list(self._slots("rerank", "reranker"))
        spec.evaluate = self._slot("evaluator", ("evaluate",), "protocol")
        spec.output = list(self._slots("output", "output", "write"))
        spec.run = self._run_settings(data.get("run", {}))
        check_rules(spec, self.data, self.output_paths, self.problem)
        return spec

    def _version(self, data: Mapping[str, Any]) -> None:
        version = data.get("vwkit")
        if version is None:
            self.problem((), "a spec begins with `vwkit: 1`, the version of the spec language")
        elif type(version) is not int or version < 1:
            self.problem(
                ("vwkit",), f"must be 1, the version of the spec language; got {version!r}"
            )
        elif version > FORMAT:
            self.problem(
                ("vwkit",), f"version {version} is newer than this vwkit, which reads 1: update it"
            )

    # Slots

    def _slots(self, key: str, role: str, word: str = "use") -> Iterator[Any]:
        value = self.data.get(key)
        if value is None:
            return
        if isinstance(value, Mapping):
            value, single = [value], True
        else:
            single = False
        if not isinstance(value, list):
            self.problem((key,), f"a list of mappings with {word} is needed; got {value!r}")
            return
        for i, item in enumerate(value):
            path: KeyPath = (key,) if single else (key, i)
            made = self._slot_of(role, path, item, word)
            if made is not None:
                if role == "output":
                    self.output_paths.append(path)
                yield made

    def _slot(self, role: str, path: KeyPath, word: str = "use") -> Any:
        if path[0] not in self.data:
            return None
        return self._slot_of(role, path, self.data[str(path[0])], word)

    def _slot_of(self, role: str, path: KeyPath, value: Any, word: str = "use") -> Any:
        if not self.mapping(path, value, f"a mapping with {word}"):
            return None
        name = value.get(word)
        if not isinstance(name, str):
            names = ", ".join(registry().names(role)) or "none installed"
            self.problem(path, f"needs {word}: the name of one of {names}")
            return None
        try:
            params = self._params(role, name, value, path, word)
            return create(role, name, **params)
        except ParameterError as error:
            told = {one.path for one in self.problems}
            found = [one.under(*path) for one in error.problems or (Problem((word,), str(error)),)]
            self.problems += [one for one in found if one.path not in told]
        except VwkitError as error:
            self.problem((*path, word), str(error))
        return None

    def _params(
        self, role: str, name: str, value: Mapping[str, Any], path: KeyPath, word: str
    ) -> dict[str, Any]:
        """Make a slot's parameters absolute: paths, seeds, and the same for nested slots."""
        entries = registry().entries.get((role, name))
        params = {str(key): item for key, item in value.items() if key != word}
        if not entries:
            return params
        known = entries[0].cls.parameters()
        for key in ("train", "train_rows"):
            if key in params and key not in known:
                self._train(path, key, params.pop(key), role)
        for key, item in list(params.items()):
            if key in known:
                params[key] = self._value(known[key], item, (*path, key), role)
        if "seed" in known and "seed" not in params:
            params["seed"] = derive_seed(self.seed, dotted(path))
        return params

    def _value(self, parameter: Parameter, item: Any, path: KeyPath, role: str) -> Any:
        if parameter.nested and isinstance(item, Mapping) and isinstance(item.get("use"), str):
            name = item["use"]
            roles = parameter.nested
            role = next((r for r in roles if (r, name) in registry().entries), roles[0])
            return {"use": name, **self._params(role, name, item, path, "use")}
        if isinstance(item, str) and (parameter.nested or parameter.is_path):
            choices = _choices(parameter.annotation)
            if role == "output" and parameter.is_path and is_url(item):
                self.problem(path, f"outputs are written to local paths only; got {item!r}")
                return item
            if item in choices or _URL.match(item):
                return item
            found = self.absolute(path, item)
            if parameter.is_path and role != "output" and not found.exists():
                near = difflib.get_close_matches(item, sorted(choices), n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.problem(path, f"no such file or folder: {found}{hint}")
            return str(found)
        return item

    def _train(self, path: KeyPath, key: str, value: Any, role: str) -> None:
        where: KeyPath = (*path, key)
        if role not in ("transform", "quantizer", "clusterer"):
            self.problem(where, f"a {role} is not trained on rows")
            return
        slot = dotted(path)
        held = self.trains.get(slot, Train())
        if key == "train_rows":
            rows = self.whole(path, {key: value}, key, None, least=1)
            self.trains[slot] = Train(held.path, held.images, rows)
            return
        if not self.mapping(where, value, "a mapping with path, url, images or rows"):
            return
        self.unknown_keys(where, value, _TRAIN_KEYS, "train")
        file = checked_file(self, where, value, required=False)
        images = None
        if "images" in value:
            given = value["images"]
            images = checked_images(
                self, {"path": given} if isinstance(given, str) else given, (*where, "images")
            )
        if file is not None and images is not None:
            self.problem(where, f"{'path' if 'path' in value else 'url'} or images, not both")
        rows = self.whole(where, value, "rows", held.rows, least=1)
        self.trains[slot] = Train(file, images, rows)

    # Settings

    def _run_settings(self, value: Any) -> RunSettings:
        path: KeyPath = ("run",)
        if not self.mapping(path, value, "a mapping"):
            return RunSettings()
        self.unknown_keys(path, value, _RUN_KEYS, "run")
        memory = None
        if "memory" in value:
            try:
                memory = bytes_of(value["memory"])
            except ParameterError as error:
                self.problem((*path, "memory"), str(error))
        threads = self.whole(path, value, "threads", None, least=1)
        executor = self._executor(value, path)
        on_error = value.get("on_error", "skip")
        if on_error not in ("skip", "stop"):
            self.problem((*path, "on_error"), f"must be skip or stop; got {on_error!r}")
        return RunSettings(memory, threads, executor, on_error)

    def _executor(self, value: Mapping[str, Any], path: KeyPath) -> Any:
        """Read ``executor: dask``, ``executor: {use: dask, …}``, and ``scheduler:`` beside them."""
        given = value.get("executor")
        where: KeyPath = (*path, "executor")
        if given is None:
            if "scheduler" in value:
                self.problem((*path, "scheduler"), "needs executor: dask beside it")
            return None
        slot = {"use": given} if isinstance(given, str) else given
        if isinstance(slot, Mapping) and "scheduler" in value:
            if "scheduler" in slot:
                self.problem((*path, "scheduler"), "is given in executor, too; once is enough")
            slot = {**slot, "scheduler": value["scheduler"]}
        before = len(self.problems)
        made = self._slot_of("executor", where, slot)
        for i, problem in enumerate(self.problems[before:], before):  # where it was written
            last = problem.path[-1]
            if last == "use" and isinstance(given, str):
                self.problems[i] = Problem(where, problem.message)
            elif last == "scheduler" and "scheduler" in value:
                self.problems[i] = Problem((*path, "scheduler"), problem.message)
        return made


def _choices(annotation: Any) -> set[str]:
    """Return the literal texts of an annotation, which are not paths."""
    found: set[str] = set()
    if get_origin(annotation) is Literal:
        found.update(str(one) for one in get_args(annotation))
    for part in get_args(annotation):
        if get_origin(part) is not None:
            found |= _choices(part)
    return found
