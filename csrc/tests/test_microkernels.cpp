// Every microkernel that this machine can run, against a double loop, with guard pages on all
// sides.

#include <cmath>
#include <cstring>
#include <vector>

#include "../cpu/dispatch.h"
#include "check.h"
#include "linear_case.h"

namespace marlin::test {
namespace {

using cpu::Microkernel;

// The contract: relative Frobenius error of the float32 sums to the exact product.
constexpr double kTolerance = 1e-4;

std::vector<const Microkernel*> runnable() {
  std::vector<const Microkernel*> kernels;
  for (const std::string& name : cpu::available_kernels(cpu::detect_cpu())) {
    kernels.push_back(cpu::select_kernel(cpu::detect_cpu(), name.c_str()).kernel);
  }
  return kernels;
}

std::string describe(const Microkernel& kernel, const Shape& s) {
  return std::string(kernel.name) + " m " + std::to_string(s.m) + " n " + std::to_string(s.n) +
         " k " + std::to_string(s.k) + " of a " + std::to_string(s.a_count) + " group " +
         std::to_string(s.group_size) + " zeros " + std::to_string(s.with_zeros) + " dtype " +
         std::to_string(static_cast<int>(s.dtype)) + "/" +
         std::to_string(static_cast<int>(s.scale_dtype));
}

// Multiplies all rows of the case, at most max_rows at a time, for one block of columns.
void check_block(const Microkernel& kernel, const Shape& shape, const LinearCase& linear,
                 int64_t block, Flush flush) {
  const int64_t bytes = kernel.panel_bytes(shape.k, shape.group_size, shape.dtype);
  Guarded<std::byte> panels(static_cast<size_t>(shape.m * bytes), flush);
  for (int64_t r = 0; r < shape.m; ++r) {
    kernel.prepare(linear.row(r), shape.k, shape.group_size, panels.data() + r * bytes);
  }
  double error = 0;
  double norm = 0;
  for (int64_t begin = 0; begin < shape.m; begin += kernel.max_rows) {
    const int rows = static_cast<int>(std::min<int64_t>(kernel.max_rows, shape.m - begin));
    Guarded<float> tile(static_cast<size_t>(rows) * 64, flush);
    kernel.multiply(linear.weights(), block, panels.data() + begin * bytes, bytes, shape.dtype,
                    rows, tile.data());
    for (int r = 0; r < rows; ++r) {
      Guarded<float> alone(64, flush);
      kernel.multiply(linear.weights(), block, panels.data() + (begin + r) * bytes, bytes,
                      shape.dtype, 1, alone.data());
      expect(std::memcmp(alone.data(), tile.data() + r * 64, 64 * sizeof(float)) == 0,
             describe(kernel, shape), ": row ", begin + r, " depends on its neighbours");
      for (int64_t c = 0; c < 64; ++c) {
        const float got = tile[static_cast<size_t>(r * 64 + c)];
        if (block * 64 + c >= shape.n) {
          expect(got == 0.0f, describe(kernel, shape), ": padding column ", c, " is ", got);
          continue;
        }
        const double want = linear.expected(begin + r, block * 64 + c);
        error += (double{got} - want) * (double{got} - want);
        norm += want * want;
      }
    }
  }
  const double relative = std::sqrt(error / norm);
  expect(relative <= kTolerance, describe(kernel, shape), ": relative error ", relative);
}

void check(const Microkernel& kernel, const Shape& shape) {
  for (const Flush flush : {Flush::kStart, Flush::kEnd}) {
    const LinearCase linear(shape, flush, static_cast<uint32_t>(shape.m * 1000 + shape.n));
    for (int64_t block = 0; block * 64 < shape.n; ++block) {
      check_block(kernel, shape, linear, block, flush);
    }
  }
}

constexpr Dtype kDtypes[] = {Dtype::kFloat16, Dtype::kBFloat16, Dtype::kFloat32};

}  // namespace

MARLIN_TEST(every_row_count_matches_the_double_loop) {
  for (const Microkernel* kernel : runnable()) {
    for (int64_t m = 1; m <= 17; ++m) {
      for (const Dtype dtype : kDtypes) {
        check(*kernel, {m, 64, 128, 128, 64, true, dtype, Dtype::kFloat16});
      }
    }
  }
}

MARLIN_TEST(every_column_tail_matches_the_double_loop) {
  for (const Microkernel* kernel : runnable()) {
    for (int64_t n = 8; n <= 136; n += 8) {
      for (const bool with_zeros : {false, true}) {
        check(*kernel, {3, n, 64, 64, 32, with_zeros, Dtype::kBFloat16, Dtype::kBFloat16});
      }
    }
  }
}

MARLIN_TEST(every_group_size_and_dtype_matches_the_double_loop) {
  for (const Microkernel* kernel : runnable()) {
    for (const int64_t group_size : {32, 64, 128, 256}) {
      for (const Dtype dtype : kDtypes) {
        for (const Dtype scale_dtype : kDtypes) {
          check(*kernel, {5, 72, 256, 256, group_size, true, dtype, scale_dtype});
        }
      }
    }
  }
}

MARLIN_TEST(missing_columns_count_as_zero) {
  for (const Microkernel* kernel : runnable()) {
    for (const int64_t a_count : {1, 2, 15, 16, 17, 31, 33, 64, 95, 96}) {
      for (const Dtype dtype : kDtypes) {
        check(*kernel, {2, 64, 96, a_count, 32, true, dtype, Dtype::kFloat32});
      }
    }
  }
}

// A mean makes the sums grow, and with them what an offset in the accumulators costs.
MARLIN_TEST(long_groups_and_a_mean_keep_the_tolerance) {
  for (const Microkernel* kernel : runnable()) {
    for (const int64_t k : {14336, 160, 192, 480}) {
      for (const Dtype dtype : kDtypes) {
        const Shape shape = {2, 64, k, k, k, false, dtype, Dtype::kFloat16};
        const LinearCase linear(shape, Flush::kEnd, 17, 1.0f);
        check_block(*kernel, shape, linear, 0, Flush::kEnd);
      }
    }
  }
}

// The sums run before the scale is applied, with codes up to 128 + 15 in one of the kernels.
MARLIN_TEST(activations_up_to_1e36_do_not_overflow) {
  const float a = 1e36f;
  for (const Microkernel* kernel : runnable()) {
    const Shape shape = {1, 8, 32, 1, 32, true, Dtype::kFloat32, Dtype::kFloat32};
    const LinearCase linear(shape, Flush::kEnd, 7);
    const cpu::ActivationRow row = {&a, Dtype::kFloat32, 1};
    const int64_t bytes = kernel->panel_bytes(shape.k, shape.group_size, shape.dtype);
    Guarded<std::byte> panel(static_cast<size_t>(bytes), Flush::kEnd);
    Guarded<float> tile(64, Flush::kEnd);
    kernel->prepare(row, shape.k, shape.group_size, panel.data());
    kernel->multiply(linear.weights(), 0, panel.data(), bytes, shape.dtype, 1, tile.data());
    const double unit =
        double{a} / double{cpu::load_float(linear.activations(), Dtype::kFloat32, 0)};
    for (int64_t c = 0; c < 8; ++c) {
      const double want = linear.expected(0, c) * unit;
      const double got = double{tile[static_cast<size_t>(c)]};
      expect(std::abs(got - want) <= 1e-4 * double{a}, kernel->name, ": ", got, " for ", want);
    }
  }
}

}  // namespace marlin::test
