// Every microkernel that this machine can run, against a double loop, with guard pages on all
// sides. The full cross product of rows, columns, groups, dtypes and bits would be a hundred
// thousand cases: each sweep varies what meets in one loop of the kernels, and holds the rest.

#include <cstring>

#include "check.h"
#include "kernels.h"

namespace marlin::test {
namespace {

void check(const Shape& shape, float mean = 0.0f) {
  for (const Flush flush : kFlushes) {
    const LinearCase linear(shape, flush, mean);
    Expected expected(linear);
    for (const Kernel& kernel : runnable_kernels(shape.bits)) {
      expect_close(kernel, linear, expected, flush);
    }
  }
}

// Both widths of codes; the narrow ones with zero points of their own and without.
void check_bits(Shape shape) {
  for (const int bits : {4, 8}) {
    for (const bool with_zeros : {false, true}) {
      if (with_zeros && bits == 8) continue;
      shape.bits = bits;
      shape.with_zeros = with_zeros;
      check(shape);
    }
  }
}

}  // namespace

MARLIN_TEST(every_row_count_matches_the_double_loop) {
  for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 33, 48, 100}) {
    for (const Dtype dtype : kDtypes) {
      check({.m = m, .bits = 4, .with_zeros = true, .dtype = dtype});
      check({.m = m, .bits = 8, .dtype = dtype});
    }
  }
}

MARLIN_TEST(every_column_tail_matches_the_double_loop) {
  for (int64_t n = 8; n <= 136; n += 8) {
    const Dtype scale_dtype = kDtypes[n / 8 % 3];
    check_bits({.m = 3, .n = n, .k = 64, .group_size = 32, .scale_dtype = scale_dtype});
  }
}

MARLIN_TEST(every_group_size_and_dtype_matches_the_double_loop) {
  for (const int64_t group_size : {32, 64, 96, 128, 160, 256}) {
    for (const Dtype dtype : kDtypes) {
      for (const Dtype scale_dtype : kDtypes) {
        check_bits({.m = 2,
                    .n = 72,
                    .k = 2 * group_size,
                    .group_size = group_size,
                    .dtype = dtype,
                    .scale_dtype = scale_dtype});
      }
    }
  }
}

// The last stretch is as short as a group, or half of a stretch, and several rows meet it.
MARLIN_TEST(a_short_last_stretch_matches_the_double_loop) {
  for (const int64_t k : {32, 64, 96, 160, 224, 288}) {
    for (const int64_t group_size : {int64_t{32}, k}) {
      for (const int64_t m : {1, 7, 25}) {
        check_bits({.m = m, .n = 72, .k = k, .group_size = group_size});
      }
    }
  }
}

MARLIN_TEST(a_zero_point_in_the_middle_gives_the_bits_of_none) {
  for (const int64_t group_size : {32, 128}) {
    Shape shape = {.m = 13, .n = 72, .k = 384, .group_size = group_size};
    const LinearCase without(shape, Flush::kEnd);
    shape.with_zeros = true;
    LinearCase with(shape, Flush::kEnd);
    with.fill_zeros(8);
    for (const Kernel& kernel : runnable_kernels(4)) {
      const std::vector<float> want = multiply(kernel, without, Flush::kEnd);
      const std::vector<float> got = multiply(kernel, with, Flush::kEnd);
      expect(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) == 0,
             describe(kernel, shape), ": differs from the product without zero points");
    }
  }
}

// More groups than are asked for ahead of time.
MARLIN_TEST(many_groups_match_the_double_loop) {
  for (const int64_t group_size : {32, 96, 128}) {
    check_bits({.m = 2, .n = 136, .k = 20 * group_size, .group_size = group_size});
  }
}

// A mean makes the sums grow, and with them what an offset in the accumulators costs.
MARLIN_TEST(long_groups_and_a_mean_keep_the_tolerance) {
  for (const Dtype dtype : kDtypes) {
    for (const int64_t k : {160, 192, 480}) {
      check({.m = 2, .k = k, .group_size = k, .dtype = dtype}, 1.0f);
    }
    const int64_t k = 14336;
    check({.m = 1, .n = 16, .k = k, .group_size = k, .dtype = dtype}, 1.0f);
    check({.m = 1, .n = 16, .k = k, .group_size = k, .bits = 8, .dtype = dtype}, 1.0f);
  }
}

}  // namespace marlin::test
