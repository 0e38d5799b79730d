"""Without PyTorch the examples in docstrings cannot run."""

from __future__ import annotations

import importlib.util

collect_ignore = [] if importlib.util.find_spec("torch") else ["vwkit_torch.py"]
