"""Pictures, what the preset imagenet makes of them, and refusals, which the tests here share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vwkit_torch import Torch

from vwkit.errors import ParameterError

WAYS = ("exported", "scripted", "traced")


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def prepared(*images: np.ndarray) -> Any:
    """Do by hand what the preset imagenet does to pictures of the network's own size."""
    import torch

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
