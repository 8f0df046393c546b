// Conversions against the definition of rounding in exact.h, exhaustively where that is cheap.

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "../src/floats.h"
#include "check.h"
#include "exact.h"

namespace ptx::test {
namespace {

constexpr Round kRounds[] = {Round::kNearest, Round::kZero, Round::kUp, Round::kDown};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNanValue = std::numeric_limits<float>::quiet_NaN();
constexpr uint32_t kNan = 0x7FFFFFFF;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
float to_float(uint64_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }

// What a finite value becomes, where __float128 holds it and all numbers of the format exactly.
uint64_t expected(const Kind& kind, __float128 value, bool negative, Round round) {
  const __float128 magnitude = value < 0 ? -value : value;
  const Located at = locate(kind, [magnitude](const Term& term) {
    __float128 other = static_cast<uint64_t>(term.significand);
    other *= std::ldexp(1.0, term.exponent);
    return other == magnitude ? 0 : other < magnitude ? -1 : 1;
  });
  return rounded(kind, negative, at, round);
}

void check_narrow(Half format, float value) {
  const Kind& kind = format == Half::kF16 ? kBinary16 : kBrain;
  for (const Round round : kRounds) {
    const uint64_t want = expected(kind, value, std::signbit(value), round);
    const uint16_t got = narrow(format, value, {.round = round});
    expect(got == want, "narrow ", value, " = ", std::hex, got, ", expected ", want);
  }
}

}  // namespace

TEST(every_half_is_widened_exactly_and_comes_back) {
  for (const Half format : {Half::kF16, Half::kBf16}) {
    const Kind& kind = format == Half::kF16 ? kBinary16 : kBrain;
    for (uint32_t i = 0; i < 65536; ++i) {
      const auto bits = static_cast<uint16_t>(i);
      const float value = widen(format, bits);
      if ((bits & kind.nan()) > kind.infinity()) {
        expect(bits_of(value) == kNan, "NaN ", std::hex, i);
        expect(narrow(format, value, {}) == kind.nan(), "narrowed NaN ", std::hex, i);
        continue;
      }
      const Term term = term_of(kind, bits);
      const double want = (bits & kind.nan()) == kind.infinity()
                              ? double{kInfinity}
                              : std::ldexp(static_cast<double>(term.significand), term.exponent);
      expect(value == (term.negative ? -want : want), "value of ", std::hex, i);
      expect(std::signbit(value) == term.negative, "sign of ", std::hex, i);
      for (const Round round : kRounds) {
        expect(narrow(format, value, {.round = round}) == bits, "back to ", std::hex, i);
      }
    }
  }
}

TEST(floats_around_the_middle_of_two_halves_are_rounded_once) {
  for (const Half format : {Half::kF16, Half::kBf16}) {
    const Kind& kind = format == Half::kF16 ? kBinary16 : kBrain;
    for (uint64_t i = 0; i < kind.infinity(); i += format == Half::kF16 ? 1 : 3) {
      const Term term = term_of(kind, i);
      const float middle = static_cast<float>(
          std::ldexp(static_cast<double>(2 * term.significand + 1), term.exponent - 1));
      check_narrow(format, i % 2 == 0 ? middle : -middle);
      check_narrow(format, std::nextafter(middle, 0.0f));
      check_narrow(format, std::nextafter(-middle, -kInfinity));
    }
    check_narrow(format, std::numeric_limits<float>::max());
    check_narrow(format, -std::numeric_limits<float>::max());
    check_narrow(format, std::numeric_limits<float>::denorm_min());
  }
}

TEST(doubles_are_rounded_to_float32_once) {
  std::mt19937_64 random(1);
  constexpr int kTrials = 20000;
  for (int trial = 0; trial < kTrials; ++trial) {
    // Exponents of float32 and a little beyond; every other value is close to a tie.
    const int exponent = static_cast<int>(random() % 290) - 155;
    uint64_t significand = random() >> 11;
    if (trial % 2 == 0) significand = (significand >> 28 << 28) + random() % 3 + (1 << 28) - 1;
    const double value = std::ldexp(static_cast<double>(significand), exponent - 52);
    for (const Round round : kRounds) {
      const uint64_t want = expected(kSingle, -value, true, round);
      const uint32_t got = bits_of(float_from_double(-value, round, false));
      expect(got == want, -value, " = ", std::hex, got, ", expected ", want);
    }
  }
  expect(bits_of(float_from_double(-0x1p-127, Round::kNearest, true)) == 0x80000000, "flushed");
  expect(bits_of(float_from_double(std::nan(""), Round::kNearest, false)) == kNan, "NaN");
  expect(float_from_double(-HUGE_VAL, Round::kZero, false) == -kInfinity, "infinity");
}

TEST(tf32_drops_thirteen_bits) {
  expect(bits_of(tf32_from_float(to_float(0x3F801000), Round::kNearest)) == 0x3F800000, "even");
  expect(bits_of(tf32_from_float(to_float(0x3F803000), Round::kNearest)) == 0x3F804000, "odd");
  expect(bits_of(tf32_from_float(to_float(0x3F801000), Round::kUp)) == 0x3F802000, "away");
  expect(bits_of(tf32_from_float(to_float(0xBF801000), Round::kUp)) == 0xBF802000, "away below 0");
  expect(bits_of(tf32_from_float(to_float(0x3F801FFF), Round::kZero)) == 0x3F800000, "truncated");
  expect(bits_of(tf32_from_float(to_float(0x3F800FFF), Round::kUp)) == 0x3F800000, "nearer below");
  expect(tf32_from_float(to_float(0x7F7FFFFF), Round::kNearest) == kInfinity, "overflow");
  expect(bits_of(tf32_from_float(kNanValue, Round::kUp)) == kNan, "NaN");
}

TEST(integers_are_rounded_once_and_clamped) {
  struct Row {
    double value;
    int64_t nearest, zero, up, down;
  };
  const Row rows[] = {{2.5, 2, 2, 3, 2},           {3.5, 4, 3, 4, 3},
                      {-2.5, -2, -2, -2, -3},      {-0.25, 0, 0, 0, -1},
                      {0.75, 1, 0, 1, 0},          {126.5, 126, 126, 127, 126},
                      {127.5, 127, 127, 127, 127}, {-128.5, -128, -128, -128, -128},
                      {1e300, 127, 127, 127, 127}, {-1e300, -128, -128, -128, -128}};
  for (const Row& row : rows) {
    const int64_t wants[] = {row.nearest, row.zero, row.up, row.down};
    for (int i = 0; i < 4; ++i) {
      expect(to_integer(row.value, 8, true, kRounds[i]) == wants[i], "s8 of ", row.value, " mode ",
             i);
    }
  }
  expect(to_integer(-0.75, 32, false, Round::kNearest) == 0, "u32 of -0.75");
  expect(to_integer(-5, 32, false, Round::kNearest) == 0, "u32 of -5");
  expect(to_integer(5e9, 32, false, Round::kZero) == 0xFFFFFFFF, "u32 of 5e9");
  expect(to_integer(4294967295.0, 32, false, Round::kZero) == 0xFFFFFFFF, "u32 of 2^32 - 1");
  expect(to_integer(0x1p63, 64, true, Round::kZero) == kMost, "s64 of 2^63");
  expect(to_integer(-0x1p64, 64, true, Round::kZero) == kLeast, "s64 of -2^64");
  expect(to_integer(0x1p63, 64, false, Round::kZero) == kLeast, "u64 of 2^63");
  expect(to_integer(HUGE_VAL, 64, false, Round::kZero) == -1, "u64 of infinity");
  expect(to_integer(std::nan(""), 32, true, Round::kZero) == 0, "NaN");
}

TEST(floats_made_of_integers_are_rounded_once) {
  std::mt19937_64 random(2);
  constexpr int kTrials = 3000;
  for (int trial = 0; trial < kTrials; ++trial) {
    const uint64_t bits = random() >> (trial % 64);
    const auto value = static_cast<int64_t>(trial % 3 == 0 ? 0 - bits : bits);
    for (const bool is_signed : {false, true}) {
      const __float128 exact = is_signed ? static_cast<__float128>(value)
                                         : static_cast<__float128>(static_cast<uint64_t>(value));
      for (const Round round : kRounds) {
        expect(bits_of(float_from_integer(value, is_signed, round)) ==
                   expected(kSingle, exact, exact < 0, round),
               "f32 of ", value);
        expect(std::bit_cast<uint64_t>(double_from_integer(value, is_signed, round)) ==
                   expected(kDouble, exact, exact < 0, round),
               "f64 of ", value);
        expect(half_from_integer(Half::kF16, value, is_signed, round) ==
                   expected(kBinary16, exact, exact < 0, round),
               "f16 of ", value);
      }
    }
  }
}

TEST(integral_values_keep_their_format) {
  expect(to_integral(2.5, Round::kNearest) == 2 && to_integral(-2.5, Round::kDown) == -3, "halves");
  expect(std::signbit(to_integral(-0.25, Round::kNearest)), "-0");
  expect(to_integral(1e300, Round::kUp) == 1e300, "large");
  expect(bits_of(static_cast<float>(to_integral(std::nan(""), Round::kZero))) == kNan, "NaN");
}

TEST(every_byte_is_widened_exactly_and_comes_back) {
  struct Subject {
    Byte format;
    Kind kind;
    uint8_t largest;
  };
  const Subject subjects[] = {{Byte::kE4m3, {3, 4}, 0x7E}, {Byte::kE5m2, {2, 5}, 0x7B}};
  for (const auto& [format, kind, largest] : subjects) {
    for (int i = 0; i < 256; ++i) {
      const auto bits = static_cast<uint8_t>(i);
      const uint8_t magnitude = bits & 0x7F;
      const float value = widen(format, bits);
      if (magnitude > largest) {
        const bool is_infinite = format == Byte::kE5m2 && magnitude == largest + 1;
        expect(is_infinite ? std::isinf(value) : bits_of(value) == kNan, "special ", i);
        continue;
      }
      const Term term = term_of(kind, bits);
      const double want = std::ldexp(static_cast<double>(term.significand), term.exponent);
      expect(value == (term.negative ? -want : want), "value of ", i);
      expect(narrow(format, value, false) == bits, "back to ", i);
      if (magnitude == largest) continue;
      const float middle = static_cast<float>(
          std::ldexp(static_cast<double>(2 * term.significand + 1), term.exponent - 1));
      const float tie = term.negative ? -middle : middle;
      expect(narrow(format, tie, false) == bits + bits % 2, "tie above ", i);
      expect(narrow(format, std::nextafter(tie, 0.0f), false) == bits, "below the tie ", i);
      expect(narrow(format, tie * 1.0001f, false) == bits + 1, "above the tie ", i);
    }
    expect(narrow(format, 1e30f, false) == largest, "saturated");
    expect(narrow(format, -kInfinity, false) == (largest | 0x80), "minus infinity, saturated");
    expect(narrow(format, kNanValue, true) == 0x7F, "NaN");
    expect(narrow(format, -1, true) == 0, "relu");
  }
  expect(narrow(Byte::kE4m3, 1000, false) == 0x7E, "1000 in e4m3");
  expect(widen(Byte::kE4m3, 0x7E) == 448 && widen(Byte::kE5m2, 0x7B) == 57344, "the largest");
}

}  // namespace ptx::test
