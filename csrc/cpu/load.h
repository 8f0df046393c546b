// Reads and writes one element of the caller's tensors, on any CPU. Not for files compiled for one
// instruction set (see microkernel.h).
#pragma once

#include <cstdint>

#include "../common/float_bits.h"
#include "microkernel.h"

namespace marlin::cpu {

inline float load_float(const void* data, Dtype dtype, int64_t index) {
  switch (dtype) {
    case Dtype::kFloat16:
      return float16_to_float(static_cast<const uint16_t*>(data)[index]);
    case Dtype::kBFloat16:
      return bfloat16_to_float(static_cast<const uint16_t*>(data)[index]);
    case Dtype::kFloat32:
      break;
  }
  return static_cast<const float*>(data)[index];
}

inline void store_float(void* data, Dtype dtype, int64_t index, float value) {
  switch (dtype) {
    case Dtype::kFloat16:
      static_cast<uint16_t*>(data)[index] = float_to_float16(value);
      return;
    case Dtype::kBFloat16:
      static_cast<uint16_t*>(data)[index] = float_to_bfloat16(value);
      return;
    case Dtype::kFloat32:
      static_cast<float*>(data)[index] = value;
      return;
  }
}

// Where the scale of one column in one group stands among the scales.
constexpr int64_t scale_index(const Weights& weights, int64_t group, int64_t column) {
  return group * weights.scale_group_stride + column / kBlockColumns * weights.scale_block_stride +
         column % kBlockColumns;
}

// The zero point of one column in one group.
inline int load_zero(const Weights& weights, int64_t group, int64_t column) {
  if (weights.zeros == nullptr) return 1 << (weights.bits - 1);
  const uint32_t word = weights.zeros[scale_index(weights, group, column) / 8];
  return static_cast<int>((word >> (4 * (column % 8))) & 0xFu);
}

// Where row k sits in its packed word: see Weights.
constexpr int code_shift(int64_t k, int bits) {
  const int64_t i = k % (32 / bits);
  return static_cast<int>(bits * (i / 2) + 16 * (i % 2));
}

}  // namespace marlin::cpu
