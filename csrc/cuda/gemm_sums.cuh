// What a lane sums in the gemm kernel, and how it becomes rows of the result.
#pragma once

#include <cstdint>

#include "gemm_format.cuh"
#include "gemm_lane.cuh"
#include "gemm_shape.cuh"

namespace marlin::cuda {

// What a warp sums: [tile of rows][block of columns][kind][half][four of a fragment].
template <class S>
using Sums = float[S::kRowTiles][S::kBlocks][S::kKinds][S::kHalves][4];

template <class S>
__device__ void clear_sums(Sums<S>& sums) {
#pragma unroll
  for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
    for (int i = 0; i < S::kBlocks * S::kKinds * S::kHalves; ++i) {
      auto& fragment =
          sums[t][i / S::kHalves / S::kKinds][i / S::kHalves % S::kKinds][i % S::kHalves];
#pragma unroll
      for (float& sum : fragment) sum = 0;
    }
  }
}

// Of a run of columns (Lane::for_runs), the one in row r and column q.
template <class S>
__device__ float& sum_of(Sums<S>& sums, int t, int b, int e, int r, int q) {
  return sums[t][b][q / 2][Lane<S>::half_of(q)][Lane<S>::place_of(e, r, q)];
}

// The run of scales or bias that begins in column n.
template <class S>
__device__ Run<S::kRun> load_run(const void* from, int n) {
  return load_chunk<Run<S::kRun>>(static_cast<const typename S::Scalar*>(from) + n);
}

// That of the bias, or zeros.
template <class S>
__device__ void load_bias(const GemmArguments& g, int n, float (&to)[S::kRun]) {
#pragma unroll
  for (float& value : to) value = 0;
  if (g.bias != nullptr) widen_run<typename S::Scalar>(load_run<S>(g.bias, n), to);
}

template <class S>
__device__ void store_run(const GemmArguments& g, int m, int n, const float (&run)[S::kRun]) {
  using Scalar = typename S::Scalar;
  auto* row = static_cast<Scalar*>(g.out) + static_cast<int64_t>(m) * g.n;
  store_chunk(row + n, narrow_run<Scalar>(run));
}

// Writes what belongs into the rows and columns that there are: sums times unit(p), p the kind, and
// the bias.
template <class S, typename Unit>
__device__ void store_sums(const GemmArguments& g, const Column& column, Sums<S>& sums,
                           const Unit& unit) {
  using L = Lane<S>;
  L::for_runs([&](int b, int e) {
    const int n = column.n * kTileColumns + L::column_of(b, e);
    if (n >= g.n) return;
    float bias[S::kRun];
    load_bias<S>(g, n, bias);
    L::for_rows([&](int t, int r) {
      const int m = column.m * S::kRows + L::row_of(t, r);
      if (m >= g.m) return;
      float value[S::kRun];
#pragma unroll
      for (int q = 0; q < S::kRun; ++q) {
        value[q] = fmaf(sum_of<S>(sums, t, b, e, r, q), unit(q / 2), bias[q]);
      }
      store_run<S>(g, m, n, value);
    });
  });
}

// Runs of a lane that a block leaves for others, each as pieces of four numbers side by side with
// those of the other threads.
template <class S>
constexpr int kLeftRuns = S::kBlocks * S::kRuns * S::kRowTiles * 2;
template <class S>
constexpr int kPieces = S::kRun / 4;

struct LeftRun {
  int b, e, t, r;
};
template <class S>
__device__ constexpr LeftRun left_run(int index) {
  const int t = index / 2 % S::kRowTiles;
  const int e = index / 2 / S::kRowTiles % S::kRuns;
  return {index / 2 / S::kRowTiles / S::kRuns, e, t, index % 2};
}

// Leaves sums times unit(p) in a place, of which this is the thread's first piece.
template <class S, typename Unit>
__device__ void leave_sums(float4* place, Sums<S>& sums, const Unit& unit) {
#pragma unroll
  for (int index = 0; index < kLeftRuns<S>; ++index) {
    const LeftRun run = left_run<S>(index);
#pragma unroll
    for (int piece = 0; piece < kPieces<S>; ++piece) {
      float four[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int q = 4 * piece + i;
        four[i] = sum_of<S>(sums, run.t, run.b, run.e, run.r, q) * unit(q / 2);
      }
      __stcg(place + (index * kPieces<S> + piece) * S::kThreads,
             make_float4(four[0], four[1], four[2], four[3]));
    }
  }
}

}  // namespace marlin::cuda
