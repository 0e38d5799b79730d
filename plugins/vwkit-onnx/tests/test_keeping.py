"""A featurizer outlives its file: saved, fetched from a URL once, and in a run that is moved."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from onnx_checks import picture, wrong
from vwkit_onnx import Onnx

import vwkit
from vwkit.errors import ArtifactError, DataError, ParameterError

# Keeping -----------------------------------------------------------------------------------------


def test_a_saved_one_needs_its_file_no_more(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "one/net.onnx")
    featurizer = Onnx(model=path, layer="fc1", mean=(0.5, 0.4, 0.3))
    expected = featurizer.vectors([picture()])
    featurizer.save(tmp_path / "saved")
    other = graphs.save(graphs.convolutions(), tmp_path / "two/other-name.onnx")
    Onnx(model=other, layer="fc1", mean=(0.5, 0.4, 0.3)).save(tmp_path / "again")
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("saved", "again")]
    assert manifests[0] == manifests[1]
    assert str(tmp_path) not in manifests[0]
    (native,) = (tmp_path / "saved").glob("native-*/*")
    assert native.read_bytes() == other.read_bytes()
    path.unlink()
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = vwkit.load(tmp_path / "moved")
    assert loaded.vectors([picture()]).tobytes() == expected.tobytes()
    assert loaded.kind == featurizer.kind
    assert loaded.layer == "fc1"
    # What is kept is a file like any other.
    assert vwkit.create("featurizer", "onnx", **loaded.params()).kind == featurizer.kind


def test_a_damaged_or_foreign_artifact_is_refused(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    featurizer = Onnx(model=path)
    featurizer.save(tmp_path / "saved")
    (native,) = (tmp_path / "saved").glob("native-*/*")
    native.write_bytes(native.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="checksum"):
        vwkit.load(tmp_path / "saved")
    graphs.save(graphs.mixing(), path)
    with pytest.raises(ArtifactError, match="changed since"):
        featurizer.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_kinds_tell_models_layers_and_preparations_apart(graphs: Any, tmp_path: Path) -> None:
    one = graphs.save(graphs.convolutions(), tmp_path / "one.onnx")
    kinds = [
        Onnx(model=model, **params).kind
        for model, params in (
            (one, {}),
            (one, {"layer": "fc1"}),
            (one, {"layer": "r2"}),
            (one, {"layer": "r2", "pool": "max"}),
            (one, {"preset": "clip"}),
            (one, {"size": 40}),
            (one, {"squash": True}),
            (one, {"interpolation": "bicubic"}),
            (one, {"mean": 0.5}),
            (graphs.save(graphs.mixing(), tmp_path / "two.onnx"), {}),
        )
    ]
    assert len(set(kinds)) == len(kinds)
    copy = graphs.save(graphs.convolutions(), tmp_path / "copy.onnx")
    assert Onnx(model=copy, batch_size=2, size=37, crop=32).kind == kinds[0]


def test_parameters_stay_what_they_are(graphs: Any, tmp_path: Path) -> None:
    featurizer = Onnx(model=graphs.save(graphs.convolutions(), tmp_path / "net.onnx"))
    with pytest.raises(ParameterError, match="cannot change"):
        featurizer.layer = "fc1"


# URLs --------------------------------------------------------------------------------------------

URL = "https://example.org/net.onnx"


class Web:
    """Answers instead of the network, and counts."""

    def __init__(self, content: bytes | Exception) -> None:
        self.content = content
        self.asked: list[str] = []

    def __call__(self, url: str, timeout: float) -> Any:
        self.asked.append(url)
        if isinstance(self.content, Exception):
            raise self.content
        answer: Any = io.BytesIO(self.content)
        answer.headers = {"Content-Length": str(len(self.content))}
        return answer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_is_fetched_once(
    graphs: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = graphs.convolutions().SerializeToString()
    web = Web(content)
    monkeypatch.setattr(urllib.request, "urlopen", web)
    digest = hashlib.sha256(content).hexdigest()
    local = Onnx(model=graphs.save(graphs.convolutions(), tmp_path / "net.onnx"), sha256=digest)
    remote = Onnx(model=URL, sha256=digest.upper())
    assert web.asked == []  # not before it is needed
    assert remote.vectors([picture()]).tobytes() == local.vectors([picture()]).tobytes()
    assert Onnx(model=URL, sha256=digest).dim == 10
    assert remote.kind == local.kind
    assert web.asked == [URL]
    assert [path.name for path in (cache / "models").iterdir()] == [f"{digest}.onnx"]
    remote.save(tmp_path / "saved")
    shutil.rmtree(cache)
    loaded = vwkit.load(tmp_path / "saved")
    assert loaded.vectors([picture()]).tobytes() == local.vectors([picture()]).tobytes()
    assert loaded.params() == remote.params()
    assert web.asked == [URL]
    # A damaged copy in the cache is fetched again.
    (cache / "models").mkdir(parents=True)
    (cache / "models" / f"{digest}.onnx").write_bytes(b"damaged")
    assert Onnx(model=URL, sha256=digest).dim == 10
    assert web.asked == [URL, URL]


def test_urls_that_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", Web(OSError("must not be asked")))
    wrong("sha256: a model from a URL needs its SHA-256", model=URL)
    wrong("64 hexadecimal digits", model=URL, sha256="abc")
    for url in ("file:///etc/passwd", "ftp://example.org/net.onnx"):
        wrong("model: a URL begins with https://", model=url, sha256="0" * 64)


def test_what_is_fetched_must_be_what_was_meant(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", Web(b"something else"))
    featurizer = Onnx(model=URL, sha256="0" * 64)
    with pytest.raises(ParameterError, match="is not used"):
        _ = featurizer.dim
    monkeypatch.setattr(urllib.request, "urlopen", Web(OSError("no route to host")))
    with pytest.raises(DataError, match="cannot be fetched: no route to host"):
        _ = featurizer.dim
    assert not list((cache / "models").glob("*"))


def test_a_local_file_may_be_checked_too(graphs: Any, tmp_path: Path) -> None:
    path = graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    wrong("sha256: .*another file", model=path, sha256="0" * 64)


# In a run ----------------------------------------------------------------------------------------


def spec(folder: Path, model: str, **more: Any) -> Path:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for seed in range(4):
        base = np.random.default_rng(seed).integers(0, 256, 3)
        noise = np.random.default_rng(seed).integers(-20, 20, (40, 50, 3))
        pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
        for copy in range(2):
            PIL.Image.fromarray(pixels[copy:]).save(folder / f"photos/{seed}-{copy}.png")
    text = {
        "vwkit": 1,
        "images": {"path": "photos"},
        "featurizer": {"use": "onnx", "model": model, **more},
        "index": {"use": "exact", "metric": "l2"},
    }
    (folder / "spec.yaml").write_text(json.dumps(text))
    return folder / "spec.yaml"


def test_a_run_can_be_moved(graphs: Any, tmp_path: Path, cache: Path) -> None:
    home = tmp_path / "home"
    graphs.save(graphs.pixels(["n", 3, 8, 8]), home / "models/net.onnx")
    run = vwkit.Pipeline.from_file(spec(home, "models/net.onnx")).run(tmp_path / "run")
    assert run.search(str(home / "photos/2-0.png"), 2).ids[0].tolist() == [4, 5]
    (tmp_path / "run").rename(tmp_path / "moved")
    query = home / "photos/1-1.png"
    shutil.copy(query, tmp_path / "query.png")
    shutil.rmtree(home)
    shutil.rmtree(cache)
    again = vwkit.Run.open(tmp_path / "moved")
    assert again.search(str(tmp_path / "query.png"), 2).ids[0].tolist() == [3, 2]


def test_mistakes_in_a_spec_have_their_place(graphs: Any, tmp_path: Path) -> None:
    graphs.save(graphs.convolutions(), tmp_path / "net.onnx")
    for model, more, text in (
        ("none.onnx", {}, f"featurizer.model: no such file or folder: {tmp_path / 'none.onnx'}"),
        ("net.onnx", {"layer": "fc3"}, "did you mean fc2"),
        (URL, {}, "featurizer.sha256: a model from a URL"),
    ):
        with pytest.raises(vwkit.SpecError, match=r"spec\.yaml:1:") as caught:
            vwkit.Pipeline.from_file(spec(tmp_path, model, **more))
        assert text in str(caught.value)


def test_checking_a_spec_fetches_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", Web(OSError("must not be asked")))
    pipeline = vwkit.Pipeline.from_file(spec(tmp_path, URL, sha256="0" * 64))
    assert pipeline.spec.featurizer.model == URL
