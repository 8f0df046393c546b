"""A product of each kernel, and every other operator: few enough for compute-sanitizer.

    python test/gpu/sanitized_products.py       sanitize.py runs it under each of the tools

MARLIN_GPU_TESTS_ON=cpu takes the CPU's operators. Exit code 1 if a result is wrong.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("test/gpu", "test/ptx", "csrc", "python")]

import torch  # noqa: E402
from operands import DEVICE, Operands, operands_of  # noqa: E402
from products import make_product  # noqa: E402

from marlin import ops  # noqa: E402

ROWS = (1, 8, 16, 32, 64, 100)
GROUPS = (-1, 32, 64, 128)
# Three tiles of K and two of columns, each with a tail: blocks that share columns, and locks.
SIZE_N, SIZE_K = 264, 384


def main() -> int:
    wrong = []
    count = 0
    for m, group_size, (bits, has_zeros), scalar in itertools.product(
        ROWS, GROUPS, ((4, False), (4, True), (8, False)), ("float16", "bfloat16")
    ):
        product = make_product(
            *(m, SIZE_N, SIZE_K, group_size),
            bits=bits,
            scalar=scalar,
            has_zeros=has_zeros,
            has_bias=m in (1, 64),
        )
        case = operands_of(product)
        error = case.error(case.gemm().cpu())
        count += 1
        if not error <= case.tolerance:
            wrong.append(
                f"m {m}, {bits} bits, group {group_size}, zeros {has_zeros}, {scalar}: {error:.1e}"
            )
    case = operands_of(make_product(5, SIZE_N, SIZE_K, 128, has_zeros=True))
    wrong += [name for name, is_right in others(case).items() if not is_right]
    for line in wrong:
        print(f"wrong: {line}")
    print(f"{count} products, {len(wrong)} wrong")
    return 1 if wrong else 0


def others(case: Operands) -> dict[str, bool]:
    """Whether each of the other operators, and the gathering of activations, is right."""
    sizes = (SIZE_N, SIZE_K)
    plain = ops.unpack(case.qweight, *sizes)
    dense = ops.dequantize(case.qweight, case.scales, case.qzeros, *sizes, case.group_size)
    a = case.a.cpu()  # what torch must compute, it computes there: its kernels take time, too
    perm = torch.randperm(SIZE_K).to(torch.int32)
    scattered = torch.zeros_like(a)
    scattered[:, perm.long()] = a
    wide = torch.zeros(5, SIZE_K + 3, dtype=a.dtype)
    wide[:, 3:] = a
    ordered = replace(case, a=scattered.to(DEVICE), perm=perm.to(DEVICE)).gemm()
    strided = replace(case, a=wide.to(DEVICE)[:, 3:]).gemm()
    product = case.gemm().cpu()
    packed = case.qweight.cpu()
    exact = a.double() @ dense.double().cpu().T
    return {
        "repack": torch.equal(ops.repack(plain, *sizes).cpu(), packed),
        "join": torch.equal(ops.join([case.qweight] * 2).cpu(), torch.cat([packed] * 2)),
        "dequantize": torch.allclose(exact, case.exact.cpu(), rtol=1e-2, atol=1e-2),
        "columns in another order": torch.equal(ordered.cpu(), product),
        "rows that begin anywhere": torch.equal(strided.cpu(), product),
    }


if __name__ == "__main__":
    sys.exit(main())
