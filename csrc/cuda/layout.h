// How weights lie in the memory of a GPU: what `repack` writes and `gemm` reads.
//
// Blocks of 64 columns, along K in tiles of 128 rows, the last one filled up with zero weights, and
// in each tile eight steps of 16 rows. Lane l = 4 q + t of a warp feeds its words of a step to
// mma.m16n8k16 without moving anything. They hold, j = 0 .. 3 and e = 0, 1,
//   columns 8 q + 2 p + j mod 2 of the block, rows 8 (j / 2) + 2 t + e of the step:
//   4 bits: 512 bytes a step, four words a lane; word j has p = 0 .. 3 in its nibbles p + 4 e
//   8 bits: 1024 bytes a step, four words a lane and then four more for every lane; word j of part
//           c has p = 2 c and 2 c + 1 in its bytes p mod 2 + 2 e
// As a second operand the eight columns of a product are eight apart, as a first one two. Either
// way a lane's results are eight neighbours, 8 q .. 8 q + 7 or 8 t' .. 8 t' + 7: scales are loaded
// and results are stored 16 bytes at a time.
//
// A code masked out of its word is the bits of a 16-bit float with exponent 0: the subnormal number
// code * 2^-24 (2^-133 for bfloat16, where 128 and more have exponent 1, and are still as much),
// which tensor cores multiply exactly. So opening a pair of codes is one instruction, without the
// subtraction and the multiplication that other encodings need.
//
// Sums of codes 0 .. 15 drift away from zero where activations are all positive, and float32 would
// lose what they differ by. So one row of each pair is stored complemented, 15 - code (255 - code),
// and gets the sign bit while it is opened: code - 15. Which one alternates along the steps of a
// tile by the parity of the ones in the step's number (the Thue-Morse sequence): the odd row where
// they are even in number, the even row where they are odd. No simple pattern of the activations
// follows that.
#pragma once

#include <cstdint>

// What kernels compute with, too.
#ifdef __CUDACC__
#define MARLIN_EVERYWHERE __host__ __device__
#else
#define MARLIN_EVERYWHERE
#endif

namespace marlin::cuda {

inline constexpr int kStepRows = 16;  // rows of K of a step
inline constexpr int kTileSteps = 8;
inline constexpr int kTileDepth = kTileSteps * kStepRows;
inline constexpr int kLaneWords = 4;      // words of a lane that lie together
inline constexpr int kBlockColumns = 64;  // columns of a block
inline constexpr int kPartWords = 32 * kLaneWords;

// Parts of kPartWords words of a step.
MARLIN_EVERYWHERE constexpr int parts_of(int bits) { return bits / 4; }

// Steps of a block, with those that fill up the last tile.
MARLIN_EVERYWHERE constexpr int64_t packed_steps(int64_t k) {
  return (k + kTileDepth - 1) / kTileDepth * kTileSteps;
}

}  // namespace marlin::cuda
