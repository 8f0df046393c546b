// Packed weights back to floating point, bit by bit.

#include <cstring>

#include "../cpu/dequantize.h"
#include "../cpu/load.h"
#include "check.h"
#include "linear_case.h"

namespace marlin::test {
namespace {

// Columns begin .. end - 1 of a result that starts at column 0.
void expect_columns(const LinearCase& linear, const Guarded<std::byte>& out, int64_t begin,
                    int64_t end) {
  const Shape& s = linear.shape();
  for (int64_t column = begin; column < end; ++column) {
    for (int64_t i = 0; i < s.k; ++i) {
      float want = static_cast<float>(linear.code_minus_zero(i, column)) *
                   linear.scale(i / s.group_size, column);
      cpu::store_float(&want, s.scale_dtype, 0, want);
      const std::byte* got = out.data() + (column * s.k + i) * bytes_of(s.scale_dtype);
      expect(std::memcmp(got, &want, static_cast<size_t>(bytes_of(s.scale_dtype))) == 0,
             describe(s), ": (", i, ", ", column, ") differs from its definition");
    }
  }
}

void check(const Shape& shape) {
  for (const Flush flush : kFlushes) {
    const LinearCase linear(shape, flush);
    Guarded<std::byte> out(shape.n * shape.k * bytes_of(shape.scale_dtype), flush);
    cpu::dequantize_blocks(linear.weights(), 0, shape.blocks(), out.data());
    expect_columns(linear, out, 0, shape.n);
  }
}

}  // namespace

MARLIN_TEST(dequantize_matches_the_definition) {
  for (const Dtype scale_dtype : kDtypes) {
    for (const int bits : {4, 8}) {
      for (const int64_t n : {8, 64, 72, 136}) {
        for (const bool packed_scales : {false, true}) {
          check({.n = n,
                 .k = 192,
                 .group_size = 96,
                 .bits = bits,
                 .with_zeros = bits == 4 && n != 64,
                 .scale_dtype = scale_dtype,
                 .packed_scales = packed_scales});
        }
      }
    }
  }
}

MARLIN_TEST(dequantize_writes_only_its_blocks) {
  const Shape shape = {.n = 200, .k = 64};
  const LinearCase linear(shape, Flush::kEnd);
  Guarded<std::byte> out(shape.n * shape.k * 4, Flush::kEnd);
  cpu::dequantize_blocks(linear.weights(), 1, 3, out.data());
  expect_columns(linear, out, 64, 192);
  for (int64_t i = 0; i < out.size(); ++i) {
    const int64_t column = i / (shape.k * 4);
    if (column >= 64 && column < 192) continue;
    expect(out[i] == std::byte{0xFF}, "column ", column, " is written");
  }
}

}  // namespace marlin::test
