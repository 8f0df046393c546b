#include "dequantize.h"

#include <algorithm>

#include "load.h"

namespace marlin::cpu {
namespace {

void dequantize_group(const Weights& weights, int64_t group, int64_t column, void* out) {
  const int bits = weights.bits;
  const int64_t word_rows = 32 / bits;
  const int64_t block = column / kBlockColumns;
  const uint32_t* words =
      weights.words + block * (weights.k / word_rows) * kBlockColumns + column % kBlockColumns;
  const float scale =
      load_float(weights.scales, weights.scale_dtype, scale_index(weights, group, column));
  const int zero = load_zero(weights, group, column);
  const int64_t begin = group * weights.group_size;
  for (int64_t k = begin; k < begin + weights.group_size; ++k) {
    const uint32_t word = words[(k / word_rows) * kBlockColumns] >> code_shift(k, bits);
    const int code = static_cast<int>(word & ((1u << bits) - 1u));
    store_float(out, weights.scale_dtype, column * weights.k + k,
                static_cast<float>(code - zero) * scale);
  }
}

}  // namespace

void dequantize_blocks(const Weights& weights, int64_t first_block, int64_t last_block, void* out) {
  const int64_t end = std::min(last_block * kBlockColumns, weights.n);
  for (int64_t column = first_block * kBlockColumns; column < end; ++column) {
    for (int64_t group = 0; group < weights.k / weights.group_size; ++group) {
      dequantize_group(weights, group, column, out);
    }
  }
}

}  // namespace marlin::cpu
