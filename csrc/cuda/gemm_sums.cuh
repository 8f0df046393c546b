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
constexpr int kFragments = S::kRowTiles * S::kBlocks * S::kKinds * S::kHalves;

template <class S>
__device__ float (&fragment_of(Sums<S>& sums, int index))[4] {
  const int h = index % S::kHalves;
  const int p = index / S::kHalves % S::kKinds;
  const int b = index / S::kHalves / S::kKinds % S::kBlocks;
  return sums[index / S::kHalves / S::kKinds / S::kBlocks][b][p][h];
}

template <class S>
__device__ void clear_sums(Sums<S>& sums) {
#pragma unroll
  for (int i = 0; i < kFragments<S>; ++i) {
#pragma unroll
    for (float& sum : fragment_of<S>(sums, i)) sum = 0;
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

// Writes a run from the column n on, in the row (t, r) of a lane if there is one: sum(q) times
// unit(p), p the kind, and the bias.
template <class S, typename Unit, typename Sum>
__device__ void store_run(const GemmArguments& g, const Column& column, int t, int r, int n,
                          const float (&bias)[S::kRun], const Unit& unit, const Sum& sum) {
  using Scalar = typename S::Scalar;
  const int m = column.m * S::kRows + Lane<S>::row_of(t, r);
  if (m >= g.m) return;
  float value[S::kRun];
#pragma unroll
  for (int q = 0; q < S::kRun; ++q) value[q] = fmaf(sum(q), unit(q / 2), bias[q]);
  auto* row = static_cast<Scalar*>(g.out) + static_cast<int64_t>(m) * g.n;
  store_chunk(row + n, narrow_run<Scalar>(value));
}

// Writes what belongs into the rows and columns that there are.
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
      store_run<S>(g, column, t, r, n, bias, unit,
                   [&](int q) { return sum_of<S>(sums, t, b, e, r, q); });
    });
  });
}

// Leaves sums in a place of kFragments pieces, each beside those of the other threads; this is the
// thread's first one.
template <class S>
__device__ void leave_sums(float4* place, Sums<S>& sums) {
#pragma unroll
  for (int i = 0; i < kFragments<S>; ++i) {
    const float (&four)[4] = fragment_of<S>(sums, i);
    __stcg(place + i * S::kThreads, make_float4(four[0], four[1], four[2], four[3]));
  }
}

}  // namespace marlin::cuda
