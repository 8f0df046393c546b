// float16 and bfloat16 against every bit pattern, and rounding against exact neighbours.

#include <bit>
#include <cmath>
#include <limits>

#include "../common/float_bits.h"
#include "check.h"

namespace marlin::test {
namespace {

// The value of a float16 from its definition.
double float16_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  return exponent == 0 ? sign * std::ldexp(mantissa, -24)
                       : sign * std::ldexp(1024 + mantissa, exponent - 25);
}

}  // namespace

MARLIN_TEST(float16_reads_and_writes_every_bit_pattern) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    const double value = float16_value(bits);
    const float read = float16_to_float(bits);
    expect(std::isnan(value) ? std::isnan(read) : value == double{read}, "read ", i);
    if (std::isnan(value)) {
      expect(std::isnan(float16_to_float(float_to_float16(read))), "NaN ", i);
    } else {
      expect(float_to_float16(read) == bits, "written back ", i);
    }
  }
}

MARLIN_TEST(float16_rounds_to_the_nearest_and_ties_to_even) {
  for (uint16_t bits = 0; bits < 0x7BFF; ++bits) {
    const float low = float16_to_float(bits);
    const float high = float16_to_float(static_cast<uint16_t>(bits + 1));
    const float middle = (low + high) / 2;  // exact: one more bit than a float16
    const uint16_t even = static_cast<uint16_t>(bits + (bits & 1));
    expect(float_to_float16(middle) == even, "tie above ", bits);
    expect(float_to_float16(std::nextafter(middle, 0.0f)) == bits, "below the tie above ", bits);
    expect(float_to_float16(std::nextafter(middle, high)) == bits + 1, "above the tie ", bits);
  }
  expect(float_to_float16(65519.996f) == 0x7BFF, "65519.996 is finite");
  expect(float_to_float16(65520.0f) == 0x7C00, "65520 is infinite");
  expect(float_to_float16(-1e30f) == 0xFC00, "-1e30 is minus infinity");
}

MARLIN_TEST(bfloat16_reads_and_writes_every_bit_pattern) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    const float read = bfloat16_to_float(bits);
    expect(std::bit_cast<uint32_t>(read) == i << 16, "read ", i);
    if (std::isnan(read)) {
      expect(std::isnan(bfloat16_to_float(float_to_bfloat16(read))), "NaN ", i);
    } else {
      expect(float_to_bfloat16(read) == bits, "written back ", i);
    }
  }
}

MARLIN_TEST(bfloat16_rounds_to_the_nearest_and_ties_to_even) {
  for (uint32_t bits = 0; bits < 0x7F80; ++bits) {
    const uint32_t middle = (bits << 16) | 0x8000u;
    const uint32_t even = bits + (bits & 1);
    expect(float_to_bfloat16(std::bit_cast<float>(middle)) == even, "tie above ", bits);
    expect(float_to_bfloat16(std::bit_cast<float>(middle - 1)) == bits, "below the tie ", bits);
    expect(float_to_bfloat16(std::bit_cast<float>(middle + 1)) == bits + 1, "above the tie ", bits);
  }
  // Rounding must not carry a NaN with only low bits into an infinity.
  expect(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0x7F800001u)))),
         "a NaN stays one");
}

}  // namespace marlin::test
