// The plain layout of the codes to the packed one and back. Knows no Torch and no thread.
#pragma once

#include <cstdint>

namespace marlin::cpu {

// plain: [k / 8][n], nibble i of a word is row 8r + i. packed: see Weights::words.
// Both convert the blocks [first_block, last_block) of 64 columns; padding columns are packed as
// zero.
void pack_blocks(const uint32_t* plain, int64_t n, int64_t k, int64_t first_block,
                 int64_t last_block, uint32_t* packed);
void unpack_blocks(const uint32_t* packed, int64_t n, int64_t k, int64_t first_block,
                   int64_t last_block, uint32_t* plain);

}  // namespace marlin::cpu
