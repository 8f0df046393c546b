// Arithmetic against the definition of rounding in exact.h, and the values that PTX names.

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
constexpr uint32_t kNan = 0x7FFFFFFF;

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
float to_float(uint64_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }
uint16_t low16(uint64_t bits) { return static_cast<uint16_t>(bits); }
double to_double(uint64_t bits) { return std::bit_cast<double>(bits); }

// One format and its three operations, on bits.
struct Subject {
  const char* name;
  Kind kind;
  uint64_t (*add)(uint64_t a, uint64_t b, const Arithmetic& how);
  uint64_t (*multiply)(uint64_t a, uint64_t b, const Arithmetic& how);
  uint64_t (*fused)(uint64_t a, uint64_t b, uint64_t c, const Arithmetic& how);
};

template <Half format>
Subject half_subject(const char* name, Kind kind) {
  return {name, kind,
          [](uint64_t a, uint64_t b, const Arithmetic& how) -> uint64_t {
            return add(format, low16(a), low16(b), how);
          },
          [](uint64_t a, uint64_t b, const Arithmetic& how) -> uint64_t {
            return multiply(format, low16(a), low16(b), how);
          },
          [](uint64_t a, uint64_t b, uint64_t c, const Arithmetic& how) -> uint64_t {
            return fused(format, low16(a), low16(b), low16(c), how);
          }};
}

const Subject kSingleSubject{
    "f32", kSingle,
    [](uint64_t a, uint64_t b, const Arithmetic& how) -> uint64_t {
      return bits_of(add(to_float(a), to_float(b), how));
    },
    [](uint64_t a, uint64_t b, const Arithmetic& how) -> uint64_t {
      return bits_of(multiply(to_float(a), to_float(b), how));
    },
    [](uint64_t a, uint64_t b, uint64_t c, const Arithmetic& how) -> uint64_t {
      return bits_of(fused(to_float(a), to_float(b), to_float(c), how));
    }};

const Subject kDoubleSubject{
    "f64", kDouble,
    [](uint64_t a, uint64_t b, const Arithmetic& how) {
      return std::bit_cast<uint64_t>(add(to_double(a), to_double(b), how));
    },
    [](uint64_t a, uint64_t b, const Arithmetic& how) {
      return std::bit_cast<uint64_t>(multiply(to_double(a), to_double(b), how));
    },
    [](uint64_t a, uint64_t b, uint64_t c, const Arithmetic& how) {
      return std::bit_cast<uint64_t>(fused(to_double(a), to_double(b), to_double(c), how));
    }};

const std::vector<Subject>& subjects() {
  static const std::vector<Subject> all{half_subject<Half::kF16>("f16", kBinary16),
                                        half_subject<Half::kBf16>("bf16", kBrain), kSingleSubject,
                                        kDoubleSubject};
  return all;
}

// Zeros, subnormals, the neighbours of 1, what is half or a quarter of its last place, the largest,
// infinities and NaN, of both signs.
std::vector<uint64_t> edges(const Kind& kind) {
  const int fraction = kind.fraction_bits;
  const auto power = [&kind, fraction](int exponent) {
    return static_cast<uint64_t>(exponent + kind.bias()) << fraction;
  };
  const uint64_t one = power(0);
  const uint64_t full = (uint64_t{1} << fraction) - 1;
  const uint64_t infinity = kind.infinity();
  std::vector<uint64_t> out{0,
                            1,
                            2,
                            3,
                            full / 3,
                            full - 1,
                            full,
                            full + 1,
                            full + 2,
                            one - 2,
                            one - 1,
                            one,
                            one + 1,
                            one + 2,
                            one + full / 2 + 1,
                            one + full,
                            power(1),
                            power(1) + 1,
                            power(-fraction - 2),
                            power(-fraction - 1),
                            power(-fraction - 1) + 1,
                            power(-fraction),
                            power(fraction),
                            power(fraction + 1),
                            power(fraction + 1) + 1,
                            power(kind.bias()),
                            infinity - 2,
                            infinity - 1,
                            infinity,
                            kind.nan()};
  const size_t count = out.size();
  for (size_t i = 0; i < count; ++i) out.push_back(out[i] | kind.sign());
  return out;
}

bool is_finite(const Kind& kind, uint64_t bits) { return (bits & kind.nan()) < kind.infinity(); }

// Of infinities and NaNs only the kind of number matters, and double knows the rules.
double stand_in(const Kind& kind, uint64_t bits) {
  const double sign = (bits & kind.sign()) != 0 ? -1 : 1;
  const uint64_t magnitude = bits & kind.nan();
  if (magnitude > kind.infinity()) return std::numeric_limits<double>::quiet_NaN();
  if (magnitude == kind.infinity()) return sign * std::numeric_limits<double>::infinity();
  return magnitude == 0 ? sign * 0.0 : sign;
}

uint64_t special(const Kind& kind, double value) {
  return value != value ? kind.nan() : kind.infinity() | (value < 0 ? kind.sign() : 0);
}

void check_add(const Subject& subject, uint64_t a, uint64_t b) {
  const Kind& kind = subject.kind;
  const bool finite = is_finite(kind, a) && is_finite(kind, b);
  const auto sums =
      finite ? rounded_sums(kind, {term_of(kind, a), term_of(kind, b)}) : std::array<uint64_t, 4>{};
  for (const Round round : kRounds) {
    const uint64_t want = finite ? sums[static_cast<size_t>(round)]
                                 : special(kind, stand_in(kind, a) + stand_in(kind, b));
    const uint64_t got = subject.add(a, b, {.round = round});
    expect(got == want, subject.name, std::hex, " ", a, " + ", b, " = ", got, ", expected ", want);
  }
}

void check_fused(const Subject& subject, uint64_t a, uint64_t b, uint64_t c) {
  const Kind& kind = subject.kind;
  const bool finite = is_finite(kind, a) && is_finite(kind, b) && is_finite(kind, c);
  const auto sums =
      finite ? rounded_sums(kind, {product(term_of(kind, a), term_of(kind, b)), term_of(kind, c)})
             : std::array<uint64_t, 4>{};
  for (const Round round : kRounds) {
    const uint64_t want =
        finite ? sums[static_cast<size_t>(round)]
               : special(kind, stand_in(kind, a) * stand_in(kind, b) + stand_in(kind, c));
    const uint64_t got = subject.fused(a, b, c, {.round = round});
    expect(got == want, subject.name, std::hex, " ", a, " * ", b, " + ", c, " = ", got,
           ", expected ", want);
  }
}

void check_multiply(const Subject& subject, uint64_t a, uint64_t b) {
  const Kind& kind = subject.kind;
  const bool finite = is_finite(kind, a) && is_finite(kind, b);
  const auto products = finite ? rounded_sums(kind, {product(term_of(kind, a), term_of(kind, b))})
                               : std::array<uint64_t, 4>{};
  for (const Round round : kRounds) {
    const uint64_t want = finite ? products[static_cast<size_t>(round)]
                                 : special(kind, stand_in(kind, a) * stand_in(kind, b));
    const uint64_t got = subject.multiply(a, b, {.round = round});
    expect(got == want, subject.name, std::hex, " ", a, " * ", b, " = ", got, ", expected ", want);
  }
}

uint64_t random_bits(std::mt19937_64& random, const Kind& kind) {
  return random() & (kind.sign() | kind.nan());
}

}  // namespace

TEST(sums_and_products_of_edge_values_are_rounded_once) {
  for (const Subject& subject : subjects()) {
    const std::vector<uint64_t> values = edges(subject.kind);
    for (const uint64_t a : values) {
      for (const uint64_t b : values) {
        check_add(subject, a, b);
        check_multiply(subject, a, b);
      }
    }
  }
}

TEST(fused_products_of_edge_values_are_rounded_once) {
  for (const Subject& subject : subjects()) {
    const std::vector<uint64_t> values = edges(subject.kind);
    for (const uint64_t a : values) {
      for (const uint64_t b : values) {
        for (size_t i = (a ^ b) % 3; i < values.size(); i += 3) {
          check_fused(subject, a, b, values[i]);
        }
      }
    }
  }
}

TEST(arithmetic_on_random_values_is_rounded_once) {
  std::mt19937_64 random(1);
  constexpr int kTrials = 4000;
  for (const Subject& subject : subjects()) {
    const Kind& kind = subject.kind;
    for (int trial = 0; trial < kTrials; ++trial) {
      const uint64_t a = random_bits(random, kind);
      const uint64_t b = random_bits(random, kind);
      check_add(subject, a, b);
      check_multiply(subject, a, b);
      check_fused(subject, a, b, random_bits(random, kind));
      // The product but for its last bits: almost all of it cancels.
      const uint64_t near = subject.multiply(a, b, {}) ^ kind.sign();
      check_fused(subject, a, b, near);
      check_fused(subject, a, b, near + 1);
      // The same number but for its last bits.
      check_add(subject, a, (a ^ kind.sign()) + random() % 4);
    }
  }
}

TEST(divisions_and_roots_are_rounded_once) {
  std::mt19937_64 random(2);
  std::vector<uint64_t> values = edges(kSingle);
  constexpr int kRandomValues = 60;
  for (int i = 0; i < kRandomValues; ++i) values.push_back(random_bits(random, kSingle));
  for (const uint64_t a : values) {
    if (!is_finite(kSingle, a) || to_float(a) == 0) continue;
    const Term dividend = term_of(kSingle, a);
    Big left;
    left.add(dividend);
    for (const uint64_t b : values) {
      if (!is_finite(kSingle, b) || to_float(b) == 0) continue;
      const Term divisor = term_of(kSingle, b);
      const Located at = locate(kSingle, [&](const Term& quotient) {
        Big right;
        right.add(product(quotient, divisor));
        return compare(right, left);
      });
      for (const Round round : kRounds) {
        const uint64_t want = rounded(kSingle, dividend.negative != divisor.negative, at, round);
        const uint32_t got = bits_of(divide(to_float(a), to_float(b), {.round = round}));
        expect(got == want, std::hex, a, " / ", b, " = ", got, ", expected ", want);
      }
    }
    if (dividend.negative) continue;
    const Located at = locate(kSingle, [&](const Term& root) {
      Big square;
      square.add(product(root, root));
      return compare(square, left);
    });
    for (const Round round : kRounds) {
      const uint32_t got = bits_of(square_root(to_float(a), {.round = round}));
      expect(got == rounded(kSingle, false, at, round), std::hex, "root of ", a, " = ", got);
    }
  }
}

TEST(divisions_and_roots_know_zero_and_infinity) {
  for (const Round round : kRounds) {
    const Arithmetic how{.round = round};
    expect(divide(1, -0.0f, how) == -kInfinity, "1 / -0");
    expect(bits_of(divide(0.0f, 0.0f, how)) == kNan, "0 / 0");
    expect(bits_of(divide(kInfinity, kInfinity, how)) == kNan, "infinity / infinity");
    expect(bits_of(divide(-3, kInfinity, how)) == 0x80000000, "-3 / infinity");
    expect(bits_of(divide(0.0f, -3, how)) == 0x80000000, "0 / -3");
    expect(bits_of(square_root(-0.0f, how)) == 0x80000000, "root of -0");
    expect(square_root(kInfinity, how) == kInfinity, "root of infinity");
    expect(bits_of(square_root(-1, how)) == kNan, "root of -1");
  }
}

TEST(ftz_flushes_what_comes_in_and_what_goes_out) {
  const Arithmetic ftz{.flushes = true};
  const float least = 0x1p-126f;
  const float subnormal = 0x1p-127f;
  expect(add(subnormal, subnormal, ftz) == 0, "f32 operands");
  expect(bits_of(multiply(-least, 0.5f, ftz)) == 0x80000000, "f32 result keeps its sign");
  expect(fused(subnormal, 4.0f, least, ftz) == least, "f32 fused");
  expect(add(subnormal, subnormal, {}) == least, "f32 without ftz");
  expect(divide(subnormal, 0x1p-149f, {}) == 0x1p22f, "f32 quotient without ftz");
  expect(bits_of(divide(subnormal, 0x1p-149f, ftz)) == kNan, "f32 quotient: 0 / 0");
  expect(square_root(subnormal, ftz) == 0, "f32 root");
  expect(add(Half::kF16, 0x0200, 0x0200, ftz) == 0, "f16 operands");
  expect(multiply(Half::kF16, 0x8400, 0x3800, ftz) == 0x8000, "f16 result");
  expect(add(Half::kF16, 0x0200, 0x0200, {}) == 0x0400, "f16 without ftz");
  expect(narrow(Half::kF16, 0x1p-24f, ftz) == 1, "a float16 made of a float32 stays subnormal");
  expect(narrow(Half::kBf16, subnormal, ftz) == 0, "a subnormal float32 is flushed");
  expect(narrow(Half::kBf16, subnormal, {}) == 0x0040, "and otherwise kept");
}

TEST(sat_and_relu_clamp) {
  const Arithmetic sat{.saturates = true};
  expect(add(0.75f, 0.5f, sat) == 1, "above 1");
  expect(bits_of(add(-0.75f, 0.5f, sat)) == 0, "below 0");
  expect(add(0.25f, 0.5f, sat) == 0.75f, "between");
  expect(bits_of(multiply(-0.0f, 1.0f, sat)) == 0, "-0");
  expect(bits_of(add(kInfinity, -kInfinity, sat)) == 0, "NaN");
  expect(bits_of(fused(kInfinity, 1.0f, 0.0f, sat)) == bits_of(1), "infinity");
  expect(fused(Half::kF16, 0x4000, 0x4000, 0xC400, sat) == 0, "f16 0");
  expect(fused(Half::kF16, 0x4000, 0x4000, 0, sat) == 0x3C00, "f16 1");
  const Arithmetic relu{.relu = true};
  expect(fused(Half::kF16, 0xBC00, 0x3C00, 0, relu) == 0, "f16 negative");
  expect(fused(Half::kF16, 0x3C00, 0x3C00, 0, relu) == 0x3C00, "f16 positive");
  expect(fused(Half::kBf16, 0x7F80, 0, 0, relu) == 0x7FFF, "bf16 NaN stays");
  expect(narrow(Half::kF16, -2, relu) == 0, "narrowed negative");
}

TEST(minimum_and_maximum_order_zeros_and_pass_over_nan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  expect(bits_of(minimum(0.0f, -0.0f, false, false)) == 0x80000000, "min(0, -0)");
  expect(bits_of(minimum(-0.0f, 0.0f, false, false)) == 0x80000000, "min(-0, 0)");
  expect(bits_of(maximum(0.0f, -0.0f, false, false)) == 0, "max(0, -0)");
  expect(bits_of(maximum(-0.0f, 0.0f, false, false)) == 0, "max(-0, 0)");
  expect(minimum(nan, 2, false, false) == 2 && minimum(2, nan, false, false) == 2, "a number");
  expect(bits_of(maximum(nan, nan, false, false)) == kNan, "two NaNs");
  expect(bits_of(maximum(nan, 2, false, true)) == kNan, ".NaN");
  expect(minimum(-3, 2, false, true) == -3 && maximum(-3, 2, false, true) == 2, "numbers");
  expect(minimum(0x1p-127f, 1, false, false) == 0x1p-127f, "a subnormal number");
  expect(minimum(0x1p-127f, 1, true, false) == 0, "flushed");
  expect(minimum(Half::kF16, 0x0000, 0x8000, false, false) == 0x8000, "f16 zeros");
  expect(maximum(Half::kF16, 0x7E00, 0xBC00, false, false) == 0xBC00, "f16 a number");
  expect(maximum(Half::kBf16, 0x7FC0, 0x3F80, false, true) == 0x7FFF, "bf16 .NaN");
  expect(maximum(Half::kF16, 0x8001, 0x0001, true, false) == 0, "f16 flushed");
}

TEST(approximate_functions_know_their_special_values) {
  const auto at = [](Approximation function, float x) { return approximate(function, x, false); };
  expect(bits_of(at(Approximation::kExp2, -kInfinity)) == 0, "ex2(-infinity)");
  expect(at(Approximation::kExp2, kInfinity) == kInfinity, "ex2(infinity)");
  expect(at(Approximation::kExp2, -0.0f) == 1 && at(Approximation::kExp2, 3) == 8,
         "ex2 of integers");
  expect(at(Approximation::kExp2, -149) == 0x1p-149f, "ex2 subnormal");
  expect(approximate(Approximation::kExp2, -149, true) == 0, "ex2 flushed");
  expect(at(Approximation::kLog2, 0) == -kInfinity && at(Approximation::kLog2, -0.0f) == -kInfinity,
         "lg2(0)");
  expect(bits_of(at(Approximation::kLog2, -1)) == kNan, "lg2(-1)");
  expect(at(Approximation::kLog2, 0x1p-149f) == -149, "lg2 of a subnormal number");
  expect(approximate(Approximation::kLog2, 0x1p-149f, true) == -kInfinity, "lg2 flushed");
  expect(at(Approximation::kReciprocal, -0.0f) == -kInfinity, "rcp(-0)");
  expect(bits_of(at(Approximation::kReciprocal, -kInfinity)) == 0x80000000, "rcp(-infinity)");
  expect(at(Approximation::kReciprocal, 3) == 1.0f / 3.0f, "rcp(3)");
  expect(at(Approximation::kReciprocalRoot, -0.0f) == -kInfinity, "rsqrt(-0)");
  expect(bits_of(at(Approximation::kReciprocalRoot, kInfinity)) == 0, "rsqrt(infinity)");
  expect(bits_of(at(Approximation::kReciprocalRoot, -1)) == kNan, "rsqrt(-1)");
  expect(at(Approximation::kReciprocalRoot, 16) == 0.25f, "rsqrt(16)");
  expect(bits_of(at(Approximation::kSine, -0.0f)) == 0x80000000, "sin(-0)");
  expect(bits_of(at(Approximation::kSine, kInfinity)) == kNan, "sin(infinity)");
  expect(at(Approximation::kCosine, 0) == 1, "cos(0)");
  expect(at(Approximation::kTanh, -kInfinity) == -1, "tanh(-infinity)");
  expect(at(Approximation::kTanh, 0.5f) == 0.46211715726f, "tanh(0.5)");
  expect(approximate(Half::kF16, Approximation::kExp2, 0xCC00, false) == 0x0100, "f16 ex2(-16)");
  expect(approximate(Half::kF16, Approximation::kExp2, 0xCC00, true) == 0, "f16 ex2(-16), flushed");
  expect(approximate(Half::kBf16, Approximation::kTanh, 0x7FFF, false) == 0x7FFF, "bf16 tanh(NaN)");
}

}  // namespace ptx::test
