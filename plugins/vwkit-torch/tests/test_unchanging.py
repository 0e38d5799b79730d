"""What may not change: generators, a network from picture to picture, parameters and kinds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from torch_checks import WAYS, picture, wrong
from vwkit_torch import Torch

from vwkit.errors import ParameterError

torch = pytest.importorskip("torch", reason="needs torch, which is not installed")


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
