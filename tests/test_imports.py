"""Imports go down only, and importing costs nothing that is not used."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import vwkit

ROOT = Path(vwkit.__file__).parent
