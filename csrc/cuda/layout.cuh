// What kernels ask of layout.h.
#pragma once

#include "layout.h"

namespace marlin::cuda {

// The bits of a step's words that hold complemented codes: of its odd rows, or of its even ones.
__device__ inline uint32_t complement_mask(int64_t step) {
  return (__popcll(step) & 1) == 0 ? 0xFFFF0000u : 0x0000FFFFu;  // complements_odd_row
}

// The words of a lane, aligned to 16 bytes. One store: an assignment may become four of 4 bytes,
// each of which opens all sectors again.
__device__ inline void store_words(void* to, const uint4& words) {
  __stcg(static_cast<uint4*>(to), words);
}

}  // namespace marlin::cuda
