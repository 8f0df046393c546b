// The gated product of the two halves of each row.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../common/weights.h"

namespace marlin::cuda {

// out[r][c] = silu(halves[r][c]) * halves[r][n + c]: m rows of n, a multiple of 8; both are
// contiguous and aligned to 16 bytes. Computed in float32 and rounded once. `from` is bfloat16, or
// float16 as `to` then is.
cudaError_t launch_silu_mul(const void* halves, Dtype from, int64_t m, int64_t n, void* out,
                            Dtype to, cudaStream_t stream);

}  // namespace marlin::cuda
