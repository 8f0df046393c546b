#include "prepack.h"

#include <algorithm>

#include "microkernel.h"

namespace marlin::cpu {
namespace {

// Moves nibbles 0, 2, 4, 6 of a word to nibbles 0, 1, 2, 3: each step halves the gaps.
uint32_t gather_even_nibbles(uint32_t word) {
  word &= 0x0F0F0F0Fu;
  word = (word | (word >> 4)) & 0x00FF00FFu;
  return (word | (word >> 8)) & 0x0000FFFFu;
}

uint32_t spread_to_even_nibbles(uint32_t half) {
  half = (half | (half << 8)) & 0x00FF00FFu;
  return (half | (half << 4)) & 0x0F0F0F0Fu;
}

uint32_t pack_word(uint32_t plain) {
  return gather_even_nibbles(plain) | (gather_even_nibbles(plain >> 4) << 16);
}

uint32_t unpack_word(uint32_t packed) {
  return spread_to_even_nibbles(packed & 0xFFFFu) | (spread_to_even_nibbles(packed >> 16) << 4);
}

}  // namespace

void pack_blocks(const uint32_t* plain, int64_t n, int64_t k, int64_t first_block,
                 int64_t last_block, uint32_t* packed) {
  const int64_t word_rows = k / kWordRows;
  for (int64_t block = first_block; block < last_block; ++block) {
    const int64_t first = block * kBlockColumns;
    const int64_t columns = std::min(kBlockColumns, n - first);
    for (int64_t r = 0; r < word_rows; ++r) {
      const uint32_t* from = plain + r * n + first;
      uint32_t* to = packed + (block * word_rows + r) * kBlockColumns;
      for (int64_t c = 0; c < columns; ++c) to[c] = pack_word(from[c]);
      std::fill(to + columns, to + kBlockColumns, 0u);
    }
  }
}

void unpack_blocks(const uint32_t* packed, int64_t n, int64_t k, int64_t first_block,
                   int64_t last_block, uint32_t* plain) {
  const int64_t word_rows = k / kWordRows;
  for (int64_t block = first_block; block < last_block; ++block) {
    const int64_t first = block * kBlockColumns;
    const int64_t columns = std::min(kBlockColumns, n - first);
    for (int64_t r = 0; r < word_rows; ++r) {
      const uint32_t* from = packed + (block * word_rows + r) * kBlockColumns;
      uint32_t* to = plain + r * n + first;
      for (int64_t c = 0; c < columns; ++c) to[c] = unpack_word(from[c]);
    }
  }
}

}  // namespace marlin::cpu
