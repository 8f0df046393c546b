// The driver: chunks, passes, slices, bias and rounding, with real threads.

#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "../cpu/dequantize.h"
#include "../cpu/dispatch.h"
#include "check.h"
#include "linear_case.h"

namespace marlin::test {
namespace {

void with_threads(int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i, i + 1); });
  for (std::thread& thread : threads) thread.join();
}

std::vector<float> run(const cpu::Microkernel& kernel, const Shape& shape, const LinearCase& linear,
                       const float* bias, int threads) {
  const size_t count = static_cast<size_t>(shape.m * shape.n);
  Guarded<std::byte> out(count * bytes_of(shape.dtype), Flush::kEnd);
  cpu::gemm(kernel,
            {linear.activations(), shape.dtype, shape.m, shape.a_count, shape.a_count,
             linear.weights(), bias, Dtype::kFloat32, out.data()},
            threads, with_threads);
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = cpu::load_float(out.data(), shape.dtype, static_cast<int64_t>(i));
  }
  return values;
}

}  // namespace

MARLIN_TEST(gemm_is_the_rounded_product_plus_bias) {
  const cpu::Microkernel& kernel = *cpu::select_kernel(cpu::detect_cpu(), nullptr).kernel;
  for (const int64_t m : {1, 7, 33}) {
    const Shape shape = {m, 136, 256, 200, 64, true, Dtype::kFloat32, Dtype::kFloat16};
    const LinearCase linear(shape, Flush::kEnd, 3);
    std::vector<float> bias(136);
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i) - 60.0f;
    const std::vector<float> got = run(kernel, shape, linear, bias.data(), 2);
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t c = 0; c < shape.n; ++c) {
        const double want = linear.expected(r, c) + double{bias[static_cast<size_t>(c)]};
        const double difference = std::abs(double{got[static_cast<size_t>(r * 136 + c)]} - want);
        expect(difference < 1e-3, "m ", m, " at ", r, ", ", c, ": off by ", difference);
      }
    }
  }
}

MARLIN_TEST(gemm_gives_the_same_bits_for_every_number_of_threads) {
  const cpu::Microkernel& kernel = *cpu::select_kernel(cpu::detect_cpu(), nullptr).kernel;
  // 600 rows are two chunks; one block of columns is cut by rows.
  for (const Shape& shape :
       {Shape{600, 64, 256, 256, 32, false, Dtype::kBFloat16, Dtype::kFloat16},
        Shape{17, 1032, 256, 256, 64, true, Dtype::kFloat16, Dtype::kFloat16}}) {
    const LinearCase linear(shape, Flush::kEnd, 5);
    const std::vector<float> once = run(kernel, shape, linear, nullptr, 1);
    for (const int threads : {1, 2, 3, 7}) {
      expect(run(kernel, shape, linear, nullptr, threads) == once, threads, " threads differ");
    }
  }
}

MARLIN_TEST(gemm_of_no_rows_writes_nothing) {
  const Shape shape = {0, 64, 64, 64, 32, false, Dtype::kFloat16, Dtype::kFloat16};
  const LinearCase linear(shape, Flush::kEnd, 1);
  expect(run(cpu::kGenericMicrokernel, shape, linear, nullptr, 2).empty(), "no output");
}

MARLIN_TEST(dequantize_matches_the_definition) {
  for (const Dtype dtype : {Dtype::kFloat16, Dtype::kBFloat16, Dtype::kFloat32}) {
    const Shape shape = {1, 72, 64, 1, 32, true, Dtype::kFloat32, dtype};
    const LinearCase linear(shape, Flush::kEnd, 11);
    const Weights weights = linear.weights();
    Guarded<std::byte> out(static_cast<size_t>(shape.n * shape.k) * bytes_of(dtype), Flush::kEnd);
    cpu::dequantize_blocks(weights, 0, 2, out.data());
    const double a = double{cpu::load_float(linear.activations(), Dtype::kFloat32, 0)};
    for (int64_t column = 0; column < shape.n; ++column) {
      // The activations have one column, so `expected` is one weight times a.
      const double want = linear.expected(0, column) / a;
      const double got = double{cpu::load_float(out.data(), dtype, column * shape.k)};
      expect(std::abs(got - want) <= std::abs(want) * 0.004, "column ", column, ": ", got);
    }
  }
}

}  // namespace marlin::test
