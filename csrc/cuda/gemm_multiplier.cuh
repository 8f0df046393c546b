// What a warp does with a tile in the gemm kernel: codes are opened, multiplied, summed and scaled.
#pragma once

#include "gemm_format.cuh"
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
  using Activations = uint32_t[S::kHeldSteps][S::kRowTiles][4];
  using Constants = float[S::kRowTiles][4];
  static constexpr bool kHasBase = O::kConstants == 2;

 public:
  static constexpr int kFragments = S::kRowTiles * S::kBlocks * kKinds * S::kHalves;

  __device__ Multiplier(const GemmArguments& g, uint32_t shared) : g_(g), shared_(shared) {
    const int lane = lane_of_thread();
    const int rows = S::kIsSmall ? 8 : 16;  // that a lane's address is one of, and as many chunks
    const int at = lane % rows * kRowPitch + lane / rows * kChunkBytes;
#pragma unroll
    for (int t = 0; t < kRowBases; ++t) {
      activations_from_[t] = keep(shared + S::kActivationsAt + first_row(t) * kRowPitch + at);
    }
    weights_from_ =
        keep(shared + column_warp<S>() * S::kBlocks * S::kBlockBytes + lane * kChunkBytes);
    const int column = S::kScalesWeights ? first_weight_column() : first_column();
    scales_from_ = keep(shared + S::kScalesAt + column * 2);
    zeros_from_ = keep(shared + S::kZerosAt + column / 2);
    if constexpr (kHoldsConstants) {
      const uint32_t zero = g.m >> 31;  // which the compiler doesn't know
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        opening_[odd] = keep(O::constant(odd) | zero);
#pragma unroll
        for (uint32_t& word : offset_words_[odd]) word = keep(O::offset(odd) | zero);
      }
    }
    clear();
  }

  __device__ void clear() {
    clear_sums(results());
    clear_constants();
  }

  // The tile in the stage at byte `stage`.
  __device__ void multiply(uint32_t stage) {
    if constexpr (S::kScalesWeights) {
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
      if constexpr (S::kSharesConstants) gather_constants();
      for_eights([&](int b, int e) {
        const int n = column.n * kTileColumns + column_of(b, e);
        if (n >= g_.n) return;
        float scale[8];
        widen_eight<Scalar>(load_chunk(static_cast<const Scalar*>(g_.scales) + n), scale);
        float zero[8];
        if constexpr (S::kHasZeros) open_zeros(g_.zeros[n / 8], O::kMiddle, unit_factor, zero);
        for_rows([&](int t, int r) {
        // In place: a kind that carries another comes before that one.
#pragma unroll
          for (int q = 7; q >= 0; --q) {
            float constants = of_row(offset_, t, r);
            if constexpr (S::kHasZeros) constants += zero[q] * of_row(total_, t, r);
            float sum = fmaf(O::factor(q / 2), constants, own_sum(t, b, e, r, q));
            if (kHasBase && !O::carries(q / 2)) sum += of_row(base_, t, r);
            result(t, b, e, r, q) = scale[q] * sum;
          }
        });
      });
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
    for_eights([&](int b, int e) {
      const int n = column.n * kTileColumns + column_of(b, e);
      if (n >= g_.n) return;
      float bias[8] = {};
      if (g_.bias != nullptr) {
        widen_eight<Scalar>(load_chunk(static_cast<const Scalar*>(g_.bias) + n), bias);
      }
      for_rows([&](int t, int r) {
        const int m = column.m * S::kRows + row_of(t, r);
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
  // Tiles of rows whose constants this warp sums, and those that lie where no other tells.
  static constexpr int kConstantTiles = S::kSharesConstants ? 1 : S::kRowTiles;
  static constexpr int kRowBases = S::kSharesConstants ? S::kRowTiles : 1;

  // Of the tile's rows, the first of this warp's tile t of them; and the first of its columns.
  static __device__ int first_row(int t) {
    const int tile = S::kSharesConstants ? t ^ column_warp<S>() : t;
    return row_warp<S>() * S::kWarpRows + 16 * tile;
  }
  static __device__ int first_column() {
    const int lane = lane_of_thread();
    return column_warp<S>() * S::kWarpColumns + (S::kIsSmall ? lane / 4 * 8 : lane % 4 * 16);
  }

  // Of the columns whose weights this lane opens.
  static __device__ int first_weight_column() {
    return column_warp<S>() * S::kWarpColumns + lane_of_thread() / 4 * 8;
  }

  // Where the results of this lane belong, in the tile: eight of them begin at this column.
  static __device__ int column_of(int b, int e) {
    return first_column() + b * kBlockColumns + 8 * e;
  }
  static __device__ int row_of(int t, int r) {
    const int lane = lane_of_thread();
    return S::kIsSmall ? lane % 4 * 2 + r : first_row(t) + lane / 4 + 8 * r;
  }

  // Of a fragment for `eight`s e, the one in row r and column q: of few rows the weights are the
  // first operand, and the columns lie where rows do otherwise.
  static __device__ constexpr int half_of(int q) { return S::kIsSmall ? 0 : q % 2; }
  static __device__ constexpr int place_of(int e, int r, int q) {
    return S::kIsSmall ? q % 2 * 2 + r : r * 2 + e;
  }
  __device__ float& result(int t, int b, int e, int r, int q) {
    return results()[t][b][q / 2][half_of(q)][place_of(e, r, q)];
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
    const float sum = sums_[t][b][q / 2][half_of(q)][place_of(e, r, q)];
    if (!O::carries(q / 2)) return sum;
    return sum - sums_[t][b][q / 2 - 1][half_of(q)][place_of(e, r, q)];
  }
  static __device__ float of_row(const Constants& constants, int t, int r) {
    return constants[t][S::kIsSmall ? r : 2 * r];
  }
  // By what a result of a kind is to be multiplied.
  static __device__ constexpr float unit(int p) {
    return S::kScalesWeights ? 1.0f : O::kUnit / O::factor(p);
  }
  static __device__ constexpr float unit_factor(int) { return 1.0f; }
  static __device__ constexpr float kind_factor(int q) { return O::factor(q / 2); }

  // Calls `use(b)` for each block of columns, `use(b, e)` for each eight columns of a lane in them,
  // and `use(t, r)` for each of its rows.
  template <typename Use>
  static __device__ void for_blocks(const Use& use) {
#pragma unroll
    for (int b = 0; b < S::kBlocks; ++b) use(b);
  }
  template <typename Use>
  static __device__ void for_eights(const Use& use) {
    for_blocks([&](int b) {
#pragma unroll
      for (int e = 0; e < S::kEights; ++e) use(b, e);
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

  __device__ void clear_constants() {
#pragma unroll
    for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset_[t][i] = total_[t][i] = base_[t][i] = odd_offset_[i] = 0;
      }
    }
  }

  // The steps whose activations are in registers together, from `first` on.
  __device__ void multiply_held(uint32_t stage, int first) {
    Activations a;
    load_activations(stage, first, a);
    add_constants(first, a);
    Constants starts[kKinds];
    if constexpr (S::kScalesSums) {
#pragma unroll
      for (int p = 0; p < kKinds; ++p) {
#pragma unroll
        for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            starts[p][t][i] = kHasBase ? fmaf(O::offsets(p), offset_[t][i], base_[t][i])
                                       : O::offsets(p) * offset_[t][i];
          }
        }
      }
    }
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; ++s) multiply_step(stage, first + s, a[s], s == 0, starts);
    if constexpr (S::kScalesSums) scale_sums(stage, first / S::kHeldSteps);
  }

  // Of 8 rows ldmatrix reads two steps at a time.
  __device__ void load_activations(uint32_t stage, int first, Activations& a) {
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

  // d = c + activations times weights of one kind: w0 and w1 the lower rows of K of 8 columns each,
  // w2 and w3 the upper ones. Of 8 rows all 16 columns are one product.
  static __device__ void product(float (&d)[4], const uint32_t (&a)[4], uint32_t w0, uint32_t w1,
                                 uint32_t w2, uint32_t w3, const float (&c)[4]) {
    if constexpr (S::kIsSmall) {
      mma<Scalar>(d, w0, w1, w2, w3, a[0], a[1], c);
    } else {
      mma<Scalar>(d, a[0], a[1], a[2], a[3], w0, w2, c);
    }
  }

  // Where registers abound, constants stay in some: a product takes its operands from neighbours.
  static constexpr bool kHoldsConstants =
      S::kWarpRows <= 16 || (S::kUnrollsGroups && !S::kHasZeros);
  __device__ uint32_t opening(int step) const {
    return kHoldsConstants ? opening_[is_odd_step(step)] : O::constant(is_odd_step(step));
  }
  __device__ uint32_t offset_word(int step, int i) const {
    return kHoldsConstants ? offset_words_[is_odd_step(step)][i] : O::offset(is_odd_step(step));
  }

  // The sums of a * o, and of a where there are zero points: of a group, or of everything so far.
  // NOTE: products that wait for each other are padded by ptxas. Where that pays, every other step
  // adds to a sum of its own.
  static constexpr bool kAlternates =
      S::kSharesConstants || (S::kGroupRows == kTileDepth && S::kRowTiles == 1);
  __device__ void add_constants(int first, const Activations& a) {
    if constexpr (S::kScalesSums) clear_constants();
    if constexpr (O::kConstants == 0) return;
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; ++s) {
      uint32_t o[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) o[i] = offset_word(first + s, i);
#pragma unroll
      for (int t = 0; t < kConstantTiles; ++t) {
        float (&offset)[4] = kAlternates && (first + s) % 2 == 1 ? odd_offset_ : offset_[t];
        product(offset, a[s][t], o[0], o[1], o[2], o[3], offset);
        if constexpr (S::kHasZeros) add_constant(a[s][t], O::kOnes, total_[t]);
        if constexpr (kHasBase) add_constant(a[s][t], O::base(is_odd_step(first + s)), base_[t]);
      }
    }
    if constexpr (S::kScalesSums) join_constants();
  }

  static __device__ void add_constant(const uint32_t (&a)[4], uint32_t pair, float (&to)[4]) {
    product(to, a, pair, pair, pair, pair, to);
  }

  __device__ void join_constants() {
    if constexpr (kAlternates) {
#pragma unroll
      for (int i = 0; i < 4; ++i) offset_[0][i] += odd_offset_[i];
    }
  }

  // Calls `use(b, part, words)` for what this lane has of each block of columns of a step.
  template <typename Use>
  __device__ void for_parts(uint32_t stage, int step, const Use& use) {
    for_blocks([&](int b) {
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
                                bool is_first, const Constants (&starts)[kKinds]) {
    const uint32_t constant = opening(step);
    const bool is_odd = is_odd_step(step);
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
            product(sums, a[t], w[h][i], w[1][i], w[2 + h][i], w[3][i],
                    S::kScalesSums && is_first ? starts[p][t] : so_far);
          }
        }
      }
    });
  }

  // A group whose scales meet its weights.
  __device__ void multiply_scaled(uint32_t stage, int group) {
    using Scaled = ScaledOpening<S::kBits>;
    for_blocks([&](int b) {
      const int column = group * kTileColumns + b * kBlockColumns;
      uint32_t zeros = 0;
      if constexpr (S::kHasZeros) zeros = ld_shared_word(zeros_from_ + stage + column / 2);
      scaled_[b] = ScaledColumns<S>(ld_shared(scales_from_ + stage + column * 2), zeros);
    });
#pragma unroll
    for (int s = 0; s < S::kGroupSteps; ++s) {
      const int step = group * S::kGroupSteps + s;
      const bool is_odd = is_odd_step(step);
      Activations a;
      load_activations(stage, step, a);
      for_parts(stage, step, [&](int b, int part, const uint32_t (&words)[4]) {
        uint32_t w[4][Scaled::kOperands];
#pragma unroll
        for (int j = 0; j < 4; ++j) Scaled::open(words[j], Scaled::magic(is_odd), w[j]);
#pragma unroll
        for (int i = 0; i < S::kPartKinds; ++i) {
          const int p = part * S::kPartKinds + i;
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const uint32_t low = scaled_[b].scaled(w[h][i], i, 2 * p + h, is_odd);
            const uint32_t high = scaled_[b].scaled(w[2 + h][i], i, 2 * p + h, is_odd);
#pragma unroll
            for (int t = 0; t < S::kRowTiles; ++t) {
              float (&sums)[4] = sums_[t][b][p][h];
              product(sums, a[0][t], low, low, high, high, sums);
            }
          }
        }
      });
    }
  }

  // Adds the sums of a group, scaled, to the result.
  __device__ void scale_sums(uint32_t stage, int group) {
    for_eights([&](int b, int e) {
      const int column = group * kTileColumns + b * kBlockColumns + 8 * e;
      float scale[8];
      widen_eight<Scalar>(ld_shared(scales_from_ + stage + column * 2), scale);
      float zero[8];
      if constexpr (S::kHasZeros) {
        open_zeros(ld_shared_word(zeros_from_ + stage + column / 2), O::kMiddle, kind_factor, zero);
      }
      for_rows([&](int t, int r) {
#pragma unroll
        for (int q = 0; q < 8; ++q) {
          float sum = own_sum(t, b, e, r, q);
          if constexpr (S::kHasZeros) sum = fmaf(zero[q], of_row(total_, t, r), sum);
          float& to = result(t, b, e, r, q);
          to = fmaf(scale[q], sum, to);
        }
      });
    });
  }

  // The constants of all rows, of which each warp has summed those of its first tile.
  __device__ void gather_constants() {
    join_constants();
    gather(offset_, shared_ + S::kExchangeAt);
    if constexpr (S::kHasZeros) gather(total_, shared_ + S::kExchangeAt + S::kRows * 4);
    if constexpr (kHasBase) gather(base_, shared_ + S::kExchangeAt + 2 * S::kRows * 4);
  }

  static __device__ void gather(Constants& constants, uint32_t area) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (lane_of_thread() % 4 == 0) st_shared(area + row_of(0, r) * 4, of_row(constants, 0, r));
    }
    __syncthreads();  // what each has written, all read
    for_rows([&](int t, int r) { constants[t][2 * r] = ld_shared_float(area + row_of(t, r) * 4); });
  }

  const GemmArguments& g_;
  uint32_t shared_;
  uint32_t activations_from_[kRowBases];  // of this lane, in the first stage
  uint32_t weights_from_, scales_from_, zeros_from_;
  uint32_t opening_[2];  // of even and of odd steps, as those below
  uint32_t offset_words_[2][4];
  Sums<S> sums_;      // of the group, or of everything so far
  Sums<S> result_;    // of groups, scaled, but for the factors of the opening
  Constants offset_;  // sums of a * o, and of a, times 2^-24
  Constants total_;
  Constants base_;       // and of a * base
  float odd_offset_[4];  // see kAlternates
  ScaledColumns<S> scaled_[S::kBlocks];
};

}  // namespace marlin::cuda
