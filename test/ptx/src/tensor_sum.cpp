// Two ways to sum: exactly, and block after block with the few bits that the hardware keeps.
//
// The model of the hardware is that of the published measurements of A100, Ada and H100 (see
// "MMA-Sim", Xie et al.): the products of a block and the accumulator are aligned to the largest
// exponent among them, truncated toward zero, summed as integers, and the sum is truncated to
// float32 or rounded to nearest even to float16.

#include "tensor_sum.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "floats.h"
#include "rounding.h"

namespace ptx {
namespace {

// No product with a zero has the largest exponent.
constexpr int kExponentOfZero = -10000;

constexpr int kFloatFractionBits = 23;

struct Layout {
  int fraction_bits;
  int exponent_bits;
  int unused_bits;  // below the fraction
};

Layout layout_of(Element format) {
  switch (format) {
    case Element::kF16:
      return {10, 5, 0};
    case Element::kBf16:
      return {7, 8, 0};
    default:
      return {10, 8, 13};  // tf32
  }
}

float value_of(Element format, uint32_t bits) {
  if (format == Element::kF16) return widen(Half::kF16, static_cast<uint16_t>(bits));
  if (format == Element::kBf16) return widen(Half::kBf16, static_cast<uint16_t>(bits));
  constexpr uint32_t kTf32Bits = ~uint32_t{0x1FFF};
  return std::bit_cast<float>(bits & kTf32Bits);
}

const Format& result_format(Element result) {
  return result == Element::kF16 ? kFloat16 : kFloat32;
}

struct Accumulator {
  bool negative;
  uint32_t significand;
  int exponent;  // of the bit before the fraction, also where that bit is 0
};

Accumulator take_apart(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const int field = static_cast<int>((bits >> kFloatFractionBits) & 0xFF);
  const uint32_t fraction = bits & ((1u << kFloatFractionBits) - 1);
  return {(bits >> 31) != 0, field == 0 ? fraction : fraction | 1u << kFloatFractionBits,
          std::max(field, 1) - 127};
}

double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

// With an infinity or a NaN among the numbers: double holds every product, and adds no overflow.
uint32_t special_sum(Element result, const Terms& a, const Terms& b, int first, int last,
                     double sum) {
  for (int i = first; i < last; ++i) {
    sum += double{value_of(a.format, a.bits[i])} * value_of(b.format, b.bits[i]);
  }
  return static_cast<uint32_t>(encode(result_format(result), sum, Arithmetic{}));
}

// A sum without any rounding, of terms between 2^kLowest, the product of two subnormal tf32, and
// 2^256, the bound of the product of the two largest: 528 bits, and room for carries.
class LongSum {
 public:
  void add(bool negative, uint32_t significand, int exponent) {
    Words& words = negative ? negative_ : positive_;
    const int position = exponent - kLowest;
    Wide carry = Wide{significand} << (position % 64);
    for (size_t i = static_cast<size_t>(position / 64); carry != 0; ++i) {
      carry += words[i];
      words[i] = static_cast<uint64_t>(carry);
      carry >>= 64;
    }
  }

  // Rounded to odd.
  Exact value() const {
    const bool negative = std::lexicographical_compare(positive_.rbegin(), positive_.rend(),
                                                       negative_.rbegin(), negative_.rend());
    const Words words =
        negative ? difference(negative_, positive_) : difference(positive_, negative_);
    size_t top = kWords - 1;
    while (top > 1 && words[top] == 0) --top;
    Wide significand = Wide{words[top]} << 64 | words[top - 1];
    const bool is_exact =
        std::all_of(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(top) - 1,
                    [](uint64_t word) { return word == 0; });
    if (!is_exact) significand |= 1;
    return {negative, significand, kLowest + 64 * static_cast<int>(top - 1)};
  }

 private:
  static constexpr int kLowest = -272;
  static constexpr size_t kWords = 9;
  using Words = std::array<uint64_t, kWords>;

  static Words difference(const Words& larger, const Words& smaller) {
    Words out;
    uint64_t borrow = 0;
    for (size_t i = 0; i < kWords; ++i) {
      const Wide word = Wide{larger[i]} - smaller[i] - borrow;
      out[i] = static_cast<uint64_t>(word);
      borrow = static_cast<uint64_t>(word >> 64) & 1;
    }
    return out;
  }

  Words positive_{};
  Words negative_{};
};

Exact long_sum(const Terms& a, const Terms& b, const Accumulator& c) {
  LongSum sum;
  for (int i = 0; i < a.count; ++i) {
    const uint32_t product = a.significand[i] * b.significand[i];
    if (product == 0) continue;
    sum.add(a.sign[i] != b.sign[i], product,
            a.exponent[i] + b.exponent[i] - a.fraction_bits - b.fraction_bits);
  }
  sum.add(c.negative, c.significand, c.exponent - kFloatFractionBits);
  return sum.value();
}

// Where numbers of at most 48 bits make at most 16 products, the sum has at most 100 bits, few
// enough for `sum` to lose nothing that matters.
Exact fixed_sum(const FixedTerms& a, const FixedTerms& b, int count, const Accumulator& c) {
  __int128 total = 0;
  for (int i = 0; i < count; ++i) total += __int128{a.value[i]} * b.value[i];
  const bool negative = total < 0;
  const Exact products{negative, negative ? -static_cast<Wide>(total) : static_cast<Wide>(total),
                       a.exponent + b.exponent};
  const Exact start{c.negative, c.significand, c.exponent - kFloatFractionBits};
  return sum(products, start, Round::kNearest);
}

// Compiled for CPUs with AVX2, too, and chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define PTX_VECTORIZED __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define PTX_VECTORIZED
#endif

// Products of a block that are aligned to the largest exponent of all and of the accumulator, in
// units of 2^-up of their own last place. No sum of them reaches 2^31.
struct Aligned {
  int largest;
  int32_t sum;
};

template <int kCount>
inline __attribute__((always_inline)) Aligned align(const Terms& a, const Terms& b, int first,
                                                    int start, int up) {
  // A shift by 31 clears what a longer one would.
  constexpr int kLongestShift = 31;
  int32_t exponent[kCount];
  int largest = start;
  for (int i = 0; i < kCount; ++i) {
    exponent[i] = a.exponent[first + i] + b.exponent[first + i];
    largest = std::max(largest, exponent[i]);
  }
  int32_t sum = 0;
  for (int i = 0; i < kCount; ++i) {
    const uint32_t product = (a.significand[first + i] * b.significand[first + i]) << up;
    const auto aligned =
        static_cast<int32_t>(product >> std::min(largest - exponent[i], kLongestShift));
    const int32_t sign = a.sign[first + i] ^ b.sign[first + i];
    sum += (aligned ^ sign) - sign;
  }
  return {largest, sum};
}

PTX_VECTORIZED Aligned align_4(const Terms& a, const Terms& b, int first, int start, int up) {
  return align<4>(a, b, first, start, up);
}
PTX_VECTORIZED Aligned align_8(const Terms& a, const Terms& b, int first, int start, int up) {
  return align<8>(a, b, first, start, up);
}
PTX_VECTORIZED Aligned align_16(const Terms& a, const Terms& b, int first, int start, int up) {
  return align<16>(a, b, first, start, up);
}

// Truncated toward zero; from 2^128 on an infinity, for truncation stops at no largest number.
// Without a branch, which nobody could foresee.
uint32_t truncate(double value) {
  const auto nearest = static_cast<float>(value);
  const uint32_t is_beyond = std::abs(double{nearest}) > std::abs(value);
  const uint32_t is_finite = std::abs(value) < 0x1p128;
  return std::bit_cast<uint32_t>(nearest) - (is_beyond & is_finite);
}

// `length` terms from `first` on and the accumulator, in units of 2^-extra_bits of the last place
// of a float32 with the largest exponent. A zero accumulator counts with the exponent of the
// subnormal numbers.
uint32_t sum_one_block(Element result, const Terms& a, const Terms& b, int first, int length,
                       float c, int extra_bits) {
  const Accumulator start = take_apart(c);
  const int up = kFloatFractionBits + extra_bits - a.fraction_bits - b.fraction_bits;
  const auto align = length == 4 ? align_4 : length == 8 ? align_8 : align_16;
  const auto [largest, sum] = align(a, b, first, start.exponent, up);
  const int64_t magnitude =
      (start.significand << extra_bits) >> std::min(largest - start.exponent, 31);
  const int64_t total = sum + (start.negative ? -magnitude : magnitude);
  // Exact: a double has room for the sum, and for units from 2^-151 to 2^230.
  const double value =
      static_cast<double>(total) * power_of_two(largest - kFloatFractionBits - extra_bits);
  if (result == Element::kF32) return truncate(value);
  return static_cast<uint32_t>(encode(kFloat16, value, Round::kNearest));
}

// Products that are added at once.
int block_length(Generation generation, Element format) {
  const int halves = generation == Generation::kAmpere ? 8 : 16;
  return format == Element::kTf32 ? halves / 2 : halves;
}

}  // namespace

Terms take_apart(Element format, const uint32_t* bits, int count) {
  const Layout layout = layout_of(format);
  const uint32_t fraction_mask = (1u << layout.fraction_bits) - 1;
  const uint32_t exponent_mask = (1u << layout.exponent_bits) - 1;
  const int bias = static_cast<int>(exponent_mask >> 1);
  Terms terms;
  terms.format = format;
  terms.bits = bits;
  terms.count = count;
  terms.fraction_bits = layout.fraction_bits;
  bool is_finite = true;
  for (int i = 0; i < count; ++i) {
    const uint32_t number = bits[i] >> layout.unused_bits;
    const uint32_t fraction = number & fraction_mask;
    const uint32_t field = (number >> layout.fraction_bits) & exponent_mask;
    const uint32_t sign = (number >> (layout.fraction_bits + layout.exponent_bits)) & 1;
    const uint32_t significand = fraction | (field != 0 ? fraction_mask + 1 : 0);
    is_finite &= field != exponent_mask;
    terms.significand[i] = significand;
    terms.sign[i] = -static_cast<int32_t>(sign);
    terms.exponent[i] =
        significand == 0 ? kExponentOfZero : static_cast<int>(std::max(field, 1u)) - bias;
  }
  for (int i = count; i < kMaxTerms; ++i) {
    terms.significand[i] = 0;
    terms.sign[i] = 0;
    terms.exponent[i] = kExponentOfZero;
  }
  terms.is_finite = is_finite;
  return terms;
}

FixedTerms to_fixed(const Terms& terms) {
  constexpr int kFixedBits = 48;
  int smallest = -kExponentOfZero;
  int largest = kExponentOfZero;
  for (int i = 0; i < terms.count; ++i) {
    if (terms.significand[i] == 0) continue;
    smallest = std::min(smallest, terms.exponent[i]);
    largest = std::max(largest, terms.exponent[i]);
  }
  FixedTerms fixed;
  fixed.exponent = smallest - terms.fraction_bits;
  fixed.fits = largest - smallest + terms.fraction_bits + 1 <= kFixedBits;
  for (int i = 0; i < terms.count && fixed.fits; ++i) {
    const int64_t magnitude = terms.significand[i] == 0
                                  ? 0
                                  : int64_t{terms.significand[i]} << (terms.exponent[i] - smallest);
    fixed.value[i] = (magnitude ^ terms.sign[i]) - terms.sign[i];
  }
  return fixed;
}

uint32_t exact_sum(Element result, const Terms& a, const FixedTerms& fixed_a, const Terms& b,
                   const FixedTerms& fixed_b, float c) {
  if (!a.is_finite || !b.is_finite || !std::isfinite(c)) {
    return special_sum(result, a, b, 0, a.count, c);
  }
  const Accumulator start = take_apart(c);
  const Exact sum = fixed_a.fits && fixed_b.fits ? fixed_sum(fixed_a, fixed_b, a.count, start)
                                                 : long_sum(a, b, start);
  return static_cast<uint32_t>(encode(result_format(result), sum, Round::kNearest));
}

uint32_t block_sum(Generation generation, Element result, const Terms& a, const Terms& b, float c) {
  const int length = block_length(generation, a.format);
  const int extra_bits = generation == Generation::kAmpere ? 1 : 2;
  uint32_t bits = 0;
  for (int first = 0; first < a.count; first += length) {
    const bool is_finite = a.is_finite && b.is_finite && std::isfinite(c);
    bits = is_finite ? sum_one_block(result, a, b, first, length, c, extra_bits)
                     : special_sum(result, a, b, first, std::min(first + length, a.count), c);
    c = result == Element::kF16 ? widen(Half::kF16, static_cast<uint16_t>(bits))
                                : std::bit_cast<float>(bits);
  }
  return bits;
}

}  // namespace ptx
