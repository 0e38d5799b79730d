"""Small real networks of PyTorch, saved in every way, with the same weights every time."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Tests of this folder share helpers: `from torch_checks import …`.
sys.path.insert(0, str(Path(__file__).parent))


class Networks:
    """Makes networks and saves them."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """Draw the same weights, and leave the generator as it was."""
        with self.torch.random.fork_rng(devices=[]):
            self.torch.manual_seed(7)
            yield

    def small(self) -> Any:
        """Two blocks of convolutions as in ResNet, a mean, and two dense layers."""
        nn = self.torch.nn

        # TorchScript reads annotations, and the name of the module, which must be plain.
        class Block(nn.Module):  # type: ignore[misc]
            __module__ = "networks"

            def __init__(self, channels):
                super().__init__()
                self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
                self.bn1 = nn.BatchNorm2d(channels)
                self.relu = nn.ReLU(inplace=True)
                self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
                self.bn2 = nn.BatchNorm2d(channels)

            def forward(self, x):
                y = self.relu(self.bn1(self.conv1(x)))
                return self.relu(self.bn2(self.conv2(y)) + x)

        class Small(nn.Module):  # type: ignore[misc]
            __module__ = "networks"

            def __init__(self):
                super().__init__()
                self.conv1 = nn.Conv2d(3, 8, 5, stride=2, padding=2)
                self.layer1 = nn.Sequential(Block(8), Block(8))
                self.avgpool = nn.AdaptiveAvgPool2d(1)
                self.drop = nn.Dropout(0.5)
                self.fc1 = nn.Linear(8, 16)
                self.fc2 = nn.Linear(16, 10)
                self.spare = nn.Linear(4, 4)  # never called

            def inner(self, x):
                return self.avgpool(self.layer1(self.conv1(x))).flatten(1)

            def forward(self, x):
                return self.fc2(self.fc1(self.drop(self.inner(x))).relu())

        with self.seeded():
            made = Small()
            for name, value in made.state_dict().items():
                if "running_mean" in name:
                    value.normal_(0, 0.2)
                elif "running_var" in name:
                    value.uniform_(0.5, 2)
        return made.eval()

    def module(self, forward: Any) -> Any:
        """A module without weights around a function of the images."""

        class Only(self.torch.nn.Module):  # type: ignore[misc, name-defined]
            __module__ = "networks"

            def forward(self, x):
                return forward(x)

        return Only().eval()

    def pixels(self) -> Any:
        """All numbers that the network is given, unchanged."""
        return self.torch.nn.Flatten().eval()

    def mixing(self) -> Any:
        """A network whose answer for an image depends on the others."""
        return self.module(lambda x: x.mean((2, 3)) * 2 - x.mean((0, 2, 3)))

    def images(self, *shape: int, dtype: str = "float32") -> Any:
        return self.torch.zeros(shape or (1, 3, 32, 32), dtype=getattr(self.torch, dtype))

    # Saving

    def exported(
        self, network: Any, path: Path, example: Any = None, *, free: Any = (), flat: bool = False
    ) -> Path:
        """Save with torch.export; axes in `free` may have any length, or {axis: (least, most)}."""
        torch = self.torch
        path.parent.mkdir(parents=True, exist_ok=True)
        if example is None:
            example = self.images(2 if 0 in free else 1, 3, 32, 32)
        limits = free if isinstance(free, dict) else dict.fromkeys(free, (1, None))
        axes = {
            axis: torch.export.Dim(f"axis{axis}", min=least, max=most)
            for axis, (least, most) in limits.items()
        }
        program = torch.export.export(
            network, (example,), dynamic_shapes=(axes,) if axes else None, strict=False
        )
        if flat:
            with _quiet():
                program = program.run_decompositions()
        torch.export.save(program, path)
        return path

    def scripted(self, network: Any, path: Path) -> Path:
        """Save the code of a network as TorchScript."""
        with _quiet():
            self.torch.jit.script(network).save(str(path))
        return path

    def traced(self, network: Any, path: Path, example: Any = None) -> Path:
        """Save what a network does to an example as TorchScript."""
        example = self.images() if example is None else example
        with _quiet():
            self.torch.jit.trace(network, example).save(str(path))
        return path

    def frozen(self, network: Any, path: Path) -> Path:
        """Save TorchScript without its modules."""
        with _quiet():
            self.torch.jit.freeze(self.torch.jit.script(network)).save(str(path))
        return path

    def save(self, how: str, network: Any, path: Path) -> Path:
        """Save in one of four ways."""
        if how == "exported":
            return self.exported(network, path.with_suffix(".pt2"), free=(0,))
        made: Path = getattr(self, how)(network, path.with_suffix(".pt"))
        return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TorchScript still works, but PyTorch warns that it is no longer developed."""
    with warnings.catch_warnings():
        # PyTorch's own use of what it calls old, while it decomposes.
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        yield


@pytest.fixture(scope="session")
def networks() -> Networks:
    return Networks(pytest.importorskip("torch", reason="needs torch, which is not installed"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("VWKIT_CACHE", str(tmp_path / "cache"))
