"""What an object compiled for one instruction set may not define.

The linker keeps one copy of an inline function for the whole library, and may keep that of such an
object: a CPU without its instructions then faults in code that has nothing to do with it. Code that
runs when the library is loaded faults there, too.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

# As nm has them: weak functions, weak objects, objects that are one in the process.
_SHARED_KINDS = "WVu"

# What of these is data, not code: the address of the unwinder's own function.
_ALLOWED = ("DW.ref.",)

# Functions that initialise variables of a source before main.
_START_UP = "_GLOBAL__sub_I"


def shared_code(cxx: Sequence[str], objects: Iterable[Path]) -> list[str]:
    """One line for each definition that another object could end up with, or that runs at load."""
    probe = [*cxx, "-print-prog-name=nm"]
    nm = subprocess.run(probe, capture_output=True, text=True, check=True).stdout.strip()
    found = []
    for path in objects:
        command = [nm, "--defined-only", os.fspath(path)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            _, kind, name = line.split()
            is_shared = kind in _SHARED_KINDS and not name.startswith(_ALLOWED)
            if is_shared or name.startswith(_START_UP):
                found.append(f"{path.name} defines {name} ({kind})")
    return found
