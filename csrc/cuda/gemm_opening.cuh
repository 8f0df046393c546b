// How codes of layout.h become operands of the tensor cores, one instruction per pair of them.
//
// With u the stored code, v its value as it is opened (u, or u - 15 where it was complemented), a
// word of codes of 4 bits gives, by its nibbles p and p + 4:
//   p = 0: v * 2^-24    (one lop3: mask, sign)
//   p = 1: 16 v * 2^-24 (one lop3)
//   p = 2: v * 2^-24    (after one prmt, which moves the upper byte of each half down, a lop3)
//   p = 3: (16 v + v of p = 2) * 2^-24, the prmt's result as it is; its sums are those of p = 2 too
//          many
// and one of 8 bits, whose complement is 255 - u:
//   p even: v * 2^-24   (one lop3)
//   p odd:  v * 2^-24   (one prmt)
// The factors are for the end. The codes mean code - 8 = v + o with o = -8, or 7 where it was
// complemented (-128 and 127): the sum over a group of a * o is one more product, with a constant
// operand, and every chain of sums of the group starts from it.
#pragma once

#include <cstdint>

#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

constexpr uint32_t kUpperSign = 0x80000000u;
constexpr uint32_t kLowerSign = 0x00008000u;

// Of a step's words: the sign bit of the half that was complemented.
__device__ constexpr uint32_t sign_of(int step) {
  return is_odd_step(step) ? kLowerSign : kUpperSign;
}

template <int bits>
struct Opening;

template <>
struct Opening<4> {
  static constexpr int kOperands = 4;  // in a word
  static constexpr int kMiddle = 8;    // the code of zero

  // By how much the operands of a kind are too large, p as in layout.h.
  static __device__ constexpr float factor(int p) { return p % 2 == 0 ? 1.0f : 16.0f; }
  // How often the sums of `a` times opened codes hold those of a * o.
  static __device__ constexpr float offsets(int p) { return p == 3 ? 17.0f : factor(p); }
  static __device__ constexpr bool carries(int p) { return p == 3; }

  static __device__ void open(uint32_t word, uint32_t sign, uint32_t (&to)[kOperands]) {
    to[0] = and_or<0x000F000F>(word, sign);
    to[1] = and_or<0x00F000F0>(word, sign);
    to[3] = __byte_perm(word, sign, 0x7351);
    to[2] = to[3] & 0x800F800F;
  }
  // A pair of o.
  static __device__ constexpr uint32_t offset(uint32_t sign) {
    return sign == kUpperSign ? 0x00078008u : 0x80080007u;
  }
};

template <>
struct Opening<8> {
  static constexpr int kOperands = 2;
  static constexpr int kMiddle = 128;

  static __device__ constexpr float factor(int) { return 1.0f; }
  static __device__ constexpr float offsets(int) { return 1.0f; }
  static __device__ constexpr bool carries(int) { return false; }

  static __device__ void open(uint32_t word, uint32_t sign, uint32_t (&to)[kOperands]) {
    to[0] = and_or<0x00FF00FF>(word, sign);
    to[1] = __byte_perm(word, sign, 0x7351);
  }
  static __device__ constexpr uint32_t offset(uint32_t sign) {
    return sign == kUpperSign ? 0x007F8080u : 0x8080007Fu;
  }
};

}  // namespace marlin::cuda
