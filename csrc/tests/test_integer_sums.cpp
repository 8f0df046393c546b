// The integer formats give the same bits on every path: those of this definition.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../cpu/dispatch.h"
#include "check.h"
#include "kernels.h"

namespace marlin::test {
namespace {

using cpu::Activation;

// One row in one segment: integers, and what one of them is worth.
struct Quantized {
  std::vector<int64_t> values;
  float scale;
};

Quantized quantize(const LinearCase& linear, int64_t r, int64_t begin, int64_t segment,
                   float max_value) {
  float bound = 1e-30f;
  for (int64_t i = begin; i < begin + segment; ++i) {
    bound = std::max(bound, std::abs(linear.activation(r, i)));
  }
  Quantized quantized{{}, bound / max_value};
  const float inverse = max_value / bound;
  for (int64_t i = begin; i < begin + segment; ++i) {
    const float scaled = linear.activation(r, i) * inverse;
    quantized.values.push_back(static_cast<int64_t>(std::nearbyint(scaled)));
  }
  return quantized;
}

// [m][n], by 64-bit sums over the segments. Expects every sum to fit 32 bits.
std::vector<float> define(const LinearCase& linear, Activation activation, int64_t segment) {
  const Shape& s = linear.shape();
  std::vector<float> totals(static_cast<size_t>(s.m * s.n));
  for (int64_t r = 0; r < s.m; ++r) {
    float* row = totals.data() + r * s.n;
    for (int64_t begin = 0; begin < s.k; begin += segment) {
      const Quantized a =
          quantize(linear, r, begin, segment, activation == Activation::kInt8 ? 127.0f : 32767.0f);
      for (int64_t c = 0; c < s.n; ++c) {
        int64_t sum = 0;
        for (int64_t i = 0; i < segment; ++i) {
          sum += a.values.data()[i] * linear.code_minus_zero(begin + i, c);
        }
        expect(std::abs(sum) <= INT32_MAX, describe(s), ": a sum is ", sum);
        row[c] = std::fma(static_cast<float>(sum), linear.scale(begin / s.group_size, c) * a.scale,
                          row[c]);
      }
    }
  }
  return totals;
}

void check_segment(const Kernel& kernel, const LinearCase& linear, int64_t segment) {
  const Shape& s = linear.shape();
  const std::vector<float> want = define(linear, kernel.activation, segment);
  const Prepared prepared(kernel, linear, Flush::kEnd, segment);
  for (const bool decode_once : {false, true}) {
    cpu::RowSlice slice = whole_slice(kernel, s.m);
    slice.decode_once = decode_once;
    const std::vector<float> got = multiply(kernel, linear, prepared, slice, Flush::kEnd);
    for (int64_t r = 0; r < s.m; ++r) {
      expect(std::memcmp(got.data() + r * s.blocks() * kBlockColumns, want.data() + r * s.n,
                         static_cast<size_t>(s.n) * sizeof(float)) == 0,
             describe(kernel, s), " segment ", segment, decode_once ? " decoded once" : "",
             ": row ", r, " differs from its definition");
    }
  }
}

// With the segment of the plan and every shorter one.
void check(const LinearCase& linear) {
  for (const Kernel& kernel : runnable_kernels(linear.shape().bits)) {
    if (!kernel.is_integer()) continue;
    for (int64_t segment = segment_of(kernel, linear.shape()); segment >= 32; segment /= 2) {
      check_segment(kernel, linear, segment);
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
                          .k = 2 * group_size,
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

MARLIN_TEST(every_path_prepares_the_same_bytes) {
  for (const Activation activation : {Activation::kInt16, Activation::kInt8}) {
    for (const int bits : {4, 8}) {
      for (const Dtype dtype : kDtypes) {
        LinearCase linear(
            {.m = 8, .n = 8, .k = 256, .group_size = 128, .bits = bits, .dtype = dtype},
            Flush::kStart);
        linear.fill_row(0, 0.0f);
        linear.fill_row(1, -0.0f);
        linear.fill_row(2, 1e-40f);
        linear.set_activation(3, 17, std::numeric_limits<float>::infinity());
        linear.set_activation(4, 200, std::numeric_limits<float>::quiet_NaN());
        linear.set_activation(5, 3, 60000.0f);
        const cpu::Path* generic = runnable_paths().back();
        const Kernel reference = {generic, activation, cpu::microkernel_of(*generic, activation)};
        const Prepared want(reference, linear, Flush::kStart);
        for (const cpu::Path* path : runnable_paths()) {
          const Kernel kernel = {path, activation, cpu::microkernel_of(*path, activation)};
          expect(Prepared(kernel, linear, Flush::kStart).same_bytes(want),
                 describe(kernel, linear.shape()), ": the panels differ from generic's");
        }
      }
    }
  }
}

}  // namespace marlin::test
