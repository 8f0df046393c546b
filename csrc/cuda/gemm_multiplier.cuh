// What a warp does with a tile in the gemm kernel: codes are opened, multiplied, summed and scaled.
#pragma once

#include "gemm_constants.cuh"
#include "gemm_format.cuh"
#include "gemm_lane.cuh"
#include "gemm_opening.cuh"
#include "gemm_scaled_opening.cuh"
#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// What a warp sums: [tile of rows][block of columns][kind][half][four of a fragment].
template <class S>
using Sums = float[S::kRowTiles][S::kBlocks][kKinds][S::kHalves][4];

template <class S>
class Multiplier {
  using Scalar = typename S::Scalar;
  using F = Format<Scalar>;
  using O = Opening<Scalar, S::kBits>;
  using Scaled = std::conditional_t<S::kScalesWeights, ScaledOpening<S>, UnscaledOpening>;
  using L = Lane<S>;

 public:
  static constexpr int kFragments = S::kRowTiles * S::kBlocks * kKinds * S::kHalves;

  __device__ Multiplier(const GemmArguments& g, uint32_t shared)
      : g_(g), shared_(shared), constants_(g), scaled_(g, shared) {
    const int lane = lane_of_thread();
    const int rows = S::kIsSmall ? 8 : 16;  // that a lane's address is one of, and as many chunks
    const int at = lane % rows * kRowPitch + lane / rows * kChunkBytes;
#pragma unroll
    for (int t = 0; t < kRowBases; ++t) {
      activations_from_[t] = keep(shared + S::kActivationsAt + L::first_row(t) * kRowPitch + at);
    }
    weights_from_ =
        keep(shared + column_warp<S>() * S::kBlocks * S::kBlockBytes + lane * kChunkBytes);
    if constexpr (S::kScalesSums) {
      scales_from_ = keep(shared + S::kScalesAt + L::first_column() * 2);
      zeros_from_ = keep(shared + S::kZerosAt + L::first_column() / 2);
    }
    if constexpr (kHoldsConstants<S>) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) opening_[odd] = keep(O::constant(odd) | hidden_zero(g));
    }
    clear();
  }

  __device__ void clear() {
    clear_sums(results());
    constants_.clear();
    scaled_.clear();
  }

  // The tile in the stage at byte `stage`.
  __device__ void multiply(uint32_t stage) {
    if constexpr (S::kScalesWeights) {
      scaled_.enter(stage, [&](int b, int e, const float (&factors)[8]) { scale(b, e, factors); });
#pragma unroll
      for (int group = 0; group < S::kGroups; ++group) multiply_scaled(stage, group);
    } else if constexpr (S::kUnrollsGroups) {
#pragma unroll
      for (int first = 0; first < kTileSteps; first += S::kHeldSteps) multiply_held(stage, first);
    } else {
#pragma unroll 1
      for (int first = 0; first < kTileSteps; first += S::kHeldSteps) multiply_held(stage, first);
    }
  }

  // The end of a column of tiles: everything that is not scaled yet. All threads of the block come
  // here, and meet another barrier before they come again.
  __device__ void finish(const Column& column) {
    if constexpr (!S::kIsGrouped) {
      if constexpr (S::kSharesConstants) constants_.gather(shared_ + S::kExchangeAt);
      L::for_eights([&](int b, int e) {
        const int n = column.n * kTileColumns + L::column_of(b, e);
        if (n >= g_.n) return;
        float scale[8];
        widen_eight<Scalar>(load_chunk(static_cast<const Scalar*>(g_.scales) + n), scale);
        float zero[8];
        if constexpr (S::kHasZeros) open_zeros(g_.zeros[n / 8], O::kMiddle, unit_factor, zero);
        L::for_rows([&](int t, int r) {
        // In place: a kind that carries another comes before that one.
#pragma unroll
          for (int q = 7; q >= 0; --q) {
            float constants = constants_.offset(t, r);
            if constexpr (S::kHasZeros) constants += zero[q] * constants_.total(t, r);
            const float sum = fmaf(O::factor(q / 2), constants, own_sum(t, b, e, r, q));
            result(t, b, e, r, q) = scale[q] * sum;
          }
        });
      });
    } else if constexpr (S::kScalesWeights) {
      if constexpr (Scaled::kHasUnits) {
        L::for_eights([&](int b, int e) {
          float units[8];
          scaled_.units(b, e, units);
          scale(b, e, units);
        });
      }
    }
  }

  __device__ float (&fragment(int index))[4] {
    const int h = index % S::kHalves;
    const int p = index / S::kHalves % kKinds;
    const int b = index / S::kHalves / kKinds % S::kBlocks;
    return results()[index / S::kHalves / kKinds / S::kBlocks][b][p][h];
  }

  __device__ void store(const Column& column) {
    auto* out = static_cast<Scalar*>(g_.out);
    L::for_eights([&](int b, int e) {
      const int n = column.n * kTileColumns + L::column_of(b, e);
      if (n >= g_.n) return;
      float bias[8] = {};
      if (g_.bias != nullptr) {
        widen_eight<Scalar>(load_chunk(static_cast<const Scalar*>(g_.bias) + n), bias);
      }
      L::for_rows([&](int t, int r) {
        const int m = column.m * S::kRows + L::row_of(t, r);
        if (m >= g_.m) return;
        float value[8];
#pragma unroll
        for (int q = 0; q < 8; ++q) {
          value[q] = fmaf(result(t, b, e, r, q), unit(q / 2), bias[q]);
        }
        store_chunk(out + static_cast<int64_t>(m) * g_.n + n,
                    {F::narrow(value[0], value[1]), F::narrow(value[2], value[3]),
                     F::narrow(value[4], value[5]), F::narrow(value[6], value[7])});
      });
    });
  }

 private:
  using Starts = float[kKinds][S::kRowTiles][4];
  // Tiles of rows that lie where no other tells.
  static constexpr int kRowBases = S::kSharesConstants ? S::kRowTiles : 1;

  // Of a run of eight columns, the one in row r and column q.
  __device__ float& result(int t, int b, int e, int r, int q) {
    return results()[t][b][q / 2][L::half_of(q)][L::place_of(e, r, q)];
  }
  __device__ Sums<S>& results() {
    if constexpr (S::kScalesSums) {
      return result_;
    } else {
      return sums_;
    }
  }
  // A sum without what another kind carries into it.
  __device__ float own_sum(int t, int b, int e, int r, int q) const {
    const float sum = sums_[t][b][q / 2][L::half_of(q)][L::place_of(e, r, q)];
    if (!O::carries(q / 2)) return sum;
    return sum - sums_[t][b][q / 2 - 1][L::half_of(q)][L::place_of(e, r, q)];
  }
  // By what a result of a kind is to be multiplied.
  static __device__ constexpr float unit(int p) {
    return S::kScalesWeights ? 1.0f : O::kUnit / O::factor(p);
  }
  static __device__ constexpr float unit_factor(int) { return 1.0f; }
  static __device__ constexpr float kind_factor(int q) { return O::factor(q / 2); }

  static __device__ void clear_sums(Sums<S>& sums) {
#pragma unroll
    for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
      for (int i = 0; i < S::kBlocks * kKinds * S::kHalves; ++i) {
        float (&fragment)[4] =
            sums[t][i / S::kHalves / kKinds][i / S::kHalves % kKinds][i % S::kHalves];
#pragma unroll
        for (float& sum : fragment) sum = 0;
      }
    }
  }

  // The steps whose activations are in registers together, from `first` on.
  __device__ void multiply_held(uint32_t stage, int first) {
    Activations<S> a;
    load_activations(stage, first, a);
    constants_.add(first, a);
    Starts starts;
    if constexpr (S::kScalesSums) {
#pragma unroll
      for (int p = 0; p < kKinds; ++p) {
#pragma unroll
        for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
          for (int i = 0; i < 4; ++i) starts[p][t][i] = constants_.start(p, t, i);
        }
      }
    }
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; ++s) multiply_step(stage, first + s, a[s], s == 0, starts);
    if constexpr (S::kScalesSums) scale_sums(stage, first / S::kHeldSteps);
  }

  // Of 8 rows ldmatrix reads two steps at a time.
  __device__ void load_activations(uint32_t stage, int first, Activations<S>& a) {
    constexpr int kStepsAtATime = S::kIsSmall ? 2 : 1;
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; s += kStepsAtATime) {
#pragma unroll
      for (int t = 0; t < S::kRowTiles; ++t) {
        const uint32_t row =
            kRowBases > 1 ? activations_from_[t] : activations_from_[0] + t * 16 * kRowPitch;
        uint32_t words[4];
        ldmatrix_x4(words, row + stage + (first + s) * kStepRows * 2);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t word = S::kScalesWeights ? words[i] : O::enter(words[i]);
          if constexpr (S::kIsSmall) {
            a[s + i / 2][t][i % 2] = word;
          } else {
            a[s][t][i] = word;
          }
        }
      }
    }
  }

  // Calls `use(b, part, words)` for what this lane has of each block of columns of a step.
  template <typename Use>
  __device__ void for_parts(uint32_t stage, int step, const Use& use) {
    L::for_blocks([&](int b) {
#pragma unroll
      for (int part = 0; part < S::kParts; ++part) {
        const uint4 chunk = ld_shared(weights_from_ + stage + b * S::kBlockBytes +
                                      step * S::kStepBytes + part * kPartWords * 4);
        const uint32_t words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
        use(b, part, words);
      }
    });
  }

  __device__ void multiply_step(uint32_t stage, int step, const uint32_t (&a)[S::kRowTiles][4],
                                bool is_first, const Starts& starts) {
    const bool is_odd = is_odd_step(step);
    const uint32_t constant = kHoldsConstants<S> ? opening_[is_odd] : O::constant(is_odd);
    for_parts(stage, step, [&](int b, int part, const uint32_t (&words)[4]) {
      uint32_t w[4][O::kOperands];
#pragma unroll
      for (int j = 0; j < 4; ++j) O::open(words[j], constant, is_odd, w[j]);
#pragma unroll
      for (int i = 0; i < S::kPartKinds; ++i) {
        const int p = part * S::kPartKinds + i;
#pragma unroll
        for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
          for (int h = 0; h < S::kHalves; ++h) {
            float (&sums)[4] = sums_[t][b][p][h];
            const float (&so_far)[4] = sums;
            product<S>(sums, a[t], w[h][i], w[1][i], w[2 + h][i], w[3][i],
                       S::kScalesSums && is_first ? starts[p][t] : so_far);
          }
        }
      }
    });
  }

  // A group whose scales meet its weights.
  __device__ void multiply_scaled(uint32_t stage, int group) {
    scaled_.enter_group(stage, group);
#pragma unroll
    for (int s = 0; s < S::kGroupSteps; ++s) {
      const int step = group * S::kGroupSteps + s;
      const bool is_odd = is_odd_step(step);
      Activations<S> a;
      load_activations(stage, step, a);
      for_parts(stage, step, [&](int b, int part, const uint32_t (&words)[4]) {
        uint32_t w[4][Scaled::kOperands];
#pragma unroll
        for (int j = 0; j < 4; ++j) scaled_.open(words[j], is_odd, w[j]);
#pragma unroll
        for (int i = 0; i < S::kPartKinds; ++i) {
          const int p = part * S::kPartKinds + i;
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const uint32_t low = scaled_.scaled(w[h][i], i, b, p, h, is_odd);
            const uint32_t high = scaled_.scaled(w[2 + h][i], i, b, p, h, is_odd);
#pragma unroll
            for (int t = 0; t < S::kRowTiles; ++t) {
              float (&sums)[4] = sums_[t][b][p][h];
              product<S>(sums, a[0][t], low, low, high, high, sums);
            }
          }
        }
      });
    }
  }

  // Multiplies the results of eight columns.
  __device__ void scale(int b, int e, const float (&factors)[8]) {
    L::for_rows([&](int t, int r) {
#pragma unroll
      for (int q = 0; q < 8; ++q) result(t, b, e, r, q) *= factors[q];
    });
  }

  // Adds the sums of a group, scaled, to the result.
  __device__ void scale_sums(uint32_t stage, int group) {
    L::for_eights([&](int b, int e) {
      const int column = group * kTileColumns + b * kBlockColumns + 8 * e;
      float scale[8];
      widen_eight<Scalar>(ld_shared(scales_from_ + stage + column * 2), scale);
      float zero[8];
      if constexpr (S::kHasZeros) {
        open_zeros(ld_shared_word(zeros_from_ + stage + column / 2), O::kMiddle, kind_factor, zero);
      }
      L::for_rows([&](int t, int r) {
#pragma unroll
        for (int q = 0; q < 8; ++q) {
          float sum = own_sum(t, b, e, r, q);
          if constexpr (S::kHasZeros) sum = fmaf(zero[q], constants_.total(t, r), sum);
          float& to = result(t, b, e, r, q);
          to = fmaf(scale[q], sum, to);
        }
      });
    });
  }

  const GemmArguments& g_;
  uint32_t shared_;
  uint32_t activations_from_[kRowBases];  // of this lane, in the first stage
  uint32_t weights_from_, scales_from_, zeros_from_;
  uint32_t opening_[2];  // of even and of odd steps
  Sums<S> sums_;         // of the group, or of everything so far
  Sums<S> result_;       // of groups, scaled, but for the factors of the opening
  Constants<S> constants_;
  Scaled scaled_;
};

}  // namespace marlin::cuda
