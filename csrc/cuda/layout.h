// How weights lie in the memory of a GPU: what `repack` writes and `gemm` reads.
//
// Blocks of 64 columns, along K in steps of 16 rows. A step of a block is 512 bytes: 16 for each
// lane of a warp, four words that the lane feeds to mma.m16n8k16 without moving anything. Word j of
// lane l holds eight codes, in nibbles 4p and 4p + 16 (p = 0 .. 3):
//   column 16 p + 8 (j mod 2) + l / 4, rows 8 (j / 2) + 2 (l mod 4) and the next one
//
// A nibble masked out of its word is the bits of a 16-bit float with exponent 0: the subnormal
// number code * 2^-24 (2^-133 for bfloat16), which tensor cores multiply exactly. So opening a pair
// of codes is one instruction, without the subtraction and the multiplication that other encodings
// need.
//
// Sums of codes 0 .. 15 drift away from zero where activations are all positive, and float32 would
// lose what they differ by. So one row of each pair is stored complemented, 15 - code, and gets the
// sign bit while it is opened: code - 15. Which one alternates along K by the parity of the ones in
// the number of the step (the Thue-Morse sequence): the odd row where they are even in number, the
// even row where they are odd. No simple pattern of the activations follows that.
#pragma once

#include <cstdint>

namespace marlin::cuda {

inline constexpr int kStepRows = 16;     // rows of K of a step
inline constexpr int kLaneWords = 4;     // words of a lane in a step
inline constexpr int kWarpColumns = 64;  // columns of a block, which one warp multiplies
inline constexpr int kStepWords = 32 * kLaneWords;

}  // namespace marlin::cuda
