"""Where a spec's data come from: images, URLs of images, files of vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vwkit.errors import ParameterError, VwkitError
from vwkit.featurizer import Reader
from vwkit.fetching import is_sha256
from vwkit.formats.urls import is_url, local_of_url, secret_in
from vwkit.metadata import format_of
from vwkit.plugins import registry
from vwkit.remote import UrlFile
from vwkit.rules import KeyPath
from vwkit.spec import ImagesSource, UrlsSource, VectorsSource, bytes_of
from vwkit.spec_values import Values

__all__ = ["checked_file", "checked_images", "checked_vectors"]

_IMAGE_KEYS = (
    "path", "pattern", "limit", "sample", "metadata", "file_field", "id_field", "fields",
)  # fmt: skip
_URL_KEYS = (
    "urls", "url_field", "id_field", "fields", "cache", "limit", "sample", "parallel", "per_host",
    "timeout", "max_bytes", "retries", "retry", "allow_private",
)  # fmt: skip
_VECTOR_KEYS = ("path", "url", "sha256", "use", "images", "counts", "limit", "sample")


def checked_images(values: Values, value: Any, path: KeyPath) -> ImagesSource | UrlsSource | None:
    """Check ``images``: files in a folder, or URLs in a metadata file."""
    if not values.mapping(path, value, "a mapping with path or urls"):
        return None
    if "urls" in value:
        return _checked_urls(values, value, path)
    values.unknown_keys(path, value, _IMAGE_KEYS, path[-1])
    file = values.path(path, value, "path", must_exist=True)
    pattern = value.get("pattern")
    if pattern is not None and not isinstance(pattern, str):
        values.problem((*path, "pattern"), f"must be text such as '**/*.jpg'; got {pattern!r}")
        pattern = None
    limit = values.whole(path, value, "limit", None, least=1)
    sample = values.whole(path, value, "sample", None, least=1)
    metadata = _metadata_file(values, path, value, "metadata", required=False)
    for key in ("file_field", "id_field", "fields"):
        if key in value and "metadata" not in value:
            values.problem((*path, key), "names a field of a metadata file; give metadata, too")
    described = {
        "metadata": metadata,
        "file_field": values.text(path, value, "file_field", None),
        "id_field": values.text(path, value, "id_field", None),
        "fields": values.texts(path, value, "fields"),
    }
    if file is None:
        return None
    return ImagesSource(file, pattern, limit, sample, **described)  # type: ignore[arg-type]


def _checked_urls(values: Values, value: Mapping[str, Any], path: KeyPath) -> UrlsSource | None:
    """Check a source that is fetched."""
    told = len(values.problems)
    if "path" in value:
        values.problem((*path, "path"), "path or urls, not both")
    known = tuple(_URL_KEYS)
    for key in ("pattern", "metadata", "file_field"):
        if key in value:
            values.problem((*path, key), f"{key} belongs to a path; urls has {', '.join(known)}")
    own = {k: v for k, v in value.items() if k not in (*_IMAGE_KEYS, "path")}
    values.unknown_keys(path, own, known, path[-1])
    file = _metadata_file(values, path, value, "urls", required=True)
    cache = values.path(path, value, "cache", must_exist=False)
    if cache is not None and cache.exists() and not cache.is_dir():
        values.problem((*path, "cache"), f"{cache}: a file is in the way of the folder")
    defaults = UrlsSource(Path(), Path())
    retry = value.get("retry", defaults.retry)
    if retry not in ("temporary", "failed", "never"):
        values.problem((*path, "retry"), f"must be temporary, failed or never; got {retry!r}")
    allow = value.get("allow_private", False)
    if not isinstance(allow, bool):
        values.problem((*path, "allow_private"), f"must be true or false; got {allow!r}")
    timeout = value.get("timeout", defaults.timeout)
    if isinstance(timeout, bool) or not (isinstance(timeout, (int, float)) and 0 < timeout <= 3600):
        values.problem((*path, "timeout"), f"must be seconds, at most 3600; got {timeout!r}")
    most = defaults.max_bytes
    if "max_bytes" in value:
        try:
            most = bytes_of(value["max_bytes"])
        except ParameterError as error:
            values.problem((*path, "max_bytes"), str(error))
    numbers = {
        key: values.whole(path, value, key, getattr(defaults, key), least=least, most=top)
        for key, least, top in (("parallel", 1, 256), ("per_host", 1, 256), ("retries", 0, 20))
    }
    settings: dict[str, Any] = {
        "url_field": values.text(path, value, "url_field", defaults.url_field),
        "id_field": values.text(path, value, "id_field", None),
        "fields": values.texts(path, value, "fields"),
        "limit": values.whole(path, value, "limit", None, least=1),
        "sample": values.whole(path, value, "sample", None, least=1),
        **numbers,
    }
    if len(values.problems) > told or file is None or cache is None:
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


def _metadata_file(
    values: Values, path: KeyPath, value: Mapping[str, Any], key: str, *, required: bool
) -> Path | None:
    file = values.path(path, value, key, must_exist=True, required=required)
    if file is None:
        return None
    if file.is_dir():
        values.problem((*path, key), f"{file}: a folder; a metadata file is needed")
        return None
    try:
        format_of(file)
    except VwkitError as error:
        values.problem((*path, key), str(error))
        return None
    return file


def checked_vectors(
    values: Values, value: Any, slot_of: Callable[..., Any]
) -> VectorsSource | None:
    """Check ``vectors``; `slot_of` makes the backend of a slot, for ``use``."""
    path: KeyPath = ("vectors",)
    if not values.mapping(path, value, "a mapping with path or url"):
        return None
    reader = None
    known: tuple[str, ...] = _VECTOR_KEYS
    if "use" in value:
        name = value["use"]
        entry = registry().entries.get(("featurizer", str(name)))
        own = set(entry[0].cls.parameters()) if entry else set()
        known = (*_VECTOR_KEYS, *own)
        reader = slot_of(
            "featurizer", path, {"use": name, **{k: v for k, v in value.items() if k in own}}
        )
        if reader is not None and not isinstance(reader, Reader):
            values.problem((*path, "use"), f"{name} reads images, not descriptor files")
            reader = None
    values.unknown_keys(path, value, known, "vectors")
    file = checked_file(values, path, value, required=True)
    images = values.path(path, value, "images", must_exist=True, required=False)
    counts = values.path(path, value, "counts", must_exist=True, required=False)
    if counts is not None and images is None:
        values.problem((*path, "counts"), "needs images too: the list of image names in order")
    if images is not None and counts is None:
        values.problem((*path, "images"), "needs counts too: the folder of official word files")
    limit = values.whole(path, value, "limit", None, least=1)
    sample = values.whole(path, value, "sample", None, least=1)
    for key in ("limit", "sample"):
        if key in value and images is not None:
            values.problem((*path, key), "images and counts belong to the whole file; drop one")
    if not file:
        return None
    return VectorsSource(file, reader, images, counts, limit, sample)


def checked_file(
    values: Values, path: KeyPath, value: Mapping[str, Any], *, required: bool
) -> Path | UrlFile | None:
    """Read ``path``, or ``url`` with or without ``sha256``."""
    url, sha256 = value.get("url"), value.get("sha256")
    if url is None:
        if sha256 is not None:
            values.problem((*path, "sha256"), "belongs to a url; a path is read as it is")
        if is_url(value.get("path")):
            values.problem((*path, "path"), "is a URL: write it as url instead of path")
            return None
        if required and "path" not in value:
            values.problem(path, "needs path or url")
            return None
        return values.path(path, value, "path", must_exist=True, required=False)
    told = len(values.problems)
    if "path" in value:
        values.problem((*path, "path"), "path or url, not both")
    if not is_url(url):
        values.problem((*path, "url"), f"must be a URL such as s3://bucket/base.bvecs; got {url!r}")
    elif (secret := secret_in(url)) is not None:
        values.problem(
            (*path, "url"),
            f"holds a secret ({secret}), which a run would write down; log in by the "
            "configuration or the environment variables of fsspec instead",
        )
    elif (local := local_of_url(url)) is not None:
        if not local.is_absolute():
            values.problem((*path, "url"), f"{url} needs an absolute path; or use the key path")
        elif not local.exists():
            values.problem((*path, "url"), f"no such file or folder: {local}")
    if sha256 is not None and not (isinstance(sha256, str) and is_sha256(sha256)):
        values.problem((*path, "sha256"), f"must be 64 hexadecimal digits; got {sha256!r}")
    return None if len(values.problems) > told else UrlFile(url, sha256)
