#include "prepack.h"

#include <algorithm>

#include "microkernel.h"

namespace marlin::cpu {
namespace {

// Plain rows are walked in tiles, so that a page of one serves all blocks of a task before the
// next is opened, and the words of the next tile are fetched meanwhile: rows are pages apart, and
// no hardware prefetcher follows. Measured, 4096 x 4096 codes of 4 bits out of memory, one thread:
// 25 GB/s without tiles, 26 with tiles of 16 x 16, 33 with the prefetches (memcpy: 40).
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBlocks = 16;  // 4 KiB of a plain row
constexpr int64_t kLineWords = 16;

// The swaps are their own inverses. 4 bits, nibbles from the lowest:
//   plain                    0 1 2 3  4 5 6 7
//   middle nibbles swapped   0 2 1 3  4 6 5 7
//   then the middle bytes    0 2 4 6  1 3 5 7, which is packed.
inline uint32_t swap_middle_nibbles(uint32_t word) {
  const uint32_t change = (word ^ (word >> 4)) & 0x00F000F0u;
  return word ^ change ^ (change << 4);
}

inline uint32_t swap_middle_bytes(uint32_t word) {
  const uint32_t change = (word ^ (word >> 8)) & 0x0000FF00u;
  return word ^ change ^ (change << 8);
}

template <int bits>
uint32_t pack_word(uint32_t plain) {
  return swap_middle_bytes(bits == 4 ? swap_middle_nibbles(plain) : plain);
}

template <int bits>
uint32_t unpack_word(uint32_t packed) {
  const uint32_t word = swap_middle_bytes(packed);
  return bits == 4 ? swap_middle_nibbles(word) : word;
}

// The words of one row in one block. A whole block has a constant number of columns: vectors.
template <uint32_t convert(uint32_t)>
void convert_columns(const uint32_t* from, int64_t columns, uint32_t* to) {
  if (columns == kBlockColumns) {
    for (int64_t c = 0; c < kBlockColumns; ++c) to[c] = convert(from[c]);
  } else {
    for (int64_t c = 0; c < columns; ++c) to[c] = convert(from[c]);
  }
}

template <int bits>
void pack_words(const uint32_t* plain, int64_t n, int64_t word_rows, int64_t first_block,
                int64_t last_block, uint32_t* packed) {
  const auto pack_row = [&](int64_t block, int64_t r) {
    const int64_t first = block * kBlockColumns;
    const int64_t columns = std::min(kBlockColumns, n - first);
    const uint32_t* from = plain + r * n + first;
    const uint32_t* ahead = from + std::min(kTileRows, word_rows - 1 - r) * n;
    for (int64_t c = 0; c < columns; c += kLineWords) __builtin_prefetch(ahead + c);
    uint32_t* to = packed + (block * word_rows + r) * kBlockColumns;
    convert_columns<pack_word<bits>>(from, columns, to);
    std::fill(to + columns, to + kBlockColumns, 0u);
  };
  for (int64_t tile = first_block; tile < last_block; tile += kTileBlocks) {
    const int64_t tile_end = std::min(tile + kTileBlocks, last_block);
    for (int64_t row = 0; row < word_rows; row += kTileRows) {
      const int64_t row_end = std::min(row + kTileRows, word_rows);
      for (int64_t block = tile; block < tile_end; ++block) {
        for (int64_t r = row; r < row_end; ++r) pack_row(block, r);
      }
    }
  }
}

// Block after block: tiles gain nothing where the plain rows are written (31 GB/s with, 33
// without).
template <int bits>
void unpack_words(const uint32_t* packed, int64_t n, int64_t word_rows, int64_t first_block,
                  int64_t last_block, uint32_t* plain) {
  for (int64_t block = first_block; block < last_block; ++block) {
    const int64_t first = block * kBlockColumns;
    const int64_t columns = std::min(kBlockColumns, n - first);
    for (int64_t r = 0; r < word_rows; ++r) {
      const uint32_t* from = packed + (block * word_rows + r) * kBlockColumns;
      uint32_t* to = plain + r * n + first;
      const int64_t rows_ahead = std::min(kTileRows, word_rows - 1 - r);
      for (int64_t c = 0; c < columns; c += kLineWords) {
        __builtin_prefetch(from + rows_ahead * kBlockColumns + c);
        __builtin_prefetch(to + rows_ahead * n + c, 1);
      }
      convert_columns<unpack_word<bits>>(from, columns, to);
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
