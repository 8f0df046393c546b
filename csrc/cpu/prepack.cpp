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

template <int bits>
uint32_t pack_word(uint32_t plain);
template <int bits>
uint32_t unpack_word(uint32_t packed);

// Bytes 1 and 2 change places.
template <>
uint32_t pack_word<8>(uint32_t plain) {
  return (plain & 0xFF0000FFu) | ((plain & 0x0000FF00u) << 8) | ((plain & 0x00FF0000u) >> 8);
}

template <>
uint32_t unpack_word<8>(uint32_t packed) {
  return pack_word<8>(packed);
}

template <>
uint32_t pack_word<4>(uint32_t plain) {
  return gather_even_nibbles(plain) | (gather_even_nibbles(plain >> 4) << 16);
}

template <>
uint32_t unpack_word<4>(uint32_t packed) {
  return spread_to_even_nibbles(packed & 0xFFFFu) | (spread_to_even_nibbles(packed >> 16) << 4);
}

template <int bits>
void pack_words(const uint32_t* plain, int64_t n, int64_t word_rows, int64_t first_block,
                int64_t last_block, uint32_t* packed) {
  for (int64_t block = first_block; block < last_block; ++block) {
    const int64_t first = block * kBlockColumns;
    const int64_t columns = std::min(kBlockColumns, n - first);
    for (int64_t r = 0; r < word_rows; ++r) {
      const uint32_t* from = plain + r * n + first;
      uint32_t* to = packed + (block * word_rows + r) * kBlockColumns;
      for (int64_t c = 0; c < columns; ++c) to[c] = pack_word<bits>(from[c]);
      std::fill(to + columns, to + kBlockColumns, 0u);
    }
  }
}

template <int bits>
void unpack_words(const uint32_t* packed, int64_t n, int64_t word_rows, int64_t first_block,
                  int64_t last_block, uint32_t* plain) {
  for (int64_t block = first_block; block < last_block; ++block) {
    const int64_t first = block * kBlockColumns;
    const int64_t columns = std::min(kBlockColumns, n - first);
    for (int64_t r = 0; r < word_rows; ++r) {
      const uint32_t* from = packed + (block * word_rows + r) * kBlockColumns;
      uint32_t* to = plain + r * n + first;
      for (int64_t c = 0; c < columns; ++c) to[c] = unpack_word<bits>(from[c]);
    }
  }
}

}  // namespace

void pack_blocks(const uint32_t* plain, const PlainShape& shape, int64_t first_block,
                 int64_t last_block, uint32_t* packed) {
  const int64_t word_rows = shape.k * shape.bits / 32;
  const auto pack = shape.bits == 4 ? pack_words<4> : pack_words<8>;
  pack(plain, shape.n, word_rows, first_block, last_block, packed);
}

void unpack_blocks(const uint32_t* packed, const PlainShape& shape, int64_t first_block,
                   int64_t last_block, uint32_t* plain) {
  const int64_t word_rows = shape.k * shape.bits / 32;
  const auto unpack = shape.bits == 4 ? unpack_words<4> : unpack_words<8>;
  unpack(packed, shape.n, word_rows, first_block, last_block, plain);
}

}  // namespace marlin::cpu
