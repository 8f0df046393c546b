"""cvt between all types, against exact fractions and Python's integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from formats import FORMATS, TF32, Format, floats
from snippets import (
    check_integers,
    combined,
    dtype_of,
    evaluate,
    evaluate_all,
    integers,
    product,
    wrapped,
)

INTEGERS = [f"{letter}{bits}" for letter in "us" for bits in (8, 16, 32, 64)]
ROUNDINGS = ("rn", "rz", "rm", "rp")


def limits(kind: str) -> tuple[int, int]:
    info = np.iinfo(dtype_of(kind))
    return int(info.min), int(info.max)


def kinds_of(opcode: str) -> tuple[str, str]:
    to, source = opcode.split(".")[-2:]
    return to, source


@pytest.mark.parametrize("opcode", product(["cvt"], ["", "sat"], INTEGERS, INTEGERS))
def test_between_integers(opcode: str) -> None:
    """A result narrower than its register fills it, by its sign."""
    to, source = kinds_of(opcode)
    least, most = limits(to)
    values = integers(source)
    inputs = values.astype(dtype_of(f"{source[0]}{max(16, int(source[1:]))}"))
    for register in (bits for bits in (16, 32, 64) if bits >= int(to[1:])):
        got = evaluate(
            f".reg .b{register} %x; {opcode} %x, %a;\nmov.b{register} %d, %x;",
            f"{'i' if to[0] == 's' else 'u'}{register // 8}",
            a=inputs,
        )
        for value, result in zip(values.tolist(), got.tolist(), strict=True):
            expected = max(least, min(most, value)) if "sat" in opcode else value
            assert result == wrapped(expected, dtype_of(to)), (register, value)


def test_the_upper_bits_of_a_source_do_not_count() -> None:
    a = np.array([0xABCD0080, 0xFFFFFF7F], "u4")
    got = evaluate_all(
        "cvt.s32.s8 %x, %a; cvt.u32.u8 %y, %a; cvt.u16.u32 %z, %a;",
        {"x": "i4", "y": "u4", "z": "u2"},
        a=a,
    )
    assert got["x"].tolist() == [-128, 127]
    assert got["y"].tolist() == [0x80, 0x7F]
    assert got["z"].tolist() == [0x80, 0xFF7F]


@pytest.mark.parametrize("kind", ["u8", "s8", "u16", "s16"])
def test_packed_integers(kind: str) -> None:
    bits = int(kind[1:])
    least, most = limits(kind)

    def part(value: int) -> int:
        return max(least, min(most, value)) & (1 << bits) - 1

    few = integers("s32")
    check_integers(
        f"cvt.pack.sat.{kind}.s32 %d, %a, %b;"
        if bits == 16
        else f"cvt.pack.sat.{kind}.s32.b32 %d, %a, %b, %c;",
        "u32",
        lambda a, b, c: (0 if bits == 16 else c << 2 * bits) | part(a) << bits | part(b),
        a=few,
        b=few,
        c=np.array([0x12345678], "u4"),
    )


def to_integer(value: float, mode: str, to: str, source: str) -> int:
    least, most = limits(to)
    if math.isnan(value):
        return 1 << (int(to[1:]) - 1) if "64" in (to[1:], source[1:]) else 0
    if math.isinf(value):
        return most if value > 0 else least
    whole = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}[mode](value)
    return max(least, min(most, whole))


def around(kind: str) -> np.ndarray:
    """Numbers near halves and near the limits of integers, besides the edges of the format."""
    form = FORMATS[kind]
    values = [0.5, 1.5, 2.5, 0.49, 126.5, 127.5, 128.0, 255.5, 256.0, 32767.5, 65504.0]
    if kind != "f16":
        values += [2.0**31 - 128, 2.0**31, 2.0**32 - 256, 2.0**32, 2.0**63, 2.0**64, 1e30]
    rounded = [form.bits_of(form.rounded(Fraction(sign * v))) for v in values for sign in (1, -1)]
    return np.array([*rounded, *floats(kind).tolist()], form.dtype)


@pytest.mark.parametrize(
    "opcode", product(["cvt"], ["rni", "rzi", "rmi", "rpi"], INTEGERS, ["f16", "f32", "f64"])
)
def test_from_floats_to_integers(opcode: str) -> None:
    to, source = kinds_of(opcode)
    mode, form, inputs = opcode.split(".")[1], FORMATS[source], around(source)
    register = dtype_of(f"{to[0]}{max(16, int(to[1:]))}")
    got = evaluate(f"{opcode} %d, %a;", register, a=inputs)
    for bits, result in zip(inputs.tolist(), got.tolist(), strict=True):
        value = form.value(bits)
        expected = wrapped(to_integer(value, mode, to, source), dtype_of(to))
        assert result == expected, value


def test_flushed_numbers_round_to_zero() -> None:
    a = np.array([1e-40, -1e-40, 1e-30], "f4")
    assert evaluate("cvt.rpi.ftz.s32.f32 %d, %a;", "i4", a=a).tolist() == [0, 0, 1]
    assert evaluate("cvt.rmi.s32.f32 %d, %a;", "i4", a=a).tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    "opcode",
    [
        *product(["cvt"], ROUNDINGS, ["f32", "f64", "f16"], INTEGERS),
        *product(["cvt.rn.bf16"], INTEGERS),
    ],
)
def test_from_integers_to_floats(opcode: str) -> None:
    to, source = kinds_of(opcode)
    form, mode, values = FORMATS[to], opcode.split(".")[1], integers(source)
    inputs = values.astype(dtype_of(f"{source[0]}{max(16, int(source[1:]))}"))
    got = evaluate(f"{opcode} %d, %a;", form.dtype, a=inputs)
    for value, bits in zip(values.tolist(), got.tolist(), strict=True):
        expected = form.rounded(Fraction(value), mode) if value else 0.0
        assert bits == form.bits_of(expected), value


def narrowed(value: float, form: Format, mode: str) -> float:
    if value == 0 or not math.isfinite(value):
        return value
    result = form.rounded(Fraction(value), mode)
    return result if result else math.copysign(0.0, value)


def ties(source: str, to: Format) -> np.ndarray:
    """Edges of the source, and numbers at, below and above the middle between two of the result."""
    form = FORMATS[source]
    step = 1 << (form.precision - to.precision)
    one = form.bits_of(1.0)
    largest = form.bits_of(to.largest)
    smallest = form.bits_of(math.ldexp(1.0, to.min_exponent - to.precision))
    near = [
        base + half + by
        for base in (one, one + step, largest, smallest)
        for half in (0, step // 2)
        for by in (-1, 0, 1)
    ]
    sign = 1 << (form.bits - 1)
    return np.array([*near, *(n | sign for n in near), *floats(source).tolist()], form.dtype)


@pytest.mark.parametrize(
    "opcode",
    [
        *product(["cvt"], ROUNDINGS, ["", "ftz"], ["", "sat"], ["f32"], ["f64"]),
        *product(["cvt"], ROUNDINGS, ["", "ftz"], ["", "sat"], ["f16"], ["f32"]),
        *product(["cvt"], ROUNDINGS, ["", "sat"], ["f16"], ["f64"]),
        "cvt.rn.bf16.f64",
        *product(["cvt.rn"], ["", "relu"], ["f16", "bf16"], ["f32"]),
        *product(["cvt.rz"], ["", "relu"], ["f16", "bf16"], ["f32"]),
    ],
)
def test_to_narrower_floats(opcode: str) -> None:
    to, source = kinds_of(opcode)
    form, wide, mode = FORMATS[to], FORMATS[source], opcode.split(".")[1]
    flushes = "ftz" in opcode
    inputs = ties(source, form)
    got = evaluate(f"{opcode} %d, %a;", form.dtype, a=inputs)
    for operand, bits in zip(inputs.tolist(), got.tolist(), strict=True):
        value = wide.value(operand)
        # .ftz speaks of float32: of the source, or of the result.
        read = wide.flushed(value) if flushes and source == "f32" else value
        expected = narrowed(read, form, mode)
        if flushes and to == "f32":
            expected = form.flushed(expected)
        if "sat" in opcode:
            expected = min(expected, 1.0) if expected > 0 else 0.0
        if "relu" in opcode and expected <= 0:
            expected = 0.0
        assert bits == form.bits_of(expected), (value, form.value(bits), expected)


@pytest.mark.parametrize(
    "opcode",
    [
        *product(["cvt"], ["f32", "f64"], ["f16"]),
        "cvt.f32.bf16",
        "cvt.f64.f32",
        "cvt.ftz.f64.f32",
        "cvt.ftz.f32.f16",
        "cvt.sat.f32.f32",
        "cvt.sat.f64.f64",
        "cvt.ftz.f32.f32",
    ],
)
def test_to_wider_floats(opcode: str) -> None:
    to, source = kinds_of(opcode)
    form, narrow, inputs = FORMATS[to], FORMATS[source], floats(source)[:-1]
    got = evaluate(f"{opcode} %d, %a;", form.dtype, a=inputs)
    for operand, bits in zip(inputs.tolist(), got.tolist(), strict=True):
        value = narrow.value(operand)
        if "ftz" in opcode and source == "f32":
            value = narrow.flushed(value)
        if "sat" in opcode:
            value = min(value, 1.0) if value > 0 else 0.0
        assert bits == form.bits_of(value), value


@pytest.mark.parametrize("opcode", product(["cvt.f32", "cvt.f64"], ["f16", "f32", "f64"]))
def test_nan_stays_nan(opcode: str) -> None:
    to, source = kinds_of(opcode)
    if to == "f32" and source == "f64":
        opcode = opcode.replace("cvt", "cvt.rn")
    got = evaluate(f"{opcode} %d, %a;", FORMATS[to].dtype, a=floats(source)[-1:])
    assert math.isnan(FORMATS[to].value(int(got[0])))


@pytest.mark.parametrize(
    "opcode", product(["cvt"], ["rni", "rzi", "rmi", "rpi"], ["f16", "f32", "f64"])
)
def test_to_integers_in_the_format(opcode: str) -> None:
    kind = opcode.rsplit(".", 1)[1]
    form, inputs = FORMATS[kind], around(kind)
    got = evaluate(f"{opcode}.{kind} %d, %a;", form.dtype, a=inputs)
    round_it = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}
    for operand, bits in zip(inputs.tolist(), got.tolist(), strict=True):
        value = form.value(operand)
        if math.isnan(value):
            assert math.isnan(form.value(bits))
            continue
        whole = value
        if math.isfinite(value):
            whole = math.copysign(round_it[opcode.split(".")[1]](value), value)
        assert bits == form.bits_of(whole), value


@pytest.mark.parametrize(
    "opcode", product(["cvt"], ["rn", "rz", "rn.relu"], ["f16x2", "bf16x2"], ["f32"])
)
def test_pairs(opcode: str) -> None:
    """The first operand becomes the upper half."""
    form, mode = FORMATS[opcode.split(".")[-2][:-2]], opcode.split(".")[1]
    a = ties("f32", form)
    got = evaluate(f"{opcode} %d, %a, %b;", "u4", a=a, b=a[::-1].copy()).view("u2")
    halves = np.stack([a[::-1], a], 1).ravel()
    for operand, bits in zip(halves.tolist(), got.tolist(), strict=True):
        expected = narrowed(FORMATS["f32"].value(operand), form, mode)
        if "relu" in opcode and expected <= 0:
            expected = 0.0
        assert bits == form.bits_of(expected), FORMATS["f32"].value(operand)


@pytest.mark.parametrize("mode", ["rna", "rn", "rz", "rn.relu"])
def test_tf32(mode: str) -> None:
    inputs = ties("f32", TF32)
    got = evaluate(f"cvt.{mode}.tf32.f32 %d, %a;", "u4", a=inputs)
    for operand, bits in zip(inputs.tolist(), got.tolist(), strict=True):
        value = FORMATS["f32"].value(operand)
        expected = narrowed(value, TF32, mode.split(".")[0])
        if "relu" in mode and expected <= 0:
            expected = 0.0
        assert bits == TF32.bits_of(expected), value


BYTES = {
    "e4m3": Format(8, 4, -6, 448.0, "<e"),
    "e5m2": Format(8, 3, -14, 57344.0, "<e"),
}


def byte_value(kind: str, bits: int) -> float:
    """By the definition of the format."""
    form = BYTES[kind]
    mantissa_bits = form.precision - 1
    field, mantissa = (
        bits >> mantissa_bits & (1 << (7 - mantissa_bits)) - 1,
        bits & (1 << mantissa_bits) - 1,
    )
    sign = -1.0 if bits & 128 else 1.0
    if kind == "e4m3" and bits & 127 == 127:
        return math.nan
    if kind == "e5m2" and field == 31:
        return sign * math.inf if mantissa == 0 else math.nan
    significand = mantissa + (1 << mantissa_bits if field else 0)
    return sign * math.ldexp(significand, max(field, 1) - 1 + form.min_exponent - mantissa_bits)


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_become_halves(kind: str) -> None:
    every = np.arange(256, dtype="u2")
    pairs = every | every[::-1] << np.uint16(8)
    got = evaluate_all(
        f"cvt.rn.f16x2.{kind}x2 %x, %a; cvt.rn.relu.f16x2.{kind}x2 %y, %a;",
        {"x": "u4", "y": "u4"},
        a=pairs,
    )
    half = FORMATS["f16"]
    for byte, bits, relu in zip(
        pairs.view("u1").tolist(),
        got["x"].view("u2").tolist(),
        got["y"].view("u2").tolist(),
        strict=True,
    ):
        value = byte_value(kind, byte)
        assert bits == half.bits_of(value), byte
        assert relu == half.bits_of(0.0 if value <= 0 else value), byte


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("relu", ["", "relu."])
def test_floats_become_bytes(kind: str, relu: str) -> None:
    """Everything beyond the largest number saturates; NaN stays."""
    form = BYTES[kind]
    values = {byte_value(kind, byte): byte for byte in range(256) if byte not in (0x80,)}
    near = [v for v in values if math.isfinite(v)]
    middles = [(a + b) / 2 for a, b in zip(sorted(near), sorted(near)[1:], strict=False)]
    inputs = np.array([*near, *middles, *(m * 1.001 for m in middles), 1e6, -1e6, np.inf], "f4")
    # The two operands are the upper and the lower byte.
    got = evaluate(f"cvt.rn.satfinite.{relu}{kind}x2.f32 %d, %a, %b;", "u2", a=inputs, b=-inputs)
    numbers = np.stack([-inputs, inputs], 1).ravel().astype(float)
    for value, byte in zip(numbers.tolist(), got.view("u1").tolist(), strict=True):
        clamped = max(-form.largest, min(form.largest, value))
        expected = narrowed(clamped, form, "rn")
        if relu:
            expected = max(expected, 0.0) + 0.0
        result = byte_value(kind, byte)
        assert result == expected, value
        assert relu or math.copysign(1, result) == math.copysign(1, value), value
    nan = np.array([np.nan], "f4")
    got = evaluate(f"cvt.rn.satfinite.{kind}x2.f32 %d, %a, %a;", "u2", a=nan)
    assert math.isnan(byte_value(kind, int(got[0]) & 255))


@pytest.mark.parametrize("kind", BYTES)
def test_halves_become_bytes(kind: str) -> None:
    a, b = combined(np.array([0.0, 1.0, 1.0625, 500.0, -1e-3], "f2"), np.array([-2.0, 3.25], "f2"))
    words = np.stack([a, b], 1).ravel().view("u4")
    got = evaluate(f"cvt.rn.satfinite.{kind}x2.f16x2 %d, %a;", "u2", a=words)
    form = BYTES[kind]
    for value, byte in zip(
        np.stack([a, b], 1).ravel().tolist(), got.view("u1").tolist(), strict=True
    ):
        clamped = max(-form.largest, min(form.largest, value))
        assert byte_value(kind, byte) == narrowed(clamped, form, "rn"), value
