#include "kernels.h"

#include <algorithm>
#include <cmath>

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
  return kernel.activation == Activation::kInt8 ? 2e-2 : 1e-4;
}

int64_t element_bytes(const Kernel& kernel) {
  return kernel.activation == Activation::kInt8 ? 1 : 2;
}

int64_t segment_of(const Kernel& kernel, const Shape& s) {
  return cpu::make_plan(
             {s.m, s.n, s.k, s.group_size, kernel.activation, kernel.microkernel->max_rows, 1})
      .segment;
}

GuardedPanels::GuardedPanels(const Kernel& kernel, int64_t rows, int64_t k, int64_t segment,
                             Flush flush)
    : values_((k + cpu::kStretchRows - 1) / cpu::kStretchRows * rows *
                  (cpu::kStretchRows * element_bytes(kernel) + cpu::kPanelPadding),
              flush),
      sums_(rows * (k / segment), flush),
      scales_(kernel.is_integer() ? sums_.size() : 0, flush),
      panels_{values_.data(), sums_.data(), scales_.data(), rows, segment} {}

void GuardedPanels::poison(int byte) {
  values_.poison(byte);
  sums_.poison(byte);
  scales_.poison(byte);
}

bool GuardedPanels::same_bytes(const GuardedPanels& other) const {
  return values_.same_bytes(other.values_) && sums_.same_bytes(other.sums_) &&
         scales_.same_bytes(other.scales_);
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

Prepared::Prepared(const Kernel& kernel, const LinearCase& linear, Flush flush, int64_t segment)
    : GuardedPanels(kernel, linear.shape().m, linear.shape().k, segment, flush) {
  const Shape& s = linear.shape();
  for (int64_t r = 0; r < s.m; ++r) {
    kernel.microkernel->prepare(linear.row(r), s.dtype, s.k, s.bits, panels(), r);
  }
}

cpu::RowSlice whole_slice(const Kernel& kernel, int64_t rows) {
  const int max_rows = kernel.microkernel->max_rows;
  return {.first = 0,
          .count = rows,
          .per_pass = max_rows,
          .per_sweep = 4 * max_rows,
          .decode_once = false};
}

std::vector<float> multiply(const Kernel& kernel, const LinearCase& linear,
                            const Prepared& prepared, const cpu::RowSlice& slice, Flush flush) {
  const int64_t blocks = linear.shape().blocks();
  Guarded<std::byte> workspace(kernel.microkernel->workspace_bytes, flush);
  std::vector<float> rows(static_cast<size_t>(slice.count * blocks * kBlockColumns));
  for (int64_t block = 0; block < blocks; ++block) {
    Guarded<float> tile(slice.count * kBlockColumns, flush);
    kernel.microkernel->multiply(linear.weights(), block, prepared.panels(), slice, tile.data(),
                                 workspace.data());
    for (int64_t r = 0; r < slice.count; ++r) {
      const float* from = tile.data() + r * kBlockColumns;
      std::copy(from, from + kBlockColumns, rows.data() + (r * blocks + block) * kBlockColumns);
    }
  }
  return rows;
}

std::vector<float> multiply(const Kernel& kernel, const LinearCase& linear, Flush flush) {
  return multiply(kernel, linear, Prepared(kernel, linear, flush),
                  whole_slice(kernel, linear.shape().m), flush);
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
  const int64_t width = s.blocks() * kBlockColumns;
  for (int64_t r = 0; r < s.m; ++r) {
    const float* row = got.data() + r * width;
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
    for (int64_t c = s.n; c < width; ++c) {
      expect(row[c] == 0.0f, describe(kernel, s), ": padding column ", c, " is ", row[c]);
    }
  }
}

}  // namespace marlin::test
