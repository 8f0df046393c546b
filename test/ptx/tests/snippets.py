"""PTX modules around a few lines of body, run over arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike
from ptxsim import Buffer, InstructionCount, Options, Report, Simulator

BLOCK = 128
NO_RACES = Options(checks_races=False)
EVERY_OPCODE_RUN: set[str] = set()

HEADER = ".version 8.4\n.target sm_90\n.address_size 64\n"
REGISTERS = """
  .reg .pred %p<16>;
  .reg .b16 %h<64>;
  .reg .b32 %r<64>, %t, %i;
  .reg .f32 %f<16>;
  .reg .f64 %fd<16>;
  .reg .b64 %rd<32>, %t4;
"""
# %t is the thread in its block, %t4 four times that, %i the thread in the grid.
PLACES = """
  mov.u32 %t, %tid.x;
  mul.wide.u32 %t4, %t, 4;
  mov.u32 %i, %ctaid.x;
  mov.u32 %r63, %ntid.x;
  mad.lo.s32 %i, %i, %r63, %t;
"""


def module(
    body: str, parameters: Iterable[str] = (), *, declared: str = "", before: str = ""
) -> str:
    """The text of a module with one entry, `snippet`, whose copies have arrived when it ends.

    Args:
        body: Its instructions, without the last `ret`.
        parameters: Names of pointers; each stands in a register of its name.
        declared: Declarations of the body.
        before: Declarations of the module.
    """
    names = list(parameters)
    list_of_parameters = ", ".join(f".param .u64 {name}_pointer" for name in names)
    loads = "".join(f".reg .b64 %{n}; ld.param.u64 %{n}, [{n}_pointer];\n" for n in names)
    wait = "cp.async.wait_all;\n" if "cp.async" in body else ""
    return (
        f"{HEADER}{before}\n.visible .entry snippet({list_of_parameters}) {{"
        f"{REGISTERS}{declared}\n{loads}{PLACES}{body}\n{wait}ret;\n}}\n"
    )


@dataclass(frozen=True)
class Ran:
    """A launch that came to its end."""

    report: Report
    buffers: dict[str, Buffer]

    @property
    def kinds(self) -> set[str]:
        """The kinds of findings."""
        return {finding.kind for finding in self.report.findings}

    def read(self, name: str, dtype: DTypeLike) -> np.ndarray:
        return self.buffers[name].read(dtype)

    def count(self, opcode: str) -> InstructionCount:
        """What the only instruction with that opcode has cost."""
        (count,) = (one for one in self.report.instructions if one.opcode == opcode)
        return count


def run(
    body: str,
    buffers: Mapping[str, np.ndarray | int] | None = None,
    *,
    grid: int | Sequence[int] = 1,
    block: int | Sequence[int] = 32,
    read_only: Sequence[str] = (),
    shared_bytes: int = 0,
    options: Options | None = None,
    declared: str = "",
    before: str = "",
) -> Ran:
    """Runs a body over buffers: arrays, or numbers of bytes that nobody has written."""
    buffers = buffers or {}
    simulator = Simulator(module(body, buffers, declared=declared, before=before))
    made = {
        name: simulator.buffer(name, size=content)
        if isinstance(content, int)
        else simulator.buffer(name, content, read_only=name in read_only)
        for name, content in buffers.items()
    }
    arguments = list(made.values())
    report = simulator.launch(
        "snippet", grid, block, arguments, shared_bytes=shared_bytes, options=options
    )
    EVERY_OPCODE_RUN.update(one.opcode for one in report.instructions)
    return Ran(report, made)


def evaluate(body: str, dtype: DTypeLike, **inputs: np.ndarray) -> np.ndarray:
    """Runs a body once per element: what it leaves in %d, of that dtype. See `evaluate_all`."""
    return evaluate_all(body, {"d": dtype}, **inputs)["d"]


def evaluate_all(
    body: str, wanted: Mapping[str, DTypeLike], **inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """Runs a body once per element.

    Args:
        body: Instructions from registers named after the inputs to those named after the results.
        wanted: Names and dtypes of the results.
        inputs: One-dimensional arrays of one length; their elements stand in %a, %b, ...
    """
    (count,) = {array.size for array in inputs.values()}
    lines = [f"setp.ge.u32 %p15, %i, {count};", "@%p15 ret;"]
    stores = []
    for name, dtype in {**{n: array.dtype for n, array in inputs.items()}, **wanted}.items():
        size = np.dtype(dtype).itemsize
        lines.append(f".reg .b{max(8 * size, 16)} %{name};")
        place = f"mad.wide.u32 %rd31, %i, {size}, %{name}_all;"
        if name in inputs:
            lines += [place, f"ld.global.b{8 * size} %{name}, [%rd31];"]
        else:
            stores += [place, f"st.global.b{8 * size} [%rd31], %{name};"]
    ran = run(
        "\n".join([*lines, body, *stores]),
        {
            **{f"{name}_all": array for name, array in inputs.items()},
            **{f"{name}_all": count * np.dtype(dtype).itemsize for name, dtype in wanted.items()},
        },
        grid=-(-count // BLOCK),
        block=BLOCK,
        options=NO_RACES,
    )
    ran.report.raise_if_found()
    return {name: ran.read(f"{name}_all", dtype) for name, dtype in wanted.items()}


def combined(*arrays: np.ndarray) -> list[np.ndarray]:
    """All combinations of the elements of arrays, one array per place."""
    return [grid.ravel() for grid in np.meshgrid(*arrays, indexing="ij")]


SIXTEEN = ("u16", "s16")

THIRTY_TWO = ("u32", "s32")

SIXTY_FOUR = ("u64", "s64")

INTEGERS = SIXTEEN + THIRTY_TWO + SIXTY_FOUR

BITS = ("b16", "b32", "b64")


def kind_of(opcode: str) -> str:
    """The last type: s32 of mul.wide.s32."""
    return opcode.rsplit(".", 1)[1]


def width_of(opcode: str) -> int:
    """The bits of that type."""
    return int(kind_of(opcode)[1:])


def dtype_of(kind: str) -> np.dtype[np.generic]:
    """Of a PTX type: s32 is int32, b32 is uint32, f32 is float32."""
    letter = {"s": "i", "f": "f"}.get(kind[0], "u")
    return np.dtype(f"{letter}{int(kind[1:]) // 8}")


def wrapped(value: int, dtype: np.dtype[np.generic]) -> int:
    """The integer of a dtype that is equal modulo its range."""
    bits = 8 * dtype.itemsize
    value &= (1 << bits) - 1
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value


def integers(kind: str, seed: int = 1) -> np.ndarray:
    """Edge values of an integer type, and a few more."""
    dtype = dtype_of(kind)
    bits = 8 * dtype.itemsize
    half, full = 1 << (bits - 1), 1 << bits
    values = [0, 1, 2, 3, 7, 31, 32, 33, 0x55, half - 1, half, half + 1, full - 1, full - 2]
    values += [full // 3, full // 3 * 2, full // 255 * 0x80]
    random = np.random.default_rng(seed)
    values += random.integers(0, full - 1, 3, dtype=np.uint64).tolist()
    return np.array(sorted({wrapped(v, dtype) for v in values}), dtype)


def assert_same_bits(got: np.ndarray, expected: np.ndarray, *inputs: np.ndarray) -> None:
    """Fails with the first element whose bits differ; all NaN are the same."""
    assert got.dtype == expected.dtype, (got.dtype, expected.dtype)
    unsigned = f"u{got.dtype.itemsize}"
    differs = got.view(unsigned) != expected.view(unsigned)
    if got.dtype.kind == "f":
        differs &= ~(np.isnan(got) & np.isnan(expected))
    if differs.any():
        at = int(np.argmax(differs))
        operands = ", ".join(repr(one[at]) for one in inputs)
        raise AssertionError(
            f"{differs.sum()} of {got.size} differ; of ({operands}) "
            f"got {got[at]!r}, expected {expected[at]!r}"
        )


def check_integers(
    body: str, kind: str, reference: Callable[..., int], **inputs: np.ndarray
) -> None:
    """Compares %d of all combinations of inputs with a function of Python's integers."""
    arrays = dict(zip(inputs, combined(*inputs.values()), strict=True))
    dtype = dtype_of(kind)
    got = evaluate(body, dtype, **arrays)
    rows = zip(*(array.tolist() for array in arrays.values()), strict=True)
    expected = np.array([wrapped(int(reference(*row)), dtype) for row in rows], dtype)
    assert_same_bits(got, expected, *arrays.values())


def product(*choices: Iterable[str]) -> list[str]:
    """Opcodes: every combination of their parts."""
    return [".".join(filter(None, parts)) for parts in itertools.product(*choices)]
