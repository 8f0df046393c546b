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

// Sixteen bytes of a lane, or eight, aligned to as many. One store: an assignment may become four
// of 4 bytes, each of which opens all sectors again.
template <typename Chunk>
__device__ inline void store_chunk(void* to, const Chunk& chunk) {
  __stcg(static_cast<Chunk*>(to), chunk);
}
template <typename Chunk = uint4>
__device__ inline Chunk load_chunk(const void* from) {
  return *static_cast<const Chunk*>(from);
}

}  // namespace marlin::cuda
