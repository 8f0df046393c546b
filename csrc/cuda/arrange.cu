// Activations gathered or copied: one thread per column, row after row.

#include "../common/math.h"
#include "arrange.h"
#include "grid.h"

namespace marlin::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void arrange(const uint16_t* a, int64_t a_stride, int64_t a_columns, const int32_t* perm,
                        int64_t m, int64_t k, uint16_t* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= k) return;
  const int64_t column = perm == nullptr ? i : perm[i];
  for (int64_t r = blockIdx.y; r < m; r += gridDim.y) {
    // Nobody has looked at the values of `perm`: a negative one is beyond the columns, too.
    const bool exists = static_cast<uint64_t>(column) < static_cast<uint64_t>(a_columns);
    out[r * k + i] = exists ? a[r * a_stride + column] : uint16_t{0};
  }
}

}  // namespace

cudaError_t launch_arrange(const void* a, int64_t a_stride, int64_t a_columns, const int32_t* perm,
                           int64_t m, int64_t k, void* out, cudaStream_t stream) {
  arrange<<<grid_of(ceil_div(k, kThreads), m), kThreads, 0, stream>>>(
      static_cast<const uint16_t*>(a), a_stride, a_columns, perm, m, k,
      static_cast<uint16_t*>(out));
  return cudaGetLastError();
}

}  // namespace marlin::cuda
