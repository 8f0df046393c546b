// The kernel of gemm. A block multiplies a stripe of tiles: `rows` rows of the activations times
// 256 columns times 128 rows of K each, down K first. A warp has 32, 64 or 128 columns and up to
// 128 rows of its own, so that no sum is shared inside a block.
//
//   stage:  weights [64 columns][step][part][lane] 16 bytes, activations [row][kRowPitch],
//           scales [group][column], zero points [group][column / 8] of a slice of a tile
#pragma once

#include "gemm_loader.cuh"
#include "gemm_multiplier.cuh"
#include "gemm_reduction.cuh"
#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// Where the tiles of the column that a tile is in end, or those of this block before.
__device__ inline int end_of_column(const GemmArguments& g, int tile) {
  return min(end_of_stripe(g), (tile / g.tiles_k + 1) * g.tiles_k);
}

// The stage after the one at this byte: of two, the other one.
template <class S>
__device__ uint32_t next_stage(uint32_t stage) {
  constexpr uint32_t kLast = (S::kStages - 1) * S::kStageBytes;
  if constexpr (S::kStages == 2) return kLast - stage;
  return stage == kLast ? 0 : stage + S::kStageBytes;
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) gemm(const __grid_constant__ GemmArguments g) {
  extern __shared__ __align__(256) unsigned char memory[];
  const uint32_t shared = shared_address(memory);
  constexpr int kAhead = S::kStages - 1;
  constexpr int kTilesAhead = kAhead / S::kSlices;
  static_assert(kAhead % S::kSlices == 0, "copies and products are at the same slice");
  int tile = start_of_stripe(g);
  Loader<S> loader(g, tile, shared);
  Multiplier<S> multiplier(g, shared);

#pragma unroll 1
  for (int t = 0; t < kTilesAhead; ++t) {
#pragma unroll
    for (int slice = 0; slice < S::kSlices; ++slice) {
      loader.start((t * S::kSlices + slice) * S::kStageBytes, slice);
      cp_async_commit();
    }
    if (loader.left() == 0) loader.enter(tile + t + 1);
  }
  constexpr uint32_t kLastStage = kAhead * S::kStageBytes;
  uint32_t free = kLastStage;  // the stage that was in work last, in bytes
  for (;;) {
    // Tiles among which neither copies nor products come to the end of a column.
    const int stretch = min(loader.left(), end_of_column(g, tile) - tile);
    const int stop = loader.at() + stretch;
    tile += stretch;
    do {
#pragma unroll
      for (int slice = 0; slice < S::kSlices; ++slice) {
        cp_async_wait<kAhead - 1>();
        // Activations and scales were copied by other threads; and the stage that is filled next is
        // the one that all have read before they came here.
        __syncthreads();
        loader.start(free, slice);
        cp_async_commit();
        free = next_stage<S>(free);
        multiplier.multiply(free, slice);
      }
    } while (loader.at() != stop);
    if (loader.left() == 0) loader.enter(tile + kTilesAhead);
    const int last = tile - 1;
    if (tile != end_of_column(g, last)) continue;

    const int index = last / g.tiles_k;
    const Column column = Column::of(g, index);
    multiplier.finish(column);
    const SharedColumn<S> shared_column(g, index);
    if (shared_column.is_whole()) {
      multiplier.store(column);
    } else {
      multiplier.leave(shared_column.place());
      shared_column.arrive();
      shared_column.add_up(column, Multiplier<S>::unit);
    }
    if (tile == end_of_stripe(g)) break;
    multiplier.clear();
  }
  cp_async_wait<0>();
}

}  // namespace marlin::cuda
