// The plain layout of the codes to the packed one and back. Knows no Torch and no thread.
#pragma once

#include <cstdint>

namespace marlin::cpu {

struct PlainShape {
  int64_t n;
  int64_t k;
  int bits;  // 4 or 8
};

// plain: [k * bits / 32][n], code i of a word, from the lowest bits, is row 32 / bits * r + i.
// packed: see Weights. Both convert the blocks [first_block, last_block) of 64 columns; padding
// columns are packed as zero.
void pack_blocks(const uint32_t* plain, const PlainShape& shape, int64_t first_block,
                 int64_t last_block, uint32_t* packed);
void unpack_blocks(const uint32_t* packed, const PlainShape& shape, int64_t first_block,
                   int64_t last_block, uint32_t* plain);

}  // namespace marlin::cpu
