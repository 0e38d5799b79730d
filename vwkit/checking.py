"""From a spec's tree to backends ready to run, with all problems at once.

Three steps: slots and their fields (each backend checks its own), paths, rules across slots. No
data are read: at most a descriptor file's header.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from vwkit.base import Parameter, create
from vwkit.errors import ParameterError, Problem, SpecError, VwkitError, dotted
from vwkit.featurizer import Reader
from vwkit.fetching import is_sha256
from vwkit.formats.urls import is_url, local_of_url, secret_in
from vwkit.hashing import derive_seed
from vwkit.metadata import format_of
from vwkit.plugins import registry
from vwkit.remote import UrlFile
from vwkit.rules import KeyPath, check_rules
from vwkit.source import Source
from vwkit.spec import (
    FORMAT,
    KEYS,
    ImagesSource,
    RunSettings,
    Spec,
    Train,
    UrlsSource,
    VectorsSource,
    bytes_of,
)

__all__ = ["compile_spec"]

_IMAGE_KEYS = (
    "path", "pattern", "limit", "sample", "metadata", "file_field", "id_field", "fields",
)  # fmt: skip
_URL_KEYS = (
    "urls", "url_field", "id_field", "fields", "cache", "limit", "sample", "parallel", "per_host",
    "timeout", "max_bytes", "retries", "retry", "allow_private",
)  # fmt: skip
_VECTOR_KEYS = ("path", "url", "sha256", "use", "images", "counts", "limit", "sample")
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


class _Checker:
    def __init__(self, source: Source) -> None:
        self.source = source
        # A slot that is null is switched off, so that --set can do that.
        self.data = {key: value for key, value in source.data.items() if value is not None}
        self.problems: list[Problem] = []
        self.trains: dict[str, Train] = {}
        self.output_paths: list[KeyPath] = []
        self.seed = 0

    def lines(self) -> list[str]:
        found = []
        for problem in self.problems:
            where = self.source.where(problem.path)
            text = " ".join(str(problem).split("\n"))
            if where == f"--set {dotted(problem.path)}":
                text = " ".join(problem.message.split("\n"))  # the place is the path
            found.append((self._order(problem.path), f"{where}: {text}" if where else text))
        return [line for _, line in sorted(found, key=lambda one: one[0])]

    def _order(self, path: KeyPath) -> tuple[int, int]:
        place = re.search(r":(\d+):(\d+)$", self.source.where(path))
        return (int(place[1]), int(place[2])) if place else (1 << 30, 0)

    def problem(self, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(path, message))

    # Steps

    def run(self) -> Spec:
        data = self.data
        self._unknown_keys((), data, KEYS, "a spec")
        self._version(data)
        spec = Spec(self.source, trains=self.trains)
        spec.seed = self.seed = self._whole((), data, "seed", 0) or 0
        spec.images = self._images(data.get("images"), ("images",)) if "images" in data else None
        spec.vectors = self._vectors(data["vectors"]) if "vectors" in data else None
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

    # Sources

    def _images(self, value: Any, path: KeyPath) -> ImagesSource | UrlsSource | None:
        if not self._mapping(path, value, "a mapping with path or urls"):
            return None
        if "urls" in value:
            return self._urls(value, path)
        self._unknown_keys(path, value, _IMAGE_KEYS, path[-1])
        file = self._path(path, value, "path", must_exist=True)
        pattern = value.get("pattern")
        if pattern is not None and not isinstance(pattern, str):
            self.problem((*path, "pattern"), f"must be text such as '**/*.jpg'; got {pattern!r}")
            pattern = None
        limit = self._whole(path, value, "limit", None, least=1)
        sample = self._whole(path, value, "sample", None, least=1)
        metadata = self._metadata(path, value, "metadata", required=False)
        for key in ("file_field", "id_field", "fields"):
            if key in value and "metadata" not in value:
                self.problem((*path, key), "names a field of a metadata file; give metadata, too")
        described = {
            "metadata": metadata,
            "file_field": self._text(path, value, "file_field", None),
            "id_field": self._text(path, value, "id_field", None),
            "fields": self._texts(path, value, "fields"),
        }
        if file is None:
            return None
        return ImagesSource(file, pattern, limit, sample, **described)  # type: ignore[arg-type]

    def _urls(self, value: Mapping[str, Any], path: KeyPath) -> UrlsSource | None:
        """Check a source that is fetched."""
        told = len(self.problems)
        if "path" in value:
            self.problem((*path, "path"), "path or urls, not both")
        known = tuple(_URL_KEYS)
        for key in ("pattern", "metadata", "file_field"):
            if key in value:
                self.problem((*path, key), f"{key} belongs to a path; urls has {', '.join(known)}")
        own = {k: v for k, v in value.items() if k not in (*_IMAGE_KEYS, "path")}
        self._unknown_keys(path, own, known, path[-1])
        file = self._metadata(path, value, "urls", required=True)
        cache = self._path(path, value, "cache", must_exist=False)
        if cache is not None and cache.exists() and not cache.is_dir():
            self.problem((*path, "cache"), f"{cache}: a file is in the way of the folder")
        defaults = UrlsSource(Path(), Path())
        retry = value.get("retry", defaults.retry)
        if retry not in ("temporary", "failed", "never"):
            self.problem((*path, "retry"), f"must be temporary, failed or never; got {retry!r}")
        allow = value.get("allow_private", False)
        if not isinstance(allow, bool):
            self.problem((*path, "allow_private"), f"must be true or false; got {allow!r}")
        timeout = value.get("timeout", defaults.timeout)
        if isinstance(timeout, bool) or not (
            isinstance(timeout, (int, float)) and 0 < timeout <= 3600
        ):
            self.problem((*path, "timeout"), f"must be seconds, at most 3600; got {timeout!r}")
        most = defaults.max_bytes
        if "max_bytes" in value:
            try:
                most = bytes_of(value["max_bytes"])
            except ParameterError as error:
                self.problem((*path, "max_bytes"), str(error))
        numbers = {
            key: self._whole(path, value, key, getattr(defaults, key), least=least, most=top)
            for key, least, top in (("parallel", 1, 256), ("per_host", 1, 256), ("retries", 0, 20))
        }
        settings: dict[str, Any] = {
            "url_field": self._text(path, value, "url_field", defaults.url_field),
            "id_field": self._text(path, value, "id_field", None),
            "fields": self._texts(path, value, "fields"),
            "limit": self._whole(path, value, "limit", None, least=1),
            "sample": self._whole(path, value, "sample", None, least=1),
            **numbers,
        }
        if len(self.problems) > told or file is None or cache is None:
            return None
        return UrlsSource(
            file,
            cache,
            **settings,
            timeout=float(timeout),
            max_bytes=most,
            retry=retry,
            allow_private=allow,
        )

    def _metadata(
        self, path: KeyPath, value: Mapping[str, Any], key: str, *, required: bool
    ) -> Path | None:
        file = self._path(path, value, key, must_exist=True, required=required)
        if file is None:
            return None
        if file.is_dir():
            self.problem((*path, key), f"{file}: a folder; a metadata file is needed")
            return None
        try:
            format_of(file)
        except VwkitError as error:
            self.problem((*path, key), str(error))
            return None
        return file

    def _vectors(self, value: Any) -> VectorsSource | None:
        path: KeyPath = ("vectors",)
        if not self._mapping(path, value, "a mapping with path or url"):
            return None
        reader = None
        known: tuple[str, ...] = _VECTOR_KEYS
        if "use" in value:
            name = value["use"]
            entry = registry().entries.get(("featurizer", str(name)))
            own = set(entry[0].cls.parameters()) if entry else set()
            known = (*_VECTOR_KEYS, *own)
            reader = self._slot_of(
                "featurizer", path, {"use": name, **{k: v for k, v in value.items() if k in own}}
            )
            if reader is not None and not isinstance(reader, Reader):
                self.problem((*path, "use"), f"{name} reads images, not descriptor files")
                reader = None
        self._unknown_keys(path, value, known, "vectors")
        file = self._file(path, value, required=True)
        images = self._path(path, value, "images", must_exist=True, required=False)
        counts = self._path(path, value, "counts", must_exist=True, required=False)
        if counts is not None and images is None:
            self.problem((*path, "counts"), "needs images too: the list of image names in order")
        if images is not None and counts is None:
            self.problem((*path, "images"), "needs counts too: the folder of official word files")
        limit = self._whole(path, value, "limit", None, least=1)
        sample = self._whole(path, value, "sample", None, least=1)
        for key in ("limit", "sample"):
            if key in value and images is not None:
                self.problem((*path, key), "images and counts belong to the whole file; drop one")
        if not file:
            return None
        return VectorsSource(file, reader, images, counts, limit, sample)

    def _file(
        self, path: KeyPath, value: Mapping[str, Any], *, required: bool
    ) -> Path | UrlFile | None:
        """Read ``path``, or ``url`` with or without ``sha256``."""
        url, sha256 = value.get("url"), value.get("sha256")
        if url is None:
            if sha256 is not None:
                self.problem((*path, "sha256"), "belongs to a url; a path is read as it is")
            if is_url(value.get("path")):
                self.problem((*path, "path"), "is a URL: write it as url instead of path")
                return None
            if required and "path" not in value:
                self.problem(path, "needs path or url")
                return None
            return self._path(path, value, "path", must_exist=True, required=False)
        told = len(self.problems)
        if "path" in value:
            self.problem((*path, "path"), "path or url, not both")
        if not is_url(url):
            self.problem(
                (*path, "url"), f"must be a URL such as s3://bucket/base.bvecs; got {url!r}"
            )
        elif (secret := secret_in(url)) is not None:
            self.problem(
                (*path, "url"),
                f"holds a secret ({secret}), which a run would write down; log in by the "
                "configuration or the environment variables of fsspec instead",
            )
        elif (local := local_of_url(url)) is not None:
            if not local.is_absolute():
                self.problem((*path, "url"), f"{url} needs an absolute path; or use the key path")
            elif not local.exists():
                self.problem((*path, "url"), f"no such file or folder: {local}")
        if sha256 is not None and not (isinstance(sha256, str) and is_sha256(sha256)):
            self.problem((*path, "sha256"), f"must be 64 hexadecimal digits; got {sha256!r}")
        return None if len(self.problems) > told else UrlFile(url, sha256)

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
        if not self._mapping(path, value, f"a mapping with {word}"):
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
            found = self._absolute(path, item)
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
            rows = self._whole(path, {key: value}, key, None, least=1)
            self.trains[slot] = Train(held.path, held.images, rows)
            return
        if not self._mapping(where, value, "a mapping with path, url, images or rows"):
            return
        self._unknown_keys(where, value, _TRAIN_KEYS, "train")
        file = self._file(where, value, required=False)
        images = None
        if "images" in value:
            given = value["images"]
            images = self._images(
                {"path": given} if isinstance(given, str) else given, (*where, "images")
            )
        if file is not None and images is not None:
            self.problem(where, f"{'path' if 'path' in value else 'url'} or images, not both")
        rows = self._whole(where, value, "rows", held.rows, least=1)
        self.trains[slot] = Train(file, images, rows)

    # Settings

    def _run_settings(self, value: Any) -> RunSettings:
        path: KeyPath = ("run",)
        if not self._mapping(path, value, "a mapping"):
            return RunSettings()
        self._unknown_keys(path, value, _RUN_KEYS, "run")
        memory = None
        if "memory" in value:
            try:
                memory = bytes_of(value["memory"])
            except ParameterError as error:
                self.problem((*path, "memory"), str(error))
        threads = self._whole(path, value, "threads", None, least=1)
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

    # Small checks

    def _mapping(self, path: KeyPath, value: Any, what: str) -> bool:
        if isinstance(value, Mapping):
            return True
        self.problem(path, f"{what} is needed; got {value!r}")
        return False

    def _unknown_keys(
        self, path: KeyPath, value: Mapping[str, Any], known: tuple[str, ...], who: Any
    ) -> None:
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
                self.problem((*path, key), f"{who} has no such key; {hint}")

    def _text(
        self, path: KeyPath, value: Mapping[str, Any], key: str, default: str | None
    ) -> str | None:
        given = value.get(key, default)
        if given is None or (isinstance(given, str) and given):
            return given
        self.problem((*path, key), f"must be the name of a field; got {given!r}")
        return default

    def _texts(self, path: KeyPath, value: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
        given = value.get(key)
        if given is None:
            return None
        if isinstance(given, list) and all(isinstance(one, str) and one for one in given):
            return tuple(given)
        self.problem(
            (*path, key), f"must be a list of fields such as [title, price]; got {given!r}"
        )
        return None

    def _whole(
        self,
        path: KeyPath,
        value: Mapping[str, Any],
        key: str,
        default: int | None,
        least: int = 0,
        most: int | None = None,
    ) -> int | None:
        given = value.get(key, default)
        if given is None or (
            type(given) is int and given >= least and (most is None or given <= most)
        ):
            return given
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        self.problem((*path, key), f"must be a whole number {allowed}; got {given!r}")
        return default

    def _path(
        self,
        path: KeyPath,
        value: Mapping[str, Any],
        key: str,
        *,
        must_exist: bool,
        required: bool = True,
    ) -> Path | None:
        given = value.get(key)
        if given is None:
            if required:
                self.problem(path, f"needs {key}")
            return None
        if not isinstance(given, (str, Path)) or not str(given):
            self.problem((*path, key), f"must be a path; got {given!r}")
            return None
        found = self._absolute((*path, key), str(given))
        try:
            there = not must_exist or found.exists()
        except OSError as error:  # a name that is too long, say
            self.problem((*path, key), f"{found} cannot be a path here: {error.strerror}")
            return None
        if not there:
            self.problem((*path, key), f"no such file or folder: {found}")
            return None
        return found

    def _absolute(self, path: KeyPath, given: str) -> Path:
        return Path(os.path.abspath(self.source.base_of(path) / Path(given).expanduser()))


def _choices(annotation: Any) -> set[str]:
    """Return the literal texts of an annotation, which are not paths."""
    found: set[str] = set()
    if get_origin(annotation) is Literal:
        found.update(str(one) for one in get_args(annotation))
    for part in get_args(annotation):
        if get_origin(part) is not None:
            found |= _choices(part)
    return found
