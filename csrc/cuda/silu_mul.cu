// The gated product: eight columns per thread, 16 bytes at a time, row after row.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../common/math.h"
#include "grid.h"
#include "layout.cuh"
#include "silu_mul.h"

namespace marlin::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRun = 8;     // columns of a thread
constexpr int kChunk = 16;  // bytes of an access

// Eight neighbours, in accesses of 16 bytes: both sides are aligned to them.
template <typename Scalar>
struct alignas(kChunk) Run {
  Scalar values[kRun];
};

template <typename Scalar>
__device__ Run<Scalar> load_run(const Scalar* from) {
  static_assert(sizeof(Run<Scalar>) == kChunk, "one access");
  Run<Scalar> run;
  reinterpret_cast<uint4&>(run) = *reinterpret_cast<const uint4*>(from);
  return run;
}

template <typename Scalar>
__device__ void store_run(Scalar* to, const Run<Scalar>& run) {
  constexpr int kChunks = sizeof(run) / kChunk;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    store_chunk(to + i * (kRun / kChunks), reinterpret_cast<const uint4*>(&run)[i]);
  }
}

// As cpu/kernel_finish.h has it: x / (1 + exp(-x)), where an x below -87 is taken as -87, so that
// an infinite gate is closed and no NaN.
__device__ float silu(float x) {
  const float bounded = x < -87.0f ? -87.0f : x;
  return bounded / (1.0f + expf(-bounded));
}

// From: element of halves [m][2 n]. To: element of out [m][n].
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    silu_mul(const From* halves, int64_t m, int64_t n, To* out) {
  const int64_t column = kRun * (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x);
  if (column >= n) return;
  for (int64_t row = blockIdx.y; row < m; row += gridDim.y) {
    const From* from = halves + 2 * row * n + column;
    const Run<From> gates = load_run(from);
    const Run<From> others = load_run(from + n);
    Run<To> products;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const float gate = silu(static_cast<float>(gates.values[i]));
      products.values[i] = static_cast<To>(gate * static_cast<float>(others.values[i]));
    }
    store_run(out + row * n + column, products);
  }
}

template <typename From, typename To>
cudaError_t launch(const void* halves, int64_t m, int64_t n, void* out, cudaStream_t stream) {
  silu_mul<<<grid_of(ceil_div(n, kRun * kThreads), m), kThreads, 0, stream>>>(
      static_cast<const From*>(halves), m, n, static_cast<To*>(out));
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_silu_mul(const void* halves, Dtype from, int64_t m, int64_t n, void* out,
                            Dtype to, cudaStream_t stream) {
  if (from == Dtype::kFloat16) return launch<__half, __half>(halves, m, n, out, stream);
  switch (to) {
    case Dtype::kFloat16:
      return launch<__nv_bfloat16, __half>(halves, m, n, out, stream);
    case Dtype::kBFloat16:
      return launch<__nv_bfloat16, __nv_bfloat16>(halves, m, n, out, stream);
    case Dtype::kFloat32:
      break;
  }
  return launch<__nv_bfloat16, float>(halves, m, n, out, stream);
}

}  // namespace marlin::cuda
