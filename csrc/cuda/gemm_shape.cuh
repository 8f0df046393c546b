// What the parts of the gemm kernel share: the shape of one instantiation.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "gemm.h"
#include "layout.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

constexpr int kChunkBytes = 16;
constexpr int kRowBytes = kTileDepth * 2;  // of a row of the activations in a tile
constexpr int kRowChunks = kRowBytes / kChunkBytes;
constexpr int kBlockKinds = 4;  // places of a code in the words of a lane: p of layout.h

template <typename Element, int bits, int rows, int group_rows, bool has_zeros>
struct Shape {
  using Scalar = Element;
  static constexpr Variant kVariant = {
      std::is_same_v<Element, __half> ? cuda::Scalar::kFloat16 : cuda::Scalar::kBFloat16,
      bits,
      rows,
      group_rows,
      has_zeros,
  };
  static constexpr TileShape kTile = shape_of(kVariant);
  static constexpr int kBits = bits;
  static constexpr int kRows = rows;
  static constexpr bool kIsSmall = rows == 8;
  // What scales meet: weights, or the sums of each group, or else everything once, at the end.
  static constexpr bool kIsGrouped = group_rows != 0;
  static constexpr bool kScalesWeights = scales_weights(kVariant);
  static constexpr bool kScalesSums = kIsGrouped && !kScalesWeights;
  static constexpr int kGroupSteps = kIsGrouped ? group_rows / kStepRows : kTileSteps;
  static constexpr int kGroupRows = group_rows;
  static constexpr bool kHasZeros = has_zeros;
  static constexpr int kStages = kTile.stages;
  static constexpr int kRowWarps = kTile.row_warps;
  static constexpr int kWarpRows = rows / kRowWarps;
  static constexpr int kThreads = kTile.threads();
  static constexpr int kWarps = kTile.warps / kRowWarps;  // side by side along the columns
  static constexpr int kWarpColumns = kTile.warp_columns;
  // Warps side by side that share a block of layout.h, each with some of its kinds; or else the
  // blocks of a warp.
  static constexpr int kBlockWarps =
      kWarpColumns < kBlockColumns ? kBlockColumns / kWarpColumns : 1;
  static constexpr int kBlocks = kWarpColumns * kBlockWarps / kBlockColumns;
  static constexpr int kKinds = kBlockKinds / kBlockWarps;

  // A stage holds a slice of a tile.
  static constexpr int kSlices = kTile.slices;
  static constexpr int kSliceSteps = kTileSteps / kSlices;
  static constexpr int kRowPitch = kTile.row_pitch;
  static constexpr int kZeroPitch = kTile.zero_pitch;
  // Groups that begin in a slice, of those in which any do: every one, or every second one.
  static constexpr int kGroups = !kIsGrouped                 ? 0
                                 : kGroupSteps < kSliceSteps ? kSliceSteps / kGroupSteps
                                                             : 1;
  static constexpr int kGroupSlices = kGroupSteps < kSliceSteps ? 1 : kGroupSteps / kSliceSteps;
  static __device__ constexpr bool begins_groups(int slice) { return slice % kGroupSlices == 0; }

  static constexpr int kParts = parts_of(bits);
  static constexpr int kPartKinds = kKinds / kParts;
  static constexpr int kStepBytes = kParts * kPartWords * 4;    // of a block of layout.h,
  static constexpr int kBlockBytes = kTileSteps * kStepBytes;   // of its part of a tile,
  static constexpr int kSliceBytes = kSliceSteps * kStepBytes;  // and of a slice

  static constexpr int kActivationsAt = kTile.weight_bytes;
  static constexpr int kScalesAt = kActivationsAt + kTile.activation_bytes;
  static constexpr int kZerosAt = kScalesAt + kTile.scale_bytes;
  static constexpr int kStageBytes = kTile.stage_bytes;

  // Sums of a lane, in fragments of four: of 16 columns by 8 rows, or of 8 columns by 16 rows.
  static constexpr int kHalves = kIsSmall ? 1 : 2;
  static constexpr int kRowTiles = kIsSmall ? 1 : kWarpRows / 16;
  // The same sums as runs of neighbouring columns: so many of a block in each of a lane's rows, of
  // which there are two in a tile of rows.
  static constexpr int kRuns = kIsSmall ? 1 : 2;
  static constexpr int kRun = 2 * kKinds;

  // Sums of activations alone belong to no column. Where they are needed only once, at the end,
  // each warp takes one tile of rows for all: its first one, so that the warps begin with others.
  static constexpr bool kSharesConstants = !kIsGrouped && kTile.exchange_bytes != 0;
  static constexpr int kExchangeAt = kStages * kStageBytes;
  static_assert(!kSharesConstants || kWarps == kRowTiles, "a tile of rows for each warp");

  // Steps whose activations are in registers together: those of a group, because the sums of the
  // group start from all of them; else as few as ldmatrix gives.
  static constexpr int kHeldSteps = kScalesSums ? kGroupSteps : kIsSmall ? 2 : 1;
  // Of many rows several short groups at once would not fit the registers.
  static constexpr bool kUnrollsGroups =
      kWarpRows < 32 || !kScalesSums || (kHeldSteps == kTileSteps && !kHasZeros);
};

__device__ inline int lane_of_thread() { return threadIdx.x % 32; }

// Which of the warps side by side this is, and which of those that share columns.
template <class S>
__device__ inline int column_warp() {
  return threadIdx.x / 32 % S::kWarps;
}
template <class S>
__device__ inline int row_warp() {
  return threadIdx.x / 32 / S::kWarps;
}

// The first block of layout.h of this warp in the tile, and which of the warps that share it this
// is.
template <class S>
__device__ inline int block_of_warp() {
  return column_warp<S>() / S::kBlockWarps * S::kBlocks;
}
template <class S>
__device__ inline int warp_of_block() {
  return column_warp<S>() % S::kBlockWarps;
}

// The stripe of this block, from the last one on: a stripe waits for later ones, and so for blocks
// with lower numbers, which are started before it, however few find a place at a time.
__device__ inline int stripe_of_block() { return static_cast<int>(gridDim.x - 1 - blockIdx.x); }
__device__ inline int start_of_stripe(const GemmArguments& g) {
  return g.last_start - static_cast<int>(blockIdx.x) * g.tiles_of_block;
}
__device__ inline int end_of_stripe(const GemmArguments& g) {
  return min(start_of_stripe(g) + g.tiles_of_block, g.tiles);
}

// A column of tiles, along N and along M; down it the tiles lie one after the other. Columns that
// need the same weights follow each other.
struct Column {
  int n, m;

  __device__ static Column of(const GemmArguments& g, int index) {
    return {index / g.tiles_m, index % g.tiles_m};
  }
};

// The value in a way that the compiler can't compute it again: what the main loop needs of a lane
// stays in a register. Every lane must come here.
__device__ inline uint32_t keep(uint32_t value) {
  return __shfl_sync(kAllLanes, value, threadIdx.x % 32);
}

// A zero that the compiler doesn't know, and that for all it knows differs between lanes: it sees
// through a shuffle of what all have.
__device__ inline uint32_t hidden_zero(const GemmArguments& g) {
  return min(g.m, lane_of_thread()) >> 31;
}

}  // namespace marlin::cuda
