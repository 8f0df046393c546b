"""Reads the machine code of GPU kernels as `cuobjdump -sass` prints it."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Instruction", "parse"]

_FUNCTION = re.compile(r"^\s*Function : (\S+)")
_INSTRUCTION = re.compile(
    r"^\s*/\*(?P<at>[0-9a-f]{4,})\*/\s+"
    r"(?:@(?P<guard>!?U?P[T\d]+)\s+)?(?P<opcode>[A-Z][\w.]*)\s*(?P<operands>[^;]*?)\s*;"
)
_ADDRESS = re.compile(r"0x[0-9a-f]+$")


@dataclass(frozen=True)
class Instruction:
    """One instruction, and so one issue slot of a warp that comes by, whatever its guard says.

    at: address in the kernel.
    guard: the predicate before it, `!PT` for instance; empty without one.
    opcode: with its modifiers, `LDS.U16` for instance.
    operands: the rest of the line.
    """

    at: int
    guard: str
    opcode: str
    operands: str

    @property
    def name(self) -> str:
        """The opcode without modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def is_jump(self) -> bool:
        """Whether it may continue at `target`. ptxas writes some exits of loops as calls."""
        return self.name in ("BRA", "JMP", "CALL") and _ADDRESS.search(self.operands) is not None

    @property
    def target(self) -> int:
        match = _ADDRESS.search(self.operands)
        assert match is not None, f"a jump without an address: {self}"
        return int(match.group(), 16)

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction may follow."""
        if self.name in ("EXIT", "RET") or self.is_jump:
            # A second condition stands before the address: `@P0 BRA P3, 0x100`.
            return self.guard != "" or "," in self.operands
        return True


def parse(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each kernel of a listing, by mangled name."""
    kernels: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if function := _FUNCTION.match(line):
            current = kernels.setdefault(function[1], [])
        elif match := _INSTRUCTION.match(line):
            current.append(
                Instruction(
                    int(match["at"], 16), match["guard"] or "", match["opcode"], match["operands"]
                )
            )
    return kernels
