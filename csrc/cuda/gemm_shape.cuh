// What the parts of the gemm kernel share: the shape of one instantiation, and where a tile lies.
#pragma once

#include "gemm.h"
#include "layout.h"

namespace marlin::cuda {

constexpr int kSteps = kTileDepth / kStepRows;
constexpr int kNibbles = 4;
constexpr int kChunkBytes = 16;
constexpr int kRowBytes = kTileDepth * 2;  // of a row of the activations in a tile
constexpr int kRowChunks = kRowBytes / kChunkBytes;

template <typename Scalar_, int rows, int group_rows, bool has_zeros>
struct Shape {
  using Scalar = Scalar_;
  static constexpr int kRows = rows;
  static constexpr bool kScalesTiles = group_rows != 0;  // else everything once, at the end
  static constexpr int kGroupSteps = kScalesTiles ? group_rows / kStepRows : kSteps;
  static constexpr int kGroups = kScalesTiles ? kTileDepth / group_rows : 0;
  static constexpr int kGroupRows = group_rows;
  static constexpr bool kHasZeros = has_zeros;
  static constexpr int kStages = stages_of(rows, group_rows);
  // Of 64 rows two warps share the columns, and the weights in shared memory, with 32 rows each.
  static constexpr int kRowWarps = row_warps_of(rows);
  static constexpr int kWarpRows = rows / kRowWarps;
  static constexpr int kThreads = kWarps * kRowWarps * 32;
  static constexpr int kColumns = kWarps * kWarpColumns;

  static constexpr int kWeightBytes = kTileDepth * kColumns / 2;
  static constexpr int kActivationBytes = rows * kTileDepth * 2;
  static constexpr int kScaleBytes = kGroups * kColumns * 2;
  static constexpr int kZeroBytes = has_zeros ? kGroups * kColumns / 2 : 0;
  static constexpr int kActivationsAt = kWeightBytes;
  static constexpr int kScalesAt = kActivationsAt + kActivationBytes;
  static constexpr int kZerosAt = kScalesAt + kScaleBytes;
  static constexpr int kStageBytes = kZerosAt + kZeroBytes;

  // Sums of a lane, in fragments of four: of 16 columns by 8 rows, or of 8 columns by 16 rows.
  static constexpr int kHalves = rows == 8 ? 1 : 2;
  static constexpr int kRowTiles = rows == 8 ? 1 : kWarpRows / 16;

  // Steps whose activations are in registers together: those of a group, because the sums of the
  // group start from all of them; else as few as ldmatrix gives.
  static constexpr int kHeldSteps = kScalesTiles ? kGroupSteps : 2;
  // Of many rows several short groups at once would not fit the registers.
  static constexpr bool kUnrollsGroups = kWarpRows < 32 || !kScalesTiles;
};

// Which 64 of a block's columns the warp multiplies.
__device__ inline int warp_of_columns() { return threadIdx.x / 32 % kWarps; }

// A tile: down K first, then along the columns, then along the rows of the activations.
struct Place {
  int k, n, m;

  __device__ static Place of(const GemmArguments& g, int tile) {
    const int column = tile / g.tiles_k;
    return {tile % g.tiles_k, column % g.tiles_n, column / g.tiles_n};
  }
  // Moves on; true at the first tile of a column.
  __device__ bool advance(const GemmArguments& g) {
    if (++k < g.tiles_k) return false;
    k = 0;
    if (++n == g.tiles_n) {
      n = 0;
      ++m;
    }
    return true;
  }
};

// The value in a way that the compiler can't compute it again: what the main loop needs of a lane
// stays in a register. Every lane must come here.
__device__ inline uint32_t keep(uint32_t value) {
  return __shfl_sync(0xFFFFFFFFu, value, threadIdx.x % 32);
}

}  // namespace marlin::cuda
