// Rounding of exact values to the formats of PTX, in integers. Knows formats, not instructions.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "floats.h"

namespace ptx {

struct Format {
  int precision;     // bits of a significand, its leading one included
  int min_exponent;  // of the smallest normal number
  uint64_t largest;  // bits of the largest finite number; infinity follows, where there is one
  uint64_t sign;     // the sign bit; all bits below it are the canonical NaN
};

inline constexpr Format kFloat64{53, -1022, 0x7FEFFFFFFFFFFFFF, uint64_t{1} << 63};
inline constexpr Format kFloat32{24, -126, 0x7F7FFFFF, 0x80000000};
inline constexpr Format kFloat16{11, -14, 0x7BFF, 0x8000};
inline constexpr Format kBfloat16{8, -126, 0x7F7F, 0x8000};
inline constexpr Format kE4m3{4, -6, 0x7E, 0x80};
inline constexpr Format kE5m2{3, -14, 0x7B, 0x80};

inline const Format& format_of(Half half) { return half == Half::kF16 ? kFloat16 : kBfloat16; }

// Rounds (-1)^negative significand 2^exponent to the bits of `format`. Normal numbers with exponent
// e are (e - min_exponent) 2^(precision - 1) + significand, subnormal ones the significand alone,
// so that a carry out of rounding needs no care.
inline uint64_t encode(const Format& format, bool negative, uint64_t significand, int exponent,
                       Round round) {
  const uint64_t sign = negative ? format.sign : 0;
  if (significand == 0) return sign;
  const int leading = 63 - std::countl_zero(significand) + exponent;
  const int binade = std::max(leading, format.min_exponent);
  const int dropped = binade - (format.precision - 1) - exponent;
  uint64_t kept = 0;
  uint64_t rest = 1;  // what is dropped, in units of 2^-64 of what is kept; 1 stands for less
  if (dropped <= 0) {
    kept = significand << -dropped;
    rest = 0;
  } else if (dropped < 64) {
    kept = significand >> dropped;
    rest = significand << (64 - dropped);
  } else if (dropped == 64) {
    rest = significand;
  }
  constexpr uint64_t kTie = uint64_t{1} << 63;
  const bool nearest_is_up = rest > kTie || (rest == kTie && (kept & 1) != 0);
  const bool away = negative ? round == Round::kDown : round == Round::kUp;
  const bool increments = round == Round::kNearest ? nearest_is_up : away && rest != 0;
  const uint64_t bits =
      (static_cast<uint64_t>(binade - format.min_exponent) << (format.precision - 1)) + kept +
      (increments ? 1 : 0);
  if (bits <= format.largest) return sign | bits;
  return sign | (format.largest + (round == Round::kNearest || away ? 1 : 0));
}

// A finite double taken apart.
struct Parts {
  bool negative;
  uint64_t significand;
  int exponent;  // of the last bit of the significand
};

inline Parts take_apart(double value) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
  const int field = static_cast<int>((bits >> 52) & 0x7FF);
  return {(bits >> 63) != 0, field == 0 ? fraction : fraction | uint64_t{1} << 52,
          std::max(field, 1) - 1075};
}

// Rounds a double that is no NaN to a narrower format.
inline uint64_t encode(const Format& format, double value, Round round) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const uint64_t sign = (bits >> 63) != 0 ? format.sign : 0;
  if (round == Round::kNearest || round == Round::kZero) {
    // Of normal results alone the exponent moves and bits are dropped. Anything else comes out
    // below the smallest normal number, perhaps wrapped around, or above the largest.
    const uint64_t magnitude = bits & ~(uint64_t{1} << 63);
    const int dropped = kFloat64.precision - format.precision;
    const uint64_t below_tie = (uint64_t{1} << (dropped - 1)) - 1;
    const uint64_t increment =
        round == Round::kNearest ? below_tie + ((magnitude >> dropped) & 1) : 0;
    const auto moved = static_cast<uint64_t>(format.min_exponent - kFloat64.min_exponent);
    const uint64_t result =
        ((magnitude + increment) >> dropped) - (moved << (format.precision - 1));
    const uint64_t smallest_normal = uint64_t{1} << (format.precision - 1);
    if (result - smallest_normal <= format.largest - smallest_normal) return sign | result;
  }
  const Parts parts = take_apart(value);
  constexpr int kInfiniteExponent = 0x7FF - 1075;
  if (parts.exponent == kInfiniteExponent) return sign | (format.largest + 1);
  return encode(format, parts.negative, parts.significand, parts.exponent, round);
}

// What an instruction writes of a result known exactly, or rounded to odd.
inline uint64_t encode(const Format& format, double value, const Arithmetic& how) {
  const bool is_nan = value != value;
  if (how.saturates) value = value > 0 ? std::min(value, 1.0) : 0.0;
  if (is_nan) return how.saturates ? 0 : format.sign - 1;
  if (how.relu && !(value > 0)) return 0;
  const uint64_t bits = encode(format, value, how.round);
  const uint64_t smallest_normal = uint64_t{1} << (format.precision - 1);
  const bool is_flushed = how.flushes && (bits & (format.sign - 1)) < smallest_normal;
  return is_flushed ? bits & format.sign : bits;
}

using Wide = unsigned __int128;

// A magnitude too long for 64 bits. Where even these are too few, bit 0 is the OR of itself and of
// all bits below it ("rounded to odd"): any rounding to 126 bits or fewer then goes the right way.
struct Exact {
  bool negative;
  Wide significand;
  int exponent;  // of the last bit of the significand
};

inline int leading_zeros(Wide value) {
  const uint64_t high = static_cast<uint64_t>(value >> 64);
  return high != 0 ? std::countl_zero(high) : 64 + std::countl_zero(static_cast<uint64_t>(value));
}

inline Wide shift_right_to_odd(Wide value, int count) {
  if (count <= 0) return value;
  if (count >= 128) return value != 0 ? 1 : 0;
  return value >> count | ((value << (128 - count)) != 0 ? 1 : 0);
}

// The sum, rounded to odd, of two values of at most 106 significant bits. Both are moved up until
// their leading bit is bit 125; below it at least 20 zeros remain, so that bits are lost only where
// the exponents differ by more than 20. Then at most one leading bit cancels, and the sum keeps 124
// bits above the lost ones.
inline Exact sum(Exact a, Exact b, Round round) {
  if (a.significand == 0 && b.significand == 0) {
    const bool negative = a.negative == b.negative ? a.negative : round == Round::kDown;
    return {negative, 0, 0};
  }
  if (a.significand == 0) return b;
  if (b.significand == 0) return a;
  for (Exact* term : {&a, &b}) {
    const int up = leading_zeros(term->significand) - 2;
    term->significand <<= up;
    term->exponent -= up;
  }
  if (a.exponent < b.exponent) std::swap(a, b);
  const Wide low = shift_right_to_odd(b.significand, a.exponent - b.exponent);
  if (a.negative == b.negative) return {a.negative, a.significand + low, a.exponent};
  if (a.significand == low) return {round == Round::kDown, 0, 0};
  if (a.significand > low) return {a.negative, a.significand - low, a.exponent};
  return {b.negative, low - a.significand, a.exponent};
}

inline uint64_t encode(const Format& format, const Exact& value, Round round) {
  const int down = std::max(64 - leading_zeros(value.significand), 0);
  return encode(format, value.negative,
                static_cast<uint64_t>(shift_right_to_odd(value.significand, down)),
                value.exponent + down, round);
}

}  // namespace ptx
