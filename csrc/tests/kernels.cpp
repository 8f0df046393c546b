#include "kernels.h"

#include <algorithm>
#include <cmath>

#include "../common/math.h"
#include "../cpu/dispatch.h"
#include "../cpu/plan.h"
#include "check.h"

namespace marlin::test {

using cpu::Activation;

namespace {

constexpr Activation kActivations[] = {Activation::kBFloat16, Activation::kInt16,
                                       Activation::kInt8};

}  // namespace

std::vector<const cpu::Path*> runnable_paths() {
  const cpu::CpuFeatures here = cpu::detect_cpu();
  std::vector<const cpu::Path*> paths;
  for (const std::string& name : cpu::available_paths(here)) {
    paths.push_back(cpu::select_path(here, name.c_str()).path);
  }
  return paths;
}

std::vector<Kernel> runnable_kernels(int bits) {
  std::vector<Kernel> kernels;
  for (const cpu::Path* path : runnable_paths()) {
    for (const Activation activation : kActivations) {
      const cpu::Microkernel* found = cpu::microkernel_of(*path, activation);
      if (found == nullptr || (bits == 8 && !found->takes_bytes)) continue;
      const bool is_known = std::any_of(kernels.begin(), kernels.end(),
                                        [&](const Kernel& k) { return k.microkernel == found; });
      if (!is_known) kernels.push_back({path, activation, found});
    }
  }
  return kernels;
}

std::string describe(const Kernel& kernel) {
  static constexpr const char* kNames[] = {" bfloat16", " int16", " int8"};
  return std::string(kernel.path->name) + kNames[static_cast<int>(kernel.activation)];
}

std::string describe(const Kernel& kernel, const Shape& shape) {
  return describe(kernel) + ", " + describe(shape);
}

Dtype seen_as(const Kernel& kernel) {
  return kernel.activation == Activation::kBFloat16 ? Dtype::kBFloat16 : Dtype::kFloat32;
}

double tolerance(const Kernel& kernel) {
  switch (kernel.activation) {
    case Activation::kBFloat16:
      return 1e-6;
    case Activation::kInt16:
      return 1e-4;
    case Activation::kInt8:
      break;
  }
  return 2e-2;
}

int64_t element_bytes(const Kernel& kernel) {
  return kernel.activation == Activation::kInt8 ? 1 : 2;
}

Cut cut_of(const Kernel& kernel, const Shape& s) {
  const cpu::Plan plan = cpu::make_plan({.m = s.m,
                                         .n = s.n,
                                         .k = s.k,
                                         .group_size = s.group_size,
                                         .activation = kernel.activation,
                                         .tuning = kernel.microkernel->tuning,
                                         .threads = 1});
  return {plan.stretch, plan.segment};
}

GuardedPanels::GuardedPanels(const Kernel& kernel, int64_t rows, int64_t k, Cut cut, Flush flush)
    : values_(ceil_div(k, cpu::kPanelRows) * rows *
                  (cpu::kPanelRows * element_bytes(kernel) + cpu::kPanelPadding),
              flush),
      sums_(rows * (k / cut.segment), flush),
      scales_(kernel.is_integer() ? rows * ceil_div(k, cut.stretch) : 0, flush),
      panels_{values_.data(), sums_.data(), scales_.data(), rows, cut.stretch, cut.segment} {}

void GuardedPanels::poison(int byte) {
  values_.poison(byte);
  sums_.poison(byte);
  scales_.poison(byte);
}

std::vector<int64_t> GuardedPanels::bytes_in_common(const GuardedPanels& other) const {
  std::vector<int64_t> found;
  int64_t at = 0;
  const auto compare = [&](const void* here, const void* there, size_t count) {
    for (size_t i = 0; i < count; ++i, ++at) {
      if (static_cast<const std::byte*>(here)[i] == static_cast<const std::byte*>(there)[i]) {
        found.push_back(at);
      }
    }
  };
  compare(values_.data(), other.values_.data(), values_.size_bytes());
  compare(sums_.data(), other.sums_.data(), sums_.size_bytes());
  compare(scales_.data(), other.scales_.data(), scales_.size_bytes());
  return found;
}

Prepared::Prepared(const Kernel& kernel, const LinearCase& linear, Flush flush, Cut cut)
    : GuardedPanels(kernel, linear.shape().m, linear.shape().k, cut, flush) {
  const Shape& s = linear.shape();
  for (int64_t r = 0; r < s.m; ++r) {
    kernel.microkernel->prepare(linear.row(r), s.dtype, linear.weights(), panels(), r);
  }
}

int max_rows(const Kernel& kernel, const cpu::Panels& panels) {
  const cpu::Tuning& tuning = kernel.microkernel->tuning;
  return (panels.segment == panels.stretch ? tuning.one_segment : tuning.several).max_rows;
}

cpu::RowSlice whole_slice(const Kernel& kernel, const cpu::Panels& panels) {
  return {
      .first = 0, .count = panels.rows, .per_pass = max_rows(kernel, panels), .decode_once = false};
}

std::vector<float> multiply(const Kernel& kernel, const LinearCase& linear,
                            const Prepared& prepared, const cpu::RowSlice& slice, Flush flush) {
  const int64_t n = linear.shape().n;
  std::vector<float> rows(static_cast<size_t>(slice.count * n));
  for (int64_t block = 0; block < linear.shape().blocks(); ++block) {
    Guarded<float> tile(slice.count * kBlockColumns, flush);
    kernel.microkernel->multiply(linear.weights(), block, prepared.panels(), slice, tile.data());
    const int64_t first = block * kBlockColumns;
    for (int64_t r = 0; r < slice.count; ++r) {
      std::copy_n(tile.data() + r * kBlockColumns, std::min(kBlockColumns, n - first),
                  rows.data() + r * n + first);
    }
  }
  return rows;
}

std::vector<float> multiply(const Kernel& kernel, const LinearCase& linear, Flush flush) {
  const Prepared prepared(kernel, linear, flush);
  return multiply(kernel, linear, prepared, whole_slice(kernel, prepared.panels()), flush);
}

const std::vector<double>& Expected::of(const Kernel& kernel) {
  std::vector<double>& product = kernel.activation == Activation::kBFloat16 ? of_bfloat16_ : exact_;
  if (product.empty()) product = linear_.product(seen_as(kernel));
  return product;
}

void expect_close(const Kernel& kernel, const LinearCase& linear, Expected& expected, Flush flush) {
  const std::vector<double>& want = expected.of(kernel);
  const std::vector<float> got = multiply(kernel, linear, flush);
  const Shape& s = linear.shape();
  for (int64_t r = 0; r < s.m; ++r) {
    const float* row = got.data() + r * s.n;
    double error = 0;
    double norm = 0;
    for (int64_t c = 0; c < s.n; ++c) {
      const double exact = want.data()[r * s.n + c];
      error += (double{row[c]} - exact) * (double{row[c]} - exact);
      norm += exact * exact;
    }
    const double relative = std::sqrt(error / norm);
    expect(relative <= tolerance(kernel), describe(kernel, s), ": row ", r,
           " has a relative error of ", relative);
  }
}

}  // namespace marlin::test
