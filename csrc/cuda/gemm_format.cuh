// The number formats of activations, scales and results in the gemm kernel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace marlin::cuda {

// widen: a pair to float32, the lower half first; narrow: back, rounded.
template <typename Scalar>
struct Format;
template <>
struct Format<__half> {
  static __device__ float2 widen(uint32_t pair) {
    return __half22float2(reinterpret_cast<const __half2&>(pair));
  }
  static __device__ uint32_t narrow(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
};
template <>
struct Format<__nv_bfloat16> {
  static __device__ float2 widen(uint32_t pair) {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u)};
  }
  static __device__ uint32_t narrow(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
};

// Eight scalars that lie together, as numbers.
template <typename Scalar>
__device__ inline void widen_eight(const uint4& chunk, float (&to)[8]) {
  const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = Format<Scalar>::widen(words[i]);
    to[2 * i] = pair.x;
    to[2 * i + 1] = pair.y;
  }
}

// `offset` - z for the eight zero points z of 4 bits in a word, times `factors`, exactly. A nibble
// below the bits of 2^23 makes a float32 of 2^23 and as many units, without a conversion.
template <typename Factor>
__device__ inline void open_zeros(uint32_t word, float offset, const Factor& factor,
                                  float (&to)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int place = 4 * (i % 4);
    const uint32_t source = i < 4 ? word : word >> 16;
    const float shifted = __uint_as_float((source & (15u << place)) | 0x4B000000u);
    const float unit = factor(i) / static_cast<float>(1 << place);
    to[i] = fmaf(shifted, -unit, 0x1p23f * unit + factor(i) * offset);
  }
}

}  // namespace marlin::cuda
