// Where the numbers of a lane lie in a tile.
#pragma once

#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

template <class S>
struct Lane {
  // Of the tile's rows, the first of this warp's tile t of them; and the first of its columns.
  static __device__ int first_row(int t) {
    const int tile = S::kSharesConstants ? t ^ column_warp<S>() : t;
    return row_warp<S>() * S::kWarpRows + 16 * tile;
  }
  static __device__ int first_column() {
    const int lane = lane_of_thread();
    return column_of_warp() + (S::kIsSmall ? lane / 4 * 8 : lane % 4 * 16);
  }

  // Of the columns whose weights this lane opens.
  static __device__ int first_weight_column() {
    return column_of_warp() + lane_of_thread() / 4 * 8;
  }

  // Where the results of this lane belong, in the tile: a run of them begins at this column.
  static __device__ int column_of(int b, int e) {
    return first_column() + b * kBlockColumns + 8 * e;
  }
  static __device__ int row_of(int t, int r) {
    const int lane = lane_of_thread();
    return S::kIsSmall ? lane % 4 * 2 + r : first_row(t) + lane / 4 + 8 * r;
  }

  // Of a fragment for the runs e, the one in row r and column q: of few rows the weights are the
  // first operand, and the columns lie where rows do otherwise.
  static __device__ constexpr int half_of(int q) { return S::kIsSmall ? 0 : q % 2; }
  static __device__ constexpr int place_of(int e, int r, int q) {
    return S::kIsSmall ? q % 2 * 2 + r : r * 2 + e;
  }
  // Calls `use(b)` for each block of columns, `use(b, e)` for each run of a lane in them, and
  // `use(t, r)` for each of its rows.
  template <typename Use>
  static __device__ void for_blocks(const Use& use) {
#pragma unroll
    for (int b = 0; b < S::kBlocks; ++b) use(b);
  }
  template <typename Use>
  static __device__ void for_runs(const Use& use) {
    for_blocks([&](int b) {
#pragma unroll
      for (int e = 0; e < S::kRuns; ++e) use(b, e);
    });
  }
  template <typename Use>
  static __device__ void for_rows(const Use& use) {
#pragma unroll
    for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
      for (int r = 0; r < 2; ++r) use(t, r);
    }
  }

 private:
  // Of each eight columns of a block, warps that share it have a run each.
  static __device__ int column_of_warp() {
    return block_of_warp<S>() * kBlockColumns + warp_of_block<S>() * S::kRun;
  }
};

// d = c + activations times weights of one kind: w0 and w1 the lower rows of K of 8 columns each,
// w2 and w3 the upper ones. Of 8 rows all 16 columns are one product.
template <class S>
__device__ void product(float (&d)[4], const uint32_t (&a)[4], uint32_t w0, uint32_t w1,
                        uint32_t w2, uint32_t w3, const float (&c)[4]) {
  if constexpr (S::kIsSmall) {
    mma<typename S::Scalar>(d, w0, w1, w2, w3, a[0], a[1], c);
  } else {
    mma<typename S::Scalar>(d, a[0], a[1], a[2], a[3], w0, w2, c);
  }
}

}  // namespace marlin::cuda
