from __future__ import annotations

from typing import Any, ClassVar

from vwkit_opencv import Sift

from vwkit.testing import FeaturizerTests


class TestSift(FeaturizerTests):
    backend = Sift


class TestRootSift(FeaturizerTests):
    backend = Sift
    params: ClassVar[dict[str, Any]] = {"root": True, "max_keypoints": 50}


class TestUpright(FeaturizerTests):
    backend = Sift
    params: ClassVar[dict[str, Any]] = {"upright": True}
