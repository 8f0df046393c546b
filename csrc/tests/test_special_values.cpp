// Activations at the ends of their dtypes: what must spread to a row, and what must not.

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "check.h"
#include "kernels.h"

namespace marlin::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A NaN, in the integer formats for an infinity, too; bfloat16 may keep the infinity of the
// product.
void expect_not_finite(const Kernel& kernel, const Shape& shape, const float* row,
                       const double* product) {
  for (int64_t c = 0; c < shape.n; ++c) {
    const bool is_written = std::bit_cast<uint32_t>(row[c]) != 0xFFFFFFFFu;
    const bool is_kept = !kernel.is_integer() && double{row[c]} == product[c];
    expect((std::isnan(row[c]) || is_kept) && is_written, describe(kernel, shape), ": column ", c,
           " is ", row[c], " for ", product[c]);
  }
}

// Expects |got| <= bound in every column of every row.
void expect_within(const LinearCase& linear, double bound) {
  for (const Kernel& kernel : runnable_kernels(linear.shape().bits)) {
    for (const float got : multiply(kernel, linear, Flush::kEnd)) {
      expect(std::abs(double{got}) <= bound, describe(kernel, linear.shape()), ": ", got);
    }
  }
}

void expect_precise(const LinearCase& linear) {
  Expected expected(linear);
  for (const Kernel& kernel : runnable_kernels(linear.shape().bits)) {
    expect_close(kernel, linear, expected, Flush::kEnd);
  }
}

}  // namespace

MARLIN_TEST(nan_and_infinity_spread_to_their_row_and_no_other) {
  for (const int bits : {4, 8}) {
    for (const Dtype dtype : kDtypes) {
      const Shape shape = {.m = 5, .n = 72, .k = 256, .bits = bits, .dtype = dtype};
      const LinearCase clean(shape, Flush::kEnd);
      for (const float value : {kNan, -kNan, kInfinity, -kInfinity}) {
        for (const int64_t at : {0, 100, 255}) {
          LinearCase linear(shape, Flush::kEnd);
          linear.set_activation(2, at, value);
          const std::vector<double> product = linear.product();
          for (const Kernel& kernel : runnable_kernels(bits)) {
            const std::vector<float> want = multiply(kernel, clean, Flush::kEnd);
            const std::vector<float> got = multiply(kernel, linear, Flush::kEnd);
            for (int64_t r = 0; r < shape.m; ++r) {
              if (r == 2) {
                expect_not_finite(kernel, shape, got.data() + r * shape.n,
                                  product.data() + r * shape.n);
                continue;
              }
              expect(std::memcmp(got.data() + r * shape.n, want.data() + r * shape.n,
                                 static_cast<size_t>(shape.n) * sizeof(float)) == 0,
                     describe(kernel, shape), ": ", value, " in row 2 changes row ", r);
            }
          }
        }
      }
    }
  }
}

MARLIN_TEST(zeros_of_both_signs_give_zero) {
  for (const Dtype dtype : kDtypes) {
    LinearCase linear({.m = 3, .n = 72, .with_zeros = true, .dtype = dtype}, Flush::kEnd);
    linear.fill_row(0, 0.0f);
    linear.fill_row(1, -0.0f);
    for (int64_t i = 0; i < 128; ++i) linear.set_activation(2, i, i % 2 == 0 ? 0.0f : -0.0f);
    expect_within(linear, 0);
  }
}

// Below 1e-30 the integer formats may take an activation for zero, and bfloat16 dot products take
// subnormal ones for it.
MARLIN_TEST(what_is_smaller_than_1e_30_stays_small) {
  for (const float value : {1e-45f, -1e-40f, 1e-38f, -1e-31f}) {
    for (const Dtype dtype : {Dtype::kBFloat16, Dtype::kFloat32}) {
      LinearCase linear({.m = 2, .dtype = dtype}, Flush::kEnd);
      linear.fill_row(0, value);
      linear.fill_row(1, 0.0f);
      expect_within(linear, 128 * 8 * 0.1 * std::abs(double{value}));
    }
  }
}

MARLIN_TEST(small_activations_keep_the_tolerance) {
  for (const float factor : {1e-28f, 1e-20f, 1e-5f}) {
    for (const Dtype dtype : kDtypes) {
      if (dtype == Dtype::kFloat16 && factor < 1e-6f) continue;
      LinearCase linear({.m = 2, .k = 64, .dtype = dtype}, Flush::kEnd);
      for (int64_t i = 0; i < 128; ++i) {
        // In float16 these are subnormal.
        linear.set_activation(i / 64, i % 64, linear.activation(i / 64, i % 64) * factor);
      }
      expect_precise(linear);
    }
  }
}

MARLIN_TEST(large_activations_do_not_overflow) {
  for (const float largest : {65504.0f, 1e30f, 1e34f}) {
    for (const Dtype dtype : kDtypes) {
      if (dtype == Dtype::kFloat16 && largest > 65504.0f) continue;
      for (const int bits : {4, 8}) {
        LinearCase linear({.m = 1, .n = 16, .k = 64, .bits = bits, .dtype = dtype}, Flush::kEnd);
        for (int64_t i = 0; i < 64; ++i) {
          linear.set_activation(0, i, i % 3 == 0 ? -largest : largest);
        }
        expect_precise(linear);
      }
    }
  }
}

// The sums run before the scale is applied, with codes up to 128 + 15 in bfloat16.
MARLIN_TEST(one_activation_of_1e36_does_not_overflow) {
  for (const Dtype dtype : {Dtype::kBFloat16, Dtype::kFloat32}) {
    LinearCase linear({.n = 8, .k = 32, .group_size = 32, .with_zeros = true, .dtype = dtype},
                      Flush::kEnd);
    linear.fill_row(0, 0.0f);
    linear.set_activation(0, 0, 1e36f);
    expect_precise(linear);
  }
}

// Language models have a few channels that are a hundred times the others.
MARLIN_TEST(outlier_channels_keep_the_precision_of_int16) {
  for (const Dtype dtype : kDtypes) {
    for (const int bits : {4, 8}) {
      LinearCase linear({.m = 4, .k = 1024, .group_size = 128, .bits = bits, .dtype = dtype},
                        Flush::kEnd);
      for (int64_t r = 0; r < 4; ++r) {
        for (const int64_t i : {3, 77, 500, 501, 1000}) {
          linear.set_activation(r, i, 100 * linear.activation(r, i));
        }
      }
      Expected expected(linear);
      for (const Kernel& kernel : runnable_kernels(bits)) {
        if (kernel.activation != cpu::Activation::kInt16) continue;
        expect_close(kernel, linear, expected, Flush::kEnd);
      }
    }
  }
}

}  // namespace marlin::test
