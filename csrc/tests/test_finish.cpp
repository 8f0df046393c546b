// The last step of a product: bias, gate and rounding, one row of a tile at a time.

#include <bit>
#include <cmath>
#include <limits>

#include "../cpu/load.h"
#include "check.h"
#include "kernels.h"

namespace marlin::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

double silu(double x) { return x / (1 + std::exp(-x)); }

// One row: a tile, a gate and both biases in guarded memory.
struct Row {
  Row(int64_t columns, Dtype bias_dtype, Flush flush)
      : tile(kBlockColumns, flush),
        gate(kBlockColumns, flush),
        bias(columns * bytes_of(bias_dtype), flush),
        gate_bias(columns * bytes_of(bias_dtype), flush) {
    for (int64_t c = 0; c < kBlockColumns; ++c) {
      const float at = static_cast<float>(c);
      tile[c] = 0.37f * at - 7.3f;
      gate[c] = 9.1f - 0.31f * at;
      if (c >= columns) continue;
      cpu::store_float(bias.data(), bias_dtype, c, 3.0f - 0.7f * at);
      cpu::store_float(gate_bias.data(), bias_dtype, c, 0.11f * at);
    }
    finish = {tile.data(), nullptr, nullptr, nullptr,
              bias_dtype,  columns, nullptr, Dtype::kFloat32};
  }

  void add_bias() {
    finish.bias = bias.data();
    finish.gate_bias = finish.gate == nullptr ? nullptr : gate_bias.data();
  }

  // What the row becomes before it is rounded: exactly without a gate.
  double value(int64_t c) const {
    const auto sum = [&](const float* row, const void* added) {
      return added == nullptr ? row[c] : row[c] + cpu::load_float(added, finish.bias_dtype, c);
    };
    const double sum_of_tile = double{sum(finish.tile, finish.bias)};
    if (finish.gate == nullptr) return sum_of_tile;
    return silu(double{sum(finish.gate, finish.gate_bias)}) * sum_of_tile;
  }

  Guarded<float> tile;
  Guarded<float> gate;
  Guarded<std::byte> bias;
  Guarded<std::byte> gate_bias;
  cpu::Finish finish;
};

// The rounding error of one operation on float32 and of the dtype's last bit.
double rounding(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat16:
      return 0x1p-11;
    case Dtype::kBFloat16:
      return 0x1p-8;
    case Dtype::kFloat32:
      break;
  }
  return 0x1p-24;
}

void check_row(const cpu::Path& path, Row& row, Dtype dtype, Flush flush) {
  Guarded<std::byte> out(row.finish.columns * bytes_of(dtype), flush);
  row.finish.out = out.data();
  row.finish.dtype = dtype;
  path.finish(row.finish);
  for (int64_t c = 0; c < row.finish.columns; ++c) {
    const float got = cpu::load_float(out.data(), dtype, c);
    const double want = row.value(c);
    if (row.finish.gate == nullptr) {
      float rounded = static_cast<float>(want);
      cpu::store_float(&rounded, dtype, 0, rounded);
      expect(got == cpu::load_float(&rounded, dtype, 0), path.name, ": column ", c, " of ",
             row.finish.columns, " is ", got, " for ", want);
    } else {
      const double bound = (1e-6 + rounding(dtype)) * std::abs(want);
      expect(std::abs(double{got} - want) <= bound, path.name, ": gated column ", c, " of ",
             row.finish.columns, " is ", got, " for ", want);
    }
  }
}

// One value of float32 through the gate, times `factor`.
float gate_one(const cpu::Path& path, float x, float factor) {
  Row row(1, Dtype::kFloat32, Flush::kEnd);
  row.gate[0] = x;
  row.tile[0] = factor;
  row.finish.gate = row.gate.data();
  float out = 0;
  row.finish.out = &out;
  path.finish(row.finish);
  return out;
}

}  // namespace

MARLIN_TEST(a_row_is_finished_for_every_width_and_dtype) {
  for (const cpu::Path* path : runnable_paths()) {
    for (const Flush flush : kFlushes) {
      for (int64_t columns = 1; columns <= 64; ++columns) {
        const Dtype bias_dtype = kDtypes[columns % 3];
        for (const Dtype dtype : kDtypes) {
          Row row(columns, bias_dtype, flush);
          check_row(*path, row, dtype, flush);
          row.add_bias();
          check_row(*path, row, dtype, flush);
          row.finish.gate = row.gate.data();
          row.finish.bias = nullptr;
          check_row(*path, row, dtype, flush);
          row.add_bias();
          check_row(*path, row, dtype, flush);
        }
      }
    }
  }
}

MARLIN_TEST(outputs_round_to_the_nearest_and_ties_to_even) {
  const float ties[] = {1.0f + 0x1p-11f, 1.0f + 0x3p-11f, 1.0f + 0x1p-8f, 1.0f + 0x3p-8f,
                        65519.0f,        65520.0f,        0x1p-25f,       0x3p-25f,
                        3.3895314e38f,   3.4e38f,         1e-40f,         -0.0f};
  for (const cpu::Path* path : runnable_paths()) {
    for (const Dtype dtype : kDtypes) {
      Row row(64, Dtype::kFloat32, Flush::kEnd);
      for (int64_t c = 0; c < 64; ++c) row.tile[c] = ties[c % 12] * (c % 24 < 12 ? 1.0f : -1.0f);
      check_row(*path, row, dtype, Flush::kEnd);
    }
  }
}

MARLIN_TEST(a_nan_and_an_infinity_reach_the_output) {
  for (const cpu::Path* path : runnable_paths()) {
    for (const Dtype dtype : kDtypes) {
      Row row(8, Dtype::kFloat32, Flush::kEnd);
      row.tile[1] = std::bit_cast<float>(0x7F800001u);  // its bits are lost by rounding alone
      row.tile[2] = -kNan;
      row.tile[3] = kInfinity;
      row.tile[4] = -kInfinity;
      float out[8];
      row.finish.out = out;
      row.finish.dtype = dtype;
      path->finish(row.finish);
      const auto got = [&](int64_t c) { return cpu::load_float(out, dtype, c); };
      expect(std::isfinite(got(0)) && std::isfinite(got(5)), path->name, ": neighbours change");
      expect(std::isnan(got(1)) && std::isnan(got(2)), path->name, ": ", got(1), " for NaN");
      expect(got(3) == kInfinity && got(4) == -kInfinity, path->name, ": infinities change");
    }
  }
}

// Below -87 the gate is zero within the smallest float32 times 100.
MARLIN_TEST(silu_is_precise_over_its_whole_range) {
  for (const cpu::Path* path : runnable_paths()) {
    for (float x = -87.0f; x <= 100.0f; x += 0.0371f) {
      for (const float factor : {1.0f, -3.7f}) {
        const double want = silu(double{x}) * double{factor};
        const double got = double{gate_one(*path, x, factor)};
        expect(std::abs(got - want) <= 1e-6 * std::abs(want), path->name, ": silu(", x, ") * ",
               factor, " is ", got, " for ", want);
      }
    }
    for (const float x : {0.0f, -0.0f, 1e-45f, -1e-40f, 1e-20f, 1e30f, 3e38f}) {
      const double want = x < 1 ? double{x} / 2 : double{x};
      const double got = double{gate_one(*path, x, 1.0f)};
      expect(std::abs(got - want) <= 1e-6 * std::abs(want) + 1e-45, path->name, ": silu(", x,
             ") is ", got);
    }
    for (float x = -100.0f; x < -87.0f; x += 0.5f) {
      expect(std::abs(gate_one(*path, x, 1.0f)) <= 2e-36f, path->name, ": silu(", x, ")");
    }
    for (const float x : {-1e3f, -1e10f, -1e30f, -3e38f, -kInfinity}) {
      const float got = gate_one(*path, x, 1.0f);
      expect(std::abs(got) <= 2e-36f, path->name, ": silu(", x, ") is ", got);
    }
    expect(std::isnan(gate_one(*path, kNan, 1.0f)), path->name, ": silu(NaN)");
    expect(std::isnan(gate_one(*path, -kNan, 0.0f)), path->name, ": silu(-NaN)");
    expect(gate_one(*path, kInfinity, 2.0f) == kInfinity, path->name, ": silu(inf)");
  }
}

MARLIN_TEST(every_path_finishes_with_the_same_bits) {
  const cpu::Path& generic = *runnable_paths().back();
  for (const cpu::Path* path : runnable_paths()) {
    for (float x = -120.0f; x <= 120.0f; x += 0.173f) {
      const float want = gate_one(generic, x, 1.7f);
      const float got = gate_one(*path, x, 1.7f);
      expect(std::bit_cast<uint32_t>(got) == std::bit_cast<uint32_t>(want), path->name, ": silu(",
             x, ") is ", got, ", generic's is ", want);
    }
  }
}

}  // namespace marlin::test
