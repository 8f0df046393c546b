// What kernels around the packed layout share.
#pragma once

#include "layout.h"

namespace marlin::cuda {

// The parity of the ones in a step's number: which row of each pair is complemented (layout.h).
__device__ constexpr bool is_odd_step(int64_t step) {
  const int s = static_cast<int>(step % kTileSteps);
  return ((s ^ s >> 1 ^ s >> 2) & 1) != 0;
}

// The bits of a step's words that hold complemented codes: of its odd rows, or of its even ones.
__device__ constexpr uint32_t complement_mask(int64_t step) {
  return is_odd_step(step) ? 0x0000FFFFu : 0xFFFF0000u;
}

// Sixteen bytes of a lane, aligned to as many. One store: an assignment may become four of 4 bytes,
// each of which opens all sectors again.
__device__ inline void store_chunk(void* to, const uint4& chunk) {
  __stcg(static_cast<uint4*>(to), chunk);
}
__device__ inline uint4 load_chunk(const void* from) { return *static_cast<const uint4*>(from); }

}  // namespace marlin::cuda
