// The kernel of gemm. A block multiplies a stripe of tiles: `rows` rows of the activations times
// 256 columns times 128 rows of K each, down K first. A warp has 32, 64 or 128 columns and up to
// 128 rows of its own, so that no sum is shared inside a block.
//
//   stage:  weights [64 columns][step][part][lane] 16 bytes, activations [row][kRowPitch],
//           scales [group][column], zero points [group][column / 8] of a slice of a tile
#pragma once

#include "gemm_loader.cuh"
#include "gemm_multiplier.cuh"
#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// Adds up what several blocks have of one column of tiles. The one that has the first tiles, for
// which they are the last that it does, writes the result. Each of the others, for which they are
// the first, leaves its sums in a place of its own, and counts itself in the column's lock. The
// first one waits for all, and adds in the order of the stripes: the result is the same in every
// run. The lock is zero again when it has seen all. Returns whether this block has the result.
template <class S>
__device__ bool reduce(const GemmArguments& g, Multiplier<S>& multiplier, int column) {
  const int stripe = stripe_of_block();
  const int first_stripe = column * g.tiles_k / g.tiles_of_block;
  const int others = ((column + 1) * g.tiles_k - 1) / g.tiles_of_block - first_stripe;
  if (others == 0) return true;
  int32_t* lock = g.locks + column;
  const auto partial_of = [&](int of_stripe) {
    return reinterpret_cast<float4*>(g.partial) +
           static_cast<int64_t>(of_stripe) * kFragments<S> * S::kThreads + threadIdx.x;
  };
  if (stripe != first_stripe) {
    float4* partial = partial_of(stripe);
#pragma unroll
    for (int i = 0; i < kFragments<S>; ++i) {
      const float (&mine)[4] = multiplier.fragment(i);
      __stcg(partial + i * S::kThreads, make_float4(mine[0], mine[1], mine[2], mine[3]));
    }
    __syncthreads();  // what all have written, thread 0 releases
    if (threadIdx.x == 0) red_add_release(lock, 1);
    return false;
  }
  if (threadIdx.x == 0) {
    while (ld_acquire(lock) != others) {
    }
    *lock = 0;  // for the next launch, which begins when this one has ended
  }
  __syncthreads();  // what thread 0 has acquired, all have
#pragma unroll 1
  for (int other = stripe + 1; other <= stripe + others; ++other) {
    const float4* partial = partial_of(other);
#pragma unroll
    for (int i = 0; i < kFragments<S>; ++i) {
      const float4 theirs = __ldcg(partial + i * S::kThreads);
      float (&mine)[4] = multiplier.fragment(i);
      mine[0] += theirs.x;
      mine[1] += theirs.y;
      mine[2] += theirs.z;
      mine[3] += theirs.w;
    }
  }
  return true;
}

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
    if (reduce<S>(g, multiplier, index)) multiplier.store(column);
    if (tile == end_of_stripe(g)) break;
    multiplier.clear();
  }
  cp_async_wait<0>();
}

}  // namespace marlin::cuda
