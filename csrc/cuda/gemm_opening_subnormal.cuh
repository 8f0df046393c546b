// Codes as subnormal numbers, one instruction per pair of them; gemm_opening.cuh says what an
// opening has.
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

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "gemm_pairs.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// What subnormal operands ask of the activations; kUnit: by what a product is too small.
template <typename Scalar>
struct SubnormalUnit;
template <>
struct SubnormalUnit<__half> {
  static constexpr float kUnit = 0x1p24f;
  static __device__ uint32_t enter(uint32_t a) { return a; }
};
// A subnormal bfloat16 is 2^-133, and its products with activations near 1 would be no float32:
// activations are multiplied by 2^100, exactly, as long as they are below 2^28.
template <>
struct SubnormalUnit<__nv_bfloat16> {
  static constexpr float kUnit = 0x1p33f;
  static __device__ uint32_t enter(uint32_t a) {
    constexpr uint32_t kFactors = 0x71807180;
    const auto product = __hmul2(reinterpret_cast<const __nv_bfloat162&>(a),
                                 reinterpret_cast<const __nv_bfloat162&>(kFactors));
    return reinterpret_cast<const uint32_t&>(product);
  }
};

template <typename Scalar, int bits>
struct SubnormalOpening;

template <typename Scalar>
struct SubnormalOpening<Scalar, 4> : SubnormalUnit<Scalar>, NibblesInPlace {
  static constexpr int kConstants = 1;
  static constexpr uint32_t kOnes = 0x00010001;

  static __device__ constexpr uint32_t constant(bool odd) { return pair_of(odd, 0, 0x8000); }
  static __device__ constexpr uint32_t offset(bool odd) { return pair_of(odd, 0x8008, 0x0007); }
  static __device__ constexpr uint32_t base(bool) { return 0; }
};

template <typename Scalar>
struct SubnormalOpening<Scalar, 8> : SubnormalUnit<Scalar>, BytesInPlace {
  static constexpr int kConstants = 1;
  static constexpr uint32_t kOnes = 0x00010001;

  static __device__ constexpr uint32_t constant(bool odd) { return pair_of(odd, 0, 0x8000); }
  static __device__ constexpr uint32_t offset(bool odd) { return pair_of(odd, 0x8080, 0x007F); }
  static __device__ constexpr uint32_t base(bool) { return 0; }
};

}  // namespace marlin::cuda
