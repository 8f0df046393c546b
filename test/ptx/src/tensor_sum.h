// One element of a product of matrices of floats, summed the way a tensor core sums. Knows no
// fragments.
#pragma once

#include <cstdint>

#include "tensor_core.h"

namespace ptx {

constexpr int kMaxTerms = 16;  // products of an element in one instruction

// A row of A or a column of B taken apart: number i is
// (-1)^sign[i] significand[i] 2^(exponent[i] - fraction_bits). As in the hardware, a subnormal
// number has the exponent of the smallest normal one and is not normalised. Beyond `count` numbers
// are zero.
struct Terms {
  Element format;
  const uint32_t* bits;  // of the numbers, one in each; not owned
  int count;
  int fraction_bits;
  bool is_finite;  // else only `bits` says what the numbers are
  uint32_t significand[kMaxTerms];
  int32_t exponent[kMaxTerms];
  int32_t sign[kMaxTerms];  // 0 or -1
};

// The same numbers as multiples of one power of two, where 48 bits are enough for that.
struct FixedTerms {
  bool fits;
  int exponent;  // of a unit
  int64_t value[kMaxTerms];
};

// `format` is f16, bf16 or tf32, in the low bits of `bits`; of tf32 the last 13 bits do not count.
Terms take_apart(Element format, const uint32_t* bits, int count);
FixedTerms to_fixed(const Terms& terms);

// c + sum of a[i] b[i], as bits of `result`, f32 or f16.
uint32_t exact_sum(Element result, const Terms& a, const FixedTerms& fixed_a, const Terms& b,
                   const FixedTerms& fixed_b, float c);
uint32_t block_sum(Generation generation, Element result, const Terms& a, const Terms& b, float c);

}  // namespace ptx
