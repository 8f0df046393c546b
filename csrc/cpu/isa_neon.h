// Advanced SIMD of ARMv8.0 in the words that the templates use. Eight lanes, two registers: the
// widening instructions read the halves of one register into two. Which instruction multiplies and
// adds codes is up to the formats (formats_neon.h).
#pragma once

#include <arm_neon.h>

#include "microkernel.h"

namespace marlin::cpu {
namespace {

struct Neon {
  static constexpr int kLanes = 8;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxRowsOfSeveral = 6;
  static constexpr int kManyRowsOfSeveral = 6;

  // Lanes 0 to 3, and 4 to 7.
  struct Ints {
    int32x4_t low, high;
  };
  struct Floats {
    float32x4_t low, high;
  };

  // 24 registers of sums at most, with the weights and one unit of activations, fill the 32.
  static constexpr int vectors_beside(int rows) { return rows == 1 ? 4 : rows <= 5 ? 2 : 1; }
  static constexpr int vectors_of_several(int rows) { return vectors_beside(2 * rows); }

  static Ints load(const uint32_t* p) {
    return {vreinterpretq_s32_u32(vld1q_u32(p)), vreinterpretq_s32_u32(vld1q_u32(p + 4))};
  }
  static Ints load(const int32_t* p) { return {vld1q_s32(p), vld1q_s32(p + 4)}; }
  static Floats load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  static void store(uint32_t* p, Ints value) {
    vst1q_u32(p, vreinterpretq_u32_s32(value.low));
    vst1q_u32(p + 4, vreinterpretq_u32_s32(value.high));
  }
  static void store(float* p, Floats value) {
    vst1q_f32(p, value.low);
    vst1q_f32(p + 4, value.high);
  }

  static Ints both(int32x4_t half) { return {half, half}; }
  static Floats both(float32x4_t half) { return {half, half}; }
  static Ints broadcast(const int32_t* p) { return both(vld1q_dup_s32(p)); }
  static Floats broadcast(const float* p) { return both(vld1q_dup_f32(p)); }
  static Ints zero_ints() { return both(vdupq_n_s32(0)); }
  static Floats zero_floats() { return both(vdupq_n_f32(0)); }

  static Ints add(Ints a, Ints b) { return {vaddq_s32(a.low, b.low), vaddq_s32(a.high, b.high)}; }
  static Floats add(Floats a, Floats b) {
    return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
  }
  static Floats subtract(Floats a, Floats b) {
    return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)};
  }
  static Floats multiply(Floats a, Floats b) {
    return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
  }
  static Floats divide(Floats a, Floats b) {
    return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)};
  }
  static Floats multiply_add(Floats a, Floats b, Floats c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
  }
  // A NaN stays one.
  static Floats at_least(Floats a, float low) {
    const float32x4_t bound = vdupq_n_f32(low);
    return {vmaxq_f32(a.low, bound), vmaxq_f32(a.high, bound)};
  }
  static Floats clamp(Floats a, float low, float high) {
    const float32x4_t bound = vdupq_n_f32(high);
    const Floats raised = at_least(a, low);
    return {vminq_f32(raised.low, bound), vminq_f32(raised.high, bound)};
  }
  static Floats times_power_of_two(Floats a, Ints n) {
    const auto times = [](float32x4_t x, int32x4_t power) {
      return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), vshlq_n_s32(power, 23)));
    };
    return {times(a.low, n.low), times(a.high, n.high)};
  }
  static Floats to_floats(Ints a) { return {vcvtq_f32_s32(a.low), vcvtq_f32_s32(a.high)}; }
  static Ints round(Floats a) { return {vcvtnq_s32_f32(a.low), vcvtnq_s32_f32(a.high)}; }

  // Products of two pairs of 16 bits per lane.
  static Ints dot_pairs(Ints sums, Ints a, Ints b) {
    const auto dot = [](int32x4_t sum, int32x4_t x, int32x4_t y) {
      const int16x8_t x16 = vreinterpretq_s16_s32(x);
      const int16x8_t y16 = vreinterpretq_s16_s32(y);
      const int32x4_t first = vmull_s16(vget_low_s16(x16), vget_low_s16(y16));
      return vaddq_s32(sum, vpaddq_s32(first, vmull_high_s16(x16, y16)));
    };
    return {dot(sums.low, a.low, b.low), dot(sums.high, a.high, b.high)};
  }

  // The bits of magnitudes order as integers, NaN above infinity.
  static Ints max_magnitude(Ints largest, Floats a) {
    return {vmaxq_s32(largest.low, vreinterpretq_s32_f32(vabsq_f32(a.low))),
            vmaxq_s32(largest.high, vreinterpretq_s32_f32(vabsq_f32(a.high)))};
  }
  static uint32_t reduce_max(Ints a) {
    return static_cast<uint32_t>(vmaxvq_s32(vmaxq_s32(a.low, a.high)));
  }
  static int32_t reduce_add(Ints a) { return vaddvq_s32(vaddq_s32(a.low, a.high)); }

  // Elements index .. index + min(count, 8) - 1 as float32; the others are zero and not touched.
  static Floats load_floats(const void* data, Dtype dtype, int64_t index, int64_t count) {
    if (dtype == Dtype::kFloat32) {
      return with_whole(static_cast<const float*>(data) + index, count,
                        [](const float* p) { return load(p); });
    }
    const uint16_t* elements = static_cast<const uint16_t*>(data) + index;
    if (dtype == Dtype::kFloat16) return with_whole(elements, count, load_float16);
    return with_whole(elements, count, load_bfloat16);
  }

  // Rounds to nearest even into elements index .. index + count - 1.
  static void store_rounded(void* data, Dtype dtype, int64_t index, Floats value, int64_t count) {
    if (dtype == Dtype::kFloat32) {
      float whole[kLanes];
      store(whole, value);
      store_first(static_cast<float*>(data) + index, whole, count);
      return;
    }
    uint16_t whole[kLanes];
    vst1q_u16(whole, dtype == Dtype::kFloat16 ? to_float16(value) : to_bfloat16(value));
    store_first(static_cast<uint16_t*>(data) + index, whole, count);
  }

  static void store_as_int16(std::byte* p, Ints value) {
    const int16x8_t narrow = vmovn_high_s32(vmovn_s32(value.low), value.high);
    vst1q_u8(reinterpret_cast<uint8_t*>(p), vreinterpretq_u8_s16(narrow));
  }

  // In the order in which a step opens the rows of a word: 0 4 1 5 2 6 3 7, or 0 2 1 3 for bytes.
  static void store_as_int8(std::byte* p, Ints value, int bits) {
    constexpr uint64_t kNibbles = 0x0703060205010400;
    constexpr uint64_t kBytes = 0x0705060403010200;
    const int16x8_t narrow = vmovn_high_s32(vmovn_s32(value.low), value.high);
    const uint8x8_t bytes = vreinterpret_u8_s8(vmovn_s16(narrow));
    const uint8x8_t order = vcreate_u8(bits == 4 ? kNibbles : kBytes);
    vst1_u8(reinterpret_cast<uint8_t*>(p), vtbl1_u8(bytes, order));
  }

 private:
  // `load_whole` of eight elements, of which those from `count` on are zero and not read.
  template <typename Element, typename LoadWhole>
  static Floats with_whole(const Element* p, int64_t count, const LoadWhole& load_whole) {
    if (count >= kLanes) return load_whole(p);
    Element whole[kLanes] = {};
    for (int64_t i = 0; i < kLanes; ++i) {
      if (i < count) whole[i] = p[i];
    }
    return load_whole(whole);
  }
  template <typename Element>
  static void store_first(Element* p, const Element* whole, int64_t count) {
    if (count >= kLanes) {
      __builtin_memcpy(p, whole, kLanes * sizeof(Element));
      return;
    }
    for (int64_t i = 0; i < count; ++i) p[i] = whole[i];
  }

  static Floats load_float16(const uint16_t* p) {
    const float16x8_t half = vreinterpretq_f16_u16(vld1q_u16(p));
    return {vcvt_f32_f16(vget_low_f16(half)), vcvt_high_f32_f16(half)};
  }
  static Floats load_bfloat16(const uint16_t* p) {
    const uint16x8_t half = vld1q_u16(p);
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(half), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(half, 16))};
  }
  static uint16x8_t to_float16(Floats value) {
    const float16x8_t half = vcvt_high_f16_f32(vcvt_f16_f32(value.low), value.high);
    return vreinterpretq_u16_f16(half);
  }
  static uint16x8_t to_bfloat16(Floats value) {
    const auto rounded = [](float32x4_t x) {
      const uint32x4_t bits = vreinterpretq_u32_f32(x);
      const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
      const uint32x4_t sum = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
      const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x00400000));
      return vbslq_u32(vceqq_f32(x, x), sum, quiet);
    };
    return vshrn_high_n_u32(vshrn_n_u32(rounded(value.low), 16), rounded(value.high), 16);
  }
};

}  // namespace
}  // namespace marlin::cpu
