// A row of the result depends on the row alone, bit by bit: not on its neighbours, the slice, the
// height of the passes, or where the codes are opened.

#include <algorithm>
#include <cstring>
#include <set>

#include "../common/math.h"
#include "check.h"
#include "kernels.h"

namespace marlin::test {
namespace {

// Multiplies the rows first .. first + count - 1 and compares them with those of `whole`.
void expect_same_rows(const Kernel& kernel, const LinearCase& linear, const Prepared& prepared,
                      const std::vector<float>& whole, const cpu::RowSlice& slice, Flush flush) {
  const std::vector<float> part = multiply(kernel, linear, prepared, slice, flush);
  expect(std::memcmp(part.data(), whole.data() + slice.first * linear.shape().n,
                     part.size() * sizeof(float)) == 0,
         describe(kernel, linear.shape()), ": rows ", slice.first, " + ", slice.count, " by ",
         slice.per_pass, slice.decode_once ? " decoded once" : "", " differ from all rows at once");
}

void check(const Shape& shape) {
  for (const Flush flush : kFlushes) {
    const LinearCase linear(shape, flush);
    for (const Kernel& kernel : runnable_kernels(shape.bits)) {
      const Prepared prepared(kernel, linear, flush);
      const cpu::RowSlice all = whole_slice(kernel, prepared.panels());
      const std::vector<float> whole = multiply(kernel, linear, prepared, all, flush);
      const auto expect_same = [&](const cpu::RowSlice& slice) {
        expect_same_rows(kernel, linear, prepared, whole, slice, flush);
      };
      for (const bool decode_once : {false, true}) {
        cpu::RowSlice slice = all;
        slice.decode_once = decode_once;
        for (slice.per_pass = 1; slice.per_pass <= all.per_pass; ++slice.per_pass) {
          expect_same(slice);
        }
        slice.per_pass = all.per_pass;
        for (slice.first = 1; slice.first < shape.m; slice.first += 5) {
          slice.count = std::min<int64_t>(7, shape.m - slice.first);
          expect_same(slice);
        }
      }
    }
  }
}

// Bytes that the preparation of row r, of three, writes.
std::vector<int64_t> bytes_of_row(const Kernel& kernel, const LinearCase& linear, int64_t r) {
  const Shape& s = linear.shape();
  GuardedPanels ones(kernel, 3, s.k, cut_of(kernel, s), Flush::kEnd);
  GuardedPanels zeros(kernel, 3, s.k, cut_of(kernel, s), Flush::kEnd);
  zeros.poison(0);
  for (const GuardedPanels* panels : {&ones, &zeros}) {
    kernel.microkernel->prepare(linear.row(0), s.dtype, linear.weights(), panels->panels(), r);
  }
  return ones.bytes_in_common(zeros);
}

}  // namespace

MARLIN_TEST(a_row_depends_on_no_other_row_and_on_no_pass) {
  for (const int bits : {4, 8}) {
    for (const int64_t m : {1, 2, 13, 33}) {
      check({.m = m, .n = 72, .bits = bits, .with_zeros = bits == 4, .dtype = Dtype::kBFloat16});
    }
    check({.m = 5, .n = 64, .k = 96, .group_size = 96, .bits = bits});
    for (const int64_t group_size : {32, 96}) {
      check({.m = 33, .n = 72, .k = 5 * group_size, .group_size = group_size, .bits = bits});
    }
    check({.m = 100, .n = 64, .k = 128, .group_size = 128, .bits = bits});
  }
}

MARLIN_TEST(a_row_is_prepared_whole_and_alone) {
  for (const int bits : {4, 8}) {
    for (const Dtype dtype : kDtypes) {
      for (const int64_t k : {96, 160, 256}) {
        const LinearCase linear({.n = 8, .k = k, .group_size = k, .bits = bits, .dtype = dtype},
                                Flush::kEnd);
        for (const Kernel& kernel : runnable_kernels(bits)) {
          const Cut cut = cut_of(kernel, linear.shape());
          const int64_t scales = kernel.is_integer() ? ceil_div(k, cut.stretch) : 0;
          const int64_t bytes = k * element_bytes(kernel) + (k / cut.segment + scales) * 4;
          std::set<int64_t> written;
          for (int64_t r = 0; r < 3; ++r) {
            const std::vector<int64_t> row = bytes_of_row(kernel, linear, r);
            expect(static_cast<int64_t>(row.size()) == bytes, describe(kernel, linear.shape()),
                   ": row ", r, " has ", row.size(), " bytes for ", bytes);
            written.insert(row.begin(), row.end());
          }
          expect(static_cast<int64_t>(written.size()) == 3 * bytes,
                 describe(kernel, linear.shape()), ": rows write the same bytes");
        }
      }
    }
  }
}

}  // namespace marlin::test
