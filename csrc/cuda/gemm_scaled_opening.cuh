// Codes opened and scaled in float16, for tiles whose sums leave no registers for results beside
// them: the weight (code - z) * scale, rounded once.
//
// A code u below the digits of 1024 makes x = 1024 + u, or -(1024 + 15 - u) where it was complemented
// (255 - u), and 16 times the code where it lies higher. Then, exactly,
//   u - z = x + d         d = -(1024 + z), complemented 1024 + 15 - z
//   u - z = x / 16 + d    d = -(64 + z), complemented 64 + 15 - z
// and one more product scales it: three instructions for a pair, beside a quarter of one that moves
// upper bytes down.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "gemm_pairs.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

__device__ inline __half2 as_pair(uint32_t bits) { return reinterpret_cast<const __half2&>(bits); }
__device__ inline uint32_t as_bits(const __half2& pair) {
  return reinterpret_cast<const uint32_t&>(pair);
}

// Both halves the same.
__device__ inline uint32_t twice(uint16_t half) { return uint32_t{half} * 0x00010001u; }

template <int bits>
struct ScaledOpening;

template <>
struct ScaledOpening<4> {
  static constexpr int kOperands = 4;

  // Operands that are 16 times the codes.
  static __device__ constexpr bool is_high(int i) { return i % 2 == 1; }
  static __device__ constexpr uint32_t magic(bool odd) { return pair_of(odd, 0x6400, 0xE400); }
  static __device__ void open(uint32_t word, uint32_t magic, uint32_t (&to)[kOperands]) {
    to[0] = and_or<0x000F000F>(word, magic);
    to[1] = and_or<0x00F000F0>(word, magic);
    const uint32_t upper = upper_bytes(word, magic);
    to[2] = upper & 0xFF0FFF0F;
    to[3] = upper & 0xFFF0FFF0;
  }
  // d, of the zero point 8; and as it is of a zero point z, with 64 + z still to be taken from it.
  static __device__ constexpr uint32_t middle(bool odd, bool is_high) {
    return is_high ? pair_of(odd, 0xD480, 0x5470)   // -72, 71
                   : pair_of(odd, 0xE408, 0x6407);  // -1032, 1031
  }
  static __device__ constexpr uint32_t before_zero(bool odd, bool is_high) {
    return is_high ? pair_of(odd, 0x0000, 0x5878)   // 0, 143
                   : pair_of(odd, 0xE380, 0x644F);  // -960, 1103
  }
};

template <>
struct ScaledOpening<8> {
  static constexpr int kOperands = 2;

  static __device__ constexpr bool is_high(int) { return false; }
  static __device__ constexpr uint32_t magic(bool odd) { return pair_of(odd, 0x6400, 0xE400); }
  static __device__ void open(uint32_t word, uint32_t magic, uint32_t (&to)[kOperands]) {
    to[0] = and_or<0x00FF00FF>(word, magic);
    to[1] = upper_bytes(word, magic);
  }
  static __device__ constexpr uint32_t middle(bool odd, bool) {
    return pair_of(odd, 0xE480, 0x647F);  // -1152, 1151
  }
  static __device__ constexpr uint32_t before_zero(bool, bool) { return 0; }
};

// Scales and zero points of a group, of the eight columns of a block whose weights a lane opens.
template <class S>
class ScaledColumns {
  using O = ScaledOpening<S::kBits>;

 public:
  ScaledColumns() = default;
  // scales: eight of them; zeros: as many in a word, if there are any.
  __device__ ScaledColumns(const uint4& scales, uint32_t zeros) {
    const uint32_t words[4] = {scales.x, scales.y, scales.z, scales.w};
#pragma unroll
    for (int q = 0; q < 8; ++q) {
      scales_[q] = __byte_perm(words[q / 2], 0, q % 2 == 0 ? 0x1010 : 0x3232);
      if constexpr (S::kHasZeros) {
        // 64 + z in both halves: the nibble as the upper one of its byte.
        const uint32_t source = q % 2 == 0 ? zeros << 4 : zeros;
        zeros_[q] = __byte_perm(source, 0x00000054, 0x4040 | q / 2 | q / 2 << 8) & 0xFFF0FFF0;
      }
    }
  }

  // Weights of the column q = 2 p + h of the eight: the operand i of a word of a step.
  __device__ uint32_t scaled(uint32_t operand, int i, int q, bool odd) const {
    const __half2 d = as_pair(distance(i, q, odd));
    const __half2 x = as_pair(operand);
    const __half2 centred = O::is_high(i) ? __hfma2(x, as_pair(twice(0x2C00)), d) : __hadd2(x, d);
    return as_bits(__hmul2(centred, as_pair(scales_[q])));
  }

 private:
  __device__ uint32_t distance(int i, int q, bool odd) const {
    if constexpr (S::kHasZeros) {
      return as_bits(
          __hsub2(as_pair(O::before_zero(odd, O::is_high(i))), as_pair(zeros_[q])));
    } else {
      return O::middle(odd, O::is_high(i));
    }
  }

  uint32_t scales_[8];
  uint32_t zeros_[8];
};

}  // namespace marlin::cuda
