// The number formats of activations, scales and results in the gemm kernel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

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

// Eight scalars of 16 bits that lie together, or four; and as many zero points of 4 bits.
template <int length>
using Run = std::conditional_t<length == 8, uint4, uint2>;
template <int length>
using ZeroRun = std::conditional_t<length == 8, uint32_t, uint16_t>;

// A run as numbers, and back.
template <typename Scalar, int length>
__device__ inline void widen_run(const Run<length>& run, float (&to)[length]) {
  const auto* words = reinterpret_cast<const uint32_t*>(&run);
#pragma unroll
  for (int i = 0; i < length / 2; ++i) {
    const float2 pair = Format<Scalar>::widen(words[i]);
    to[2 * i] = pair.x;
    to[2 * i + 1] = pair.y;
  }
}
template <typename Scalar, int length>
__device__ inline Run<length> narrow_run(const float (&from)[length]) {
  Run<length> run;
  auto* words = reinterpret_cast<uint32_t*>(&run);
#pragma unroll
  for (int i = 0; i < length / 2; ++i) {
    words[i] = Format<Scalar>::narrow(from[2 * i], from[2 * i + 1]);
  }
  return run;
}

// `offset` - z for the zero points z of a run, times `factors`, exactly. A nibble below the bits of
// 2^23 makes a float32 of 2^23 and as many units, without a conversion.
template <int length, typename Factor>
__device__ inline void open_zeros(uint32_t word, float offset, const Factor& factor,
                                  float (&to)[length]) {
#pragma unroll
  for (int i = 0; i < length; ++i) {
    const int place = 4 * (i % 4);
    const uint32_t source = i < 4 ? word : word >> 16;
    const float shifted = __uint_as_float((source & (15u << place)) | 0x4B000000u);
    const float unit = factor(i) / static_cast<float>(1 << place);
    to[i] = fmaf(shifted, -unit, 0x1p23f * unit + factor(i) * offset);
  }
}

}  // namespace marlin::cuda
