// What a kernel knows of a weight: sizes, dtypes and raw pointers. Declarations only, for files of
// every compiler and instruction set (see cpu/microkernel.h).
#pragma once

#include <cstdint>

namespace marlin {

enum class Dtype : uint8_t { kFloat16, kBFloat16, kFloat32 };

inline constexpr int64_t kBlockColumns = 64;  // columns in one packed block: four 512-bit vectors
inline constexpr int64_t kGroupMultiple = 32;

// Weights of one Linear. Element (k, n) is (code - zero) * scale of the group k / group_size.
//
// A 32-bit word holds 32 / bits neighbouring rows of one column, in the order in which the dot
// products take them after one shift and one mask:
//   4 bits: row 2j of the eight has the bits 4j.., row 2j + 1 the bits 16 + 4j..
//   8 bits: the bytes, from the lowest, are the rows 0, 2, 1, 3 of the four.
// On a GPU words are those of cuda/layout.h.
struct Weights {
  const uint32_t* words;  // [ceil(n / 64)][k * bits / 32][64]
  const void* scales;     // those of 64 columns in a row
  const uint32_t* zeros;  // eight 4-bit zeros in a word; null: all are 2^(bits - 1). Only with
                          // 4 bits.
  int64_t
      scale_group_stride;  // elements from a group to the next, and a block of 64 columns to the
  int64_t scale_block_stride;  // next: n and 64 where they are plain, 64 and 64 k / group_size
                               // where they are packed. Those of the zeros are an eighth.
  Dtype scale_dtype;
  int bits;            // 4 or 8
  int64_t n;           // a multiple of 8
  int64_t k;           // a multiple of group_size
  int64_t group_size;  // a multiple of 32
};

}  // namespace marlin
