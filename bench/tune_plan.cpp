// Times what csrc/cpu/plan.cpp chooses between, for every kernel of this machine: opening the codes
// in registers or once (decode_once_rows), and how many rows of panels are held (kPanelBytes).
// Built and run by tune_plan.py; prints one JSON object per measurement.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "../csrc/cpu/dispatch.h"
#include "../csrc/cpu/plan.h"

namespace {

using namespace marlin;
using namespace marlin::cpu;

constexpr int64_t kColumns = 1024;  // 16 blocks, whose codes stay in the second-level cache
constexpr double kSeconds = 0.06;   // of one measurement, at least
constexpr int kLeastRounds = 7;

struct Case {
  const Path* path;
  Activation activation;
  const Microkernel* kernel;
  int64_t k;
  int64_t group_size;
  int64_t rows;
};

const char* name_of(Activation activation) {
  constexpr const char* kNames[] = {"bfloat16", "int16", "int8"};
  return kNames[static_cast<int>(activation)];
}

Plan plan_of(const Case& c) {
  return make_plan({c.rows, kColumns, c.k, c.group_size, c.activation, c.kernel->tuning, 1});
}

// Codes, scales and prepared activations of a case; what they say does not matter, only that
// activations are ordinary numbers.
class Operands {
 public:
  explicit Operands(const Case& c)
      : plan_(plan_of(c)),
        words_(static_cast<size_t>(kColumns * c.k / 8)),
        scales_(static_cast<size_t>(kColumns * c.k / c.group_size), 0x3C00),
        values_(static_cast<size_t>((c.k + kPanelRows - 1) / kPanelRows * c.rows *
                                    (kPanelRows * 2 + kPanelPadding)) +
                kPanelAlignment),
        sums_(static_cast<size_t>(c.k / plan_.segment * c.rows)),
        row_scales_(static_cast<size_t>((c.k + plan_.stretch - 1) / plan_.stretch * c.rows)),
        tile_(static_cast<size_t>(c.rows * kBlockColumns) + kPanelAlignment) {
    std::mt19937 random(1);
    for (uint32_t& word : words_) word = static_cast<uint32_t>(random());
    weights_.words = words_.data();
    weights_.scales = scales_.data();
    weights_.scale_group_stride = kBlockColumns;
    weights_.scale_block_stride = kBlockColumns * (c.k / c.group_size);
    weights_.scale_dtype = Dtype::kFloat16;
    weights_.bits = 4;
    weights_.n = kColumns;
    weights_.k = c.k;
    weights_.group_size = c.group_size;
    panels_ = {values_.data(), sums_.data(),  row_scales_.data(),
               c.rows,         plan_.stretch, plan_.segment};
    std::vector<float> row(static_cast<size_t>(c.k));
    std::normal_distribution<float> normal;
    for (float& a : row) a = normal(random);
    for (int64_t r = 0; r < c.rows; ++r) {
      c.kernel->prepare(row.data(), Dtype::kFloat32, weights_, panels_, r);
    }
  }

  // All blocks once.
  void multiply(const Case& c, bool decode_once) {
    const auto address = reinterpret_cast<uintptr_t>(tile_.data());
    const uintptr_t aligned = (address + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
    const RowSlice slice = {0, c.rows, plan_.rows_per_pass, decode_once};
    for (int64_t block = 0; block < kColumns / kBlockColumns; ++block) {
      c.kernel->multiply(weights_, block, panels_, slice, reinterpret_cast<float*>(aligned));
    }
  }

 private:
  Plan plan_;
  std::vector<uint32_t> words_;
  std::vector<uint16_t> scales_;
  std::vector<std::byte> values_;
  std::vector<int32_t> sums_;
  std::vector<float> row_scales_;
  std::vector<float> tile_;
  Weights weights_{};
  Panels panels_{};
};

double seconds_of(Operands& operands, const Case& c, bool decode_once) {
  const auto begin = std::chrono::steady_clock::now();
  operands.multiply(c, decode_once);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Both ways in turn; prints nanoseconds per row.
void measure(const Case& c, const char* subject) {
  Operands operands(c);
  std::vector<double> in_registers;
  std::vector<double> once;
  double total = 0;
  while (total < kSeconds || in_registers.size() < kLeastRounds) {
    in_registers.push_back(seconds_of(operands, c, false));
    once.push_back(seconds_of(operands, c, true));
    total += in_registers.back() + once.back();
  }
  const double per_row = 1e9 / static_cast<double>(c.rows);
  std::printf(
      "{\"subject\": \"%s\", \"path\": \"%s\", \"activation\": \"%s\", \"k\": %lld, "
      "\"group_size\": %lld, \"rows\": %lld, \"in_registers_ns\": %.0f, \"once_ns\": %.0f}\n",
      subject, c.path->name, name_of(c.activation), static_cast<long long>(c.k),
      static_cast<long long>(c.group_size), static_cast<long long>(c.rows),
      median(in_registers) * per_row, median(once) * per_row);
  std::fflush(stdout);
}

}  // namespace

// Arguments: names of paths; none: all that this machine can run but `generic`.
int main(int count, char** arguments) {
  const CpuFeatures features = detect_cpu();
  for (const std::string& name : available_paths(features)) {
    const bool is_asked =
        std::any_of(arguments + 1, arguments + count, [&](const char* a) { return name == a; });
    if (count > 1 ? !is_asked : name == kGenericPath.name) continue;
    const Path* path = select_path(features, name.c_str()).path;
    for (const Activation activation :
         {Activation::kBFloat16, Activation::kInt16, Activation::kInt8}) {
      const Microkernel* kernel = microkernel_of(*path, activation);
      if (kernel == nullptr) continue;
      for (const int64_t group_size : {128, 32}) {
        for (const int64_t rows : {16, 24, 32, 48, 64, 96, 128}) {
          measure({path, activation, kernel, 4096, group_size, rows}, "decode_once_rows");
        }
      }
      for (const int64_t rows : {128, 256, 384, 512}) {
        measure({path, activation, kernel, 14336, 128, rows}, "panel_bytes");
      }
    }
  }
  return 0;
}
