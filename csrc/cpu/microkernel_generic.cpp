// The microkernel in portable C++: obvious first, the reference for the others. A panel is one row
// of float32, padded with zeros to k.

#include <algorithm>
#include <array>

#include "../common/float_bits.h"
#include "../common/math.h"
#include "load.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

// Eight rows share each decoded weight; more would not pay without wide vectors.
constexpr int kMaxRows = 8;

int64_t panel_bytes(int64_t k, int64_t /*group_size*/, Dtype /*dtype*/) {
  return round_up(k * static_cast<int64_t>(sizeof(float)), kPanelAlignment);
}

void prepare(const ActivationRow& row, int64_t k, int64_t /*group_size*/, void* panel) {
  float* out = static_cast<float*>(panel);
  for (int64_t i = 0; i < row.count; ++i) out[i] = load_float(row.data, row.dtype, i);
  std::fill(out + row.count, out + k, 0.0f);
}

void multiply(const Weights& weights, int64_t block, const void* panels, int64_t panel_bytes,
              Dtype /*dtype*/, int rows, float* tile) {
  const int64_t first = block * kBlockColumns;
  const int64_t columns = std::min(kBlockColumns, weights.n - first);
  const uint32_t* words = weights.words + block * (weights.k / kWordRows) * kBlockColumns;
  const char* panel_base = static_cast<const char*>(panels);
  std::fill(tile, tile + rows * kBlockColumns, 0.0f);

  for (int64_t group = 0; group < weights.k / weights.group_size; ++group) {
    std::array<float, kBlockColumns> scale{};
    std::array<float, kBlockColumns> zero{};
    for (int64_t c = 0; c < columns; ++c) {
      scale[static_cast<size_t>(c)] =
          load_float(weights.scales, weights.scale_dtype, group * weights.n + first + c);
      zero[static_cast<size_t>(c)] = load_zero(weights, group, first + c);
    }

    std::array<float, kMaxRows * kBlockColumns> sums{};
    for (int64_t i = 0; i < weights.group_size; ++i) {
      const int64_t k = group * weights.group_size + i;
      const uint32_t* word = words + (k / kWordRows) * kBlockColumns;
      const int shift = nibble_shift(k);
      std::array<float, kBlockColumns> weight;
      for (size_t c = 0; c < kBlockColumns; ++c) {
        weight[c] = static_cast<float>((word[c] >> shift) & 0xFu) - zero[c];
      }
      for (int r = 0; r < rows; ++r) {
        const float a = reinterpret_cast<const float*>(panel_base + r * panel_bytes)[k];
        float* sum = sums.data() + r * kBlockColumns;
        for (size_t c = 0; c < kBlockColumns; ++c) sum[c] += a * weight[c];
      }
    }
    for (int r = 0; r < rows; ++r) {
      for (size_t c = 0; c < kBlockColumns; ++c) {
        const size_t at = static_cast<size_t>(r) * kBlockColumns + c;
        tile[at] += sums[at] * scale[c];
      }
    }
  }
}

}  // namespace

const Microkernel kGenericMicrokernel = {"generic", kMaxRows, panel_bytes, prepare, multiply};

}  // namespace marlin::cpu
