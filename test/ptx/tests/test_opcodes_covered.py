"""Every instruction that the kernels of the corpora use is one that a test of instructions ran."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import EVERY_OPCODE_RUN

HERE = Path(__file__).resolve().parent
OPCODES = HERE / "opcodes.txt"


def test_opcodes(request: pytest.FixtureRequest) -> None:
    collected = {item.path for item in request.session.items}
    if not collected.issuperset(HERE.glob("test_*_instructions.py")):
        pytest.skip("the tests of instructions were not all asked for")
    wanted = set(OPCODES.read_text().split())
    missing = sorted(wanted - EVERY_OPCODE_RUN)
    assert not missing, "\n".join(missing)
