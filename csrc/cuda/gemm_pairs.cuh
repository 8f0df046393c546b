// Pairs of 16-bit numbers in a word, as openings make them.
#pragma once

#include <cstdint>

namespace marlin::cuda {

// Of a pair: `complement` in the half whose codes are complemented in the step, `other` beside it.
__device__ constexpr uint32_t pair_of(bool is_odd, uint16_t other, uint16_t complement) {
  return is_odd ? uint32_t{other} << 16 | complement : uint32_t{complement} << 16 | other;
}

// A pair of codes that lie in the upper byte of each half of a word, or what else is there, and the
// upper bytes of `constant`: one instruction.
__device__ inline uint32_t upper_bytes(uint32_t word, uint32_t constant) {
  return __byte_perm(word, constant, 0x7351);
}

}  // namespace marlin::cuda
