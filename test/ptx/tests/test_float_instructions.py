"""Floating point against exact fractions."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from formats import FORMATS, Format, floats
from snippets import combined, evaluate, evaluate_all, product

ROUNDINGS = ("", "rn", "rz", "rm", "rp")
OPERATIONS: dict[str, Callable[..., object]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "fma": lambda a, b, c: a * b + c,
    "div": lambda a, b: a / b,
}


def format_of(opcode: str) -> Format:
    return FORMATS[opcode.rsplit(".", 1)[1].removesuffix("x2")]


def rounding_of(opcode: str) -> str:
    return next((part for part in opcode.split(".") if part in ROUNDINGS[1:]), "rn")


def in_floats(op: str, *values: float) -> float:
    """Of infinities, NaN and zeros, where host arithmetic is what IEEE 754 says."""
    if op == "fma" and all(map(math.isfinite, values[:2])) and not math.isfinite(values[2]):
        return values[2]
    if op == "fma" and math.isfinite(values[2]) and not all(map(math.isfinite, values)):
        return values[0] * values[1]
    if op == "div" and values[1] == 0:
        sign = math.copysign(1.0, values[0]) * math.copysign(1.0, values[1])
        return math.nan if values[0] == 0 or math.isnan(values[0]) else sign * math.inf
    return float(OPERATIONS[op](*values))  # type: ignore[arg-type]


def signed_zero(op: str, mode: str, *values: float) -> float:
    """The sign of an exact zero: of a product by its factors, of a sum by what it adds."""
    signs = [math.copysign(1.0, value) for value in values]
    if op in ("mul", "div"):
        return 0.0 * signs[0] * signs[1]
    left = signs[0] * signs[1] if op == "fma" else signs[0]
    right = -signs[1] if op == "sub" else signs[-1]
    return math.copysign(0.0, left if left == right else -1.0 if mode == "rm" else 1.0)


def arithmetic(opcode: str, *values: float) -> float:
    """What an instruction makes of numbers, by its name."""
    form, mode = format_of(opcode), rounding_of(opcode)
    op, *modifiers = opcode.split(".")
    if "ftz" in modifiers:
        values = tuple(map(form.flushed, values))
    if not all(map(math.isfinite, values)) or (op == "div" and values[1] == 0):
        result = in_floats(op, *values)
    else:
        exact = OPERATIONS[op](*map(Fraction, values))
        assert isinstance(exact, Fraction)
        result = form.rounded(exact, mode) if exact else signed_zero(op, mode, *values)
    if "ftz" in modifiers:
        result = form.flushed(result)
    if "sat" in modifiers:
        return min(result, 1.0) if result > 0 else 0.0
    if "relu" in modifiers and result <= 0:
        return 0.0
    return result


def check(body: str, opcode: str, reference: Callable[..., float], *inputs: np.ndarray) -> None:
    """Compares bits; of doubles all NaN are the same."""
    form = format_of(opcode)
    got = evaluate(body, form.dtype, **dict(zip("abc", inputs, strict=False)))
    rows = zip(*(array.tolist() for array in inputs), strict=True)
    for row, bits in zip(rows, got.tolist(), strict=True):
        values = tuple(map(form.value, row))
        expected = reference(*values)
        if form.bits == 64 and math.isnan(expected):
            assert math.isnan(form.value(bits)), values
            continue
        assert bits == form.bits_of(expected), (values, form.value(bits), expected)


@pytest.mark.parametrize(
    "opcode",
    [
        *product(["add", "sub", "mul"], ROUNDINGS, ["", "ftz"], ["", "sat"], ["f32"]),
        *product(["add", "sub", "mul"], ROUNDINGS, ["f64"]),
        *product(["add", "sub", "mul"], ["", "rn"], ["", "ftz"], ["", "sat"], ["f16"]),
        *product(["add", "sub", "mul"], ["", "rn"], ["bf16"]),
        *product(["div"], ROUNDINGS[1:], ["", "ftz"], ["f32"]),
        "div.rn.f64",
    ],
)
def test_two_operands(opcode: str) -> None:
    every = floats(opcode.rsplit(".", 1)[1])
    a, b = combined(every, every)
    check(f"{opcode} %d, %a, %b;", opcode, lambda *v: arithmetic(opcode, *v), a, b)


@pytest.mark.parametrize(
    "opcode",
    [
        *product(["fma"], ROUNDINGS[1:], ["", "ftz"], ["", "sat"], ["f32"]),
        *product(["fma"], ROUNDINGS[1:], ["f64"]),
        *product(["fma.rn"], ["", "ftz"], ["", "sat", "relu"], ["f16"]),
        *product(["fma.rn"], ["", "relu"], ["bf16"]),
        "mad.rn.f32",
        "mad.rz.f64",
    ],
)
def test_fused(opcode: str) -> None:
    every = floats(opcode.rsplit(".", 1)[1])
    few = np.concatenate([every[::3], every[-1:]])
    inputs = combined(few, np.roll(few, 1), every[1::3])
    name = opcode.replace("mad", "fma")
    check(f"{opcode} %d, %a, %b, %c;", opcode, lambda *v: arithmetic(name, *v), *inputs)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "min", "max", "fma.rn", "neg", "abs"])
def test_pairs_are_two_halves(op: str, kind: str) -> None:
    count = 3 if op == "fma.rn" else 1 if op in ("neg", "abs") else 2
    every = combined(*[floats(kind)] * count)
    every = [array[: array.size // 2 * 2] for array in every]
    names = "abc"[:count]
    operands = ", ".join(f"%{name}" for name in names)
    words = {name: array.view("u4") for name, array in zip(names, every, strict=True)}
    halves = dict(zip(names, every, strict=True))
    pairs = evaluate(f"{op}.{kind}x2 %d, {operands};", "u4", **words)
    alone = evaluate(f"{op}.{kind} %d, {operands};", "u2", **halves)
    assert (pairs.view("u2") == alone).all()


@pytest.mark.parametrize(
    ("opcode", "reference"),
    [
        *((op, math.sqrt) for op in product(["sqrt"], ["rn", "approx"], ["", "ftz"], ["f32"])),
        ("sqrt.rn.f64", math.sqrt),
        *((op, lambda a: 1 / a) for op in product(["rcp"], ["rn", "approx"], ["", "ftz"], ["f32"])),
        ("rcp.rn.f64", lambda a: 1 / a),
        ("rcp.approx.ftz.f64", lambda a: 1 / a),
        *((op, lambda a: 2**a) for op in product(["ex2.approx"], ["", "ftz"], ["f32"])),
        *((op, math.log2) for op in product(["lg2.approx"], ["", "ftz"], ["f32"])),
        *((op, lambda a: a**-0.5) for op in product(["rsqrt.approx"], ["", "ftz"], ["f32"])),
        *((op, math.sin) for op in product(["sin.approx"], ["", "ftz"], ["f32"])),
        *((op, math.cos) for op in product(["cos.approx"], ["", "ftz"], ["f32"])),
        ("tanh.approx.f32", math.tanh),
        ("tanh.approx.f16", math.tanh),
        ("tanh.approx.bf16", math.tanh),
        ("ex2.approx.f16", lambda a: 2**a),
        ("ex2.approx.ftz.bf16", lambda a: 2**a),
    ],
)
def test_functions_of_positive_numbers(opcode: str, reference: Callable[[float], float]) -> None:
    form = format_of(opcode)
    values = [0.25, 0.3, 0.5, 1.0, 1.7, 2.0, 3.0, 10.0]
    inputs = np.array([form.bits_of(form.rounded(Fraction(v))) for v in values], form.dtype)
    got = evaluate(f"{opcode} %d, %a;", form.dtype, a=inputs)
    for operand, bits in zip(inputs.tolist(), got.tolist(), strict=True):
        exact = reference(form.value(operand))
        assert form.value(bits) == pytest.approx(exact, rel=2.0 ** (1 - form.precision), abs=1e-7)


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("opcode", "operands", "results"),
    [
        ("sqrt.rn.f32", [-1.0, -0.0, INF, NAN], [NAN, -0.0, INF, NAN]),
        ("sqrt.approx.ftz.f32", [1e-40, -1e-40], [0.0, -0.0]),
        ("rcp.rn.f32", [0.0, -0.0, INF, -INF], [INF, -INF, 0.0, -0.0]),
        ("rcp.approx.ftz.f32", [1e-40, -1e-40, 2.0**127], [INF, -INF, 0.0]),
        ("ex2.approx.f32", [-INF, INF, 200.0, -0.0], [0.0, INF, INF, 1.0]),
        ("ex2.approx.ftz.f32", [-127.0, 1e-40], [0.0, 1.0]),
        ("lg2.approx.f32", [0.0, -0.0, -1.0, INF], [-INF, -INF, NAN, INF]),
        ("lg2.approx.ftz.f32", [1e-40, -1e-40], [-INF, -INF]),
        ("rsqrt.approx.f32", [0.0, -0.0, -1.0, INF], [INF, -INF, NAN, 0.0]),
        ("sin.approx.f32", [0.0, -0.0, INF, NAN], [0.0, -0.0, NAN, NAN]),
        ("cos.approx.f32", [0.0, -0.0, -INF], [1.0, 1.0, NAN]),
        ("tanh.approx.f32", [-0.0, INF, -INF, NAN], [-0.0, 1.0, -1.0, NAN]),
    ],
)
def test_functions_at_the_edges(opcode: str, operands: list[float], results: list[float]) -> None:
    got = evaluate(f"{opcode} %d, %a;", "u4", a=np.array(operands, "f4"))
    assert got.tolist() == [FORMATS["f32"].bits_of(float(np.float32(r))) for r in results]


@pytest.mark.parametrize("opcode", ["div.full.f32", "div.approx.f32", "div.approx.ftz.f32"])
def test_approximate_division(opcode: str) -> None:
    a, b = combined(*[np.array([1.0, 3.0, -7.0, 1e-10, 1e10], "f4")] * 2)
    got = evaluate(f"{opcode} %d, %a, %b;", "f4", a=a, b=b)
    assert (np.abs(got - a / b) <= 2 * np.spacing(np.abs(a / b))).all()


def extreme(opcode: str, a: float, b: float) -> float:
    if "ftz" in opcode:
        a, b = map(format_of(opcode).flushed, (a, b))
    if math.isnan(a) or math.isnan(b):
        return math.nan if "NaN" in opcode else b if math.isnan(a) else a
    pick = min if opcode.startswith("min") else max
    return pick(a, b, key=lambda v: (v, math.copysign(1.0, v)))  # -0 < +0


@pytest.mark.parametrize(
    "opcode",
    [
        *product(["min", "max"], ["", "ftz"], ["", "NaN"], ["f32", "f16"]),
        *product(["min", "max"], ["", "NaN"], ["bf16"]),
        *product(["min", "max"], ["f64"]),
    ],
)
def test_extremes(opcode: str) -> None:
    every = floats(opcode.rsplit(".", 1)[1])
    a, b = combined(every, every)
    check(f"{opcode} %d, %a, %b;", opcode, lambda *v: extreme(opcode, *v), a, b)


@pytest.mark.parametrize(
    "opcode",
    product(["neg", "abs"], ["f32", "ftz.f32", "f16", "ftz.f16", "f64", "bf16"]),
)
def test_signs(opcode: str) -> None:
    every = floats(opcode.rsplit(".", 1)[1])[:-1]
    change = operator.neg if opcode.startswith("neg") else abs

    def reference(a: float) -> float:
        return float(change(format_of(opcode).flushed(a) if "ftz" in opcode else a))

    check(f"{opcode} %d, %a;", opcode, reference, every)


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_copied_signs(kind: str) -> None:
    """The sign of a and the value of b."""
    every = floats(kind)[:-1]
    a, b = combined(every, every)
    opcode = f"copysign.{kind}"
    check(f"{opcode} %d, %a, %b;", opcode, lambda a, b: math.copysign(b, a), a, b)


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_moves(kind: str) -> None:
    check(f"mov.{kind} %d, %a;", f"mov.{kind}", lambda a: a, floats(kind)[:-1])


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_classes(kind: str) -> None:
    form, every = FORMATS[kind], floats(kind)
    classes: dict[str, Callable[[float], bool]] = {
        "finite": math.isfinite,
        "infinite": math.isinf,
        "number": lambda a: not math.isnan(a),
        "notanumber": math.isnan,
        "normal": lambda a: math.isfinite(a) and abs(a) >= form.smallest_normal,
        "subnormal": lambda a: 0 < abs(a) < form.smallest_normal,
    }
    for name, is_of in classes.items():
        got = evaluate(f"testp.{name}.{kind} %p1, %a;\nselp.u32 %d, 1, 0, %p1;", "u4", a=every)
        assert got.tolist() == [is_of(form.value(bits)) for bits in every.tolist()], name


ORDERED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
COMPARISONS = (*ORDERED, *(f"{name}u" for name in ORDERED), "num", "nan")


def compared(name: str, a: float, b: float) -> bool:
    is_unordered = math.isnan(a) or math.isnan(b)
    if name in ("num", "nan"):
        return is_unordered == (name == "nan")
    if is_unordered:
        return name.endswith("u")
    return bool(getattr(operator, name.removesuffix("u"))(a, b))


@pytest.mark.parametrize(
    "opcode",
    [
        *product(["setp"], COMPARISONS, ["", "ftz"], ["f32", "f16"]),
        *product(["setp"], COMPARISONS, ["f64", "bf16"]),
    ],
)
def test_comparisons(opcode: str) -> None:
    form, name = format_of(opcode), opcode.split(".")[1]
    every = floats(opcode.rsplit(".", 1)[1])
    a, b = combined(every, every)
    got = evaluate(
        f"{opcode} %p1|%p2, %a, %b;\nselp.u32 %d, 1, 0, %p1;\n@%p2 add.u32 %d, %d, 2;",
        "u4",
        a=a,
        b=b,
    )
    for x, y, result in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
        values = (form.value(x), form.value(y))
        if "ftz" in opcode:
            values = (form.flushed(values[0]), form.flushed(values[1]))
        assert result == (1 if compared(name, *values) else 2), values


@pytest.mark.parametrize("kind", ["f16x2", "bf16x2"])
@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_of_pairs(name: str, kind: str) -> None:
    form = FORMATS[kind[:-2]]
    every = floats(kind[:-2])
    a, b = (array[:800] for array in combined(every, every))
    got = evaluate_all(
        f"""
        setp.{name}.{kind} %p1|%p2, %a, %b;
        selp.u32 %x, 1, 0, %p1;
        selp.u32 %y, 1, 0, %p2;
        setp.ne.u32 %p3, %y, 0;
        setp.{name}.and.{kind} %p4|%p5, %a, %b, !%p3;
        selp.u32 %z, 1, 0, %p4;
        @%p5 add.u32 %z, %z, 2;
        set.{name}.{kind}.{kind} %v, %a, %b;
        """,
        dict.fromkeys("xyzv", "u4"),
        a=a.view("u4"),
        b=b.view("u4"),
    )
    values = [(form.value(x), form.value(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    expected = np.array([compared(name, *pair) for pair in values])
    low, high = expected[::2], expected[1::2]
    assert (got["x"] == low).all()
    assert (got["y"] == high).all()
    assert (got["z"] == (low & ~high)).all()
    assert (got["v"].view("u2") == expected * form.bits_of(1.0)).all()


@pytest.mark.parametrize(
    ("opcode", "true"),
    [
        ("set.lt.u32.f32", 0xFFFFFFFF),
        ("set.lt.f32.f32", 0x3F800000),
        ("set.ltu.s32.f32", 0xFFFFFFFF),
    ],
)
def test_comparisons_as_values(opcode: str, true: int) -> None:
    a, b = combined(*[np.array([-1, 0, 1, np.nan], "f4")] * 2)
    got = evaluate(f"{opcode} %d, %a, %b;", "u4", a=a, b=b)
    name = opcode.split(".")[1]
    assert got.tolist() == [
        true * compared(name, *pair) for pair in zip(a.tolist(), b.tolist(), strict=True)
    ]


def test_constants() -> None:
    one = np.zeros(1, "u4")
    got = evaluate_all(
        """
        mov.f32 %x, 0f3FC00000;
        mov.f64 %y, 0d3FF8000000000000;
        mov.f32 %z, 1.5;
        mov.f64 %v, 1.5;
        """,
        {"x": "f4", "y": "f8", "z": "f4", "v": "f8"},
        a=one,
    )
    assert [float(array[0]) for array in got.values()] == [1.5] * 4
