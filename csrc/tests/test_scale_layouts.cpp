// Scales and zero points row by row and block by block: the same products, bit by bit.

#include <cstring>

#include "check.h"
#include "kernels.h"

namespace marlin::test {
namespace {

void expect_same_products(const Kernel& kernel, const LinearCase& plain, const LinearCase& packed,
                          Flush flush) {
  const Prepared prepared(kernel, plain, flush);
  for (const bool decode_once : {false, true}) {
    cpu::RowSlice slice = whole_slice(kernel, prepared.panels());
    slice.decode_once = decode_once;
    const std::vector<float> want = multiply(kernel, plain, prepared, slice, flush);
    const std::vector<float> got = multiply(kernel, packed, prepared, slice, flush);
    expect(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) == 0,
           describe(kernel, packed.shape()), decode_once ? " decoded once" : "",
           ": differs from the product with plain scales");
  }
}

void check(Shape shape) {
  for (const int bits : {4, 8}) {
    for (const bool with_zeros : {false, true}) {
      if (with_zeros && bits == 8) continue;
      shape.bits = bits;
      shape.with_zeros = with_zeros;
      for (const Flush flush : kFlushes) {
        shape.packed_scales = false;
        const LinearCase plain(shape, flush);
        shape.packed_scales = true;
        const LinearCase packed(shape, flush);
        for (const Kernel& kernel : runnable_kernels(bits)) {
          expect_same_products(kernel, plain, packed, flush);
        }
      }
    }
  }
}

}  // namespace

MARLIN_TEST(packed_scales_give_the_bits_of_plain_ones_for_every_column_tail) {
  for (int64_t n = 8; n <= 136; n += 8) {
    check({.m = 3, .n = n, .k = 160, .group_size = 32, .scale_dtype = kDtypes[n / 8 % 3]});
  }
}

MARLIN_TEST(packed_scales_give_the_bits_of_plain_ones_for_every_group_size) {
  for (const int64_t group_size : {32, 64, 96, 128, 256}) {
    for (const Dtype scale_dtype : kDtypes) {
      check({.m = 2,
             .n = 200,
             .k = 5 * group_size,
             .group_size = group_size,
             .scale_dtype = scale_dtype});
    }
  }
}

// More groups than are asked for ahead of time.
MARLIN_TEST(packed_scales_give_the_bits_of_plain_ones_for_many_groups) {
  for (const int64_t group_size : {32, 128}) {
    check({.n = 136, .k = 40 * group_size, .group_size = group_size});
  }
}

}  // namespace marlin::test
