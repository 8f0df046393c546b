// Launches the kernels between the plain layout of the codes and the packed one. Knows no Torch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace marlin::cuda {

// plain: [k / 8][n], nibble i of a word is the code of row 8 r + i.
// packed: [ceil(n / 64)][k / 16][kStepWords], see layout.h; columns beyond n get code 8.
// n is a multiple of 8, k of 16; packed is aligned to 16 bytes. All pointers are of the current
// device; each returns what the launch reported.
cudaError_t launch_repack(const uint32_t* plain, int64_t n, int64_t k, uint32_t* packed,
                          cudaStream_t stream);
cudaError_t launch_unpack(const uint32_t* packed, int64_t n, int64_t k, uint32_t* plain,
                          cudaStream_t stream);

}  // namespace marlin::cuda
