// The bit patterns of float16 and bfloat16 as float and back, on any CPU. Knows no vector
// instruction.
#pragma once

#include <bit>
#include <cstdint>

namespace marlin {

inline float bfloat16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Rounds to nearest even. A NaN stays a NaN: adding the rounding bias could carry it into infinity.
inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (value != value) return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  const uint32_t bias = 0x7FFFu + ((bits >> 16) & 1u);
  return static_cast<uint16_t>((bits + bias) >> 16);
}

// float16 is s eeeee mmmmmmmmmm with bias 15. Moving exponent and mantissa to float's place gives
// the value times 2^(15 - 127); one multiplication by 2^112 repairs normal and subnormal numbers
// alike. Infinities and NaNs have the largest exponent and are rebuilt from the mantissa.
inline float float16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7FFFu) << 13;
  if ((bits & 0x7C00u) == 0x7C00u) return std::bit_cast<float>(sign | 0x7F800000u | magnitude);
  constexpr float kTwoTo112 = 5192296858534827628530496329220096.0f;
  const float scaled = std::bit_cast<float>(magnitude) * kTwoTo112;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

// Rounds to nearest even. Below 2^-14 the result is subnormal: adding 0.5 puts the float16 unit in
// the last place of the sum, so that the hardware does the rounding.
inline uint16_t float_to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  constexpr uint32_t kInfinity = 0x7F800000u;
  constexpr uint32_t kOverflow = 0x477FF000u;  // 65520: the first float that rounds to infinity
  constexpr uint32_t kSmallestNormal = 0x38800000u;  // 2^-14
  if (magnitude > kInfinity) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= kOverflow) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < kSmallestNormal) {
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3F000000u));
  }
  const uint32_t rebiased = magnitude - ((127u - 15u) << 23);
  const uint32_t rounded = rebiased + 0x0FFFu + ((rebiased >> 13) & 1u);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

}  // namespace marlin
