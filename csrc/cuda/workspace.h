// What the blocks of a product share: counters, which are zero between launches.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace marlin::cuda {

// At least `count` counters on the current device, whose index is `device`, for launches on
// `stream`.
//
// A stream has its own, because its launches follow each other. Kernels leave them zero, so they
// are cleared only when they are made, and they live as long as the process. A graph may be
// replayed beside its stream and beside other graphs: it has its own, too, for each stream that it
// is captured on, clears them once when it is replayed, and keeps them until it is destroyed.
//
// They are not torch's memory: torch.compile takes what lives on in the pool of its graphs for an
// error.
int32_t* counters_of(int32_t device, cudaStream_t stream, int64_t count);

}  // namespace marlin::cuda
