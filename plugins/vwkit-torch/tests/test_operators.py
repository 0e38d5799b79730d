from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vwkit_torch_operators as operators
from vwkit_torch import Torch
from vwkit_torch_export import read_program

from vwkit.errors import DataError

torch = pytest.importorskip("torch", reason="needs torch, which is not installed")

# They draw only where training is asked for, which is refused.
DRAWING = {"dropout", "feature_dropout", "scaled_dot_product_attention"} | {
    "_scaled_dot_product_flash_attention_for_cpu"
}


def schemas() -> list[tuple[str, Any, Any]]:
    found = []
    for name in operators._ATEN:
        packet = getattr(torch.ops.aten, name)
        for overload in packet.overloads():
            called = getattr(packet, overload)
            found.append((name, called._schema, called))
    return found


def test_the_list_holds_operators_that_only_compute() -> None:
    every = schemas()
    assert len(every) > 300
    for name, schema, called in every:
        draws = torch.Tag.nondeterministic_seeded in called.tags
        assert not draws or name in DRAWING, name
        for argument in schema.arguments:
            assert "file" not in argument.name, name
        # What is not written would show what was in memory before.
        assert "empty" not in name
    assert not operators._ATEN & {"from_file", "resize_", "set_", "rand", "randn", "bernoulli"}


@pytest.mark.parametrize(
    "target",
    ["torch.ops.aten.add.out", "torch.ops.aten.mean.out", "torch.ops.aten.fill.Tensor_out"],
)
def test_results_go_nowhere_else(target: str) -> None:
    assert operators.operator_of(torch, target) is None


def test_in_place_operators_are_those_of_the_list() -> None:
    value = torch.tensor([-1.0, 2.0])
    relu = operators.operator_of(torch, "torch.ops.aten.relu_.default")
    assert relu is not None
    relu({"self": value})
    assert value.tolist() == [0, 2]
    assert operators.operator_of(torch, "torch.ops.aten.random_.default") is None
    assert operators.operator_of(torch, "torch.ops.aten.set_.source_Tensor") is None


def test_lengths() -> None:
    def found(name: str, *values: Any) -> Any:
        compute = operators.operator_of(torch, name)
        assert compute is not None
        return compute({str(i): value for i, value in enumerate(values)})

    assert found("_operator.floordiv", 7, 2) == 3
    assert found("_operator.ge", 7, 2) is True
    assert found("math.ceil", 1.5) == 2
    assert found("torch.sym_max", 1, 5) == 5
    with pytest.raises(OverflowError):
        found("_operator.mul", 1 << 40, 1 << 40)
    for wrong in ([1, 2], "text", torch.ones(3)):
        with pytest.raises(TypeError):
            found("_operator.mul", wrong, 1 << 40)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("max_pool2d.default", {"self": "x", "kernel_size": [0, 0]}),
        ("conv2d.default", {"input": "x", "weight": "w", "groups": 0}),
        ("pixel_shuffle.default", {"self": "x", "upscale_factor": -1}),
        (
            "upsample_nearest2d.vec",
            {"input": "x", "output_size": None, "scale_factors": [1e-30, 1]},
        ),
        ("upsample_nearest2d.vec", {"input": "x", "output_size": None, "scale_factors": [1e9, 1]}),
        (
            "upsample_nearest2d.vec",
            {"input": "x", "output_size": None, "scale_factors": [float("nan"), 1]},
        ),
        (
            "_native_batch_norm_legit_no_training.default",
            {
                "input": "x",
                "weight": None,
                "bias": None,
                "running_mean": "one",
                "running_var": "one",
                "momentum": 0.1,
                "eps": 1e-5,
            },
        ),
        ("gather.default", {"self": "x", "dim": 0, "index": "far"}),
        ("floor_divide.default", {"self": "least", "other": "minus"}),
        ("div.Tensor_mode", {"self": "least", "other": "minus", "rounding_mode": "trunc"}),
    ],
)
def test_arguments_that_kernels_would_trust(name: str, arguments: dict[str, Any]) -> None:
    values = {
        "x": torch.ones(1, 4, 8, 8),
        "w": torch.ones(4, 4, 1, 1),
        "one": torch.ones(1),
        "far": torch.full((1, 4, 8, 8), 10**9),
        "least": torch.tensor([-(2**63)]),
        "minus": torch.tensor([-1]),
    }
    compute = operators.operator_of(torch, f"torch.ops.aten.{name}")
    assert compute is not None
    given = {
        key: values.get(value, value) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    with pytest.raises((ValueError, IndexError, OverflowError)):
        compute(given)


def test_division_of_whole_numbers_still_works() -> None:
    compute = operators.operator_of(torch, "torch.ops.aten.floor_divide.default")
    assert compute is not None
    assert compute({"self": torch.tensor([7, -7]), "other": -2}).tolist() == [-4, 3]
    assert compute({"self": torch.tensor([7.0]), "other": torch.tensor([-2.0])}).tolist() == [-4]


# Whole networks ----------------------------------------------------------------------------------


class Attention(torch.nn.Module):
    """Patches, positions resized to them, and two layers of a transformer."""

    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 16, 8, stride=8)
        self.positions = torch.nn.Parameter(torch.randn(1, 16, 3, 3))
        self.first = torch.nn.Parameter(torch.randn(1, 1, 16))
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(
                16, 4, 32, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(2)
        )
        self.norm = torch.nn.LayerNorm(16)

    def forward(self, x):
        x = self.patches(x)
        resize = torch.nn.functional.interpolate
        x = x + resize(self.positions, size=x.shape[2:], mode="bicubic", antialias=True)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)[:, 0]


class Mobile(torch.nn.Module):
    """Depthwise convolutions, squeeze and excitation, and newer activations."""

    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(True))
        self.depth = nn.Conv2d(8, 8, 5, padding="same", groups=8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.group = nn.GroupNorm(2, 8)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x):
        x = self.depth(self.stem(x))
        gate = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = x * torch.sigmoid(self.excite(gate))
        x = self.act(self.up(self.group(x)))
        return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1)), 4)


class Windows(torch.nn.Module):
    """Shifted windows, a table of relative positions, and writing into a part of a tensor."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Conv2d(3, 8, 4, 4)
        self.qkv = torch.nn.Linear(8, 24)
        self.table = torch.nn.Parameter(torch.randn(16 * 16, 2))
        self.register_buffer("index", torch.arange(256).flip(0), persistent=False)
        self.fixed = torch.ones(2)  # becomes a constant

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = torch.roll(x, (-2, -2), (1, 2))
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(x).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index].view(16, 16, 2).permute(2, 0, 1)
        weights = (q @ k.transpose(-2, -1) * 0.5 + bias.unsqueeze(0)).softmax(-1)
        x = (weights @ v).transpose(1, 2).reshape(b, -1, c)
        parts = x.chunk(2, dim=-1)
        joined = torch.cat([parts[0] * 2, parts[1].clamp(-1, 1)], -1)
        joined[:, 0, :2] = self.fixed
        return joined.max(dim=1).values + torch.einsum("bnc,bnc->bc", x, x)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("free", [(), (0,)])
@pytest.mark.parametrize("kind", [Attention, Mobile, Windows])
def test_programs_give_what_pytorch_gives(
    networks: Any, tmp_path: Path, kind: type[Any], free: Any, flat: bool
) -> None:
    with networks.seeded():
        network = kind().eval()
    example = networks.images(2, 3, 32, 32)
    path = networks.exported(network, tmp_path / "net.pt2", example, free=free, flat=flat)
    exported = read_program(path, None, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for count in (2, 1, 5) if free else (2,):
        images = torch.randn(count, 3, 32, 32, generator=generator)
        with torch.no_grad():
            expected = network(images)
            found = exported.program(images.clone())
        assert found.shape == expected.shape
        assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-5)
    made = Torch(model=path)
    assert made.vectors([np.zeros((9, 9, 3), np.uint8)]).shape == (1, made.dim)


def test_values_are_let_go_of(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.small(), tmp_path / "net.pt2")
    program = read_program(path, None, torch.device("cpu")).program
    dropped = [name for step in program._dropped for name in step]
    assert len(dropped) == len(set(dropped))
    assert set(dropped) >= {"conv2d", "relu_", "x"}
    short = read_program(path, "conv1", torch.device("cpu")).program
    assert len(short._steps) == 1
    assert len(short.tensors) == 2


def test_an_error_names_the_operator(networks: Any, tmp_path: Path) -> None:
    path = networks.exported(networks.small(), tmp_path / "net.pt2")
    program = read_program(path, None, torch.device("cpu")).program
    with pytest.raises(DataError, match=r"cannot run it: aten\.conv2d\.default: .*channels"):
        program(torch.ones(1, 4, 32, 32))
