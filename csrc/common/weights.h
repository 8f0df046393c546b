// What a kernel knows of a 4-bit weight: sizes, dtypes and raw pointers. Declarations only, for
// files of every compiler and instruction set (see cpu/microkernel.h).
#pragma once

#include <cstdint>

namespace marlin {

enum class Dtype : uint8_t { kFloat16, kBFloat16, kFloat32 };

inline constexpr int64_t kBlockColumns = 64;  // columns in one packed block: four 512-bit vectors
inline constexpr int64_t kWordRows = 8;       // rows of K in one 32-bit word
inline constexpr int64_t kGroupMultiple = 32;

// Weights of one Linear. Element (k, n) is (code - zero) * scale of the group k / group_size.
// In a word, row 2j of the eight has the bits 4j.., and row 2j + 1 the bits 16 + 4j..
struct Weights {
  const uint32_t* words;  // [ceil(n / 64)][k / 8][64]
  const void* scales;     // [k / group_size][n]
  const uint32_t* zeros;  // [k / group_size][n / 8], eight 4-bit zeros in a word; null: all are 8
  Dtype scale_dtype;
  int64_t n;           // a multiple of 8
  int64_t k;           // a multiple of group_size
  int64_t group_size;  // a multiple of 32
};

}  // namespace marlin
