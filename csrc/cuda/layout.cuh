// What kernels around the packed layout share.
#pragma once

#include "layout.h"

namespace marlin::cuda {

// The bits of a step's words that hold complemented codes: of its odd rows, or of its even ones.
__device__ inline uint32_t complement_mask(int64_t step) {
  return (__popcll(step) & 1) == 0 ? 0xFFFF0000u : 0x0000FFFFu;  // see layout.h
}

// Sixteen bytes of a lane, aligned to as many. One store: an assignment may become four of 4 bytes,
// each of which opens all sectors again.
__device__ inline void store_chunk(void* to, const uint4& chunk) {
  __stcg(static_cast<uint4*>(to), chunk);
}

}  // namespace marlin::cuda
