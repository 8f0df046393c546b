// What the blocks of a product share: locks, which are zero between launches.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace marlin::cuda {

using torch::stable::Tensor;

// At least `count` locks on the device of `like`, int32, for launches on `stream`: one tensor per
// stream, because launches of one stream follow each other. Kernels leave them zero, so they are
// cleared only when they are made, and they live as long as the process. While a graph is captured
// and there are none yet, they belong to the graph, which clears them whenever it is replayed.
Tensor locks_of(const Tensor& like, cudaStream_t stream, int64_t count);

}  // namespace marlin::cuda
