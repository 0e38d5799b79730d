"""Pictures, what presets make of their numbers, and refusals, which the tests here share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vwkit_onnx import Onnx

from vwkit.errors import ParameterError

PRESETS = {
    "imagenet": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "clip": lambda x: (
        (x / 255 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    ),
    "keras-caffe": lambda x: x[..., ::-1] - [103.939, 116.779, 123.68],
    "none": lambda x: x,
}


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def wrong(match: str, **params: Any) -> str:
    """Return the one line that refuses these parameters."""
    with pytest.raises(ParameterError, match=match) as caught:
        Onnx(**params)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.problems[0].path
    return text
