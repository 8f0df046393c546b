"""Sorts the instructions of the hot loop by what they are for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from bench.sass.listing import Instruction

__all__ = ["CLASSES", "OPENED_BYTES", "alu_count", "class_of", "count_classes", "opened_words"]

CLASSES = {
    "product": "HMMA",
    "opening": "turns codes into operands: the LOP3 and PRMT of the openings in gemm_opening*.cuh",
    "shared": "LDS, LDSM, STS, and local memory, which nothing should use",
    "copy": "LDGSTS",
    "float": "half and float arithmetic and their conversions",
    "integer": "integers, addresses and moves, and the steps of divisions",
    "predicate": "comparisons and what combines them",
    "control": "branches, barriers, waits",
    "uniform": "the datapath of a warp's common values",
    "padding": "instructions that are never carried out, which ptxas puts in as a delay",
}

# Bytes of a warp that one opening PRMT stands for: a word of each lane.
OPENED_BYTES = 32 * 4

_OPENING_SELECTORS = ("0x7351", "0x4341")
# Warps that share words choose bytes by a register, beside signs, which may be in one, too, or
# beside zeros.
_REGISTER = re.compile(r"R\d")
_BESIDE = ("0x8000", "0x80000000", "RZ")
_OPENING_MASKS = ("0xf000f", "0xf000f0", "0x800f800f", "0xff00ff", "0xff0fff0f", "0xfff0fff0")
# Where the masks are in registers: the bits of one half that are complemented, and (a & b) ^ c.
_OPENING_FLIPS = ("0xf", "0xf0", "0xf0000", "0xf00000", "0xff", "0xff0000")
_AND_XOR = ("0x6a", "0x6c", "0x78")

_BY_NAME = {
    "product": "HMMA",
    "shared": "LDS LDSM STS LDL STL",
    "copy": "LDGSTS",
    "float": "FADD FMUL FFMA FSEL FMNMX FSETP FSET FCHK F2F F2FP I2F I2FP HADD2 HMUL2 HFMA2 HMNMX2 "
    "HSET2 HSETP2 VHMNMX",
    # I2F.RP, F2I and MUFU.RCP are how integers are divided.
    "integer": "BFE BMSK BREV CS2R F2I FLO IABS IADD IADD3 IMAD IMNMX LDC LEA LOP LOP3 MOV "
    "MUFU POPC PRMT S2R SEL SGXT SHF SHFL SHL SHR VIADD VIADDMNMX VIMNMX VABSDIFF",
    "predicate": "ISETP PLOP3 PSETP P2R R2P VOTE",
    "control": "BAR BMOV BRA BREAK BRX BSSY BSYNC CALL CCTL DEPBAR ERRBAR EXIT JMP LDGDEPBAR "
    "MEMBAR RET WARPSYNC YIELD",
    "uniform": "R2UR S2UR VOTEU",
    "padding": "NOP",
}
_CLASS_OF_NAME = {name: kind for kind, names in _BY_NAME.items() for name in names.split()}

# What the FMA and other pipes carry out; the other integer instructions and the predicates share
# the ALU pipe, which takes one instruction of a warp in two cycles.
_NOT_ALU = frozenset({"IMAD", "LDC", "MUFU", "I2F", "F2I", "POPC", "FLO", "S2R", "CS2R", "SHFL"})


def class_of(one: Instruction) -> str:
    """The name of its class; an opcode that nobody has sorted is an error."""
    if one.guard in ("!PT", "!UPT"):
        return "padding"
    if _is_opening(one):
        return "opening"
    if one.name == "I2F" and "RP" in one.opcode.split("."):
        return "integer"
    if one.name in _CLASS_OF_NAME:
        return _CLASS_OF_NAME[one.name]
    if one.name.startswith("U"):
        return "uniform"
    raise ValueError(f"`{one.opcode}` at {one.at:#x} is in no class of classes.py")


def count_classes(instructions: Iterable[Instruction]) -> dict[str, int]:
    """How many instructions of each class."""
    counts = Counter(class_of(one) for one in instructions)
    return {kind: counts[kind] for kind in CLASSES}


def opened_words(instructions: Iterable[Instruction]) -> int:
    """Words of a lane that are opened: each needs one PRMT."""
    return sum(one.name == "PRMT" and _is_opening(one) for one in instructions)


def alu_count(instructions: Iterable[Instruction]) -> int:
    """Instructions of the ALU pipe."""
    return sum(
        class_of(one) in ("opening", "integer", "predicate") and one.name not in _NOT_ALU
        for one in instructions
    )


def _is_opening(one: Instruction) -> bool:
    operands = [operand.strip() for operand in one.operands.split(",")]
    if one.name == "PRMT":
        selector, constant = operands[2:]
        is_beside = constant in _BESIDE or bool(_REGISTER.match(constant))
        return selector in _OPENING_SELECTORS or (bool(_REGISTER.match(selector)) and is_beside)
    if one.name != "LOP3":
        return False
    flips = any(flip in operands for flip in _OPENING_FLIPS)
    return any(mask in operands for mask in _OPENING_MASKS) or (
        flips and any(table in operands for table in _AND_XOR)
    )
