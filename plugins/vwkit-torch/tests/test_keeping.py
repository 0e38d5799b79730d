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
from torch_checks import picture, wrong
from vwkit_torch import Torch

import vwkit
from vwkit.errors import ArtifactError, CacheWarning
from vwkit.jobs import Job, use_job

pytest.importorskip("torch", reason="needs torch, which is not installed")


# Keeping -----------------------------------------------------------------------------------------


def test_a_saved_program_needs_its_file_no_more(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.small(), tmp_path / "one/net.pt2")
    made = Torch(model=path, layer="fc1", mean=(0.5, 0.4, 0.3))
    expected = made.vectors([picture()])
    made.save(tmp_path / "saved")
    other = tmp_path / "two/other-name.pt"
    other.parent.mkdir()
    shutil.copy(path, other)
    Torch(model=other, layer="fc1", mean=(0.5, 0.4, 0.3)).save(tmp_path / "again")
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("saved", "again")]
    assert manifests[0] == manifests[1]
    assert str(tmp_path) not in manifests[0]
    (native,) = (tmp_path / "saved").glob("native-*/*")
    assert native.read_bytes() == path.read_bytes()
    path.unlink()
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = vwkit.load(tmp_path / "moved")
    assert loaded.vectors([picture()]).tobytes() == expected.tobytes()
    assert loaded.kind == made.kind
    assert loaded.layer == "fc1"
    assert vwkit.create("featurizer", "torch", **loaded.params()).kind == made.kind
    assert not (tmp_path / "cache").exists()


def test_a_saved_program_is_checked(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.small(), tmp_path / "net.pt2")
    made = Torch(model=path)
    made.save(tmp_path / "saved")
    (native,) = (tmp_path / "saved").glob("native-*/*")
    native.write_bytes(native.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="checksum"):
        vwkit.load(tmp_path / "saved")
    networks.exported(networks.mixing(), path)
    with pytest.raises(ArtifactError, match="changed since"):
        made.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_of_torchscript_only_the_hash_is_kept(networks: Any, tmp_path: Path) -> None:
    path = networks.scripted(networks.small(), tmp_path / "net.pt")
    made = Torch(model=path, crop=32, layer="fc1")
    expected = made.vectors([picture()])
    made.save(tmp_path / "saved")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (native,) = (tmp_path / "saved").glob("native-*/*")
    assert native.read_text().strip() == digest
    kept = tmp_path / "cache/models" / f"{digest}.pt"
    assert kept.read_bytes() == path.read_bytes()
    content = path.read_bytes()
    path.unlink()
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = vwkit.load(tmp_path / "moved")
    assert loaded.vectors([picture()]).tobytes() == expected.tobytes()
    assert loaded.kind == made.kind
    # On another machine, where the file was never used: the error says what to do.
    kept.unlink()
    with pytest.raises(ArtifactError, match="TorchScript file, which is a program") as caught:
        vwkit.load(tmp_path / "moved")
    assert f"copy it to {kept}" in str(caught.value)
    kept.write_bytes(b"something else")
    with pytest.raises(ArtifactError, match=digest):
        vwkit.load(tmp_path / "moved")
    kept.write_bytes(content)
    assert vwkit.load(tmp_path / "moved").vectors([picture()]).tobytes() == expected.tobytes()


def test_torchscript_and_a_cache_that_cannot_be_written(
    networks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Torch(model=networks.scripted(networks.small(), tmp_path / "net.pt"), crop=32)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "file"))
    with pytest.warns(CacheWarning, match=r"copy .*net\.pt there"):
        made.save(tmp_path / "saved")
    with pytest.raises(ArtifactError, match="if you have it and trust it"):
        vwkit.load(tmp_path / "saved")


# URLs --------------------------------------------------------------------------------------------

URL = "https://example.org/net"


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


@pytest.mark.parametrize("how", ["exported", "scripted"])
def test_a_model_is_fetched_once(
    networks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    path = networks.save(how, networks.small(), tmp_path / "net")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    web = Web(content)
    monkeypatch.setattr(urllib.request, "urlopen", web)
    wrong("sha256: a model from a URL needs its SHA-256", model=URL)
    remote = Torch(model=URL, sha256=digest, crop=32)
    assert web.asked == []  # not before it is needed
    expected = Torch(model=path, sha256=digest, crop=32).vectors([picture()])
    assert remote.vectors([picture()]).tobytes() == expected.tobytes()
    assert web.asked == [URL]
    assert [one.name for one in (tmp_path / "cache/models").iterdir()] == [f"{digest}.pt"]
    remote.save(tmp_path / "saved")
    loaded = vwkit.load(tmp_path / "saved")
    assert loaded.vectors([picture()]).tobytes() == expected.tobytes()
    assert loaded.params() == remote.params()
    assert web.asked == [URL]


def test_a_local_file_may_be_checked_too(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.small(), tmp_path / "net.pt2")
    wrong("sha256: .*another file", model=path, sha256="0" * 64)
    wrong("64 hexadecimal digits", model=path, sha256="abc")


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
        "featurizer": {"use": "torch", "model": model, **more},
        "index": {"use": "exact", "metric": "l2"},
    }
    (folder / "spec.yaml").write_text(json.dumps(text))
    return folder / "spec.yaml"


@pytest.mark.parametrize("how", ["exported", "scripted"])
def test_a_run_can_be_moved(
    networks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = networks.save(how, networks.pixels(), home / "net")
    shown: list[str] = []

    def progress(stage: str, done: int, total: int | None, unit: str, values: Any) -> None:
        shown.append(f"{stage} {done} {unit}")

    with use_job(Job(progress=progress)):
        pipeline = vwkit.Pipeline.from_file(spec(home, path.name, crop=32))
        run = pipeline.run(tmp_path / "run")
    assert run.search(str(home / "photos/2-0.png"), 2).ids[0].tolist() == [4, 5]
    (tmp_path / "run").rename(tmp_path / "moved")
    shutil.copy(home / "photos/1-1.png", tmp_path / "query.png")
    shutil.rmtree(home)
    if how == "exported":  # of TorchScript, the copy in the cache is the only one
        shutil.rmtree(tmp_path / "cache")
    again = vwkit.Run.open(tmp_path / "moved")
    assert again.search(str(tmp_path / "query.png"), 2).ids[0].tolist() == [3, 2]


def test_mistakes_in_a_spec_have_their_place(networks: Any, tmp_path: Path) -> None:
    networks.exported(networks.small(), tmp_path / "net.pt2")
    for model, more, text in (
        ("none.pt2", {}, f"featurizer.model: no such file or folder: {tmp_path / 'none.pt2'}"),
        ("net.pt2", {"layer": "fc3"}, "did you mean fc2"),
        ("net.pt2", {"device": "gpu"}, "featurizer.device: must be cpu"),
        (URL, {}, "featurizer.sha256: a model from a URL"),
    ):
        with pytest.raises(vwkit.SpecError, match=r"spec\.yaml:1:") as caught:
            vwkit.Pipeline.from_file(spec(tmp_path, model, **more))
        assert text in str(caught.value)
