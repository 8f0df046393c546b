// Sums of the activations alone in the gemm kernel: what opened codes lack, times the activations.
#pragma once

#include "gemm_lane.cuh"
#include "gemm_opening.cuh"
#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

template <class S>
using Activations = uint32_t[S::kHeldSteps][S::kRowTiles][4];

// What stays in registers where they abound: products take their operands from neighbours, and
// ptxas would make constants again and again.
// NOTE: on sm_90 it has a few registers less than on the others.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
inline constexpr int kMostRowsToHold = 32;
#else
inline constexpr int kMostRowsToHold = 128;
#endif
template <class S>
constexpr bool kHoldsConstants =
    S::kWarpRows <= 16 ||
    (S::kWarpRows <= kMostRowsToHold && S::kUnrollsGroups && !S::kScalesWeights && !S::kHasZeros);

// The sums of a * o (see the openings), of a where there are zero points, and of a * base where
// there is one: of a group, or of everything so far.
template <class S>
class Constants {
  using O = OpeningOf<S>;
  using L = Lane<S>;
  using PerRow = float[S::kRowTiles][4];
  static constexpr bool kHasBase = O::kConstants == 2;
  static_assert(!kHasBase || S::kIsGrouped, "sums with a base are scaled group by group");
  // NOTE: products that wait for each other are padded by ptxas. Where that pays, every other step
  // adds to a sum of its own.
  static constexpr bool kAlternates =
      S::kSharesConstants || (S::kGroupRows == kTileDepth && S::kRowTiles == 1);

 public:
  __device__ explicit Constants(const GemmArguments& g) {
    if constexpr (kHoldsConstants<S>) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
        for (uint32_t& word : offset_words_[odd]) word = keep(O::offset(odd) | hidden_zero(g));
      }
    }
  }

  __device__ void clear() {
#pragma unroll
    for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset_[t][i] = total_[t][i] = base_[t][i] = odd_offset_[i] = 0;
      }
    }
  }

  // Of the steps from `first` on; of a group, these are all.
  __device__ void add(int first, const Activations<S>& a) {
    if constexpr (S::kScalesSums) clear();
#pragma unroll
    for (int s = 0; s < (O::kConstants == 0 ? 0 : S::kHeldSteps); ++s) {
      uint32_t o[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) o[i] = offset_word(first + s, i);
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        float (&offset)[4] = kAlternates && (first + s) % 2 == 1 ? odd_offset_ : offset_[t];
        product<S>(offset, a[s][t], o[0], o[1], o[2], o[3], offset);
        if constexpr (S::kHasZeros) add_pair(a[s][t], O::kOnes, total_[t]);
        if constexpr (kHasBase) add_pair(a[s][t], O::base(is_odd_step(first + s)), base_[t]);
      }
    }
    if constexpr (S::kScalesSums) join();
  }

  // What the sums of a kind start from, in the place i of a fragment.
  __device__ float start(int p, int t, int i) const {
    if constexpr (kHasBase) return fmaf(O::offsets(p), offset_[t][i], base_[t][i]);
    return O::offsets(p) * offset_[t][i];
  }
  __device__ float offset(int t, int r) const { return of_row(offset_, t, r); }
  __device__ float total(int t, int r) const { return of_row(total_, t, r); }

  // Those of all rows, of which each warp has summed those of its first tile. `area` is shared
  // memory of S::kExchangeAt. All threads of the block come here, and meet another barrier before
  // they come again.
  __device__ void gather(uint32_t area) {
    join();
    gather(offset_, area);
    if constexpr (S::kHasZeros) gather(total_, area + S::kRows * 4);
  }

 private:
  // Tiles of rows that this warp sums.
  static constexpr int kTiles = S::kSharesConstants ? 1 : S::kRowTiles;

  __device__ uint32_t offset_word(int step, int i) const {
    return kHoldsConstants<S> ? offset_words_[is_odd_step(step)][i] : O::offset(is_odd_step(step));
  }

  static __device__ void add_pair(const uint32_t (&a)[4], uint32_t pair, float (&to)[4]) {
    product<S>(to, a, pair, pair, pair, pair, to);
  }

  static __device__ float of_row(const PerRow& constants, int t, int r) {
    return constants[t][S::kIsSmall ? r : 2 * r];
  }

  __device__ void join() {
    if constexpr (kAlternates) {
#pragma unroll
      for (int i = 0; i < 4; ++i) offset_[0][i] += odd_offset_[i];
    }
  }

  static __device__ void gather(PerRow& constants, uint32_t area) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (lane_of_thread() % 4 == 0) {
        st_shared(area + L::row_of(0, r) * 4, of_row(constants, 0, r));
      }
    }
    __syncthreads();  // what each has written, all read
    L::for_rows(
        [&](int t, int r) { constants[t][2 * r] = ld_shared_float(area + L::row_of(t, r) * 4); });
  }

  uint32_t offset_words_[2][4];  // of even and of odd steps
  PerRow offset_;
  PerRow total_;
  PerRow base_;
  float odd_offset_[4];  // see kAlternates
};

}  // namespace marlin::cuda
