// The integer formats of kernel_formats.h in the instructions of Advanced SIMD: which of them open
// and multiply codes. All sums are exact, so they are those of every other path.
#pragma once

#include "isa_neon.h"
#include "kernel_formats.h"

namespace marlin::cpu {
namespace {

// Four bytes of activations, in the lower half of a register: the instructions that multiply by one
// lane spread them over the lanes by themselves.
inline uint64x1_t load_four_bytes(const std::byte* p) {
  uint32_t value;
  __builtin_memcpy(&value, p, sizeof(value));
  return vcreate_u64(value);
}

// 16 bits: the halves of eight words are parted into even and odd rows of eight columns, so that
// one instruction multiplies one row of four columns by one activation and adds to four sums.
struct NeonInt16 : Int16Format<Neon> {
  struct Opened {
    int16x8_t even, odd;  // rows of K
  };

  template <int bits, int step>
  static Opened open(const uint32_t* words) {
    constexpr int kShift = bits * step;
    const uint16x8_t low = vreinterpretq_u16_u32(vld1q_u32(words));
    const uint16x8_t high = vreinterpretq_u16_u32(vld1q_u32(words + 4));
    const auto codes = [](uint16x8_t halves) {
      if constexpr (kShift > 0) halves = vshrq_n_u16(halves, kShift);
      if constexpr (kShift + bits < 16) halves = vandq_u16(halves, vdupq_n_u16((1 << bits) - 1));
      return vreinterpretq_s16_u16(halves);
    };
    return {codes(vuzp1q_u16(low, high)), codes(vuzp2q_u16(low, high))};
  }
  static Opened load_opened(const uint32_t* unit) {
    return {vreinterpretq_s16_u32(vld1q_u32(unit)), vreinterpretq_s16_u32(vld1q_u32(unit + 4))};
  }
  static void store_opened(uint32_t* unit, Opened opened) {
    vst1q_u32(unit, vreinterpretq_u32_s16(opened.even));
    vst1q_u32(unit + 4, vreinterpretq_u32_s16(opened.odd));
  }

  template <int step>
  static int16x4_t load_unit(const std::byte* a) {
    return vreinterpret_s16_u64(load_four_bytes(a + step * kUnitBytes));
  }
  template <int bits>
  static Sums multiply_add(Sums sums, Opened weight, int16x4_t unit) {
    sums.low = vmlal_lane_s16(sums.low, vget_low_s16(weight.even), unit, 0);
    sums.high = vmlal_high_lane_s16(sums.high, weight.even, unit, 0);
    sums.low = vmlal_lane_s16(sums.low, vget_low_s16(weight.odd), unit, 1);
    sums.high = vmlal_high_lane_s16(sums.high, weight.odd, unit, 1);
    return sums;
  }
};

// 8 bits: both sides of a product are signed. Codes of 4 bits are so as they are; of codes of 8
// bits, which are symmetric, 128 is taken with one exclusive-or, and nothing is left for the start
// of the sum to take.
struct NeonSignedBytes : Int8Format<Neon> {
  struct Opened {
    int8x16_t low, high;  // columns 0 to 3, and 4 to 7, four rows each
  };

  static constexpr int middle(int bits) { return bits == 4 ? 8 : 0; }

  template <int bits, int step>
  static Opened open(const uint32_t* words) {
    const auto codes = [](uint8x16_t bytes) {
      if constexpr (bits == 8) {
        bytes = veorq_u8(bytes, vdupq_n_u8(0x80));
      } else if constexpr (step == 0) {
        bytes = vandq_u8(bytes, vdupq_n_u8(0x0F));
      } else {
        bytes = vshrq_n_u8(bytes, 4);
      }
      return vreinterpretq_s8_u8(bytes);
    };
    return {codes(vreinterpretq_u8_u32(vld1q_u32(words))),
            codes(vreinterpretq_u8_u32(vld1q_u32(words + 4)))};
  }
  static Opened load_opened(const uint32_t* unit) {
    return {vreinterpretq_s8_u32(vld1q_u32(unit)), vreinterpretq_s8_u32(vld1q_u32(unit + 4))};
  }
  static void store_opened(uint32_t* unit, Opened opened) {
    vst1q_u32(unit, vreinterpretq_u32_s8(opened.low));
    vst1q_u32(unit + 4, vreinterpretq_u32_s8(opened.high));
  }
};

}  // namespace
}  // namespace marlin::cpu
