"""Vectors of pictures: as PyTorch gives them, from any input, in any batches, on any threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from torch_checks import WAYS, picture, prepared, wrong
from vwkit_torch import Torch

from vwkit.jobs import Job, use_job

torch = pytest.importorskip("torch", reason="needs torch, which is not installed")


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
