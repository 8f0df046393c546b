// The kernel of gemm. A block multiplies a stripe of tiles: `rows` rows of the activations times
// 256 columns times 128 rows of K each, down K first. A warp has 64 columns and up to 32 rows of
// its own, so that no sum is shared inside a block.
//
//   stage:  weights [64 columns][step][lane] 16 bytes, activations [row][16 chunks of 16 bytes],
//           chunks swizzled, scales [group][column], zero points [group][column / 8]
#pragma once

#include "gemm_loader.cuh"
#include "gemm_multiplier.cuh"
#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// Adds up what several blocks have of one column of tiles, in a fixed order, so that the result is
// the same in every run: the block with the last tiles of K, for which they are the first that it
// has done, begins, and the one with the first tiles ends and writes the result. The lock of the
// column counts those that are done, and is zero again after the last.
template <class S>
__device__ void reduce(const GemmArguments& g, Multiplier<S>& multiplier, int column,
                       bool& is_last) {
  const int first_block = column * g.tiles_k / g.tiles_of_block;
  const int last_block = ((column + 1) * g.tiles_k - 1) / g.tiles_of_block;
  const int turn = last_block - static_cast<int>(blockIdx.x);
  const int turns = last_block - first_block + 1;
  is_last = turn == turns - 1;
  if (turns == 1) return;
  int32_t* lock = g.locks + column;
  auto* partial = reinterpret_cast<float4*>(g.partial) +
                  static_cast<int64_t>(column) * Multiplier<S>::kFragments * S::kThreads +
                  threadIdx.x;
  if (turn > 0) {
    if (threadIdx.x == 0) {
      while (ld_acquire(lock) != turn) {
      }
    }
    __syncthreads();  // what thread 0 has acquired, all have
#pragma unroll
    for (int i = 0; i < Multiplier<S>::kFragments; ++i) {
      const float4 before = __ldcg(partial + i * S::kThreads);
      float (&mine)[4] = multiplier.fragment(i);
      mine[0] += before.x;
      mine[1] += before.y;
      mine[2] += before.z;
      mine[3] += before.w;
    }
  }
  if (!is_last) {
#pragma unroll
    for (int i = 0; i < Multiplier<S>::kFragments; ++i) {
      const float (&mine)[4] = multiplier.fragment(i);
      __stcg(partial + i * S::kThreads, make_float4(mine[0], mine[1], mine[2], mine[3]));
    }
    __syncthreads();  // what all have written, thread 0 releases
    if (threadIdx.x == 0) st_release(lock, turn + 1);
  } else if (threadIdx.x == 0) {
    *lock = 0;  // for the next launch, which begins when this one has ended
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) gemm(const __grid_constant__ GemmArguments g) {
  extern __shared__ __align__(256) unsigned char memory[];
  const uint32_t shared = shared_address(memory);
  const int first = blockIdx.x * g.tiles_of_block;
  const int end = min(first + g.tiles_of_block, g.tiles);
  Loader<S> loader(g, first, shared);
  Multiplier<S> multiplier(g, shared);

#pragma unroll
  for (int s = 0; s < S::kStages - 1; ++s) {
    if (first + s < end) loader.start(s * S::kStageBytes);
    cp_async_commit();
  }
  Place place = Place::of(g, first);
  uint32_t stage = 0;                                 // the one in work, in bytes,
  uint32_t free = (S::kStages - 1) * S::kStageBytes;  // and the one that was before it
  for (int left = end - first; left > 0; --left) {
    cp_async_wait<S::kStages - 2>();
    // Activations and scales were copied by other threads; and the stage that is filled next is the
    // one that all have read before they came here.
    __syncthreads();
    if (left >= S::kStages) loader.start(free);
    cp_async_commit();

    multiplier.multiply(place.k, stage);
    free = stage;
    stage = stage == (S::kStages - 1) * S::kStageBytes ? 0 : stage + S::kStageBytes;
    const Place done = place;
    if (place.advance(g) || left == 1) {
      multiplier.finish(done);
      bool is_last;
      reduce<S>(g, multiplier, done.m * g.tiles_n + done.n, is_last);
      if (is_last) multiplier.store(done);
      multiplier.clear();
    }
  }
}

}  // namespace marlin::cuda
