"""Puts what the tests share on the path."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(p) for p in (HERE, ROOT / "test/ptx", ROOT / "test/ptx/tests", ROOT / "csrc")]
