"""The operators against marlin.primitives: values, layouts, determinism, compile, autograd.

test_ops_kernels.py runs this file once more for every CPU kernel of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from marlin import ops, primitives

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
GROUP_SIZES = (32, 64, 128, -1)
ROW_COUNTS = (*range(1, 18), 31, 32, 33, 64, 130)
TOLERANCE = 1e-4  # relative Frobenius error before the output is rounded; docs/architecture.md


class Linear(NamedTuple):
    """A random 4-bit Linear: plain and packed codes, and the rest of the arguments of gemm."""

    plain: Tensor
    packed: Tensor
    scales: Tensor
    qzeros: Tensor | None
    size_n: int
    size_k: int
    group_size: int

    @property
    def weight(self) -> Tensor:
        """(N, K) float64."""
        scales = self.scales.float()
        return primitives.dequantize(self.plain, scales, self.qzeros, self.group_size).double()

    def gemm(self, a: Tensor, bias: Tensor | None = None) -> Tensor:
        return ops.gemm(
            a,
            self.packed,
            self.scales,
            self.qzeros,
            bias,
            self.size_n,
            self.size_k,
            self.group_size,
        )


def make_linear(
    size_n: int,
    size_k: int,
    group_size: int,
    *,
    with_zeros: bool = False,
    scale_dtype: torch.dtype = torch.float16,
) -> Linear:
    groups = 1 if group_size == -1 else size_k // group_size
    plain = primitives.pack_codes(torch.randint(0, 16, (size_k, size_n)))
    zeros = torch.randint(0, 16, (groups, size_n))
    return Linear(
        plain,
        ops.repack(plain, size_n, size_k),
        (0.001 + 0.02 * torch.rand(groups, size_n)).to(scale_dtype),
        primitives.pack_zeros(zeros) if with_zeros else None,
        size_n,
        size_k,
        group_size,
    )


def assert_close(actual: Tensor, exact: Tensor) -> None:
    """`actual` is within TOLERANCE of `exact`, but for one rounding to its own dtype."""
    assert actual.shape == exact.shape
    difference = (actual.double() - exact).abs()
    rounding = torch.finfo(actual.dtype).eps / 2 * exact.abs()
    relative = ((difference - rounding).clamp(min=0).norm() / exact.norm()).item()
    assert relative <= TOLERANCE, (
        f"relative error {relative:.3e}; off by at most {difference.max():.3e}, "
        f"on average {difference.mean():.3e}, of {exact.abs().mean():.3e}"
    )


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _poisoned_outputs() -> Iterator[None]:
    """Fills what torch allocates with NaN or the largest integer."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("with_zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_gemm_matches_the_definition_for_every_row_count(
    group_size: int, dtype: torch.dtype, with_zeros: bool
) -> None:
    linear = make_linear(136, 256, group_size, with_zeros=with_zeros)
    weight = linear.weight
    for m in ROW_COUNTS:
        a = torch.randn(m, 256).to(dtype)
        assert_close(linear.gemm(a), a.double() @ weight.T)


@pytest.mark.parametrize("scale_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gemm_takes_every_pair_of_dtypes(dtype: torch.dtype, scale_dtype: torch.dtype) -> None:
    linear = make_linear(64, 128, 64, with_zeros=True, scale_dtype=scale_dtype)
    a = torch.randn(3, 128).to(dtype)
    result = linear.gemm(a)
    assert result.dtype == dtype
    assert_close(result, a.double() @ linear.weight.T)


@pytest.mark.parametrize("size_n", [8, 56, 64, 72, 200])
def test_gemm_serves_columns_that_are_no_multiple_of_64(size_n: int) -> None:
    linear = make_linear(size_n, 64, 32, with_zeros=True)
    a = torch.randn(5, 64)
    assert_close(linear.gemm(a), a.double() @ linear.weight.T)


@pytest.mark.parametrize("k", [1, 15, 31, 33, 100, 127])
def test_missing_columns_count_as_zero(k: int) -> None:
    linear = make_linear(64, 128, 32, with_zeros=True)
    a = torch.randn(4, k)
    assert_close(linear.gemm(a), a.double() @ linear.weight[:, :k].T)


def test_one_group_over_a_long_row_keeps_the_tolerance() -> None:
    linear = make_linear(64, 14336, -1)
    for dtype in DTYPES:
        a = (1 + torch.randn(2, 14336)).to(dtype)
        assert_close(linear.gemm(a), a.double() @ linear.weight.T)


@pytest.mark.parametrize("bias_dtype", DTYPES, ids=str)
def test_bias_is_added_before_rounding(bias_dtype: torch.dtype) -> None:
    linear = make_linear(72, 64, 32)
    a = torch.randn(3, 64).bfloat16()
    bias = torch.randn(72).to(bias_dtype)
    assert_close(linear.gemm(a, bias), a.double() @ linear.weight.T + bias.double())


def test_leading_dimensions_are_kept() -> None:
    linear = make_linear(72, 64, 32)
    a = torch.randn(2, 3, 4, 64)
    flat = linear.gemm(a.reshape(24, 64))
    assert torch.equal(linear.gemm(a), flat.reshape(2, 3, 4, 72))
    assert torch.equal(linear.gemm(a[0, 0, 0]), flat[0])


@pytest.mark.parametrize("shape", [(0, 64), (2, 0, 64), (0, 3, 64)])
def test_no_rows_give_no_rows(shape: tuple[int, ...]) -> None:
    linear = make_linear(72, 64, 32)
    assert linear.gemm(torch.randn(shape)).shape == (*shape[:-1], 72)


def test_no_columns_give_the_bias() -> None:
    linear = make_linear(72, 64, 32, with_zeros=True)
    bias = torch.randn(72)
    assert torch.equal(linear.gemm(torch.empty(2, 0), bias), bias.expand(2, 72))


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[:, :64],  # rows further apart than they are long
        lambda a: a[:, 1:65],
        lambda a: a[:, ::2],
        lambda a: a[:64].t(),
        lambda a: a[:1, :64].expand(6, 64),
        lambda a: a[:, :128].reshape(4, 32, 64).transpose(0, 1),
        lambda a: a[::2, :128].unflatten(1, (2, 64)),
    ],
    ids=["slice", "offset", "strided", "transposed", "expanded", "permuted", "split"],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strided_activations_give_the_bits_of_contiguous_ones(
    view: object, dtype: torch.dtype
) -> None:
    assert callable(view)
    linear = make_linear(72, 64, 32, with_zeros=True)
    a = view(torch.randn(64, 256).to(dtype)[:, :128])
    assert torch.equal(linear.gemm(a), linear.gemm(a.contiguous()))


def test_a_row_does_not_depend_on_its_batch() -> None:
    linear = make_linear(200, 128, 64)
    a = torch.randn(33, 128)
    together = linear.gemm(a)
    for row in range(33):
        assert torch.equal(linear.gemm(a[row : row + 1])[0], together[row])


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("m", [1, 5, 600])
def test_the_number_of_threads_does_not_change_a_bit(m: int) -> None:
    linear = make_linear(1032, 1024, 128, with_zeros=True)
    a = torch.randn(m, 1024).bfloat16()
    results = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        results.append(linear.gemm(a))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.usefixtures("_poisoned_outputs")
def test_every_element_of_an_output_is_written() -> None:
    linear = make_linear(136, 128, 32, with_zeros=True)
    assert bool(torch.isnan(torch.empty(3)).all())  # the fixture works
    for m in (1, 7, 33):
        assert bool(linear.gemm(torch.randn(m, 100)).isfinite().all())
    padding = ops.repack(linear.plain, 136, 128)[-1, :, 136 % 64 :]
    assert not padding.any()
    assert torch.equal(ops.unpack(linear.packed, 136, 128), linear.plain)
    assert bool(dequantize(linear).isfinite().all())


def dequantize(linear: Linear) -> Tensor:
    return ops.dequantize(
        linear.packed,
        linear.scales,
        linear.qzeros,
        linear.size_n,
        linear.size_k,
        linear.group_size,
    )


@pytest.mark.parametrize("size_n", [8, 64, 72, 136])
def test_unpack_is_the_inverse_of_repack(size_n: int) -> None:
    plain = torch.randint(-(2**31), 2**31, (12, size_n), dtype=torch.int64).int()
    packed = ops.repack(plain, size_n, 96)
    assert packed.shape == (-(-size_n // 64), 12, 64)
    assert torch.equal(ops.unpack(packed, size_n, 96), plain)


def test_repack_takes_a_strided_tensor() -> None:
    plain = torch.randint(0, 2**31 - 1, (72, 12), dtype=torch.int32).t()
    assert torch.equal(ops.repack(plain, 72, 96), ops.repack(plain.contiguous(), 72, 96))


def test_a_packed_word_holds_even_rows_low_and_odd_rows_high() -> None:
    codes = torch.zeros(32, 8, dtype=torch.uint8)
    codes[:8, 0] = torch.arange(1, 9)
    packed = ops.repack(primitives.pack_codes(codes), 8, 32)
    assert packed[0, 0, 0].item() == 0x86427531 - 2**32


@pytest.mark.parametrize("with_zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("scale_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_dequantize_has_the_bits_of_the_definition(
    group_size: int, scale_dtype: torch.dtype, with_zeros: bool
) -> None:
    linear = make_linear(72, 256, group_size, with_zeros=with_zeros, scale_dtype=scale_dtype)
    expected = primitives.dequantize(linear.plain, linear.scales, linear.qzeros, group_size)
    assert torch.equal(dequantize(linear), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_those_of_the_dequantized_linear(dtype: torch.dtype) -> None:
    linear = make_linear(72, 64, 32, with_zeros=True)
    a = torch.randn(2, 3, 60).to(dtype).requires_grad_()
    bias = torch.randn(72).to(dtype).requires_grad_()
    grad = torch.randn(2, 3, 72).to(dtype)
    grad_a, grad_bias = torch.autograd.grad(linear.gemm(a, bias), (a, bias), grad)
    # The backward pass rounds the weight, and sums as a Linear of this dtype does.
    rtol = 4 * torch.finfo(dtype).eps
    weight = linear.weight[:, :60]
    torch.testing.assert_close(
        grad_a.double(),
        grad.double() @ weight,
        rtol=rtol,
        atol=rtol * weight.abs().sum(0).max().item(),
    )
    torch.testing.assert_close(
        grad_bias.double(), grad.double().sum((0, 1)), rtol=rtol, atol=rtol * 6
    )


def test_no_gradient_is_made_where_none_is_asked_for() -> None:
    linear = make_linear(72, 64, 32)
    bias = torch.randn(72, requires_grad=True)
    assert torch.equal(
        torch.autograd.grad(linear.gemm(torch.randn(3, 64), bias).sum(), bias)[0],
        torch.full((72,), 3.0),
    )
    assert not linear.gemm(torch.randn(3, 64)).requires_grad


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_keeps_one_graph(dynamic: bool) -> None:
    linear = make_linear(72, 64, 32, with_zeros=True)
    bias = torch.randn(72)
    compiled = torch.compile(linear.gemm, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for m in (2, 5, 9):
        a = torch.randn(m, 64)
        assert torch.equal(compiled(a, bias), linear.gemm(a, bias))


def test_compile_keeps_gradients() -> None:
    linear = make_linear(72, 64, 32)
    compiled = torch.compile(linear.gemm, fullgraph=True, backend="aot_eager")
    a = torch.randn(4, 64, requires_grad=True)
    (expected,) = torch.autograd.grad(linear.gemm(a).sum(), a)
    (got,) = torch.autograd.grad(compiled(a).sum(), a)
    assert torch.equal(got, expected)


# Inductor itself uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_inductor_gives_the_bits_of_eager() -> None:
    linear = make_linear(72, 64, 32)
    compiled = torch.compile(lambda a: linear.gemm(a).relu() + 1, fullgraph=True)
    a = torch.randn(4, 64)
    assert torch.equal(compiled(a), linear.gemm(a).relu() + 1)


def test_ops_work_in_inference_mode_and_on_meta_tensors() -> None:
    linear = make_linear(72, 64, 32)
    a = torch.randn(3, 64)
    with torch.inference_mode():
        assert torch.equal(linear.gemm(a), linear.gemm(a.clone()))
    meta = linear._replace(packed=linear.packed.to("meta"), scales=linear.scales.to("meta"))
    result = meta.gemm(a.to("meta"))
    assert result.shape == (3, 72)
    assert result.device.type == "meta"
