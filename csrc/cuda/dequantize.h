// Launches the dequantize kernel on raw pointers. Knows no Torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../common/weights.h"

namespace marlin::cuda {

// Writes out [n][k] in the dtype of the scales. The words are those of layout.h, aligned to 16
// bytes as `out` is; scales are [k / group_size][n], zeros [k / group_size][n / 8]. All pointers
// are of the current device; returns what the launch reported.
cudaError_t launch_dequantize(const Weights& weights, void* out, cudaStream_t stream);

}  // namespace marlin::cuda
