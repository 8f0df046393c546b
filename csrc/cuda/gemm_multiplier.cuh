// What a warp does with a tile in the gemm kernel: codes are opened, multiplied, summed and scaled.
#pragma once

#include "gemm_constants.cuh"
#include "gemm_format.cuh"
#include "gemm_lane.cuh"
#include "gemm_opening.cuh"
#include "gemm_scaled_opening.cuh"
#include "gemm_shape.cuh"
#include "gemm_sums.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

template <class S>
class Multiplier {
  using Scalar = typename S::Scalar;
  using O = OpeningOf<S>;
  using Scaled = std::conditional_t<S::kScalesWeights, ScaledOpening<S>, UnscaledOpening>;
  using L = Lane<S>;
  static_assert(S::kBlockWarps == 1 || S::kParts == 1, "warps share words, not parts");

 public:
  __device__ Multiplier(const GemmArguments& g, uint32_t shared)
      : g_(g), shared_(shared), constants_(g), scaled_(g, shared) {
    const int lane = lane_of_thread();
    const int rows = S::kIsSmall ? 8 : 16;  // that a lane's address is one of, and as many chunks
    const int at = lane % rows * S::kRowPitch + lane / rows * kChunkBytes;
#pragma unroll
    for (int t = 0; t < kRowBases; ++t) {
      activations_from_[t] = keep(shared + S::kActivationsAt + L::first_row(t) * S::kRowPitch + at);
    }
    weights_from_ = keep(shared + block_of_warp<S>() * S::kSliceBytes + lane * kChunkBytes);
    if constexpr (S::kBlockWarps > 1) bytes_ = keep(bytes_of_halves(warp_of_block<S>() == 1));
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
    clear_sums<S>(results());
    constants_.clear();
    scaled_.clear();
  }

  // A slice of a tile, in the stage at byte `stage`.
  __device__ void multiply(uint32_t stage, int slice) {
    if constexpr (S::kScalesWeights) {
      if (S::begins_groups(slice)) {
        scaled_.enter(stage, [&](int b, int e, const auto& factors) { scale(b, e, factors); });
      }
#pragma unroll
      for (int s = 0; s < S::kSliceSteps; ++s) {
        const int step = slice * S::kSliceSteps + s;
        if (step % S::kGroupSteps == 0) scaled_.enter_group(stage, s / S::kGroupSteps);
        multiply_scaled(stage, step);
      }
    } else if constexpr (S::kUnrollsGroups) {
#pragma unroll
      for (int s = 0; s < S::kSliceSteps; s += S::kHeldSteps) {
        multiply_held(stage, slice * S::kSliceSteps + s);
      }
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
      L::for_runs([&](int b, int e) {
        const int n = column.n * kTileColumns + L::column_of(b, e);
        if (n >= g_.n) return;
        float scale[S::kRun];
        widen_run<Scalar>(load_run<S>(g_.scales, n), scale);
        float zero[S::kRun];
        if constexpr (S::kHasZeros) {
          const auto* zeros = reinterpret_cast<const ZeroRun<S::kRun>*>(g_.zeros);
          open_zeros(zeros[n / S::kRun], O::kMiddle, unit_factor, zero);
        }
        L::for_rows([&](int t, int r) {
        // In place: a kind that carries another comes before that one.
#pragma unroll
          for (int q = S::kRun - 1; q >= 0; --q) {
            float constants = constants_.offset(t, r);
            if constexpr (S::kHasZeros) constants += zero[q] * constants_.total(t, r);
            const float sum = fmaf(O::factor(q / 2), constants, own_sum(t, b, e, r, q));
            sum_of<S>(results(), t, b, e, r, q) = scale[q] * sum;
          }
        });
      });
    } else if constexpr (S::kScalesWeights) {
      if constexpr (Scaled::kHasUnits) {
        L::for_runs([&](int b, int e) {
          float units[S::kRun];
          scaled_.units(b, e, units);
          scale(b, e, units);
        });
      }
    }
  }

  // The result of a column that is the block's alone, or the block's part of it.
  __device__ void store(const Column& column) { store_sums<S>(g_, column, results(), unit); }
  __device__ void leave(float4* place) { leave_sums<S>(place, results()); }
  // By what a result of a kind is to be multiplied.
  static __device__ constexpr float unit(int p) {
    return S::kScalesWeights ? 1.0f : O::kUnit / O::factor(p);
  }

 private:
  using Starts = float[S::kKinds][S::kRowTiles][4];
  // Tiles of rows that lie where no other tells.
  static constexpr int kRowBases = S::kSharesConstants ? S::kRowTiles : 1;

  __device__ Sums<S>& results() {
    if constexpr (S::kScalesSums) {
      return result_;
    } else {
      return sums_;
    }
  }
  // A sum without what another kind carries into it.
  __device__ float own_sum(int t, int b, int e, int r, int q) {
    const float sum = sum_of<S>(sums_, t, b, e, r, q);
    return O::carries(q / 2) ? sum - sum_of<S>(sums_, t, b, e, r, q - 2) : sum;
  }
  static __device__ constexpr float unit_factor(int) { return 1.0f; }
  static __device__ constexpr float kind_factor(int q) { return O::factor(q / 2); }

  // Of the steps of a tile, the one in its slice. Loops that are not unrolled know but one slice,
  // and are spared the remainder.
  static __device__ constexpr int step_of_slice(int step) {
    return S::kSlices == 1 ? step : step % S::kSliceSteps;
  }

  // The steps whose activations are in registers together, from `first` on.
  __device__ void multiply_held(uint32_t stage, int first) {
    Activations<S> a;
    load_activations(stage, first, a);
    constants_.add(first, a);
    Starts starts;
    if constexpr (S::kScalesSums) {
#pragma unroll
      for (int p = 0; p < S::kKinds; ++p) {
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
            kRowBases > 1 ? activations_from_[t] : activations_from_[0] + t * 16 * S::kRowPitch;
        uint32_t words[4];
        ldmatrix_x4(words, row + stage + step_of_slice(first + s) * kStepRows * 2);
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
        const uint4 chunk = ld_shared(weights_from_ + stage + b * S::kSliceBytes +
                                      step_of_slice(step) * S::kStepBytes + part * kPartWords * 4);
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
      for (int j = 0; j < 4; ++j) open(words[j], constant, is_odd, w[j]);
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

  // What this warp opens of a word.
  __device__ void open(uint32_t word, uint32_t constant, bool is_odd,
                       uint32_t (&to)[O::kOperands]) const {
    if constexpr (S::kBlockWarps > 1) {
      O::open(word, constant, bytes_, to);
    } else {
      O::open(word, constant, is_odd, to);
    }
  }

  // A step of a group whose scales meet its weights.
  __device__ void multiply_scaled(uint32_t stage, int step) {
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

  // Multiplies the results of a run of columns.
  __device__ void scale(int b, int e, const float (&factors)[S::kRun]) {
    L::for_rows([&](int t, int r) {
#pragma unroll
      for (int q = 0; q < S::kRun; ++q) sum_of<S>(results(), t, b, e, r, q) *= factors[q];
    });
  }

  // Adds the sums of a group, scaled, to the result.
  __device__ void scale_sums(uint32_t stage, int group) {
    L::for_runs([&](int b, int e) {
      const int column = b * kBlockColumns + 8 * e;
      const uint32_t scales = scales_from_ + stage + group * kTileColumns * 2;
      float scale[S::kRun];
      widen_run<Scalar>(ld_shared(scales + column * 2), scale);
      float zero[S::kRun];
      if constexpr (S::kHasZeros) {
        const uint32_t zeros = zeros_from_ + stage + group * S::kZeroPitch;
        open_zeros(ld_shared_word(zeros + column / 2), O::kMiddle, kind_factor, zero);
      }
      L::for_rows([&](int t, int r) {
#pragma unroll
        for (int q = 0; q < S::kRun; ++q) {
          float sum = own_sum(t, b, e, r, q);
          if constexpr (S::kHasZeros) sum = fmaf(zero[q], constants_.total(t, r), sum);
          float& to = sum_of<S>(results(), t, b, e, r, q);
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
  uint32_t bytes_;       // of words, that this warp opens
  Sums<S> sums_;         // of the group, or of everything so far
  Sums<S> result_;       // of groups, scaled, but for the factors of the opening
  Constants<S> constants_;
  Scaled scaled_;
};

}  // namespace marlin::cuda
