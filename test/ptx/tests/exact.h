// What rounding means, by the order of numbers: of all numbers of a format the two around the true
// value are found by bisection, and compared with it in integers of 4400 bits. Slow, and shares
// nothing with the code under test but the names of the rounding modes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "../src/floats.h"

namespace ptx::test {

using Wide = unsigned __int128;

struct Kind {
  int fraction_bits;
  int exponent_bits;

  uint64_t infinity() const { return ((uint64_t{1} << exponent_bits) - 1) << fraction_bits; }
  uint64_t sign() const { return uint64_t{1} << (fraction_bits + exponent_bits); }
  uint64_t nan() const { return sign() - 1; }
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
};

inline constexpr Kind kSingle{23, 8};
inline constexpr Kind kDouble{52, 11};
inline constexpr Kind kBinary16{10, 5};
inline constexpr Kind kBrain{7, 8};

// (-1)^negative significand 2^exponent
struct Term {
  bool negative;
  Wide significand;
  int exponent;
};

// The number that finite bits stand for; infinity stands for the power of two it follows.
inline Term term_of(const Kind& kind, uint64_t bits) {
  const uint64_t magnitude = bits & kind.nan();
  const int field = static_cast<int>(magnitude >> kind.fraction_bits);
  const uint64_t fraction = magnitude - (static_cast<uint64_t>(field) << kind.fraction_bits);
  const uint64_t hidden = field == 0 ? 0 : uint64_t{1} << kind.fraction_bits;
  return {(bits & kind.sign()) != 0, hidden + fraction,
          (field == 0 ? 1 : field) - kind.bias() - kind.fraction_bits};
}

inline Term product(const Term& a, const Term& b) {
  return {a.negative != b.negative, a.significand * b.significand, a.exponent + b.exponent};
}

// A magnitude in units of 2^-2200, enough for the products of doubles.
class Big {
 public:
  void add(const Term& term) {
    const int position = term.exponent + kFractionBits;
    for (int bit = 0; bit < 128; bit += 32) {
      add_word(static_cast<uint32_t>(term.significand >> bit), position + bit);
    }
  }

  // -1, 0 or 1
  friend int compare(const Big& a, const Big& b) {
    for (size_t i = kWords; i-- > 0;) {
      if (a.words_[i] != b.words_[i]) return a.words_[i] < b.words_[i] ? -1 : 1;
    }
    return 0;
  }

 private:
  static constexpr int kFractionBits = 2240;
  static constexpr size_t kWords = 140;

  void add_word(uint32_t word, int position) {
    uint64_t carry = static_cast<uint64_t>(word) << (position % 32);
    for (size_t i = static_cast<size_t>(position / 32); carry != 0; ++i) {
      carry += words_[i];
      words_[i] = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
  }

  std::array<uint32_t, kWords> words_{};
};

// Where a true value lies among the numbers of a format.
struct Located {
  uint64_t below;  // bits of the largest magnitude that is not above it
  bool is_exact;
  int middle;  // how the middle between `below` and the next compares with the value
};

// `compare(term)` compares the magnitude of a term with the value's: -1, 0 or 1.
template <typename Compare>
Located locate(const Kind& kind, const Compare& compare) {
  uint64_t low = 0;
  uint64_t high = kind.infinity();
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    (compare(term_of(kind, middle)) <= 0 ? low : high) = middle;
  }
  const Term below = term_of(kind, low);
  const Term middle{false, 2 * below.significand + 1, below.exponent - 1};
  return {low, compare(below) == 0, compare(middle)};
}

inline uint64_t rounded(const Kind& kind, bool negative, const Located& at, Round round) {
  bool up = false;
  if (!at.is_exact) {
    const bool is_nearer = at.middle < 0 || (at.middle == 0 && at.below % 2 == 1);
    if (round == Round::kNearest) up = is_nearer;
    if (round == Round::kUp) up = !negative;
    if (round == Round::kDown) up = negative;
  }
  return (negative ? kind.sign() : 0) + at.below + (up ? 1 : 0);
}

// The sum of terms, rounded in the four ways, in the order of Round.
inline std::array<uint64_t, 4> rounded_sums(const Kind& kind, const std::vector<Term>& terms) {
  Big positive;
  Big negative;
  bool any_positive = false;
  bool any_negative = false;
  for (const Term& term : terms) {
    (term.negative ? negative : positive).add(term);
    (term.negative ? any_negative : any_positive) = true;
  }
  const int order = compare(positive, negative);
  std::array<uint64_t, 4> out;
  if (order == 0) {
    const bool both = any_positive && any_negative;
    for (int i = 0; i < 4; ++i) {
      const bool is_negative = both ? static_cast<Round>(i) == Round::kDown : any_negative;
      out[static_cast<size_t>(i)] = is_negative ? kind.sign() : 0;
    }
    return out;
  }
  const Big& larger = order > 0 ? positive : negative;
  const Big& smaller = order > 0 ? negative : positive;
  const Located at = locate(kind, [&](const Term& term) {
    Big sum = smaller;
    sum.add(term);
    return compare(sum, larger);
  });
  for (int i = 0; i < 4; ++i) {
    out[static_cast<size_t>(i)] = rounded(kind, order < 0, at, static_cast<Round>(i));
  }
  return out;
}

}  // namespace ptx::test
