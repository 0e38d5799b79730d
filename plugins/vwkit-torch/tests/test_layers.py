"""Layers of a network: how they are named, and pooled to one vector for each picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_checks import WAYS, picture, prepared, wrong
from vwkit_torch import Torch

torch = pytest.importorskip("torch", reason="needs torch, which is not installed")


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
