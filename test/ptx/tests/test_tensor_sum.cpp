// Sums of floats against hand-computed ones, and against the same model in double.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "../src/floats.h"
#include "../src/tensor_core.h"
#include "check.h"
#include "exact.h"

namespace ptx::test {
namespace {

constexpr Generation kGenerations[] = {Generation::kExact, Generation::kAmpere,
                                       Generation::kHopper};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Product {
  float a, b;
  int at = -1;  // along k; else after the one before
};

uint16_t narrow_exactly(Half format, float value) {
  const uint16_t bits = narrow(format, value, {});
  expect(widen(format, bits) == value || value != value, value, " is no such number");
  return bits;
}

// c + the products, all other elements of 16 along k being 0.
float dot_of(Generation generation, Half format, float c, const std::vector<Product>& products) {
  constexpr int kLength = 16;
  uint16_t a[kLength] = {};
  uint16_t b[kLength] = {};
  int next = 0;
  for (const Product& product : products) {
    if (product.at >= 0) next = product.at;
    a[next] = narrow_exactly(format, product.a);
    b[next] = narrow_exactly(format, product.b);
    ++next;
  }
  const Element element = format == Half::kF16 ? Element::kF16 : Element::kBf16;
  return dot(generation, element, a, b, kLength, c);
}

struct Wants {
  float exact, ampere, hopper;
};

void check_dot(const char* what, Half format, float c, const std::vector<Product>& products,
               const Wants& wants) {
  const float want[] = {wants.exact, wants.ampere, wants.hopper};
  for (int i = 0; i < 3; ++i) {
    const float got = dot_of(kGenerations[i], format, c, products);
    expect(std::bit_cast<uint32_t>(got) == std::bit_cast<uint32_t>(want[i]), what, ", generation ",
           i, ": ", std::hexfloat, got, ", expected ", want[i]);
  }
}

constexpr Mma kHalfSums{16, 8, 16, Element::kF16, Element::kF16, Element::kF16, Element::kF16};

// Row 0, column 0 of an m16n8k16 with float16 sums.
uint16_t half_sum(Generation generation, float c, const std::vector<Product>& products) {
  Fragment a = {};
  Fragment b = {};
  Fragment d = {};
  d[0][0] = narrow_exactly(Half::kF16, c);
  for (const Product& product : products) {
    const int lane = product.at % 8 / 2;  // both of A's row 0 and B's column 0
    const int shift = product.at % 2 * 16;
    a[product.at / 8 * 2][lane] |= uint32_t{narrow_exactly(Half::kF16, product.a)} << shift;
    b[product.at / 8][lane] |= uint32_t{narrow_exactly(Half::kF16, product.b)} << shift;
  }
  multiply(kHalfSums, generation, a, b, d, d);
  return static_cast<uint16_t>(d[0][0]);
}

// The model in double: of a number its exponent, that of the smallest normal one for less.
int exponent_of(double value, int smallest_exponent) {
  return value == 0 ? -10000 : std::max(std::ilogb(value), smallest_exponent);
}

float truncated_block(Half format, const double* a, const double* b, int count, float c,
                      int extra_bits) {
  constexpr int kFloatSmallest = -126;
  const int smallest_exponent = format == Half::kF16 ? -14 : kFloatSmallest;
  int top = c == 0 ? kFloatSmallest : exponent_of(c, kFloatSmallest);
  for (int i = 0; i < count; ++i) {
    top =
        std::max(top, exponent_of(a[i], smallest_exponent) + exponent_of(b[i], smallest_exponent));
  }
  const int unit = top - 23 - extra_bits;
  double sum = std::trunc(std::ldexp(double{c}, -unit));
  for (int i = 0; i < count; ++i) sum += std::trunc(std::ldexp(a[i] * b[i], -unit));
  sum = std::ldexp(sum, unit);
  const float nearest = static_cast<float>(sum);
  return std::abs(double{nearest}) > std::abs(sum) ? std::nextafter(nearest, 0.0f) : nearest;
}

// Numbers of similar size in some trials, of all sizes in others, and zeros and subnormals among
// them.
uint16_t random_half(Half format, std::mt19937& random, int spread) {
  const auto bits = static_cast<uint32_t>(random());
  if (bits % 16 == 0) return static_cast<uint16_t>((bits >> 16) & 0x8003);
  const int fraction_bits = format == Half::kF16 ? 10 : 7;
  const int bias = format == Half::kF16 ? 15 : 127;
  const int field = std::clamp(
      bias - spread + static_cast<int>((bits >> 4) % 64 * 2u) * spread / 64, 0, 2 * bias);
  const uint32_t fraction = (bits >> 10) & ((1u << fraction_bits) - 1);
  return static_cast<uint16_t>((bits >> 31 << 15) | static_cast<uint32_t>(field) << fraction_bits |
                               fraction);
}

}  // namespace

TEST(bits_below_the_largest_term_are_lost_by_generation) {
  const Product tiny24{0x1p-12f, 0x1p-12f};
  const Product tiny25{0x1p-12f, 0x1p-13f};
  const Product tiny26{0x1p-13f, 0x1p-13f};
  const float next = 1 + 0x1p-23f;
  check_dot("2^-24 once", Half::kF16, 1, {tiny24}, {1, 1, 1});
  check_dot("2^-24 twice", Half::kF16, 1, {tiny24, tiny24}, {next, next, next});
  check_dot("2^-25 four times", Half::kF16, 1, {tiny25, tiny25, tiny25, tiny25}, {next, 1, next});
  check_dot("2^-26 eight times", Half::kF16, 1, std::vector<Product>(8, tiny26), {next, 1, 1});
}

TEST(blocks_follow_one_another) {
  const Product first{0x1p-12f, 0x1p-12f, 0};
  const Product second{0x1p-12f, 0x1p-12f, 8};
  const float next = 1 + 0x1p-23f;
  check_dot("2^-24 in each half", Half::kF16, 1, {first, second}, {next, 1, next});
  check_dot("and in bf16", Half::kBf16, 1, {first, second}, {next, 1, next});
}

TEST(sums_are_truncated_toward_zero) {
  const Product minus24{-0x1p-12f, 0x1p-12f};
  const float next = -1 - 0x1p-23f;
  check_dot("-1 - 3 2^-24", Half::kF16, -1, {minus24, minus24, minus24},
            {-1 - 0x1p-22f, next, next});
  check_dot("1 + 3 2^-24", Half::kF16, 1, std::vector<Product>(3, {0x1p-12f, 0x1p-12f}),
            {1 + 0x1p-22f, -next, -next});
}

TEST(terms_are_truncated_toward_zero) {
  // 3 2^-26 is three quarters of Ampere's unit and one and a half of Hopper's.
  const Product minus{-3 * 0x1p-13f, 0x1p-13f};
  const float before = 1 - 0x1p-24f;
  check_dot("1 - 3 2^-26", Half::kF16, 1, {minus}, {before, 1, before});
  check_dot("-1 + 3 2^-26", Half::kF16, -1, {{3 * 0x1p-13f, 0x1p-13f}}, {-before, -1, -before});
}

TEST(products_are_not_normalised) {
  // 1.5 1.5 = 2.25 has the exponent 0 + 0: 2^-24 is a unit of Ampere's. 4 = 2 2 has 1 + 1.
  const Product tiny{0x1p-12f, 0x1p-12f};
  check_dot("2.25 - 2.25 + 2^-24", Half::kF16, 0, {{1.5f, 1.5f}, {-1.5f, 1.5f}, tiny},
            {0x1p-24f, 0x1p-24f, 0x1p-24f});
  check_dot("4 - 4 + 2^-24", Half::kF16, 0, {{2, 2}, {-2, 2}, tiny}, {0x1p-24f, 0, 0});
}

TEST(subnormal_halves_enter_exactly_and_not_normalised) {
  for (int u = 0; u < 16; ++u) {
    const float weight = static_cast<float>(u) * 0x1p-24f;
    for (const float activation : {1.0f, -1.984375f, 0.0103759765625f}) {
      const float want = weight * activation + 0.0f;
      check_dot("u 2^-24 of weights", Half::kF16, 0, {{activation, weight}}, {want, want, want});
    }
  }
  // 2^-24 counts as 2^-10 2^-14, so Ampere's unit is 2^-38 and Hopper's 2^-39.
  check_dot("2^-24 + 2^-39", Half::kF16, 0, {{0x1p-24f, 1}, {0x1p-24f, 0x1p-15f}},
            {0x1p-24f + 0x1p-39f, 0x1p-24f, 0x1p-24f + 0x1p-39f});
}

TEST(tiny_sums_are_aligned_to_a_subnormal_accumulator) {
  const float least = 0x1p-149f;
  check_dot("subnormal float32", Half::kBf16, least, {{0x1p-100f, 0x1p-49f}},
            {2 * least, 2 * least, 2 * least});
  // A zero counts as 2^-126, so Ampere's unit is half the least float32 and Hopper's a quarter.
  const Product three_quarters{3 * 0x1p-76f, 0x1p-75f};
  check_dot("four times 3/4", Half::kBf16, 0, std::vector<Product>(4, three_quarters),
            {3 * least, 2 * least, 3 * least});
}

TEST(exact_sums_span_all_exponents) {
  check_dot("2^120 - 2^120 + 2^-120", Half::kBf16, 0,
            {{0x1p100f, 0x1p20f}, {0x1p-100f, 0x1p-20f}, {-0x1p100f, 0x1p20f}}, {0x1p-120f, 0, 0});
  check_dot("2^250 - 2^250 - 2^-140", Half::kBf16, 0,
            {{0x1p125f, 0x1p125f}, {-0x1p-70f, 0x1p-70f}, {-0x1p125f, 0x1p125f}},
            {-0x1p-140f, 0, 0});
  // 255 255 15 = 975375, above 1: 55 binades in each operand.
  std::vector<Product> large(15, {255 * 0x1p48f, 255 * 0x1p48f});
  large.push_back({1, 1});
  const float sum = 975375 * 0x1p96f;
  check_dot("fifteen large and a small one", Half::kBf16, 0, large, {sum, sum, sum});
}

TEST(infinities_and_nans_come_out) {
  const float nan = std::bit_cast<float>(0x7FFFFFFFu);
  const auto all = [](float value) { return Wants{value, value, value}; };
  check_dot("infinity", Half::kF16, 1, {{kInfinity, 2}}, all(kInfinity));
  check_dot("of a and of c", Half::kF16, -kInfinity, {{kInfinity, -2}}, all(-kInfinity));
  check_dot("c", Half::kF16, kInfinity, {{1, 1}}, all(kInfinity));
  check_dot("infinity - infinity", Half::kF16, 0, {{kInfinity, 1}, {kInfinity, -1}}, all(nan));
  check_dot("in two blocks", Half::kF16, 0, {{kInfinity, 1, 0}, {kInfinity, -1, 8}}, all(nan));
  check_dot("infinity 0", Half::kF16, 0, {{kInfinity, 0}}, all(nan));
  check_dot("NaN", Half::kBf16, 0, {{nan, 0}}, all(nan));
  check_dot("NaN in c", Half::kBf16, nan, {{1, 1}}, all(nan));
  check_dot("overflow", Half::kBf16, 0, {{-0x1p64f, 0x1p64f}}, all(-kInfinity));
  const float most = std::numeric_limits<float>::max();
  check_dot("the largest", Half::kBf16, most, {{1, 1}}, all(most));
  check_dot("in the first block", Half::kBf16, most,
            {{0x1p64f, 0x1p62f, 0}, {-0x1p64f, 0x1p62f, 8}}, {most, kInfinity, most});
}

TEST(float16_sums_are_rounded_to_nearest_even) {
  const Product half_place{0x1p-11f, 1, 0};
  for (const Generation generation : kGenerations) {
    expect(half_sum(generation, 1, {half_place}) == 0x3C00, "1 + half a place");
    expect(half_sum(generation, -1, {{-0x1p-11f, 1, 0}}) == 0xBC00, "-1 - half a place");
    expect(half_sum(generation, 1, {half_place, {0x1p-10f, 0x1p-10f, 1}}) == 0x3C01, "and more");
    expect(half_sum(generation, 65504, {{16, 1, 3}}) == 0x7C00, "overflow");
    expect(half_sum(generation, 65504, {{8, 1, 3}}) == 0x7BFF, "no overflow yet");
    expect(half_sum(generation, 0, {{0x1p-24f, 1, 2}}) == 0x0001, "subnormal");
    expect(half_sum(generation, 0, {{kInfinity, 0, 2}}) == 0x7FFF, "NaN");
  }
  const std::vector<Product> in_each_block{half_place, {0x1p-11f, 1, 8}};
  expect(half_sum(Generation::kAmpere, 1, in_each_block) == 0x3C00, "Ampere rounds each block");
  expect(half_sum(Generation::kHopper, 1, in_each_block) == 0x3C01, "Hopper has one block");
  expect(half_sum(Generation::kExact, 1, in_each_block) == 0x3C01, "exact");
}

TEST(tf32_has_blocks_of_half_the_length_and_ignores_low_bits) {
  const Mma mma{16, 8, 8, Element::kTf32, Element::kTf32, Element::kF32, Element::kF32};
  const float wants[] = {1 + 0x1p-23f, 1, 1 + 0x1p-23f};
  for (int i = 0; i < 3; ++i) {
    Fragment a = {};
    Fragment b = {};
    Fragment c = {};
    // 2^-24 at k 0 and k 4 of row 0 and column 0, 1 at k 0 of row 1.
    a[0][0] = a[2][0] = std::bit_cast<uint32_t>(0x1p-24f) | 0x1FFF;
    a[0][4] = std::bit_cast<uint32_t>(1.0f) | 0x1FFF;
    b[0][0] = b[1][0] = std::bit_cast<uint32_t>(1.0f) | 0x1FFF;
    c[0][0] = std::bit_cast<uint32_t>(1.0f);
    multiply(mma, kGenerations[i], a, b, c, c);
    expect(std::bit_cast<float>(c[0][0]) == wants[i], "generation ", i);
    expect(std::bit_cast<float>(c[0][4]) == 1, "low bits, generation ", i);
  }
}

TEST(what_is_beyond_the_last_number_adds_nothing) {
  std::mt19937 random(4);
  constexpr int kLength = 16;
  for (const Generation generation : {Generation::kAmpere, Generation::kHopper}) {
    for (int length = 1; length < kLength; ++length) {
      uint16_t a[kLength];
      uint16_t b[kLength];
      for (int i = 0; i < kLength; ++i) {
        a[i] = random_half(Half::kF16, random, 5);
        b[i] = random_half(Half::kF16, random, 5);
      }
      dot(generation, Element::kF16, a, b, kLength, 0.75f);  // what the next one must forget
      const float sum = dot(generation, Element::kF16, a, b, length, 0.75f);
      std::fill(a + length, a + kLength, uint16_t{0});
      const float padded = dot(generation, Element::kF16, a, b, kLength, 0.75f);
      expect(sum == padded, length, " numbers: ", sum, ", with zeros ", padded);
    }
  }
}

TEST(random_sums_follow_their_definitions) {
  std::mt19937 random(3);
  constexpr int kTrials = 4000;
  constexpr int kLength = 16;
  for (const Half format : {Half::kF16, Half::kBf16}) {
    const Element element = format == Half::kF16 ? Element::kF16 : Element::kBf16;
    const Kind& kind = format == Half::kF16 ? kBinary16 : kBrain;
    for (int trial = 0; trial < kTrials; ++trial) {
      const int spread = trial % 4 < 3 ? 2 + trial % 29 : kind.bias() * 9 / 10 / (trial % 3 + 1);
      uint16_t a[kLength];
      uint16_t b[kLength];
      double left[kLength];
      double right[kLength];
      std::vector<Term> terms;
      for (int i = 0; i < kLength; ++i) {
        a[i] = random_half(format, random, spread);
        b[i] = random_half(format, random, spread);
        left[i] = widen(format, a[i]);
        right[i] = widen(format, b[i]);
        terms.push_back(product(term_of(kind, a[i]), term_of(kind, b[i])));
      }
      // Sometimes what cancels most of the sum.
      const float random_c = widen(format, random_half(format, random, spread)) * 1.2345678f;
      const float c =
          trial % 3 == 0 ? -dot(Generation::kExact, element, a, b, kLength, 0) : random_c;
      if (!std::isfinite(c)) continue;
      const uint32_t c_bits = std::bit_cast<uint32_t>(c);
      terms.push_back(term_of(kSingle, c_bits));

      const float exact = dot(Generation::kExact, element, a, b, kLength, c);
      const float want_exact = std::bit_cast<float>(static_cast<uint32_t>(
          rounded_sums(kSingle, terms)[static_cast<size_t>(Round::kNearest)]));
      expect(exact == want_exact, "exact: ", exact, ", expected ", want_exact);

      const float middle = truncated_block(format, left, right, 8, c, 1);
      const float want_ampere = truncated_block(format, left + 8, right + 8, 8, middle, 1);
      const float ampere = dot(Generation::kAmpere, element, a, b, kLength, c);
      if (std::isfinite(want_ampere)) {
        expect(ampere == want_ampere, "Ampere: ", ampere, ", expected ", want_ampere);
      }
      const float want_hopper = truncated_block(format, left, right, kLength, c, 2);
      const float hopper = dot(Generation::kHopper, element, a, b, kLength, c);
      if (std::isfinite(want_hopper)) {
        expect(hopper == want_hopper, "Hopper: ", hopper, ", expected ", want_hopper);
      }
    }
  }
}

}  // namespace ptx::test
