"""Kernels in Triton's language, each there for instructions that Triton's lowering makes of it."""

import triton
import triton.language as tl

__all__ = [
    "attention",
    "cumulative_sum",
    "histogram",
    "layer_norm",
    "locked_sum",
    "matmul",
    "row_reductions",
    "softmax",
    "sort_rows",
    "split_k_matmul",
]


# cp.async, ldmatrix, mma.sync: a loop of loads that Triton pipelines.
@triton.jit
def matmul(
    a,  # [m][k]
    b,  # [k][n]
    c,  # [m][n]
    m,
    n,
    k,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    a_at = a + rows[:, None] * k + inner[None, :]
    b_at = b + inner[:, None] * n + columns[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=ACCUMULATOR)
    for start in range(0, k, BLOCK_K):
        rest = k - start
        a_tile = tl.load(a_at, mask=(rows[:, None] < m) & (inner[None, :] < rest), other=0)
        b_tile = tl.load(b_at, mask=(inner[:, None] < rest) & (columns[None, :] < n), other=0)
        sums = tl.dot(a_tile, b_tile, sums, out_dtype=ACCUMULATOR)
        a_at += BLOCK_K
        b_at += BLOCK_K * n
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    c_at = c + rows[:, None] * n + columns[None, :]
    tl.store(c_at, sums.to(c.dtype.element_ty), mask=inside)


# atom.add.f32 from several programs.
@triton.jit
def split_k_matmul(
    a,  # [16][k]
    b,  # [k][32]
    c,  # [16][32], zero before
    k,
    slice_k,
    BLOCK_K: tl.constexpr,
):
    rows = tl.arange(0, 16)
    columns = tl.arange(0, 32)
    first = tl.program_id(0) * slice_k
    sums = tl.zeros((16, 32), dtype=tl.float32)
    for start in range(first, first + slice_k, BLOCK_K):
        inner = start + tl.arange(0, BLOCK_K)
        a_tile = tl.load(a + rows[:, None] * k + inner[None, :])
        b_tile = tl.load(b + inner[:, None] * 32 + columns[None, :])
        sums = tl.dot(a_tile, b_tile, sums)
    tl.atomic_add(c + rows[:, None] * 32 + columns[None, :], sums)


# Two products with a softmax between: fragments change their layout in registers.
@triton.jit
def attention(
    q,  # [queries][D]
    k,  # [keys][D]
    v,  # [keys][D]
    out,  # [queries][D]
    keys,
    scale,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    D: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    depth = tl.arange(0, D)
    query = tl.load(q + rows[:, None] * D + depth[None, :])
    largest = tl.full((BLOCK_Q,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    sums = tl.zeros((BLOCK_Q, D), dtype=tl.float32)
    for start in range(0, keys, BLOCK_K):
        inner = start + tl.arange(0, BLOCK_K)
        key = tl.load(k + inner[None, :] * D + depth[:, None])
        scores = tl.dot(query, key) * scale
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp(scores - new_largest[:, None])
        correction = tl.exp(largest - new_largest)
        total = total * correction + tl.sum(weights, 1)
        value = tl.load(v + inner[:, None] * D + depth[None, :])
        sums = tl.dot(weights.to(value.dtype), value, sums * correction[:, None])
        largest = new_largest
    result = sums / total[:, None]
    tl.store(out + rows[:, None] * D + depth[None, :], result.to(out.dtype.element_ty))


# ex2.approx, shuffles, a reduction through shared memory.
@triton.jit
def softmax(x, y, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < columns
    values = tl.load(x + row * columns + at, mask=inside, other=-float("inf"))
    powers = tl.exp(values - tl.max(values, 0))
    tl.store(y + row * columns + at, powers / tl.sum(powers, 0), mask=inside)


@triton.jit
def row_reductions(x, sums, largest, where, columns, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, BLOCK)
    inside = at[None, :] < columns
    values = tl.load(x + rows[:, None] * columns + at[None, :], mask=inside, other=0)
    tl.store(sums + rows, tl.sum(values, 1))
    values = tl.where(inside, values, -2147483648)
    tl.store(largest + rows, tl.max(values, 1))
    tl.store(where + rows, tl.argmax(values, 1))


# sqrt.approx and div.full, conversions from and to 16 bits.
@triton.jit
def layer_norm(x, weight, bias, y, means, columns, epsilon, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < columns
    values = tl.load(x + row * columns + at, mask=inside, other=0).to(tl.float32)
    mean = tl.sum(values, 0) / columns
    centred = tl.where(inside, values - mean, 0.0)
    variance = tl.sum(centred * centred, 0) / columns
    normal = centred * (1 / tl.sqrt(variance + epsilon))
    scaled = normal * tl.load(weight + at, mask=inside) + tl.load(bias + at, mask=inside)
    tl.store(y + row * columns + at, scaled.to(y.dtype.element_ty), mask=inside)
    tl.store(means + row, mean)


# atom.add.u32 with colliding addresses.
@triton.jit
def histogram(x, counts, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    bins = tl.load(x + at, mask=inside, other=0)
    tl.atomic_add(counts + bins, 1, mask=inside)


# A scan over lanes, warps and registers.
@triton.jit
def cumulative_sum(x, forward, backward, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = row * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at)
    tl.store(forward + at, tl.cumsum(values, 0))
    tl.store(backward + at, tl.cumsum(values, 0, reverse=True))


@triton.jit
def sort_rows(x, y, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.sort(tl.load(x + at)))


# atom.cas in a loop: programs add to one sum in turn.
@triton.jit
def locked_sum(x, total, lock, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    values = tl.load(x + tl.program_id(0) * BLOCK + at)
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    tl.store(total + at, tl.load(total + at) + values)
    tl.debug_barrier()  # all threads have stored before one of them unlocks
    tl.atomic_xchg(lock, 0)
