// The grid of a kernel whose blocks walk on along y, from row to row or from tile to tile.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

namespace marlin::cuda {

// `x` times `y` blocks; less along y where the hardware has no more.
inline dim3 grid_of(int64_t x, int64_t y) {
  constexpr int64_t kMaxY = 65535;
  return {static_cast<unsigned>(x), static_cast<unsigned>(std::min(y, kMaxY))};
}

}  // namespace marlin::cuda
