"""The operators on a real GPU: arguments of any stride and place, the layouts, and the errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from operands import DEVICE, Operands, needs_cuda, on_a_gpu, operands_of, random_operands
from products import make_product
from torch import Tensor

from marlin import ops, primitives
from marlin.errors import InvalidArgumentError, UnsupportedError

pytestmark = on_a_gpu

PLAIN = (512, 264)  # of the words of 4096 x 264 codes


@pytest.fixture
def case() -> Operands:
    """A product with everything that a product may have."""
    product = make_product(6, 256, 512, 128, has_zeros=True, has_bias=True)
    return operands_of(product)


def plain_words() -> Tensor:
    words = torch.randint(-(2**31), 2**31, PLAIN, dtype=torch.int64, device=DEVICE)
    return words.to(torch.int32)


def displaced(tensor: Tensor, offset: int) -> Tensor:
    """The same values, `offset` elements further on in a storage of its own."""
    flat = torch.zeros(tensor.numel() + offset, dtype=tensor.dtype, device=tensor.device)
    place = flat[offset:].view(tensor.shape)
    place.copy_(tensor)
    assert place.storage_offset() == offset
    return place


@pytest.mark.parametrize("m", [1, 6])
@pytest.mark.parametrize("begin", [0, 3, 8])
def test_activations_of_any_stride(case: Operands, begin: int, m: int) -> None:
    wanted = replace(case, a=case.a[:m].clone()).gemm()
    for width in (528, 531):
        wide = torch.full((m, width), float("nan"), dtype=case.a.dtype, device=DEVICE)
        wide[:, begin : begin + 512] = case.a[:m]
        assert torch.equal(replace(case, a=wide[:, begin : begin + 512]).gemm(), wanted)


def test_activations_of_any_number_of_dimensions(case: Operands) -> None:
    wanted = case.gemm()
    assert torch.equal(replace(case, a=case.a.view(2, 3, 512)).gemm(), wanted.view(2, 3, 256))
    assert torch.equal(replace(case, a=case.a[4]).gemm(), replace(case, a=case.a[4:5]).gemm()[0])
    turned = case.a.t().contiguous().t()  # columns, not rows, are neighbours
    assert torch.equal(replace(case, a=turned).gemm(), wanted)
    swapped = case.a.view(2, 3, 512).transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(replace(case, a=swapped).gemm(), wanted.view(2, 3, 256))
    repeated = case.a[2].expand(6, 512)
    held = replace(case, a=repeated.contiguous())
    assert torch.equal(replace(case, a=repeated).gemm(), held.gemm())


def test_missing_columns_of_the_activations_count_as_zero(case: Operands) -> None:
    padded = case.a.clone()
    padded[:, 403:] = 0
    assert torch.equal(replace(case, a=case.a[:, :403]).gemm(), replace(case, a=padded).gemm())


@pytest.mark.parametrize("name", ["a", "qweight", "scales", "qzeros", "bias"])
@pytest.mark.parametrize("offset", [1, 2, 7])
def test_a_tensor_may_begin_anywhere(case: Operands, offset: int, name: str) -> None:
    moved = replace(case, **{name: displaced(getattr(case, name), offset)})
    assert torch.equal(moved.gemm(), case.gemm())


@pytest.mark.parametrize("name", ["qweight", "scales", "qzeros", "bias"])
def test_a_tensor_may_have_gaps(case: Operands, name: str) -> None:
    tensor = getattr(case, name)
    gaps = torch.stack((tensor, torch.zeros_like(tensor)), dim=-1)[..., 0]
    assert not gaps.is_contiguous()
    assert torch.equal(replace(case, **{name: gaps}).gemm(), case.gemm())


@pytest.mark.parametrize("has_short_rows", [False, True])
@pytest.mark.parametrize("m", [1, 9, 70])
def test_activation_order_gathers_columns(m: int, has_short_rows: bool) -> None:
    ordered = random_operands(m, 264, 512, 64, has_zeros=True)
    perm = torch.randperm(512, device=DEVICE).to(torch.int32)
    scattered = torch.zeros_like(ordered.a)
    scattered[:, perm.long()] = ordered.a
    if not has_short_rows:
        replace(ordered, a=scattered, perm=perm).check()
        return
    shorter = scattered.clone()
    shorter[:, 500:] = 0
    gathered = replace(ordered, a=shorter[:, perm.long()])
    short = replace(ordered, a=scattered[:, :500], perm=perm)
    assert torch.equal(short.gemm(), gathered.gemm())


def test_no_rows_give_no_rows(case: Operands) -> None:
    for shape in ((0, 512), (2, 0, 512)):
        result = replace(case, a=case.a.new_empty(shape)).gemm()
        assert result.shape == (*shape[:-1], 256)
        assert result.device.type == DEVICE.type


def test_inference_mode_and_gradients_give_the_same_bits(case: Operands) -> None:
    with torch.no_grad():
        wanted = case.gemm()
    with torch.inference_mode():
        assert torch.equal(case.gemm(), wanted)
        assert torch.equal(replace(case, a=case.a.clone()).gemm(), wanted)
    assert torch.equal(replace(case, a=case.a.clone().requires_grad_()).gemm(), wanted)


def test_the_gradient_is_that_of_the_dense_product() -> None:
    case = random_operands(6, 264, 512, 64, has_zeros=True)
    perm = torch.randperm(512, device=DEVICE).to(torch.int32)
    a = case.a.clone().requires_grad_()
    grad = torch.randn(6, 264, device=DEVICE).to(a.dtype)
    replace(case, a=a, perm=perm).gemm().backward(grad)
    weight = dequantized(case).double()  # (n, k)
    wanted = torch.zeros(6, 512, dtype=torch.float64, device=DEVICE)
    wanted[:, perm.long()] = grad.double() @ weight
    assert a.grad is not None
    assert (a.grad.double() - wanted).abs().mean() <= 1e-3 * wanted.abs().mean()


# Layouts


def dequantized(case: Operands) -> Tensor:
    return ops.dequantize(
        *(case.qweight, case.scales, case.qzeros, case.size_n, case.size_k, case.group_size)
    )


def test_repack_and_unpack_are_inverse() -> None:
    plain = plain_words()
    packed = ops.repack(plain, PLAIN[1], 8 * PLAIN[0])
    assert torch.equal(ops.unpack(packed, PLAIN[1], 8 * PLAIN[0]), plain)


@pytest.mark.parametrize(("k", "n"), [(32, 8), (48 * 32, 72), (4096, 4096), (14336, 1032)])
def test_repack_keeps_every_code(k: int, n: int) -> None:
    words = torch.randint(-(2**31), 2**31, (k // 8, n), dtype=torch.int64, device=DEVICE)
    plain = words.to(torch.int32)
    assert torch.equal(ops.unpack(ops.repack(plain, n, k), n, k), plain)
    turned = plain.t().contiguous().t()
    assert torch.equal(ops.repack(turned, n, k), ops.repack(plain, n, k))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("has_zeros", [False, True])
@pytest.mark.parametrize("group_size", [-1, 32, 128])
def test_dequantize_has_the_bits_of_the_definition(
    group_size: int, has_zeros: bool, dtype: torch.dtype
) -> None:
    case = random_operands(1, 264, 512, group_size, has_zeros=has_zeros)
    case = replace(case, scales=case.scales.to(dtype))
    plain = ops.unpack(case.qweight, 264, 512)
    wanted = primitives.dequantize(plain, case.scales, case.qzeros, group_size)
    assert torch.equal(dequantized(case), wanted)


def test_join_lays_weights_side_by_side() -> None:
    parts = [ops.repack(plain_words()[:, :n].contiguous(), n, 4096) for n in (64, 192)]
    joined = ops.join(parts)
    assert torch.equal(joined, torch.cat(parts))


# Errors


def test_tensors_on_two_devices_are_refused(case: Operands) -> None:
    elsewhere = torch.device("cpu" if DEVICE.type == "cuda" else "meta")
    for name in ("a", "qweight", "scales", "qzeros", "bias"):
        moved = replace(case, **{name: getattr(case, name).to(elsewhere)})
        with pytest.raises(InvalidArgumentError):
            moved.gemm()


def test_wrong_shapes_and_types_are_refused(case: Operands) -> None:
    for name, value in (
        ("a", case.a.new_zeros(6, 520)),
        ("a", case.a.double()),
        ("qweight", case.qweight[1:]),
        ("qweight", case.qweight.long()),
        ("scales", case.scales[:, 8:]),
        ("qzeros", case.qzeros[1:] if case.qzeros is not None else None),
        ("bias", case.bias[1:] if case.bias is not None else None),
        ("perm", torch.zeros(511, dtype=torch.int32, device=DEVICE)),
        ("group_size", 48),
        ("group_size", 96),
        ("size_n", 260),
    ):
        with pytest.raises(InvalidArgumentError, match="expected"):
            replace(case, **{name: value}).gemm()


@needs_cuda
def test_what_the_kernels_do_not_have_is_refused(case: Operands) -> None:
    a, qweight, scales = case.a, case.qweight, case.scales
    for options in ({"activation": "int8"}, {"epilogue": "relu"}, {"bits": 8}):
        with pytest.raises((UnsupportedError, InvalidArgumentError), match="expected"):
            ops.gemm(a, qweight, scales, None, None, 256, 512, 128, **options)


def test_a_product_after_an_error_is_right(case: Operands) -> None:
    with pytest.raises(InvalidArgumentError):
        replace(case, a=case.a.new_zeros(6, 520)).gemm()
    case.check()
