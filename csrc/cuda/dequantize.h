// Launches the dequantize kernel on raw pointers. Knows no Torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../common/weights.h"

namespace marlin::cuda {

// Writes out [n][k] in the dtype of the scales. All pointers are of the current device; returns
// what the launch reported.
cudaError_t launch_dequantize(const Weights& weights, void* out, cudaStream_t stream);

}  // namespace marlin::cuda
