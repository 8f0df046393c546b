// The number formats of microkernel.h on an instruction set: how codes are opened, multiplied and
// summed, and how activations are prepared. Internal linkage, as microkernel.h demands.
//
// A format opens a word of codes in `steps(bits)` steps. Each step gives units of 32 bits (two rows
// of K in 16 bits each, or four in 8), and meets the same rows of the activations: kUnitBytes.
// A format may have add_part<bits>(sums, part): multiply_add<bits> then sums kPartRows rows of K in
// a narrower `part`, which starts at zero.
#pragma once

#include "microkernel.h"

namespace marlin::cpu {
namespace {

// Activations and codes of the same width.
template <class Isa>
struct EqualUnits {
  static constexpr int64_t kUnitBytes = 4;

  // Those of step `step` among the steps that begin at `a`.
  template <int step>
  static typename Isa::Ints load_unit(const std::byte* a) {
    return Isa::broadcast(a + step * kUnitBytes);
  }
};

// Sums of integers are exact, so every instruction set gives the same bits. The start of a sum,
// -z S, is one dot product of pairs: with S = high * 2^15 + low, z S = z low + (z 2^7)(high 2^8).
// With symmetric codes it depends on the row alone, and is prepared with it.
template <class Isa>
struct IntegerSums : EqualUnits<Isa> {
  using Sums = typename Isa::Ints;
  using Opened = typename Isa::Ints;
  static constexpr bool kOpensBytes = true;
  static constexpr bool kHasRowScales = true;

  // The zero point of symmetric codes, as they are opened.
  static constexpr int middle(int bits) { return 1 << (bits - 1); }

  static constexpr int32_t zero_word(int zero) { return zero | (zero << 7 << 16); }

  static constexpr int32_t sum_word(int32_t sum) {
    const int32_t negated = -sum;
    const uint32_t low = static_cast<uint32_t>(negated) & 0x7FFFu;
    const uint32_t high = static_cast<uint32_t>(negated >> 15) << 8;
    return static_cast<int32_t>(low | (high << 16));
  }

  static Sums add_start(Sums sums, Sums zeros, Sums row_sum) {
    return Isa::dot_pairs(sums, zeros, row_sum);
  }
  static Sums start(Sums zeros, Sums row_sum) {
    return add_start(Isa::zero_ints(), zeros, row_sum);
  }
  static Sums start_at_middle(const int32_t* row_sum) { return Isa::broadcast(row_sum); }
  static Sums add_start_at_middle(Sums sums, const int32_t* row_sum) {
    return Isa::add(sums, Isa::broadcast(row_sum));
  }
  static typename Isa::Floats to_floats(Sums sums) { return Isa::to_floats(sums); }
  static typename Isa::Floats add_stretch(typename Isa::Floats total, Sums sums,
                                          typename Isa::Floats scale, const float* row_scale) {
    const auto partial = Isa::multiply(to_floats(sums), scale);
    return Isa::multiply_add(partial, Isa::broadcast(row_scale), total);
  }
  static Opened load_opened(const uint32_t* unit) { return Isa::load(unit); }
  static void store_opened(uint32_t* unit, Opened opened) { Isa::store(unit, opened); }
};

// |sum| <= 64 * 32767 * 255 < 2^31 with the longest segment and the widest codes.
template <class Isa>
struct Int16Format : IntegerSums<Isa> {
  using typename IntegerSums<Isa>::Sums;
  using typename IntegerSums<Isa>::Opened;
  static constexpr int64_t kBytes = 2;
  static constexpr Activation kActivation = Activation::kInt16;
  static constexpr int kMaxValue = 32767;
  static constexpr int steps(int bits) { return bits == 4 ? 4 : 2; }

  template <int bits, int step>
  static Opened open(const uint32_t* words) {
    constexpr uint32_t kMask = bits == 4 ? 0x000F000Fu : 0x00FF00FFu;
    return Isa::template shift_and<bits * step>(Isa::load(words), kMask);
  }
  template <int bits>
  static Sums multiply_add(Sums sums, Opened weight, typename Isa::Ints unit) {
    return Isa::dot_pairs(sums, weight, unit);
  }
};

// Codes are the unsigned side of the product.
template <class Isa>
struct Int8Format : IntegerSums<Isa> {
  using typename IntegerSums<Isa>::Sums;
  using typename IntegerSums<Isa>::Opened;
  static constexpr int64_t kBytes = 1;
  static constexpr Activation kActivation = Activation::kInt8;
  static constexpr int kMaxValue = 127;
  static constexpr int steps(int bits) { return bits == 4 ? 2 : 1; }

  template <int bits, int step>
  static Opened open(const uint32_t* words) {
    if constexpr (bits == 8) return Isa::load(words);
    return Isa::template shift_and<4 * step>(Isa::load(words), 0x0F0F0F0Fu);
  }
  template <int bits>
  static Sums multiply_add(Sums sums, Opened weight, typename Isa::Ints unit) {
    return Isa::template dot_bytes<bits>(sums, weight, unit);
  }
};

// Bytes between neighbouring rows of the panels.
template <class Format>
constexpr int64_t panel_stride = kPanelRows * Format::kBytes + kPanelPadding;

// Element k of row r; k is the start of a segment.
template <class Format>
std::byte* panel_at(const Panels& panels, int64_t k, int64_t r) {
  const int64_t stretch = k / kPanelRows * panels.rows + r;
  return panels.values + stretch * panel_stride<Format> + k % kPanelRows * Format::kBytes;
}

// The activations of a stretch as integers: a / scale rounded to nearest even, with the scale that
// takes the largest to kMaxValue; and the sum of each segment. An infinity or a NaN makes the scale
// NaN, and with it the row.
template <class Isa, class Format>
void prepare_integers(const void* row, Dtype dtype, const Weights& weights, const Panels& panels,
                      int64_t r) {
  const int64_t k = weights.k;
  const int bits = weights.bits;
  constexpr int64_t kLanes = Isa::kLanes;
  constexpr float kSmallest = 1e-30f;  // whose reciprocal still fits
  constexpr uint32_t kInfinity = 0x7F800000u;
  constexpr float kMaxValue = static_cast<float>(Format::kMaxValue);
  for (int64_t begin = 0; begin < k; begin += panels.stretch) {
    const int64_t end = k - begin < panels.stretch ? k : begin + panels.stretch;
    auto largest = Isa::zero_ints();
    for (int64_t i = begin; i < end; i += kLanes) {
      largest = Isa::max_magnitude(largest, Isa::load_floats(row, dtype, i, kLanes));
    }
    const uint32_t bits_of_largest = Isa::reduce_max(largest);
    const bool is_finite = bits_of_largest < kInfinity;
    float bound = __builtin_bit_cast(float, is_finite ? bits_of_largest : 0u);
    if (bound < kSmallest) bound = kSmallest;
    const float inverse = is_finite ? kMaxValue / bound : 0.0f;
    panels.scales[begin / panels.stretch * panels.rows + r] =
        is_finite ? bound / kMaxValue : __builtin_bit_cast(float, 0x7FC00000u);

    std::byte* out = panel_at<Format>(panels, begin, r);
    for (int64_t segment = begin; segment < end; segment += panels.segment) {
      auto sum = Isa::zero_ints();
      for (int64_t i = segment; i < segment + panels.segment; i += kLanes) {
        const auto a = Isa::load_floats(row, dtype, i, kLanes);
        const auto value =
            is_finite ? Isa::round(Isa::multiply(a, Isa::broadcast(&inverse))) : Isa::zero_ints();
        sum = Isa::add(sum, value);
        if constexpr (Format::kActivation == Activation::kInt16) {
          Isa::store_as_int16(out + (i - begin) * 2, value);
        } else {
          Isa::store_as_int8(out + (i - begin), value, bits);
        }
      }
      const int32_t total = Isa::reduce_add(sum);
      panels.sums[segment / panels.segment * panels.rows + r] =
          weights.zeros == nullptr ? -Format::middle(bits) * total : Format::sum_word(total);
    }
  }
}

}  // namespace
}  // namespace marlin::cpu
