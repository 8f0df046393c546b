"""Builds the C++ checks of the simulator and runs them: plain, then with ASan and UBSan."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ptxsim.build import MODES, checks


def main() -> int:
    """Returns 1 if a case failed."""
    failed = False
    for mode in MODES:
        program = checks(mode)
        print(f"--- simulator, {mode}", flush=True)
        failed |= subprocess.run([program], check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
