// Pairs of 16-bit numbers in a word, as openings make them.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "ptx.cuh"

namespace marlin::cuda {

// Of a pair: `complement` in the half whose codes are complemented in the step, `other` beside it.
__device__ constexpr uint32_t pair_of(bool is_odd, uint16_t other, uint16_t complement) {
  return is_odd ? uint32_t{other} << 16 | complement : uint32_t{complement} << 16 | other;
}

// What chooses the upper byte of each half of a word, or the lower one, below the upper bytes of a
// constant: an operand of __byte_perm.
__device__ constexpr uint32_t bytes_of_halves(bool is_upper) { return is_upper ? 0x7351 : 0x7250; }

// A pair of codes that lie in the upper byte of each half of a word, or what else is there, and the
// upper bytes of `constant`: one instruction.
__device__ inline uint32_t upper_bytes(uint32_t word, uint32_t constant) {
  return __byte_perm(word, constant, bytes_of_halves(true));
}

// Two numbers of float16 in a word, and back.
__device__ inline __half2 as_pair(uint32_t bits) { return reinterpret_cast<const __half2&>(bits); }
__device__ inline uint32_t as_bits(const __half2& pair) {
  return reinterpret_cast<const uint32_t&>(pair);
}

// Both halves the same.
__device__ constexpr uint32_t twice(uint16_t half) { return uint32_t{half} * 0x00010001u; }

// What openings share that leave codes of 4 bits where they lie in each half, under the upper bytes
// of `constant`; gemm_opening.cuh says what the members are.
struct NibblesInPlace {
  static constexpr int kOperands = 4;
  static constexpr int kMiddle = 8;

  static __device__ constexpr float factor(int p) { return p % 2 == 0 ? 1.0f : 16.0f; }
  static __device__ constexpr float offsets(int p) { return p == 3 ? 17.0f : factor(p); }
  static __device__ constexpr bool carries(int p) { return p == 3; }

  static __device__ void open(uint32_t word, uint32_t constant, bool, uint32_t (&to)[kOperands]) {
    to[0] = and_or<0x000F000F>(word, constant);
    to[1] = and_or<0x00F000F0>(word, constant);
    to[3] = upper_bytes(word, constant);
    to[2] = to[3] & 0xFF0FFF0F;
  }
};

// The same by a warp that has two of the four kinds of each word: those of the `bytes` that
// bytes_of_halves tells, in a register, so that all warps run the same instructions. `Whole` is the
// opening of all four, which leaves codes in place.
template <class Whole>
struct HalvesOfWords : Whole {
  static_assert(std::is_base_of_v<NibblesInPlace, Whole>, "kinds two and three are as the others");
  static constexpr int kOperands = 2;

  static __device__ constexpr float offsets(int p) { return p == 1 ? 17.0f : 1.0f; }
  static __device__ constexpr bool carries(int p) { return p == 1; }

  static __device__ void open(uint32_t word, uint32_t constant, uint32_t bytes,
                              uint32_t (&to)[kOperands]) {
    to[1] = __byte_perm(word, constant, bytes);
    to[0] = to[1] & 0xFF0FFF0F;
  }
};

// And those of 8 bits.
struct BytesInPlace {
  static constexpr int kOperands = 2;
  static constexpr int kMiddle = 128;

  static __device__ constexpr float factor(int) { return 1.0f; }
  static __device__ constexpr float offsets(int) { return 1.0f; }
  static __device__ constexpr bool carries(int) { return false; }

  static __device__ void open(uint32_t word, uint32_t constant, bool, uint32_t (&to)[kOperands]) {
    to[0] = and_or<0x00FF00FF>(word, constant);
    to[1] = upper_bytes(word, constant);
  }
};

}  // namespace marlin::cuda
