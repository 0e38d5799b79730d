from __future__ import annotations

import hashlib
import io
import json
import shutil
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from vwkit_torch import Torch

import vwkit
from vwkit.errors import ArtifactError, CacheWarning, ParameterError
from vwkit.jobs import Job, use_job

torch = pytest.importorskip("torch", reason="needs torch, which is not installed")

WAYS = ("exported", "scripted", "traced")


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def prepared(*images: np.ndarray) -> Any:
    """Do by hand what the preset imagenet does to pictures of the network's own size."""
    pixels = np.stack(images).astype(np.float64) / 255
    numbers = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.tensor(numbers.transpose(0, 3, 1, 2), dtype=torch.float32)


def wrong(match: str, **params: Any) -> str:
    """Return the one line that refuses these parameters."""
    with pytest.raises(ParameterError, match=match) as caught:
        Torch(**params)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.problems[0].path
    return text


# What comes out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [*WAYS, "frozen"])
def test_vectors_are_those_of_pytorch(networks: Any, tmp_path: Path, how: str) -> None:
    small = networks.small()
    made = Torch(model=networks.save(how, small, tmp_path / "net"), crop=32, size=32)
    images = [picture(32, 32, seed) for seed in range(5)]
    with torch.no_grad():
        expected = small(prepared(*images)).numpy()
    found = made.vectors(images)
    assert made.dim == 10
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_every_way_gives_the_same(networks: Any, tmp_path: Path) -> None:
    made = [
        Torch(model=networks.save(how, networks.small(), tmp_path / how), crop=32, layer="layer1")
        for how in WAYS
    ]
    flat = networks.exported(networks.small(), tmp_path / "flat.pt2", flat=True)
    made.append(Torch(model=flat, layer="layer1"))
    first, *others = (one.vectors([picture()]) for one in made)
    for other in others:
        assert other == pytest.approx(first, rel=1e-5, abs=1e-6)
    assert len({one.kind for one in made}) == len(made)


def test_pictures_of_every_kind(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.small(), tmp_path / "net.pt2")
    gray, alpha = picture(32, 32)[:, :, 0], picture(32, 32, 1)[:, :, 0]
    clear = np.dstack([picture(32, 32), alpha])
    on_white = PIL.Image.new("RGB", (32, 32), "white")
    shown = PIL.Image.fromarray(clear)
    on_white.paste(shown, mask=shown.getchannel("A"))
    ways = [
        (gray, np.dstack([gray] * 3)),
        (gray.astype(np.uint16) * 257, np.dstack([gray] * 3)),
        (picture(32, 32).astype(np.uint16) * 257, picture(32, 32)),
        (clear, np.asarray(on_white)),
    ]
    made = Torch(model=path, size=32)
    for given, plain in ways:
        first, second = made.vectors([given]), made.vectors([plain])
        assert first == pytest.approx(second, abs=2e-2)
    for shape in ((1, 1), (1, 1, 3), (1, 300, 3), (300, 1, 4)):
        assert np.isfinite(made.vectors([np.full(shape, 9, np.uint8)])).all()


# Layers ------------------------------------------------------------------------------------------


def by_hooks(network: Any, image: Any) -> dict[str, Any]:
    """Return what every module gives, as forward hooks see it; the last call counts."""
    found: dict[str, Any] = {}

    def hook(name: str) -> Any:
        # A copy: what comes next may change it in place.
        return lambda _module, _given, result: found.__setitem__(name, result.clone())

    handles = [part.register_forward_hook(hook(name)) for name, part in network.named_modules()]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("how", WAYS)
def test_every_layer_by_its_name(networks: Any, tmp_path: Path, how: str) -> None:
    small, image = networks.small(), picture(32, 32)
    path = networks.save(how, small, tmp_path / "net")
    expected = by_hooks(small, prepared(image))
    assert len(expected) == 19
    for name, value in expected.items():
        if name:
            made = Torch(model=path, crop=32, size=32, layer=name, pool="flatten")
            found = made.vectors([image])
            assert found.shape == (1, value.numel()), name
            assert found[0] == pytest.approx(value.numpy().ravel(), rel=1e-4, abs=1e-5), name
            pooled = Torch(model=path, crop=32, size=32, layer=name).vectors([image])
            if value.ndim == 4:
                value = value.mean((2, 3))
            assert pooled == pytest.approx(value.numpy(), rel=1e-4, abs=1e-5), name


def test_values_of_a_program_by_their_names(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.small(), tmp_path / "net.pt2")
    by_module = Torch(model=path, layer="layer1.0.relu")
    by_value = Torch(model=path, layer="relu__1")
    assert by_module.kind == by_value.kind
    # Before it is changed in place, which hooks of a whole run would not show.
    first = Torch(model=path, layer="add", pool="flatten").vectors([picture()])
    assert first.min() < 0
    second = Torch(model=path, layer="relu__1", pool="flatten").vectors([picture()])
    assert second.tobytes() == np.maximum(first, 0).tobytes()


@pytest.mark.parametrize("how", WAYS)
def test_a_wrong_layer(networks: Any, tmp_path: Path, how: str) -> None:
    path = networks.save(how, networks.small(), tmp_path / "net")
    for name, near in (
        ("fc3", "fc2"),
        ("layer1.0.conv3", "layer1.0.conv"),
        ("avg_pool", "avgpool"),
    ):
        assert near in wrong("layer: .*has no layer.*did you mean", model=path, crop=32, layer=name)
    wrong("layer: .*the last of .*fc2", model=path, crop=32, layer="zzzzzz")
    wrong("layer: .*'spare'", model=path, crop=32, layer="spare")


def test_layers_that_torchscript_hides(networks: Any, tmp_path: Path) -> None:
    frozen = networks.frozen(networks.small(), tmp_path / "frozen.pt")
    wrong("a frozen TorchScript file has none", model=frozen, crop=32, layer="fc1")

    class Loop(torch.nn.Module):
        __module__ = "networks"

        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Conv2d(3, 3, 1)

        def forward(self, x):
            for _ in range(int(x.size(0)) + 1):
                x = self.inner(x)
            return x

    class Around(torch.nn.Module):
        __module__ = "networks"

        def __init__(self):
            super().__init__()
            self.loop = Loop()

        def forward(self, x):
            return self.loop(x) * 2

    with networks.seeded():
        network = Around().eval()
    path = networks.scripted(network, tmp_path / "loop.pt")
    wrong("only in a loop or under a condition", model=path, crop=32, layer="loop.inner")
    found = Torch(model=path, crop=32, size=32, layer="loop").vectors([picture(32, 32)])
    with torch.no_grad():
        expected = network.loop(prepared(picture(32, 32))).mean((2, 3)).numpy()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_how_places_are_pooled(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.small(), tmp_path / "net.pt2")
    found = {
        pool: Torch(model=path, layer="layer1", pool=pool).vectors([picture()])[0]
        for pool in ("mean", "max", "flatten")
    }
    grid = found["flatten"].reshape(8, -1)
    assert found["mean"] == pytest.approx(grid.mean(axis=1), rel=1e-5)
    assert (found["max"] == grid.max(axis=1)).all()


def test_channels_are_found_where_they_are(networks: Any, tmp_path: Path) -> None:
    """Between two permutations, and behind layers that work along the last axis."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 6, 3)
            self.norm = torch.nn.LayerNorm(6)
            self.dense = torch.nn.Linear(6, 9)
            self.act = torch.nn.GELU()

        def forward(self, x):
            x = self.conv(x).permute(0, 2, 3, 1)
            return self.act(self.dense(self.norm(x))).permute(0, -1, 1, 2)

    with networks.seeded():
        network = Block().eval()
    path = networks.exported(network, tmp_path / "net.pt2")
    expected = by_hooks(network, prepared(picture(32, 32)))
    for layer, axes in (("conv", (2, 3)), ("norm", (1, 2)), ("act", (1, 2)), (None, (2, 3))):
        found = Torch(model=path, layer=layer, size=32).vectors([picture(32, 32)])
        value = expected[layer or ""].mean(axes).numpy()
        assert found == pytest.approx(value, rel=1e-4, abs=1e-5), layer


def test_outputs_that_are_no_vector(networks: Any, tmp_path: Path) -> None:
    def refused(match: str, forward: Any, **params: Any) -> None:
        path = networks.exported(networks.module(forward), tmp_path / "net.pt2")
        wrong(match, model=path, **params)

    refused(r"layer: 'mean' gives \(\) for 1 image", lambda x: x.mean())
    refused("gives no numbers", lambda x: x.mean((2, 3)) > 0)
    refused("does not depend on the image", lambda x: torch.ones(1, 4) * 2)
    path = networks.exported(networks.module(lambda x: (x.mean((2, 3)), x)), tmp_path / "two.pt2")
    assert Torch(model=path, preset="none").vectors([np.full((9, 9, 3), 5, np.uint8)]).tolist() == [
        [5, 5, 5]
    ]
    half = networks.exported(networks.module(lambda x: x.mean((2, 3)).bfloat16()), path)
    assert Torch(model=half, preset="none").vectors([np.full((9, 9, 3), 5, np.uint8)])[0, 0] == 5


def test_tuples_of_torchscript(networks: Any, tmp_path: Path) -> None:
    for forward in (lambda x: (x.mean((2, 3)), x), lambda x: {"out": x.mean((2, 3)), "more": x}):
        network = networks.module(forward)
        with networks.seeded():
            traced = tmp_path / "net.pt"
            with pytest.warns(DeprecationWarning, match="torch"):
                torch.jit.trace(network, networks.images(), strict=False).save(str(traced))
        made = Torch(model=traced, preset="none", crop=8)
        assert made.vectors([np.full((9, 9, 3), 5, np.uint8)]).tolist() == [[5, 5, 5]]


# Inputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_types_of_the_input(networks: Any, tmp_path: Path, dtype: str) -> None:
    example = networks.images(1, 3, 8, 8, dtype=dtype)
    path = networks.exported(networks.pixels(), tmp_path / "net.pt2", example)
    found = Torch(model=path, size=8).vectors([picture(8, 8)])[0]
    expected = prepared(picture(8, 8)).numpy().ravel()
    assert found == pytest.approx(expected, abs=2e-2 if dtype == "bfloat16" else 2e-3)


def test_pixels_as_they_are(networks: Any, tmp_path: Path) -> None:
    raw = networks.module(lambda x: x.flatten(1) * 2.0)
    path = networks.exported(raw, tmp_path / "raw.pt2", networks.images(1, 8, 8, 3, dtype="uint8"))
    found = Torch(model=path, size=8, preset="none").vectors([picture(8, 8)])[0]
    assert (found == picture(8, 8).ravel() * 2.0).all()
    wrong("preset: .*prepares pixels itself", model=path)
    wrong("preset: .*prepares pixels itself", model=path, preset="none", std=2.0)
    long = networks.exported(raw, tmp_path / "long.pt2", networks.images(1, 3, 8, 8, dtype="int64"))
    wrong("int64.*float or uint8", model=long)


def test_the_type_of_torchscript_is_that_of_its_weights(networks: Any, tmp_path: Path) -> None:
    double = networks.scripted(networks.small().double(), tmp_path / "double.pt")
    single = networks.scripted(networks.small(), tmp_path / "single.pt")
    first, second = (Torch(model=path, crop=32).vectors([picture()]) for path in (double, single))
    assert first == pytest.approx(second, rel=1e-3, abs=1e-4)


def test_sizes(networks: Any, tmp_path: Path) -> None:
    flat = networks.pixels()
    fixed = networks.exported(flat, tmp_path / "fixed.pt2", networks.images(1, 3, 20, 40))
    assert Torch(model=fixed).vectors([picture(), picture(9, 200)]).shape == (2, 3 * 20 * 40)
    wrong("crop: the model takes 40 × 20 pixels", model=fixed, crop=20)
    free = networks.exported(
        flat,
        tmp_path / "free.pt2",
        networks.images(1, 3, 32, 32),
        free={2: (16, 64), 3: (16, None)},
    )
    assert Torch(model=free, crop=48).dim == 3 * 48 * 48
    wrong("crop: the model takes 16 to 64 pixels; got 224", model=free)
    wrong("crop: the model takes 16 to 64 pixels; got 8", model=free, crop=8)
    script = networks.scripted(flat, tmp_path / "script.pt")
    assert Torch(model=script).dim == 3 * 224 * 224
    last = networks.exported(flat, tmp_path / "last.pt2", networks.images(1, 8, 8, 3))
    assert (
        Torch(model=last, preset="none", size=8).vectors([picture(8, 8)])[0]
        == picture(8, 8).ravel()
    ).all()
    wrong("layout: .*not nchw", model=last, layout="nchw")
    wrong("3 channels", model=networks.exported(flat, last, networks.images(1, 1, 8, 8)))
    wrong("images have 4 axes", model=networks.exported(flat, last, networks.images(1, 12)))
    script = Torch(model=script, layout="nhwc", preset="none", crop=8, size=8)
    assert (script.vectors([picture(8, 8)])[0] == picture(8, 8).ravel()).all()


# Batches and threads -----------------------------------------------------------------------------


def test_sizes_of_batches(networks: Any, tmp_path: Path) -> None:
    small = networks.small()
    three = networks.exported(small, tmp_path / "three.pt2", networks.images(3, 3, 32, 32))
    assert Torch(model=three).batch_size == 3
    wrong("batch_size: the model is fixed to 3; got 4", model=three, batch_size=4)
    some = networks.exported(
        small, tmp_path / "some.pt2", networks.images(3, 3, 32, 32), free={0: (2, 6)}
    )
    wrong("batch_size: the model takes at most 6; got 7", model=some, batch_size=7)
    one = networks.exported(small, tmp_path / "one.pt2")
    images = [picture(seed=seed) for seed in range(7)]
    expected = Torch(model=one).vectors(images)
    for path in (three, some):
        made = Torch(model=path)
        found = made.vectors(images)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert found[2:3].tobytes() == made.vectors(images[2:3]).tobytes()
    script = networks.scripted(small, tmp_path / "script.pt")
    assert Torch(model=script, crop=32, batch_size=4).batch_size == 4


def test_a_network_that_mixes_images_is_given_one_at_a_time(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.mixing(), tmp_path / "net.pt2", free=(0,))
    made = Torch(model=path, batch_size=4, preset="none")
    assert made.batch_size == 1
    image = np.full((9, 9, 3), 5, np.uint8)
    assert made.vectors([image, picture()])[0].tolist() == [5, 5, 5]


@pytest.mark.parametrize("how", WAYS)
def test_threads_are_put_back(networks: Any, tmp_path: Path, how: str) -> None:
    """Both this thread's number and the one that new threads begin with."""

    def elsewhere() -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    seen = []
    made = Torch(model=networks.save(how, networks.small(), tmp_path / "net"), crop=32)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with use_job(Job(threads=2)):
                seen.append(made.vectors([picture(seed=seed) for seed in range(6)]).tobytes())
            assert torch.get_num_threads() == threads
            assert elsewhere() == threads
    finally:
        torch.set_num_threads(before)
    assert seen[0] == seen[1]


def test_one_thread_for_each_image(networks: Any, tmp_path: Path) -> None:
    made = Torch(model=networks.exported(networks.small(), tmp_path / "net.pt2"))
    network = made._network()
    call, seen = network.call, []
    network.call = lambda image: seen.append(torch.get_num_threads()) or call(image)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with use_job(Job(threads=2)):
            made.vectors([picture(seed=seed) for seed in range(5)])
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * 5


def test_many_threads_of_the_caller(networks: Any, tmp_path: Path) -> None:
    made = Torch(model=networks.exported(networks.small(), tmp_path / "net.pt2"))
    images = [picture(seed=seed) for seed in range(6)]
    expected = made.vectors(images).tobytes()
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(made.vectors(images).tobytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


# What may not change -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
def test_generators_are_left_alone(networks: Any, tmp_path: Path, how: str) -> None:
    path = networks.save(how, networks.small(), tmp_path / "net")
    before = torch.get_rng_state()
    made = Torch(model=path, crop=32)
    made.vectors([picture()])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_random_networks_are_refused(networks: Any, tmp_path: Path) -> None:
    class Noisy(torch.nn.Module):
        __module__ = "networks"

        def forward(self, x):
            return x.mean((2, 3)) + torch.rand(3)

    script = networks.scripted(Noisy(), tmp_path / "noisy.pt")
    path = networks.exported(Noisy(), tmp_path / "noisy.pt2")
    before = torch.get_rng_state()
    wrong("draws random numbers", model=script, crop=8)
    wrong("uses aten.rand.default, which is not among", model=path)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_mode(networks: Any, tmp_path: Path) -> None:
    small = networks.small()
    expected = Torch(model=networks.exported(small, tmp_path / "eval.pt2")).vectors([picture()])
    path = networks.exported(networks.small().train(), tmp_path / "train.pt2")
    wrong("exported in training mode.*call eval", model=path)
    dropping = networks.module(lambda x: torch.nn.functional.dropout(x.mean((2, 3)), 0.5, True))
    wrong("training mode", model=networks.exported(dropping, tmp_path / "drop.pt2"))
    # TorchScript keeps both ways.
    script = networks.scripted(networks.small().train(), tmp_path / "train.pt")
    found = Torch(model=script, crop=32).vectors([picture()])
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_networks_that_change_themselves_are_refused(networks: Any, tmp_path: Path) -> None:
    class Counting(torch.nn.Module):
        __module__ = "networks"

        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x):
            self.count.add_(1)
            return x.mean((2, 3)) + self.count

    script = networks.scripted(Counting(), tmp_path / "net.pt")
    wrong("changes its own numbers", model=script, crop=8)
    path = networks.exported(Counting(), tmp_path / "net.pt2")
    wrong("changes its own numbers", model=path)


def test_parameters_stay_what_they_are(networks: Any, tmp_path: Path) -> None:
    made = Torch(model=networks.exported(networks.small(), tmp_path / "net.pt2"))
    with pytest.raises(ParameterError, match="cannot change"):
        made.layer = "fc1"


def test_kinds_tell_models_layers_and_preparations_apart(networks: Any, tmp_path: Path) -> None:
    one = networks.exported(networks.small(), tmp_path / "one.pt2")
    two = networks.scripted(networks.small(), tmp_path / "two.pt")
    kinds = [
        Torch(model=one).kind,
        Torch(model=one, layer="fc1").kind,
        Torch(model=one, layer="layer1").kind,
        Torch(model=one, layer="layer1", pool="max").kind,
        Torch(model=one, preset="clip").kind,
        Torch(model=one, size=40).kind,
        Torch(model=two, crop=32).kind,
    ]
    assert len(set(kinds)) == len(kinds)
    copy = shutil.copy(one, tmp_path / "copy.pt2")
    assert Torch(model=copy, batch_size=1, size=37, crop=32).kind == kinds[0]


@pytest.mark.parametrize(
    ("device", "text"), [("gpu", "must be cpu, cuda"), ("cuda:", "must be"), ("cuda:99", "cuda:99")]
)
def test_devices(networks: Any, tmp_path: Path, device: str, text: str) -> None:
    path = networks.exported(networks.small(), tmp_path / "net.pt2")
    wrong(f"device: .*{text}", model=path, device=device)
    assert Torch(model=path).deterministic


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
