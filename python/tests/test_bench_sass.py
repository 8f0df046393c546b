"""The parts of bench/sass that need no compiler: reading, loops, classes, limits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench.sass.classes import alu_count, class_of, count_classes, opened_words
from bench.sass.limits import GPUS, KIB, Multiprocessor, Needs
from bench.sass.listing import Instruction, parse
from bench.sass.loops import blocks_of, hot_loop, loops_of, ordinary_way, repeated
from bench.sass.variants import Variant

NAME = "_ZN6marlin4cuda4gemmINS0_5ShapeI6__halfLi4ELi8ELi128ELb1EEEEEvNS0_13GemmArgumentsE"

# A main loop from 0010: copies that the last tiles pass by, a turn to the next column, products
# in a loop within, and an end of column that writes.
LISTING = f"""
        code for sm_80
                Function : {NAME}
        .headerflags    @"EF_CUDA_SM80"
        /*0000*/                   MOV R1, c[0x0][0x28] ;          /* 0x00000a0000017a02 */
                                                                   /* 0x000fe40000000f00 */
        /*0010*/                   ISETP.GE.AND P0, PT, R2, R3, PT ;
        /*0020*/               @P0 BRA 0x0070 ;
        /*0030*/                   LDGSTS.E.BYPASS.128 [R7], [R16.64], P1 ;
        /*0040*/              @!P2 BRA 0x0070 ;
        /*0050*/                   IADD3 R4, R4, 0x1, RZ ;
        /*0060*/                   IMAD R5, R4, c[0x0][0x1b8], RZ ;
        /*0070*/              @!PT LDS RZ, [RZ] ;
        /*0080*/                   LDS.128 R12, [R89.X16+UR5] ;
        /*0090*/                   PRMT R14, R12.reuse, 0x7351, R87.reuse ;
        /*00a0*/                   LOP3.LUT R15, R14, 0x800f800f, RZ, 0xc0, !PT ;
        /*00b0*/                   HMMA.16816.F32 R32, R48, R12, R32 ;
        /*00c0*/               @P3 BRA 0x0080 ;
        /*00d0*/               @P0 BRA P4, 0x0110 ;
        /*00e0*/                   FMUL R32, R32, 16777216 ;
        /*00f0*/               @P5 BRA 0x0110 ;
        /*0100*/                   STG.E.U16 [R8.64], R32 ;
        /*0110*/                   UIADD3 UR5, UR5, 0x1, URZ ;
        /*0120*/               @P6 CALL.REL.NOINC 0x0140 ;
        /*0130*/                   BRA 0x0010 ;
        /*0140*/                   EXIT ;
        /*0150*/                   BRA 0x0150;
"""


def kernel() -> list[Instruction]:
    return parse(LISTING)[NAME]


def way(*, longest: bool = False, wanted: tuple[int, int] = (1, 1)) -> list[int]:
    blocks = blocks_of(kernel())
    numbers = ordinary_way(blocks, hot_loop(blocks), wanted, longest=longest)
    return [one.at for i in numbers for one in blocks[i].instructions]


# Reading


def test_every_instruction_is_read_with_its_guard() -> None:
    instructions = kernel()
    assert [one.at for one in instructions] == list(range(0, 0x160, 0x10))
    assert instructions[7] == Instruction(0x70, "!PT", "LDS", "RZ, [RZ]")
    assert instructions[2].target == 0x70


def test_only_a_jump_without_a_condition_ends_a_block_for_good() -> None:
    falls = {one.at: one.falls_through for one in kernel() if one.is_jump or one.name == "EXIT"}
    assert [at for at, does in falls.items() if not does] == [0x130, 0x140, 0x150]


# Loops


def test_the_hot_loop_is_the_one_with_products_and_copies() -> None:
    blocks = blocks_of(kernel())
    starts = {blocks[loop.header].instructions[0].at for loop in loops_of(blocks)}
    assert starts == {0x10, 0x80, 0x150}
    assert blocks[hot_loop(blocks).header].instructions[0].at == 0x10


def test_a_kernel_without_a_hot_loop_is_refused() -> None:
    blocks = blocks_of([one for one in kernel() if one.name != "HMMA"])
    with pytest.raises(ValueError, match="no loop holds both HMMA and LDGSTS"):
        hot_loop(blocks)


def test_an_ordinary_iteration_copies_and_passes_by_the_ends_of_columns() -> None:
    ends = {0x50, 0x60, 0xE0, 0xF0, 0x100}
    assert way() == [at for at in range(0x10, 0x140, 0x10) if at not in ends]


def test_the_longest_iteration_turns_to_the_next_column_but_writes_nothing() -> None:
    assert way(longest=True) == [
        at for at in range(0x10, 0x140, 0x10) if at not in (0xE0, 0xF0, 0x100)
    ]


def test_an_iteration_without_copies_is_that_of_the_last_tiles() -> None:
    assert 0x30 not in way(wanted=(0, 1))


def test_a_loop_within_is_known_as_repeated() -> None:
    blocks = blocks_of(kernel())
    loop = hot_loop(blocks)
    inside = repeated(blocks, loop, ordinary_way(blocks, loop, (1, 1)))
    assert [blocks[i].instructions[0].at for i in inside] == [0x80]


# Classes


def test_instructions_are_counted_by_what_they_are_for() -> None:
    blocks = {one.at: one for one in kernel()}
    counted = count_classes(blocks[at] for at in way())
    assert counted == {
        "product": 1,
        "opening": 2,
        "shared": 1,
        "copy": 1,
        "float": 0,
        "integer": 0,
        "predicate": 1,
        "control": 6,
        "uniform": 1,
        "padding": 1,
    }
    assert opened_words(kernel()) == 1
    assert alu_count(blocks[at] for at in way()) == 3


@pytest.mark.parametrize(
    ("opcode", "operands"),
    [
        ("LOP3.LUT", "R10, R16, 0xf000f, R195, 0xea, !PT"),
        ("LOP3.LUT", "R10, R16, 0xf00000, R194, 0x6c, !PT"),  # the mask is in a register
        ("PRMT", "R148, R148, 0x7351, R189"),
        ("PRMT", "R148, R148, R20, RZ"),  # and so is which bytes it takes
    ],
)
def test_what_opens_codes_is_known_by_its_constants(opcode: str, operands: str) -> None:
    assert class_of(Instruction(0x10, "", opcode, operands)) == "opening"


@pytest.mark.parametrize(
    ("opcode", "operands"),
    [("LOP3.LUT", "R10, R16, 0xff, RZ, 0xc0, !PT"), ("PRMT", "R1, R2, 0x5410, R3")],
)
def test_other_logic_is_not_taken_for_it(opcode: str, operands: str) -> None:
    assert class_of(Instruction(0x10, "", opcode, operands)) == "integer"


def test_an_unknown_opcode_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"`XYZ.E` at 0x10 is in no class"):
        class_of(Instruction(0x10, "", "XYZ.E", "R1, R2"))


# Variants and limits


def test_a_name_tells_the_variant_and_its_shared_memory() -> None:
    variant = Variant.of_name(NAME)
    assert variant == Variant("half", 4, 8, 128, has_zeros=True)
    assert variant.threads == 64
    # Rows of activations are padded by 16 bytes, zero points by those of a warp.
    assert variant.shape.shared_bytes == 4 * (16 * KIB + 8 * (256 + 16) + 512 + 128 + 64)
    assert variant.streamed_bytes == 16 * KIB + 512 + 128


@pytest.mark.parametrize(
    ("variant", "words", "copies", "products"),
    [
        # 128 columns: weights, activations, scales and zero points; two products with constants.
        (Variant("half", 4, 8, 128, has_zeros=True), 64, 16 + 2 + 1 + 1, 8 * (8 + 2)),
        (Variant("half", 4, 16, 0, has_zeros=False), 64, 16 + 4, 8 * (16 + 1)),
        (Variant("half", 8, 16, 128, has_zeros=False), 128, 32 + 4 + 1, 8 * (16 + 1)),
        # 64 columns: the scales of four groups of 32 are one copy of all lanes.
        (Variant("half", 4, 16, 32, has_zeros=False), 32, 8 + 2 + 1, 8 * (8 + 1)),
        (Variant("half", 4, 32, 128, has_zeros=False), 32, 8 + 4 + 1, 8 * 2 * (8 + 1)),
        # Two slices: scales come with each, or with the first one; they meet weights.
        (Variant("half", 8, 64, 64, has_zeros=False), 64, 16 + 8 + 2, 8 * 4 * 8),
        (Variant("half", 8, 64, 128, has_zeros=False), 64, 16 + 8 + 1, 8 * 4 * 8),
        # 32 columns: two warps open half of the same words.
        (Variant("half", 4, 128, 128, has_zeros=True), 32, 4 + 8 + 1 + 1, 8 * 8 * 4),
    ],
)
def test_what_a_warp_does_for_a_tile(
    variant: Variant, words: int, copies: int, products: int
) -> None:
    assert (variant.tile_words, variant.copies, variant.products) == (words, copies, products)


def test_other_kernels_are_no_variants() -> None:
    assert Variant.of_name("_ZN6marlin4cuda6repackEv") is None


def test_blocks_fit_by_the_scarcest_of_threads_registers_and_shared_memory() -> None:
    multiprocessor = Multiprocessor(threads=2048, blocks=32, shared_kib=164)
    assert multiprocessor.resident_blocks(128, 32, 0) == 16
    assert multiprocessor.resident_blocks(128, 255, 0) == 2
    assert multiprocessor.resident_blocks(128, 32, 76 * KIB) == 2
    assert multiprocessor.resident_blocks(128, 32, 82 * KIB) == 1


def test_memory_is_the_limit_until_something_needs_more_cycles() -> None:
    gpu = next(one for one in GPUS if one.name == "A100")
    budget = gpu.cycles_of_kib
    assert budget == pytest.approx(306, abs=1)
    enough = Needs(slots=budget / 2, alu=budget / 4, products=1, bytes_in_flight=1 << 20)
    assert gpu.shares(enough).lowest == 1
    slow = Needs(slots=budget * 2, alu=budget, products=budget / 4, bytes_in_flight=1 << 20)
    shares = gpu.shares(slow)
    assert (shares.issue, shares.alu, shares.tensor) == pytest.approx((0.5, 0.5, 0.5))
    waiting = Needs(slots=1, alu=1, products=1, bytes_in_flight=4 * KIB)
    assert gpu.shares(waiting).latency == pytest.approx(4096 / (2039e9 * 1e-6 / 108))
