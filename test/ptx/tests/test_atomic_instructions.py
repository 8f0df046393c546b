"""Atomics: every operation on every type it has, old values, contention, and compare-and-swap."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
from ptxsim import Options
from snippets import assert_same_bits, combined, integers, product, run, wrapped

VARIABLES = ".shared .align 16 .b8 buffer[16384];"


def increased(old: int, limit: int) -> int:
    return 0 if old >= limit else old + 1


def decreased(old: int, limit: int) -> int:
    return limit if old == 0 or old > limit else old - 1


OPERATIONS: dict[str, tuple[Callable[[int, int], int], tuple[str, ...]]] = {
    "add": (operator.add, ("u32", "s32", "u64")),
    "min": (min, ("u32", "s32", "u64", "s64")),
    "max": (max, ("u32", "s32", "u64", "s64")),
    "inc": (increased, ("u32",)),
    "dec": (decreased, ("u32",)),
    "and": (operator.and_, ("b32", "b64")),
    "or": (operator.or_, ("b32", "b64")),
    "xor": (operator.xor, ("b32", "b64")),
    "exch": (lambda _, new: new, ("b32", "b64")),
}
CASES = [(op, kind) for op, (_, kinds) in OPERATIONS.items() for kind in kinds]


def apart(
    opcode: str, old: np.ndarray, a: np.ndarray, *, space: str, more: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """One atomic per thread, each on an element of its own: what it gives, and what it leaves.

    `a` is one operand; `more` follows it.
    """
    size, bits = old.itemsize, 8 * old.itemsize
    count = old.size
    where = {
        "global": "mov.b64 %rd1, %rd2;",
        "shared": f"""
          mov.u32 %r1, buffer; cvt.u64.u32 %rd1, %r1; mad.wide.u32 %rd1, %i, {size}, %rd1;
          st.shared.b{bits} [%rd1], %old;
        """,
    }
    where["generic"] = where["shared"] + "cvta.shared.u64 %rd1, %rd1;"
    through = "" if space == "generic" else f".{space}"
    name, _, rest = opcode.partition(".")
    result = "%before, " if name == "atom" else ""
    ran = run(
        f"""
        .reg .b{bits} %old, %a, %before, %after;
        setp.ge.u32 %p1, %i, {count};
        @%p1 ret;
        mad.wide.u32 %rd2, %i, {size}, %old_all;
        mad.wide.u32 %rd3, %i, {size}, %a_all;
        mad.wide.u32 %rd4, %i, {size}, %before_all;
        mad.wide.u32 %rd5, %i, {size}, %after_all;
        ld.global.b{bits} %old, [%rd2];
        ld.global.b{bits} %a, [%rd3];
        mov.b{bits} %before, %old;
        {where[space]}
        {name}{through}.{rest} {result}[%rd1], %a{more};
        ld{through}.b{bits} %after, [%rd1];
        st.global.b{bits} [%rd4], %before;
        st.global.b{bits} [%rd5], %after;
        """,
        {"old_all": old, "a_all": a, "before_all": old.nbytes, "after_all": old.nbytes},
        block=1024 if count > 512 else 512,
        declared=VARIABLES,
    )
    ran.report.raise_if_found()
    return ran.read("before_all", old.dtype), ran.read("after_all", old.dtype)


@pytest.mark.parametrize("space", ["global", "shared", "generic"])
@pytest.mark.parametrize("name", ["atom", "red"])
@pytest.mark.parametrize(("op", "kind"), CASES)
def test_of_integers(op: str, kind: str, name: str, space: str) -> None:
    if name == "red" and op == "exch":
        name = "atom"
    old, a = combined(integers(kind), integers(kind, 2))
    before, after = apart(f"{name}.{op}.{kind}", old, a, space=space)
    reference = OPERATIONS[op][0]
    rows = zip(old.tolist(), a.tolist(), strict=True)
    expected = np.array([wrapped(reference(*row), old.dtype) for row in rows], old.dtype)
    assert_same_bits(before, old, old, a)
    assert_same_bits(after, expected, old, a)


@pytest.mark.parametrize("kind", ["b16", "b32", "b64"])
@pytest.mark.parametrize("space", ["global", "shared", "generic"])
def test_compare_and_swap(kind: str, space: str) -> None:
    old, compared = combined(*[integers(kind)] * 2)
    before, after = apart(f"atom.cas.{kind}", old, compared, space=space, more=", 77")
    assert_same_bits(before, old)
    assert_same_bits(after, np.where(old == compared, 77, old).astype(old.dtype), old, compared)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("f32", "f4"), ("f64", "f8"), ("noftz.f16", "f2"), ("noftz.f16x2", "f2")]
)
@pytest.mark.parametrize("name", ["atom", "red"])
@pytest.mark.parametrize("space", ["global", "shared", "generic"])
def test_sums_of_floats(kind: str, dtype: str, name: str, space: str) -> None:
    values = np.array([0, -0.0, 1, -1.5, 3, 1024, 2**-10, np.inf], dtype)
    old, a = combined(values, values)
    with np.errstate(all="ignore"):
        expected = old + a
    word = np.dtype("u4") if kind.endswith("x2") else np.dtype(f"u{old.itemsize}")
    before, after = apart(f"{name}.add.{kind}", old.view(word), a.view(word), space=space)
    assert_same_bits(before, old.view(word))
    assert_same_bits(after.view(dtype), expected, old, a)


@pytest.mark.parametrize("kind", ["noftz.bf16", "noftz.bf16x2"])
def test_sums_of_bfloats(kind: str) -> None:
    values = (np.array([0, 1, -1.5, 3, 256, 2**-10], "f4").view("u4") >> 16).astype("u2")
    old, a = combined(values, values)
    widened = [(array.astype("u4") << 16).view("f4") for array in (old, a)]
    bits = (widened[0] + widened[1]).view("u4")
    expected = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2")
    word = "u4" if kind.endswith("x2") else "u2"
    _, after = apart(f"red.add.{kind}", old.view(word), a.view(word), space="global")
    assert_same_bits(after.view("u2"), expected, old, a)


@pytest.mark.parametrize(("space", "sum_of_subnormals"), [("global", 0.0), ("shared", 2e-40)])
def test_sums_in_global_memory_flush(space: str, sum_of_subnormals: float) -> None:
    one = np.array([1e-40], "f4")
    _, after = apart("atom.add.f32", one, one, space=space)
    assert after[0] == pytest.approx(sum_of_subnormals, rel=1e-4)


@pytest.mark.parametrize(
    "opcode",
    [
        "atom.global.acq_rel.gpu.cas.b32",
        "atom.global.gpu.acq_rel.add.f32",
        "atom.global.gpu.acq_rel.add.u32",
        "atom.global.acq_rel.gpu.exch.b32",
        "atom.global.gpu.acq_rel.exch.b32",
        *product(
            ["atom"], ["relaxed", "acquire", "release"], ["cta", "gpu", "sys"], ["global.add.u32"]
        ),
        "red.relaxed.gpu.global.add.u32",
        "red.release.sys.global.max.s32",
    ],
)
def test_strengths(opcode: str) -> None:
    """The order of modifiers is free, as compilers write them."""
    values = " 5, 6" if "cas" in opcode else " %f1" if "f32" in opcode else " 6"
    result = "" if opcode.startswith("red") else "%f2, " if "f32" in opcode else "%r1, "
    ran = run(
        f"mov.f32 %f1, 0f3F800000;\n{opcode} {result}[%place],{values};",
        {"place": np.array([5], "u4")},
        block=1,
    )
    ran.report.raise_if_found()
    now = {"cas": 6, "exch": 6, "max": 6}.get(opcode.split(".")[-2], 11)
    assert ran.read("place", "f4" if "f32" in opcode else "u4")[0] == (
        1.0 if "f32" in opcode else now
    )


def test_vectors() -> None:
    """Of sm_90: neighbours, each on its own."""
    ran = run(
        """
        mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000;
        red.global.add.v2.f32 [%place], {%f1, %f2};
        atom.global.gpu.acq_rel.add.v4.f32 {_, %f3, _, _}, [%place], {%f1, %f2, %f1, %f2};
        """,
        {"place": np.zeros(4, "f4")},
    )
    ran.report.raise_if_found()
    assert ran.read("place", "f4").tolist() == [64, 128, 32, 64]


@pytest.mark.parametrize("seed", range(5))
def test_contention(seed: int) -> None:
    """Threads draw numbers, of their grid and of their block; each number is drawn once."""
    ran = run(
        """
        setp.eq.u32 %p1, %t, 0;
        @%p1 st.shared.u32 [buffer], 0;
        bar.sync 0;
        atom.global.add.u32 %r1, [%counter], 1;
        atom.shared.add.u32 %r2, [buffer], 1;
        mad.wide.u32 %rd1, %i, 8, %drawn;
        st.global.v2.u32 [%rd1], {%r1, %r2};
        """,
        {"counter": np.zeros(1, "u4"), "drawn": 8 * 192},
        grid=3,
        block=64,
        declared=VARIABLES,
        options=Options(seed=seed),
    )
    ran.report.raise_if_found()
    of_grid, of_block = ran.read("drawn", "u4").reshape(-1, 2).T
    assert sorted(of_grid.tolist()) == list(range(192))
    for block in of_block.reshape(3, 64):
        assert sorted(block.tolist()) == list(range(64))
