// The number formats of activations, scales and results in the gemm kernel.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace marlin::cuda {

template <typename Scalar>
struct Format;
template <>
struct Format<__half> {
  static constexpr float kUnit = 0x1p24f;
  static __device__ uint32_t enter(uint32_t a) { return a; }
  static __device__ float widen(__half value) { return __half2float(value); }
  static __device__ float widen(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
  static __device__ void widen(uint32_t pair, float (&to)[2]) {
    const float2 both = __half22float2(reinterpret_cast<const __half2&>(pair));
    to[0] = both.x;
    to[1] = both.y;
  }
  static __device__ __half narrow(float value) { return __float2half_rn(value); }
};
// A subnormal bfloat16 is 2^-133, and its products with activations near 1 would be no float32:
// activations are multiplied by 2^100, exactly, as long as they are below 2^28.
template <>
struct Format<__nv_bfloat16> {
  static constexpr float kUnit = 0x1p33f;
  static __device__ uint32_t enter(uint32_t a) {
    constexpr uint32_t kFactors = 0x71807180;
    const auto product = __hmul2(reinterpret_cast<const __nv_bfloat162&>(a),
                                 reinterpret_cast<const __nv_bfloat162&>(kFactors));
    return reinterpret_cast<const uint32_t&>(product);
  }
  static __device__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
  static __device__ float widen(uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }
  static __device__ void widen(uint32_t pair, float (&to)[2]) {
    to[0] = __uint_as_float(pair << 16);
    to[1] = __uint_as_float(pair & 0xFFFF0000u);
  }
  static __device__ __nv_bfloat16 narrow(float value) { return __float2bfloat16_rn(value); }
};

}  // namespace marlin::cuda
