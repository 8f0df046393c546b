// Activations as gemm wants them, where they aren't so.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace marlin::cuda {

// out[r][i] = a[r][perm[i]], of 16-bit elements: m rows of k, contiguous. Without `perm` columns
// keep their places. Columns at and beyond a_columns are zero.
cudaError_t launch_arrange(const void* a, int64_t a_stride, int64_t a_columns, const int32_t* perm,
                           int64_t m, int64_t k, void* out, cudaStream_t stream);

}  // namespace marlin::cuda
