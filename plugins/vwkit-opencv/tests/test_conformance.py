from __future__ import annotations

from vwkit.testing import FeaturizerTests
from vwkit_opencv import Sift


class TestSift(FeaturizerTests):
    backend = Sift


class TestRootSift(FeaturizerTests):
    backend = Sift
    params = {"root": True, "max_keypoints": 50}


class TestUpright(FeaturizerTests):
    backend = Sift
    params = {"upright": True}
