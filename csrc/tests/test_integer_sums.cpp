// The integer formats give the same bits on every path: those of this definition.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "check.h"
#include "kernels.h"

namespace marlin::test {
namespace {

using cpu::Activation;

// One row in one stretch: integers, and what one of them is worth.
struct Quantized {
  std::vector<int64_t> values;
  float scale;
};

Quantized quantize(const LinearCase& linear, int64_t r, int64_t begin, int64_t end,
                   float max_value) {
  float bound = 1e-30f;
  for (int64_t i = begin; i < end; ++i) {
    const float magnitude = std::abs(linear.activation(r, i));
    if (!std::isfinite(magnitude)) {
      const size_t count = static_cast<size_t>(end - begin);
      return {std::vector<int64_t>(count), std::numeric_limits<float>::quiet_NaN()};
    }
    bound = std::max(bound, magnitude);
  }
  Quantized quantized{{}, bound / max_value};
  const float inverse = max_value / bound;
  for (int64_t i = begin; i < end; ++i) {
    const float scaled = linear.activation(r, i) * inverse;
    quantized.values.push_back(static_cast<int64_t>(std::nearbyint(scaled)));
  }
  return quantized;
}

// The stretch begin .. end - 1 of a row times one column, by 64-bit sums over its segments. Expects
// every sum to fit 32 bits.
float define_stretch(const LinearCase& linear, const Quantized& a, int64_t begin, int64_t end,
                     int64_t segment, int64_t column) {
  float partial = 0;
  for (int64_t first = begin; first < end; first += segment) {
    int64_t sum = 0;
    for (int64_t i = first; i < first + segment; ++i) {
      sum += a.values.data()[i - begin] * linear.code_minus_zero(i, column);
    }
    expect(std::abs(sum) <= INT32_MAX, describe(linear.shape()), ": a sum is ", sum);
    const float scale = linear.scale(first / linear.shape().group_size, column);
    partial = std::fma(static_cast<float>(sum), scale, partial);
  }
  return partial;
}

// [m][n]
std::vector<float> define(const LinearCase& linear, Activation activation, Cut cut) {
  const Shape& s = linear.shape();
  const float max_value = activation == Activation::kInt8 ? 127.0f : 32767.0f;
  std::vector<float> totals(static_cast<size_t>(s.m * s.n));
  for (int64_t r = 0; r < s.m; ++r) {
    float* row = totals.data() + r * s.n;
    for (int64_t begin = 0; begin < s.k; begin += cut.stretch) {
      const int64_t end = std::min(begin + cut.stretch, s.k);
      const Quantized a = quantize(linear, r, begin, end, max_value);
      for (int64_t c = 0; c < s.n; ++c) {
        const float partial = define_stretch(linear, a, begin, end, cut.segment, c);
        row[c] = std::fma(partial, a.scale, row[c]);
      }
    }
  }
  return totals;
}

// Bit by bit; of a NaN no more than that it is one.
bool is_same(float got, float want) {
  return std::isnan(want) ? std::isnan(got)
                          : std::bit_cast<uint32_t>(got) == std::bit_cast<uint32_t>(want);
}

void check_cut(const Kernel& kernel, const LinearCase& linear, Cut cut) {
  const Shape& s = linear.shape();
  const std::vector<float> want = define(linear, kernel.activation, cut);
  const Prepared prepared(kernel, linear, Flush::kEnd, cut);
  for (const bool decode_once : {false, true}) {
    cpu::RowSlice slice = whole_slice(kernel, prepared.panels());
    slice.decode_once = decode_once;
    const std::vector<float> got = multiply(kernel, linear, prepared, slice, Flush::kEnd);
    for (int64_t i = 0; i < s.m * s.n; ++i) {
      expect(is_same(got.data()[i], want.data()[i]), describe(kernel, s), " segment ", cut.segment,
             decode_once ? " decoded once" : "", ": row ", i / s.n, ", column ", i % s.n, " is ",
             got.data()[i], ", by its definition ", want.data()[i]);
    }
  }
}

// With the segment of the plan and every shorter one.
void check(const LinearCase& linear) {
  for (const Kernel& kernel : runnable_kernels(linear.shape().bits)) {
    if (!kernel.is_integer()) continue;
    for (Cut cut = cut_of(kernel, linear.shape()); cut.segment >= 32; cut.segment /= 2) {
      check_cut(kernel, linear, cut);
    }
  }
}

}  // namespace

MARLIN_TEST(integer_formats_give_the_bits_of_their_definition) {
  for (const int bits : {4, 8}) {
    for (const Dtype dtype : kDtypes) {
      for (const int64_t group_size : {32, 64, 96, 128}) {
        check(LinearCase({.m = 5,
                          .n = 72,
                          .k = 5 * group_size,
                          .group_size = group_size,
                          .bits = bits,
                          .with_zeros = bits == 4,
                          .dtype = dtype,
                          .scale_dtype = dtype},
                         Flush::kEnd));
      }
    }
  }
}

// Every activation as large as the format has it, of one sign or of both, and every code and zero
// point at an end of its range.
MARLIN_TEST(the_largest_sums_are_exact) {
  for (const int bits : {4, 8}) {
    for (const int code : {0, (1 << bits) - 1}) {
      for (const int zero : bits == 4 ? std::vector<int>{0, 15} : std::vector<int>{128}) {
        LinearCase linear(
            {.m = 4, .n = 16, .k = 128, .group_size = 128, .bits = bits, .with_zeros = bits == 4},
            Flush::kEnd);
        linear.fill_codes(code);
        if (bits == 4) linear.fill_zeros(zero);
        for (int64_t i = 0; i < 128; ++i) {
          linear.set_activation(0, i, 3e4f);
          linear.set_activation(1, i, -3e4f);
          linear.set_activation(2, i, i % 2 == 0 ? 3e4f : -3e4f);
          linear.set_activation(3, i, i % 64 < 32 ? 3e4f : -3e4f);
        }
        check(linear);
      }
    }
  }
}

// What lies between two integers, and on the middle.
MARLIN_TEST(activations_round_to_the_nearest_integer_and_ties_to_even) {
  for (const float steps : {127.0f, 32767.0f}) {
    LinearCase linear({.m = 2, .n = 8, .k = 64, .group_size = 64}, Flush::kEnd);
    for (int64_t i = 0; i < 64; ++i) {
      const float middle = static_cast<float>(i - 32) + 0.5f;
      linear.set_activation(0, i, i == 63 ? steps : middle);
      linear.set_activation(1, i, i == 63 ? -steps : std::nextafter(middle, 100.0f));
    }
    check(linear);
  }
}

// Below 1e-30 the reciprocal of a scale would not fit: the scale stays that of 1e-30.
MARLIN_TEST(tiny_activations_share_the_smallest_scale) {
  LinearCase linear({.m = 5, .n = 8, .k = 64, .group_size = 64}, Flush::kEnd);
  const float values[] = {0.0f, 1e-40f, 1e-31f, 1e-30f, 1e-29f};
  for (int64_t r = 0; r < 5; ++r) linear.fill_row(r, values[r]);
  check(linear);
}

// What is not finite makes its row NaN; rows beside it, and other sizes of activations, do not.
MARLIN_TEST(special_activations_give_the_bits_of_their_definition) {
  for (const int bits : {4, 8}) {
    for (const Dtype dtype : kDtypes) {
      LinearCase linear({.m = 8, .n = 8, .k = 288, .group_size = 96, .bits = bits, .dtype = dtype},
                        Flush::kStart);
      linear.fill_row(0, 0.0f);
      linear.fill_row(1, -0.0f);
      linear.fill_row(2, 1e-40f);
      linear.set_activation(3, 17, std::numeric_limits<float>::infinity());
      linear.set_activation(4, 287, std::numeric_limits<float>::quiet_NaN());
      linear.set_activation(5, 3, 60000.0f);
      check(linear);
    }
  }
}

}  // namespace marlin::test
