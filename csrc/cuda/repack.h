// Launches the kernels between the plain layout of the codes and the packed one. Knows no Torch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace marlin::cuda {

// plain: [k * bits / 32][n], the codes of a word are neighbouring rows from the lowest bits on.
// packed: [ceil(n / 64)][packed_steps(k)][32 * bits], see layout.h; rows beyond k and columns
// beyond n get the code of zero. n is a multiple of 8, k of 16; both are aligned to 16 bytes. All
// pointers are of the current device; each returns what the launch reported.
cudaError_t launch_repack(const uint32_t* plain, int64_t n, int64_t k, int bits, uint32_t* packed,
                          cudaStream_t stream);
cudaError_t launch_unpack(const uint32_t* packed, int64_t n, int64_t k, int bits, uint32_t* plain,
                          cudaStream_t stream);

}  // namespace marlin::cuda
