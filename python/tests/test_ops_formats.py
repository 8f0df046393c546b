"""The operators' number formats against marlin.primitives: 8-bit weights, activations, act-order,
the gated epilogue, alone and together.

test_ops_kernels.py runs this file once more for every CPU kernel of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from marlin import ops, primitives
from marlin.activations import round_activations
from marlin.errors import InvalidArgumentError, UnsupportedError

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
BITS = (4, 8)
INTEGER_FORMATS = ("int16", "int8")
MULTIPLIES_BFLOAT16 = ops.kernel_info().kernel in ("amx_bf16", "avx512_bf16")

# Of float32 sums, relative to the product; the integers themselves are exact.
SUM_TOLERANCE = 2e-6


class Linear(NamedTuple):
    """A random Linear of any format, plain and packed."""

    plain: Tensor
    packed: Tensor
    scales: Tensor
    qzeros: Tensor | None
    size_n: int
    size_k: int
    group_size: int
    bits: int
    perm: Tensor | None

    def gemm(
        self,
        a: Tensor,
        bias: Tensor | None = None,
        *,
        activation: str = "auto",
        epilogue: str = "none",
    ) -> Tensor:
        return ops.gemm(
            a,
            self.packed,
            self.scales,
            self.qzeros,
            bias,
            self.size_n,
            self.size_k,
            self.group_size,
            perm=self.perm,
            bits=self.bits,
            activation=activation,
            epilogue=epilogue,
        )

    def reference(
        self, a: Tensor, bias: Tensor | None = None, *, activation: str | None = None
    ) -> Tensor:
        """The product by the definition, in float32."""
        return primitives.linear(
            a.float(),
            self.plain,
            self.scales,
            self.qzeros,
            self.group_size,
            bias,
            bits=self.bits,
            perm=self.perm,
            activation=activation,
        )


def make_linear(
    size_n: int,
    size_k: int,
    group_size: int,
    *,
    bits: int = 4,
    with_zeros: bool = False,
    with_perm: bool = False,
) -> Linear:
    groups = 1 if group_size == -1 else size_k // group_size
    plain = primitives.pack_codes(torch.randint(0, 1 << bits, (size_k, size_n)), bits)
    zeros = torch.randint(0, 16, (groups, size_n))
    return Linear(
        plain,
        ops.repack(plain, size_n, size_k, bits),
        (0.001 + 0.02 * torch.rand(groups, size_n)).half(),
        primitives.pack_zeros(zeros) if with_zeros else None,
        size_n,
        size_k,
        group_size,
        bits,
        torch.randperm(size_k).int() if with_perm else None,
    )


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# 8 bits


@pytest.mark.parametrize("size_n", [8, 64, 72, 136])
def test_unpack_is_the_inverse_of_repack_for_bytes(size_n: int) -> None:
    plain = torch.randint(-(2**31), 2**31, (24, size_n), dtype=torch.int64).int()
    packed = ops.repack(plain, size_n, 96, 8)
    assert packed.shape == (-(-size_n // 64), 24, 64)
    assert torch.equal(ops.unpack(packed, size_n, 96, 8), plain)


def test_a_packed_word_of_bytes_holds_rows_0_2_1_3() -> None:
    codes = torch.zeros(32, 8, dtype=torch.int32)
    codes[:4, 0] = torch.tensor([0x11, 0x22, 0x33, 0x44])
    packed = ops.repack(primitives.pack_codes(codes, 8), 8, 32, 8)
    assert packed[0, 0, 0].item() == 0x44223311


@pytest.mark.parametrize("scale_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group_size", [32, 128, -1])
def test_dequantize_has_the_bits_of_the_definition_for_bytes(
    group_size: int, scale_dtype: torch.dtype
) -> None:
    linear = make_linear(72, 256, group_size, bits=8)
    scales = linear.scales.to(scale_dtype)
    got = ops.dequantize(linear.packed, scales, None, 72, 256, group_size, 8)
    expected = primitives.dequantize(linear.plain, scales, None, group_size, bits=8)
    assert torch.equal(got, expected)


# Activations


@pytest.mark.parametrize("activation", INTEGER_FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_activations_become_the_integers_of_the_definition(
    bits: int, dtype: torch.dtype, activation: str
) -> None:
    # A diagonal of ones: each output is one activation as the kernel keeps it.
    codes = torch.full((64, 64), primitives.symmetric_zero(bits)) + torch.eye(64, dtype=torch.int64)
    packed = ops.repack(primitives.pack_codes(codes, bits), 64, 64, bits)
    a = (torch.randn(40, 64) * torch.logspace(-6, 3, 40).unsqueeze(-1)).to(dtype)
    scales = torch.ones(2, 64)
    got = ops.gemm(
        a.float(), packed, scales, None, None, 64, 64, 32, bits=bits, activation=activation
    )
    assert torch.equal(got, round_activations(a, activation).float())


@pytest.mark.parametrize("with_perm", [False, True], ids=["in-order", "act-order"])
@pytest.mark.parametrize("activation", INTEGER_FORMATS)
@pytest.mark.parametrize("group_size", [32, 64, 96, 128, -1])
@pytest.mark.parametrize("bits", BITS)
def test_gemm_matches_the_definition_of_its_activations(
    bits: int, group_size: int, activation: str, with_perm: bool
) -> None:
    # 96 is a group that checkpoints cannot have, and the operator takes.
    linear = make_linear(136, 384, group_size, bits=bits, with_perm=with_perm)
    for m in (*range(1, 9), 33, 130):
        a = torch.randn(m, 384)
        expected = exact(linear, a, activation)
        assert relative_error(linear.gemm(a, activation=activation), expected) < SUM_TOLERANCE


def exact(linear: Linear, a: Tensor, activation: str) -> Tensor:
    """The product of the rounded activations in float64, for any group size."""
    rows = linear.size_k if linear.group_size == -1 else linear.group_size
    a = a if linear.perm is None else a[:, linear.perm.long()]
    rounded = round_activations(a, activation)
    codes = primitives.unpack_codes(linear.plain, linear.bits).double()
    weight = codes - primitives.symmetric_zero(linear.bits)
    return rounded @ (weight * linear.scales.double().repeat_interleave(rows, 0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", INTEGER_FORMATS)
def test_zero_points_bias_and_missing_columns_go_with_every_format(
    activation: str, dtype: torch.dtype
) -> None:
    linear = make_linear(72, 128, 64, with_zeros=True, with_perm=True)
    a, bias = torch.randn(5, 100).to(dtype), torch.randn(72)
    got = linear.gemm(a, bias, activation=activation)
    assert got.dtype == dtype
    expected = linear.reference(a, bias, activation=activation)
    assert relative_error(got, expected) < SUM_TOLERANCE + torch.finfo(dtype).eps


@pytest.mark.skipif(not MULTIPLIES_BFLOAT16, reason="the kernel has no bfloat16 dot products")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bfloat16_rounds_activations_and_nothing_else(dtype: torch.dtype) -> None:
    linear = make_linear(72, 256, 128, with_zeros=True, with_perm=True)
    a = torch.randn(9, 256).to(dtype)
    expected = linear.reference(a, activation="bfloat16")
    got = linear.gemm(a, activation="bfloat16")
    assert relative_error(got, expected) < 1e-5 + torch.finfo(dtype).eps


@pytest.mark.skipif(MULTIPLIES_BFLOAT16, reason="the kernel has bfloat16 dot products")
def test_bfloat16_is_refused_without_its_dot_products() -> None:
    with pytest.raises(UnsupportedError, match="`bfloat16` needs a kernel with bfloat16"):
        make_linear(8, 32, 32).gemm(torch.ones(1, 32), activation="bfloat16")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_auto_is_the_format_that_keeps_the_precision(dtype: torch.dtype, bits: int) -> None:
    linear = make_linear(72, 128, 64, bits=bits)
    a = torch.randn(5, 128).to(dtype)
    as_it_is = dtype == torch.bfloat16 and bits == 4 and MULTIPLIES_BFLOAT16
    named = "bfloat16" if as_it_is else "int16"
    assert torch.equal(linear.gemm(a), linear.gemm(a, activation=named))


@pytest.mark.parametrize("activation", INTEGER_FORMATS)
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_what_is_not_finite_spoils_its_own_row_only(bad: float, activation: str) -> None:
    linear = make_linear(72, 128, 64)
    a = torch.randn(3, 128)
    before = linear.gemm(a, activation=activation)
    a[1, 70] = bad
    after = linear.gemm(a, activation=activation)
    assert bool(after[1].isnan().all())
    assert torch.equal(after[[0, 2]], before[[0, 2]])


# Act-order


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("k", [1, 50, 127, 128])
def test_row_i_of_the_weight_meets_column_perm_i(k: int, bits: int) -> None:
    linear = make_linear(72, 128, 32, bits=bits, with_perm=True)
    a = torch.randn(6, k)
    assert relative_error(linear.gemm(a), linear.reference(a)) < 1e-4


def test_the_identity_changes_no_bit() -> None:
    linear = make_linear(72, 128, 32)
    a = torch.randn(6, 128).half()
    ordered = linear._replace(perm=torch.arange(128, dtype=torch.int32))
    assert torch.equal(ordered.gemm(a), linear.gemm(a))


# The gate


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_first_half_of_the_columns_gates_the_other(
    with_bias: bool, dtype: torch.dtype, bits: int
) -> None:
    linear = make_linear(256, 128, 64, bits=bits, with_perm=True)
    a = torch.randn(2, 3, 128).to(dtype)
    bias = torch.randn(256) if with_bias else None
    got = linear.gemm(a, bias, epilogue="silu_mul")
    assert (got.shape, got.dtype) == ((2, 3, 128), dtype)
    gate, other = linear.reference(a, bias).chunk(2, -1)
    assert relative_error(got, functional.silu(gate) * other) < 1e-4 + torch.finfo(dtype).eps


@pytest.mark.parametrize("activation", ["auto", *INTEGER_FORMATS])
@pytest.mark.parametrize("with_zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("size_n", [64, 72, 200])
def test_packed_scales_give_the_bits_of_plain_ones(
    size_n: int, with_zeros: bool, activation: str
) -> None:
    linear = make_linear(size_n, 192, 32, with_zeros=with_zeros, with_perm=True)
    packed = packed_groups(linear)
    for m in (1, 5, 40):
        a = torch.randn(m, 192)
        assert torch.equal(
            packed.gemm(a, activation=activation), linear.gemm(a, activation=activation)
        )
    sizes = (size_n, 192, 32)
    assert torch.equal(
        ops.dequantize(packed.packed, packed.scales, packed.qzeros, *sizes),
        ops.dequantize(linear.packed, linear.scales, linear.qzeros, *sizes),
    )
    a = torch.randn(2, 192, requires_grad=True)
    grads = [torch.autograd.grad(each.gemm(a).sum(), a) for each in (packed, linear)]
    assert torch.equal(grads[0][0], grads[1][0])


def packed_groups(linear: Linear) -> Linear:
    """The same with packed scales and zero points."""
    qzeros = None if linear.qzeros is None else ops.pack_groups(linear.qzeros, linear.size_n)
    return linear._replace(scales=ops.pack_groups(linear.scales, linear.size_n), qzeros=qzeros)


# The dispatcher


def opcheck_samples() -> Iterator[tuple[str, tuple[object, ...]]]:
    torch.manual_seed(0)
    for bits, with_perm, activation in product(BITS, (False, True), ("auto", *INTEGER_FORMATS)):
        linear = make_linear(128, 64, 32, bits=bits, with_perm=with_perm, with_zeros=bits == 4)
        weights = (linear.packed, linear.scales, linear.qzeros)
        bias = torch.randn(128, requires_grad=True)
        tail = (linear.perm, 128, 64, 32, bits, activation)
        yield "gemm", (torch.randn(3, 64, requires_grad=True), *weights, bias, *tail, "none")
        yield "gemm", (torch.randn(2, 5, 50).half(), *weights, None, *tail, "none")
        yield "gemm", (torch.randn(64, 4).t(), *weights, bias.detach(), *tail, "silu_mul")
        yield "gemm", (torch.randn(0, 64).bfloat16(), *weights, None, *tail, "silu_mul")
    for bits in BITS:
        linear = make_linear(72, 64, 32, bits=bits, with_zeros=bits == 4)
        yield "repack", (linear.plain, 72, 64, bits)
        yield "unpack", (linear.packed, 72, 64, bits)
        yield "dequantize", (linear.packed, linear.scales, linear.qzeros, 72, 64, 32, bits)
        yield "dequantize", (linear.packed, linear.scales.float(), None, 72, 64, 32, bits)
        packed = packed_groups(linear)
        weights = (packed.packed, packed.scales, packed.qzeros)
        yield "dequantize", (*weights, 72, 64, 32, bits)
        a = torch.randn(3, 64, requires_grad=True)
        yield "gemm", (a, *weights, None, None, 72, 64, 32, bits, "auto", "none")
        yield "join", ([linear.packed, linear.packed],)


@pytest.mark.parametrize(
    ("name", "arguments"), [pytest.param(*sample, id=sample[0]) for sample in opcheck_samples()]
)
def test_opcheck(name: str, arguments: tuple[object, ...]) -> None:
    torch.library.opcheck(getattr(torch.ops.marlin, name).default, arguments)


@pytest.mark.parametrize("with_perm", [False, True], ids=["in-order", "act-order"])
@pytest.mark.parametrize("bits", BITS)
def test_gradients_are_those_of_the_weight_in_the_order_of_the_columns(
    bits: int, with_perm: bool
) -> None:
    linear = make_linear(72, 64, 32, bits=bits, with_perm=with_perm)
    weight = primitives.dequantize(
        linear.plain, linear.scales.float(), None, 32, bits=bits, perm=linear.perm
    )
    a = torch.randn(2, 3, 50, requires_grad=True)
    bias = torch.randn(72, requires_grad=True)
    grad = torch.randn(2, 3, 72)
    grad_a, grad_bias = torch.autograd.grad(linear.gemm(a, bias), (a, bias), grad)
    torch.testing.assert_close(grad_a, grad @ weight[:, :50], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad_bias, grad.sum((0, 1)))


@pytest.mark.parametrize("activation", ["auto", *INTEGER_FORMATS])
def test_the_gradient_does_not_depend_on_the_activation_format(activation: str) -> None:
    linear = make_linear(72, 64, 32)
    a = torch.randn(4, 64, requires_grad=True)
    (got,) = torch.autograd.grad(linear.gemm(a, activation=activation).sum(), a)
    (expected,) = torch.autograd.grad(linear.gemm(a).sum(), a)
    assert torch.equal(got, expected)


def test_a_gradient_through_the_gate_is_refused() -> None:
    linear = make_linear(128, 64, 32)
    with pytest.raises(UnsupportedError, match="`epilogue`: expected `none` for a gradient"):
        linear.gemm(torch.ones(1, 64, requires_grad=True), epilogue="silu_mul")
    assert linear.gemm(torch.ones(1, 64), epilogue="silu_mul").shape == (1, 64)


@pytest.mark.parametrize("epilogue", ["none", "silu_mul"])
@pytest.mark.parametrize("activation", ["auto", *INTEGER_FORMATS])
@pytest.mark.parametrize("bits", BITS)
def test_compile_keeps_one_graph_and_every_bit(bits: int, activation: str, epilogue: str) -> None:
    torch.compiler.reset()
    linear = make_linear(128, 64, 32, bits=bits, with_perm=True)

    def run(a: Tensor) -> Tensor:
        return linear.gemm(a, activation=activation, epilogue=epilogue)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    for m in (2, 5):
        a = torch.randn(m, 64)
        assert torch.equal(compiled(a), run(a))


def test_compile_keeps_gradients_of_act_order() -> None:
    torch.compiler.reset()
    linear = make_linear(72, 64, 32, bits=8, with_perm=True)
    compiled = torch.compile(linear.gemm, fullgraph=True, backend="aot_eager")
    a = torch.randn(4, 50, requires_grad=True)
    (expected,) = torch.autograd.grad(linear.gemm(a).sum(), a)
    (got,) = torch.autograd.grad(compiled(a).sum(), a)
    assert torch.equal(got, expected)


def test_shapes_can_be_asked_on_meta() -> None:
    linear = make_linear(128, 64, 32, bits=8, with_perm=True)
    meta = linear._replace(
        packed=linear.packed.to("meta"),
        scales=linear.scales.to("meta"),
        perm=torch.empty(64, dtype=torch.int32, device="meta"),
    )
    a = torch.empty(3, 64, device="meta")
    assert meta.gemm(a).shape == (3, 128)
    assert meta.gemm(a, epilogue="silu_mul").shape == (3, 64)
    with pytest.raises(InvalidArgumentError, match="expected all tensors on one device"):
        meta._replace(perm=linear.perm).gemm(a)
