"""Without PyTorch the featurizer is listed, with the reason why it cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from vwkit_torch import Torch, vwkit_backends

import vwkit
from vwkit.errors import PluginError
from vwkit.plugins import registered, unavailable


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make importing torch fail, whether it is installed or not."""
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.usefixtures("without")
def test_the_reason_is_given(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"")
    assert unavailable(Torch) == "needs torch, which is not installed: pip install torch"
    with registered(Torch):
        assert "torch" not in vwkit.backends()["featurizer"]
        with pytest.raises(PluginError, match="featurizer torch: needs torch, which is not"):
            vwkit.create("featurizer", "torch", model=tmp_path / "net.pt2")
    with pytest.raises(PluginError, match=r"needs torch .*pip install torch"):
        Torch(model=tmp_path / "net.pt2")


def test_the_hook_brings_it() -> None:
    assert vwkit_backends() == [Torch]
    assert [one for one in Torch.parameters() if one in ("model", "layer", "device")] == [
        "model",
        "layer",
        "device",
    ]
