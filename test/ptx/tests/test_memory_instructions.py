"""Loads, stores and addresses: where bytes go."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from ptxsim import Simulator
from snippets import EVERY_OPCODE_RUN, HEADER, REGISTERS, product, run

LANES = 32
LONGEST = 32
TYPES = [f"{letter}{bits}" for letter in "bus" for bits in (8, 16, 32, 64)] + ["f32", "f64"]
ACCESSES = [
    (vector, kind)
    for vector in ("", "v2", "v4", "v8")
    for kind in TYPES
    if int(vector[1:] or 1) * int(kind[1:]) // 8 <= LONGEST
]


# How the addresses of lane %t's bytes come to %rd1, from a variable of that space.
SPACES = {
    "global": "mad.wide.u32 %rd1, %t, 32, %scratch;",
    "shared": "mov.u32 %r1, in_shared; mad.lo.s32 %r1, %t, 32, %r1; cvt.u64.u32 %rd1, %r1;",
    "local": "mov.u64 %rd1, in_local;",
}
GENERIC = {space: f"{way}\ncvta.{space}.u64 %rd1, %rd1;" for space, way in SPACES.items()}
VARIABLES = ".shared .align 32 .b8 in_shared[1024];\n.local .align 32 .b8 in_local[32];"


def registers(vector: str, kind: str) -> str:
    prefix = {8: "%h", 16: "%h", 32: "%r1", 64: "%rd1"}[int(kind[1:])]
    names = [f"{prefix}{n}" for n in range(int(vector[1:] or 1))]
    return f"{{{', '.join(names)}}}" if vector else names[0]


@pytest.mark.parametrize("space", ["global", "shared", "local", "generic"])
@pytest.mark.parametrize(("vector", "kind"), ACCESSES)
def test_bytes_through_a_space(space: str, vector: str, kind: str) -> None:
    size = int(vector[1:] or 1) * int(kind[1:]) // 8
    values = np.arange(LANES * size, dtype="u1") ^ 0xA5
    suffix = ".".join(filter(None, (vector, kind)))
    through = f".{space}" if space != "generic" else ""
    ways = [SPACES[space]] if through else list(GENERIC.values())
    for way in ways:
        ran = run(
            f"""
            mad.wide.u32 %rd2, %t, {size}, %values;
            mad.wide.u32 %rd3, %t, {size}, %result;
            {way}
            ld.global.{suffix} {registers(vector, kind)}, [%rd2];
            st{through}.{suffix} [%rd1], {registers(vector, kind)};
            ld{through}.{suffix} {registers(vector, kind)}, [%rd1];
            st.global.{suffix} [%rd3], {registers(vector, kind)};
            """,
            {"values": values, "result": values.size, "scratch": 1024},
            declared=VARIABLES,
        )
        ran.report.raise_if_found()
        assert (ran.read("result", "u1") == values).all()


@pytest.mark.parametrize("letter", ["s", "u", "b"])
@pytest.mark.parametrize(
    ("bits", "register"), [(8, 16), (8, 32), (8, 64), (16, 16), (16, 32), (16, 64), (32, 64)]
)
@pytest.mark.parametrize("space", ["global", "shared", "local"])
def test_loads_fill_their_registers(letter: str, bits: int, register: int, space: str) -> None:
    """Signed ones with their sign, the others with zeros."""
    value = 0x80C0E0F1 & (1 << bits) - 1
    at = {"global": "%result", "shared": "in_shared", "local": "in_local"}[space]
    ran = run(
        f"""
        st.{space}.b32 [{at}], {value};
        ld.{space}.{letter}{bits} %loaded, [{at}];
        st.global.b{register} [%result], %loaded;
        """,
        {"result": 8},
        block=1,
        declared=f".reg .b{register} %loaded;{VARIABLES}",
    )
    ran.report.raise_if_found()
    is_negative = letter == "s" and value >> (bits - 1)
    expected = (value - (1 << bits) if is_negative else value) & (1 << register) - 1
    assert int(ran.read("result", "u8")[0]) & (1 << register) - 1 == expected


def test_parameters_of_all_types() -> None:
    text = f"""{HEADER}
    .visible .entry snippet(
      .param .u8 p0, .param .u16 p1, .param .f32 p2, .param .b64 p3, .param .f64 p4,
      .param .align 16 .b8 p5[24], .param .u64 out
    ) {{
      {REGISTERS}
      ld.param.b64 %rd0, [out];
      ld.param.u8 %r0, [p0];          st.global.b32 [%rd0], %r0;
      ld.param.s8 %r0, [p0];          st.global.b32 [%rd0+12], %r0;
      ld.param.u16 %r1, [p1];         st.global.b32 [%rd0+4], %r1;
      ld.param.f32 %f2, [p2];         st.global.f32 [%rd0+8], %f2;
      ld.param.b64 %rd3, [p3];        st.global.b64 [%rd0+16], %rd3;
      ld.param.f64 %fd4, [p4];        st.global.f64 [%rd0+24], %fd4;
      ld.param.v4.b32 {{%r4, %r5, %r6, %r7}}, [p5];
      st.global.v4.b32 [%rd0+32], {{%r4, %r5, %r6, %r7}};
      ld.param.u32 %r8, [p5+20];      st.global.b32 [%rd0+48], %r8;
      ld.param.b32 %r9, [p5+16];      st.global.b32 [%rd0+52], %r9;
      ld.param.v2.b32 {{%r4, %r5}}, [p5+8];
      ld.param.v2.u32 {{%r6, %r7}}, [p5];
      st.global.v4.b32 [%rd0+64], {{%r4, %r5, %r6, %r7}};
      ld.param.v4.u8 {{%h0, %h1, %h2, %h3}}, [p5+4];
      ld.param.v2.u8 {{%h4, %h5}}, [p5+2];
      st.global.v4.b16 [%rd0+80], {{%h0, %h1, %h2, %h3}};
      st.global.v2.b16 [%rd0+88], {{%h4, %h5}};
      ret;
    }}"""
    simulator = Simulator(text)
    out = simulator.buffer("out", np.zeros(92, "u1"))
    structure = bytes(range(100, 124))
    arguments = [200, 60000, 1.5, 1 << 60, -2.25, structure, out]
    report = simulator.launch("snippet", 1, 1, arguments)
    report.raise_if_found()
    EVERY_OPCODE_RUN.update(one.opcode for one in report.instructions)
    packed = struct.pack("<IIfiQd", 200, 60000, 1.5, 200 - 256, 1 << 60, -2.25)
    expected = packed + structure[:16] + structure[20:24] + structure[16:20]
    expected += bytes(8) + structure[8:16] + structure[:8]
    expected += struct.pack("<6H", *structure[4:8], *structure[2:4])
    assert out.read("u1").tobytes() == expected


@pytest.mark.parametrize("space", ["global", "shared", "local", "const"])
def test_address_spaces(space: str) -> None:
    """A generic address lies in its own space only, and leads back."""
    way = {**SPACES, "const": "mov.u64 %rd1, in_const;"}[space]
    ran = run(
        f"""
        {way}
        cvta.{space}.u64 %rd2, %rd1;
        isspacep.global %p1, %rd2; selp.u32 %r1, 1, 0, %p1;
        isspacep.shared %p1, %rd2; selp.u32 %r2, 2, 0, %p1;
        isspacep.local %p1, %rd2;  selp.u32 %r3, 4, 0, %p1;
        cvta.to.{space}.u64 %rd3, %rd2;
        setp.eq.s64 %p1, %rd1, %rd3; selp.u32 %r4, 8, 0, %p1;
        or.b32 %r1, %r1, %r2; or.b32 %r3, %r3, %r4; or.b32 %r1, %r1, %r3;
        st.global.u32 [%result], %r1;
        """,
        {"result": 4, "scratch": 1024},
        block=1,
        declared=VARIABLES,
        before=".const .align 4 .b32 in_const[1] = {7};",
    )
    ran.report.raise_if_found()
    bit = {"global": 1, "const": 1, "shared": 2, "local": 4}[space]
    assert ran.read("result", "u4")[0] == 8 + bit


def test_variables_of_the_module() -> None:
    ran = run(
        """
        ld.const.f32 %f1, [table+4]; mov.b32 %r1, %f1;
        ld.global.nc.b32 %r2, [counter];
        mov.u64 %rd1, counter;
        cvta.global.u64 %rd1, %rd1;
        ld.b32 %r3, [%rd1+4];
        st.global.b32 [counter+8], %r1;
        ld.global.b32 %r4, [counter+8];
        st.global.v4.b32 [%result], {%r1, %r2, %r3, %r4};
        """,
        {"result": 16},
        block=1,
        before=".const .align 4 .u32 table[2] = {11, 12};\n.global .align 4 .u32 counter[3] = {5};",
    )
    ran.report.raise_if_found()
    assert ran.read("result", "u4").tolist() == [12, 5, 0, 12]


def test_dynamic_shared_memory_follows_the_static_one() -> None:
    ran = run(
        """
        mov.u32 %r1, fixed; mov.u32 %r2, dynamic; mov.u32 %r3, %dynamic_smem_size;
        mov.u32 %r4, %total_smem_size;
        st.global.v4.b32 [%result], {%r1, %r2, %r3, %r4};
        """,
        {"result": 16},
        block=1,
        shared_bytes=64,
        declared=".shared .align 4 .b8 fixed[20];",
        before=".extern .shared .align 16 .b8 dynamic[];",
    )
    assert ran.read("result", "u4").tolist() == [0, 32, 64, 96]


@pytest.mark.parametrize(
    "instruction",
    [
        "ld.global.nc.L1::no_allocate.L2::128B.b32 %r1, [%rd1];",
        "ld.global.L1::evict_last.L2::cache_hint.b32 %r1, [%rd1], %rd2;",
        *(f"ld.global.{hint}.b32 %r1, [%rd1];" for hint in ("ca", "cg", "cs", "lu", "cv")),
        *(
            f"ld.{strength}.global.b32 %r1, [%rd1];"
            for strength in ("weak", "volatile", "relaxed.gpu", "acquire.sys", "acquire.cta")
        ),
        "ldu.global.b32 %r1, [%rd1];",
    ],
)
def test_hints_change_no_load(instruction: str) -> None:
    policy = "createpolicy.fractional.L2::evict_first.b64 %rd2, 1.0;"
    values = np.arange(32, dtype="u4")
    ran = run(
        f"""
        {policy}
        add.s64 %rd1, %values, %t4;
        {instruction}
        add.s64 %rd3, %result, %t4;
        st.global.b32 [%rd3], %r1;
        """,
        {"values": values, "result": 128},
    )
    ran.report.raise_if_found()
    assert (ran.read("result", "u4") == values).all()


@pytest.mark.parametrize(
    "suffix",
    ["wb", "cg", "cs", "wt", "L1::evict_first", "weak", "volatile", "relaxed.gpu", "release.sys"],
)
def test_hints_change_no_store(suffix: str) -> None:
    is_strength = suffix.split(".")[0] in ("weak", "volatile", "relaxed", "release")
    opcode = f"st.{suffix}.global.b32" if is_strength else f"st.global.{suffix}.b32"
    ran = run(f"add.s64 %rd1, %result, %t4;\n{opcode} [%rd1], %t;", {"result": 128})
    ran.report.raise_if_found()
    assert ran.read("result", "u4").tolist() == list(range(32))


# Spellings of compilers that the tables above leave out: a load of %r1 and %r2 or of %rd1 and %rd2.
SPELLINGS = [
    "ld.global.cs.f32",
    "ld.global.nc.f32",
    "ld.global.nc.u32",
    "ld.global.nc.v2.u64",
    "ld.relaxed.gpu.v2.u32",
    "ld.volatile.global.u32",
]


@pytest.mark.parametrize("opcode", SPELLINGS)
def test_loads_as_compilers_spell_them(opcode: str) -> None:
    kind = opcode.rsplit(".", 1)[1]
    vector = "v2" if ".v2" in opcode else ""
    size = int(kind[1:]) // 8 * (2 if vector else 1)
    values = np.arange(size, dtype="u1")
    ran = run(
        f"""
        {opcode} {registers(vector, kind)}, [%values];
        st.{".".join(filter(None, ["global", vector, kind]))} [%result], {registers(vector, kind)};
        """,
        {"values": values, "result": size},
        block=1,
    )
    ran.report.raise_if_found()
    assert (ran.read("result", "u1") == values).all()


@pytest.mark.parametrize(
    "suffix", ["volatile.shared.u32", "relaxed.cta.shared.v2.u32", "relaxed.gpu.v2.u32"]
)
def test_strong_accesses_to_shared_memory(suffix: str) -> None:
    value = "{%r1, %r2}" if ".v2" in suffix else "%r1"
    address = "in_shared" if ".shared" in suffix else "%rd1"
    ran = run(
        f"""
        mov.u32 %r1, 7; mov.u32 %r2, 9;
        mov.u64 %rd1, in_shared; cvta.shared.u64 %rd1, %rd1;
        st.{suffix} [{address}], {value};
        mov.u32 %r1, 0;
        ld.{suffix} {value}, [{address}];
        st.global.u32 [%result], %r1;
        """,
        {"result": 4},
        block=1,
        declared=VARIABLES,
    )
    ran.report.raise_if_found()
    assert ran.read("result", "u4")[0] == 7


@pytest.mark.parametrize(
    "instruction",
    [
        *(f"membar.{scope};" for scope in ("cta", "gl", "sys")),
        *(f"{f};" for f in product(["fence"], ["acq_rel", "sc"], ["cta", "cluster", "gpu", "sys"])),
        "prefetch.global.L2 [%result];",
        "nanosleep.u32 20;",
        "griddepcontrol.wait;",
        "griddepcontrol.launch_dependents;",
    ],
)
def test_what_changes_no_value(instruction: str) -> None:
    ran = run(f"{instruction}\nst.global.b32 [%result], 7;", {"result": 4}, block=1)
    ran.report.raise_if_found()
    assert ran.read("result", "u4")[0] == 7
