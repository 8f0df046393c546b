// The driver: how activations are gathered, rows and columns cut, threads used, results finished.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "../cpu/dispatch.h"
#include "../cpu/gemm.h"
#include "../cpu/load.h"
#include "check.h"
#include "kernels.h"

namespace marlin::test {
namespace {

void with_threads(int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i, i + 1); });
  for (std::thread& thread : threads) thread.join();
}

// What a thread pool may do that is busy already.
void without_threads(int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  body(0, count);
}

// How a product is called, beside its Linear.
struct Call {
  int64_t a_count = -1;  // -1: k
  int64_t stride = -1;   // -1: a_count
  bool permuted = false;
  bool with_bias = false;
  Dtype bias_dtype = Dtype::kFloat32;
  bool gated = false;
};

// A product with its arguments in guarded memory. The activations of the case are those that meet
// the rows of the weights; the columns that are missing are zero there.
class Product {
 public:
  Product(const Shape& shape, Call call, Flush flush)
      : linear_(shape, flush),
        call_(completed(call, shape)),
        a_(shape.m == 0 ? 0
                        : ((shape.m - 1) * call_.stride + call_.a_count) * bytes_of(shape.dtype),
           flush),
        perm_(shape.k, flush),
        bias_(shape.n * bytes_of(call.bias_dtype), flush),
        flush_(flush) {
    for (int64_t i = 0; i < shape.k; ++i) perm_[i] = static_cast<int32_t>(i);
    if (call_.permuted) {
      std::shuffle(perm_.data(), perm_.data() + shape.k, std::mt19937(7));
    }
    for (int64_t r = 0; r < shape.m; ++r) {
      for (int64_t i = 0; i < shape.k; ++i) {
        if (perm_[i] < call_.a_count) {
          cpu::store_float(a_.data(), shape.dtype, r * call_.stride + perm_[i],
                           linear_.activation(r, i));
        } else {
          linear_.set_activation(r, i, 0.0f);
        }
      }
    }
    for (int64_t c = 0; c < shape.n; ++c) {
      cpu::store_float(bias_.data(), call_.bias_dtype, c, 0.02f * static_cast<float>(c) - 1.0f);
    }
  }

  int64_t columns() const { return linear_.shape().n / (call_.gated ? 2 : 1); }

  // [m][columns]
  std::vector<float> run(const Kernel& kernel, int threads,
                         const cpu::ParallelFor& parallel_for) const {
    const Shape& s = linear_.shape();
    Guarded<std::byte> out(s.m * columns() * bytes_of(s.dtype), flush_);
    cpu::gemm(*kernel.path, kernel.activation,
              {a_.data(), s.dtype, s.m, call_.a_count, call_.stride,
               call_.permuted ? perm_.data() : nullptr, linear_.weights(),
               call_.with_bias ? bias_.data() : nullptr, call_.bias_dtype, call_.gated, out.data()},
              threads, parallel_for);
    std::vector<float> values;
    for (int64_t i = 0; i < s.m * columns(); ++i) {
      values.push_back(cpu::load_float(out.data(), s.dtype, i));
    }
    return values;
  }

  // [m][columns] in double, of what the kernel sees
  std::vector<double> expected(const Kernel& kernel) const {
    const Shape& s = linear_.shape();
    std::vector<double> sums = linear_.product(seen_as(kernel));
    std::vector<double> want;
    for (int64_t r = 0; r < s.m; ++r) {
      double* row = sums.data() + r * s.n;
      for (int64_t c = 0; call_.with_bias && c < s.n; ++c) {
        row[c] += double{cpu::load_float(bias_.data(), call_.bias_dtype, c)};
      }
      for (int64_t c = 0; c < columns(); ++c) {
        const double gate = call_.gated ? row[c] / (1 + std::exp(-row[c])) : 1;
        want.push_back(gate * row[c + (call_.gated ? columns() : 0)]);
      }
    }
    return want;
  }

  std::string describe() const {
    return test::describe(linear_.shape()) + " a_count " + std::to_string(call_.a_count) +
           " stride " + std::to_string(call_.stride) + (call_.permuted ? " permuted" : "") +
           (call_.with_bias ? " with bias" : "") + (call_.gated ? " gated" : "");
  }

 private:
  static Call completed(Call call, const Shape& shape) {
    if (call.a_count < 0) call.a_count = shape.k;
    if (call.stride < 0) call.stride = call.a_count;
    return call;
  }

  LinearCase linear_;
  Call call_;
  Guarded<std::byte> a_;
  Guarded<int32_t> perm_;
  Guarded<std::byte> bias_;
  Flush flush_;
};

// Of the output; in float32 of what finishes it.
double rounding(Dtype dtype) {
  return dtype == Dtype::kFloat16 ? 0x1p-11 : dtype == Dtype::kBFloat16 ? 0x1p-8 : 1e-6;
}

// Every row within the tolerance of its format and the rounding of the output.
void expect_rows(const Kernel& kernel, const Shape& shape, const Product& product, int threads) {
  const std::vector<double> want = product.expected(kernel);
  const std::vector<float> got = product.run(kernel, threads, with_threads);
  const double bound = tolerance(kernel) + rounding(shape.dtype);
  for (int64_t r = 0; r < shape.m; ++r) {
    double error = 0;
    double norm = 0;
    for (int64_t i = r * product.columns(); i < (r + 1) * product.columns(); ++i) {
      const double exact = want.data()[i];
      error += (double{got.data()[i]} - exact) * (double{got.data()[i]} - exact);
      norm += exact * exact;
    }
    const double relative = std::sqrt(error / norm);
    expect(relative <= bound, describe(kernel), ", ", product.describe(), ": row ", r,
           " has a relative error of ", relative);
  }
}

void check(const Shape& shape, const Call& call) {
  for (const Flush flush : kFlushes) {
    const Product product(shape, call, flush);
    for (const Kernel& kernel : runnable_kernels(shape.bits)) {
      expect_rows(kernel, shape, product, 2);
    }
  }
}

// The one that the op takes by itself.
Kernel best_kernel(const Shape& shape) {
  const cpu::Path& path = *runnable_paths().front();
  const cpu::Activation activation = cpu::precise_activation(path, shape.dtype, shape.bits);
  return {&path, activation, cpu::microkernel_of(path, activation)};
}

void expect_same_bits_for_every_number_of_threads(const Kernel& kernel, const Product& product) {
  const std::vector<float> once = product.run(kernel, 1, with_threads);
  const auto expect_same = [&](const std::vector<float>& got, const std::string& how) {
    expect(std::memcmp(got.data(), once.data(), once.size() * sizeof(float)) == 0, describe(kernel),
           ", ", product.describe(), ": ", how, " differ from 1");
  };
  for (const int threads : {2, 3, 7}) {
    expect_same(product.run(kernel, threads, with_threads), std::to_string(threads) + " threads");
  }
  expect_same(product.run(kernel, 7, without_threads), "7 threads that are one");
}

}  // namespace

MARLIN_TEST(gemm_takes_rows_as_they_lie) {
  for (const Dtype dtype : kDtypes) {
    for (const int bits : {4, 8}) {
      const Shape shape = {
          .m = 7, .n = 136, .k = 256, .bits = bits, .with_zeros = bits == 4, .dtype = dtype};
      check(shape, {});
      check(shape, {.stride = 261});
      check(shape, {.a_count = 200});
      check(shape, {.a_count = 1, .stride = 300});
      check(shape, {.a_count = 0, .with_bias = true});
      check(shape, {.permuted = true});
      check(shape, {.a_count = 131, .stride = 133, .permuted = true});
      check({.m = 7, .n = 136, .k = 160, .group_size = 32, .bits = bits, .dtype = dtype},
            {.a_count = 150});
    }
  }
}

MARLIN_TEST(gemm_adds_a_bias_of_any_dtype) {
  for (const Dtype dtype : kDtypes) {
    for (const Dtype bias_dtype : kDtypes) {
      for (const int64_t n : {8, 72, 192}) {
        check({.m = 3, .n = n, .dtype = dtype}, {.with_bias = true, .bias_dtype = bias_dtype});
      }
    }
  }
}

MARLIN_TEST(gemm_gates_the_second_half_with_the_first) {
  for (const Dtype dtype : kDtypes) {
    for (const int64_t m : {1, 5, 40}) {
      const Shape shape = {.m = m, .n = 384, .dtype = dtype};
      check(shape, {.gated = true});
      check(shape, {.with_bias = true, .bias_dtype = dtype, .gated = true});
    }
    check({.m = 3, .n = 128, .bits = 8, .dtype = dtype}, {.permuted = true, .gated = true});
    check({.m = 3, .n = 384, .with_zeros = true, .dtype = dtype, .packed_scales = true},
          {.gated = true});
  }
}

// 600 rows are two chunks, and one block of columns is cut by rows.
MARLIN_TEST(gemm_of_many_rows_matches_the_double_loop) {
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kBFloat16}) {
    const Shape shape = {.m = 600, .n = 64, .k = 128, .group_size = 128, .dtype = dtype};
    const Product product(shape, {.with_bias = true}, Flush::kEnd);
    for (const Kernel& kernel : runnable_kernels(shape.bits)) {
      expect_rows(kernel, shape, product, 3);
    }
  }
}

MARLIN_TEST(gemm_gives_the_same_bits_for_every_number_of_threads) {
  // Enough elements that the preparation is shared, too.
  const Shape tall = {.m = 600, .n = 64, .k = 1024, .group_size = 128, .dtype = Dtype::kBFloat16};
  const Shape wide = {.m = 17, .n = 1032, .k = 256, .with_zeros = true, .dtype = Dtype::kFloat16};
  const Shape gated = {.m = 33, .n = 640, .k = 256, .bits = 8};
  const auto check_best = [](const Shape& shape, const Call& call) {
    const Product product(shape, call, Flush::kEnd);
    expect_same_bits_for_every_number_of_threads(best_kernel(shape), product);
  };
  const Shape short_groups = {
      .m = 33, .n = 136, .k = 1056, .group_size = 96, .packed_scales = true};
  check_best(short_groups, {.with_bias = true});
  check_best(tall, {.permuted = true, .with_bias = true});
  check_best(wide, {.a_count = 200});
  check_best(gated, {.gated = true});
  const Product product(wide, {}, Flush::kEnd);
  for (const Kernel& kernel : runnable_kernels(wide.bits)) {
    expect_same_bits_for_every_number_of_threads(kernel, product);
  }
}

MARLIN_TEST(gemm_of_no_rows_writes_nothing) {
  for (const Kernel& kernel : runnable_kernels(4)) {
    const Product product({.m = 0}, {.with_bias = true}, Flush::kEnd);
    expect(product.run(kernel, 2, with_threads).empty(), describe(kernel), ": an output");
  }
}

}  // namespace marlin::test
