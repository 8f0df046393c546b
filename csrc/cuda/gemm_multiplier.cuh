// What a warp does with a tile in the gemm kernel: codes are opened, multiplied, summed and scaled.
//
// What follows from layout.h. With u the stored code, v its value as it is opened (u, or u - 15
// where it was complemented), a word gives, per pair of rows of K:
//   p = 0: v * 2^-24    (one lop3: mask, sign)
//   p = 1: 16 v * 2^-24 (one lop3)
//   p = 2: v * 2^-24    (after one prmt, which moves the upper byte of each half down, a lop3)
//   p = 3: (16 v + v of p = 2) * 2^-24, the prmt's result as it is; its sums are those of p = 2 too
//          many
// so every pair of codes costs one instruction. The factors 2^24 and 2^20 are for the end. The
// codes mean code - 8 = v + o with o = -8, or 7 where it was complemented: the sum over a group of
// a * o is one more product, with a constant operand, and every chain of sums of the group starts
// from it.
#pragma once

#include "gemm_format.cuh"
#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// The four operands in a word. `sign` has the sign bit of the half that was complemented.
struct Opened {
  uint32_t nibble[kNibbles];
};
__device__ inline Opened open(uint32_t word, uint32_t sign) {
  Opened opened;
  opened.nibble[0] = and_or<0x000F000F>(word, sign);
  opened.nibble[1] = and_or<0x00F000F0>(word, sign);
  opened.nibble[3] = __byte_perm(word, sign, 0x7351);
  opened.nibble[2] = opened.nibble[3] & 0x800F800F;
  return opened;
}

// What a warp sums: [tile of rows][nibble][half][four of a fragment].
template <class S>
using Sums = float[S::kRowTiles][kNibbles][S::kHalves][4];

// Calls `use(t, p, h, i)` for each sum of a lane.
template <class S, typename Use>
__device__ inline void for_sums(const Use& use) {
#pragma unroll
  for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
    for (int p = 0; p < kNibbles; ++p) {
#pragma unroll
      for (int h = 0; h < S::kHalves; ++h) {
#pragma unroll
        for (int i = 0; i < 4; ++i) use(t, p, h, i);
      }
    }
  }
}

template <class S>
class Multiplier {
  using Scalar = typename S::Scalar;
  using F = Format<Scalar>;
  using Activations = uint32_t[S::kHeldSteps][S::kRowTiles][4];

 public:
  static constexpr int kFragments = S::kRowTiles * kNibbles * S::kHalves;
  static constexpr bool kIsSmall = S::kRows == 8;
  // Of the 16 chunks of a row, in how many places eight of them begin for one lane.
  static constexpr int kChunkPlaces = kIsSmall ? 2 : 4;

  __device__ Multiplier(const GemmArguments& g, uint32_t shared) : g_(g) {
    const int lane = threadIdx.x % 32;
    const int row = kIsSmall ? lane % 8 : lane % 16;
#pragma unroll
    for (int i = 0; i < kChunkPlaces; ++i) {
      const int chunk = kIsSmall ? 4 * i + lane / 8 : 2 * i + lane / 16;
      const int at = (row * kRowChunks + (chunk ^ (row % 8))) * kChunkBytes;
      activations_from_[i] = keep(shared + S::kActivationsAt + first_row() * kRowBytes + at);
    }
    const int slot = warp_of_columns() * kSteps * 32 + lane;
    weights_from_ = keep(shared + slot * kChunkBytes);
    const int column = column_of(0, 0, 0);
    scales_from_ = keep(shared + S::kScalesAt + column * 2);
    zeros_from_ = keep(shared + S::kZerosAt + column / 8 * 4);
    zero_shift_ = keep(column % 8 * 4);
    clear();
  }

  __device__ void clear() {
    for_sums<S>([&](int t, int p, int h, int i) { result_[t][p][h][i] = sums_[t][p][h][i] = 0; });
    clear_constants();
  }

  // The tile in the stage at byte `stage`.
  __device__ void multiply(int tile_k, uint32_t stage) {
    // Which row of a pair is complemented: the ones in a step's number are those of the tile's and
    // those of its own in the tile. The sign bit is in the upper half, or in the lower one.
    const uint32_t odd = (__popc(tile_k) & 1) == 0 ? 0x80000000u : 0x00008000u;
    if constexpr (S::kUnrollsGroups) {
#pragma unroll
      for (int first = 0; first < kSteps; first += S::kHeldSteps) multiply_held(stage, first, odd);
    } else {
#pragma unroll 1
      for (int first = 0; first < kSteps; first += S::kHeldSteps) multiply_held(stage, first, odd);
    }
  }

  // The end of a column of tiles: everything that is not scaled yet.
  __device__ void finish(const Place& place) {
    if constexpr (!S::kScalesTiles) {
      const auto* scales = static_cast<const Scalar*>(g_.scales);
      for_sums<S>([&](int t, int p, int h, int i) {
        if (p == 3) sums_[t][3][h][i] -= sums_[t][2][h][i];
      });
      for_columns([&](int p, int h, int c) {
        const int column = place.n * S::kColumns + column_of(p, h, of_column(c, 0));
        if (column >= g_.n) return;
        float zero = 8;
        if constexpr (S::kHasZeros) {
          zero = static_cast<float>(g_.zeros[column / 8] >> (4 * (column % 8)) & 15u);
        }
        const float scale = F::widen(scales[column]);
        for_rows([&](int t, int r) {
          const int i = of_column(c, r);
          const float constants = offset_[t][i] + (8.0f - zero) * total_[t][i];
          float& sum = sums_[t][p][h][i];
          sum = scale * (sum + factor(p) * constants);
        });
      });
    }
  }

  __device__ float (&fragment(int index))[4] {
    constexpr int kOfTile = kNibbles * S::kHalves;
    return scaled()[index / kOfTile][index % kOfTile / S::kHalves][index % S::kHalves];
  }

  __device__ void store(const Place& place) {
    auto* out = static_cast<Scalar*>(g_.out);
    const auto* bias = static_cast<const Scalar*>(g_.bias);
    for_sums<S>([&](int t, int p, int h, int i) {
      const int column = place.n * S::kColumns + column_of(p, h, i);
      const int row = place.m * S::kRows + row_of(t, i);
      if (row >= g_.m || column >= g_.n) return;
      float value = scaled()[t][p][h][i] * (F::kUnit / factor(p));
      if (bias != nullptr) value += F::widen(bias[column]);
      out[static_cast<int64_t>(row) * g_.n + column] = F::narrow(value);
    });
  }

 private:
  // Of the tile's rows, the first of this warp.
  static __device__ int first_row() { return threadIdx.x / 32 / kWarps * S::kWarpRows; }

  static __device__ constexpr float factor(int p) { return p % 2 == 0 ? 1.0f : 16.0f; }

  // Where a sum of this lane belongs, in the block's columns and the tile's rows. Of 8 rows the
  // weights are the first operand of the product, and the columns lie where rows do otherwise.
  static __device__ int column_of(int p, int h, int i) {
    const int lane = threadIdx.x % 32;
    const int warp = warp_of_columns();
    const int inside = S::kRows == 8 ? lane / 4 + 8 * (i / 2) : 8 * h + lane % 4 * 2 + i % 2;
    return warp * kWarpColumns + 16 * p + inside;
  }
  static __device__ int row_of(int t, int i) {
    const int lane = threadIdx.x % 32;
    if constexpr (kIsSmall) {
      return lane % 4 * 2 + i % 2;
    } else {
      return first_row() + 16 * t + lane / 4 + 8 * (i / 2);
    }
  }

  // What is the result after `finish`: channels are scaled in place.
  __device__ Sums<S>& scaled() {
    if constexpr (S::kScalesTiles) {
      return result_;
    } else {
      return sums_;
    }
  }

  // The sums of a fragment as two columns (`c`) by two rows (`r`).
  static __device__ constexpr int of_column(int c, int r) {
    return S::kRows == 8 ? 2 * c + r : 2 * r + c;
  }
  // Calls `use(p, h, c)` for each column of a lane, and `use(t, r)` for each row.
  template <typename Use>
  static __device__ void for_columns(const Use& use) {
#pragma unroll
    for (int p = 0; p < kNibbles; ++p) {
#pragma unroll
      for (int h = 0; h < S::kHalves; ++h) {
#pragma unroll
        for (int c = 0; c < 2; ++c) use(p, h, c);
      }
    }
  }
  template <typename Use>
  static __device__ void for_rows(const Use& use) {
#pragma unroll
    for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
      for (int r = 0; r < 2; ++r) use(t, r);
    }
  }

  // A sum without what p = 3 carries.
  __device__ float own_sum(int t, int p, int h, int i) const {
    return p == 3 ? sums_[t][3][h][i] - sums_[t][2][h][i] : sums_[t][p][h][i];
  }

  // The steps whose activations are in registers together, from `first` on.
  __device__ void multiply_held(uint32_t stage, int first, uint32_t odd) {
    Activations a;
    load_activations(stage, first, a);
    add_constants(first, a, odd);
    float starts[kNibbles][S::kRowTiles][4];
    if constexpr (S::kScalesTiles) {
      // p = 3 carries the sums of p = 2 with it.
      constexpr float kTimes[kNibbles] = {1, 16, 1, 17};
#pragma unroll
      for (int p = 0; p < kNibbles; ++p) {
#pragma unroll
        for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
          for (int i = 0; i < 4; ++i) starts[p][t][i] = kTimes[p] * offset_[t][i];
        }
      }
    }
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; ++s)
      multiply_step(stage, first + s, a[s], odd, s == 0, starts);
    if constexpr (S::kScalesTiles) scale_sums(stage, first / S::kHeldSteps);
  }

  // Of 8 rows ldmatrix reads two steps at a time. Eight chunks further on, the address is 128 bytes
  // further on: the swizzle leaves that bit alone.
  __device__ void load_activations(uint32_t stage, int first, Activations& a) {
    constexpr int kStepsAtATime = kIsSmall ? 2 : 1;
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; s += kStepsAtATime) {
      uint32_t from = stage;
      if constexpr (S::kUnrollsGroups) {
        const int place = (first + s) / kStepsAtATime;
        from += activations_from_[place % kChunkPlaces] + place / kChunkPlaces * 8 * kChunkBytes;
      } else {  // `first` is no constant, and must be no index; the first chunk is a multiple of
                // 256
        from += activations_from_[0] ^ static_cast<uint32_t>(2 * (first + s) * kChunkBytes);
      }
#pragma unroll
      for (int t = 0; t < S::kRowTiles; ++t) {
        uint32_t words[4];
        ldmatrix_x4(words, from + t * 16 * kRowBytes);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t word = F::enter(words[i]);
          if constexpr (kIsSmall) {
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
    if constexpr (S::kRows == 8) {
      mma<Scalar>(d, w0, w1, w2, w3, a[0], a[1], c);
    } else {
      mma<Scalar>(d, a[0], a[1], a[2], a[3], w0, w2, c);
    }
  }

  static __device__ uint32_t sign_of(int step, uint32_t odd) {
    return (__popc(step) & 1) == 0 ? odd : odd ^ 0x80008000u;
  }

  __device__ void clear_constants() {
#pragma unroll
    for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) offset_[t][i] = total_[t][i] = 0;
    }
  }

  // The sums of a * o, and of a where there are zero points: of a group, or of everything so far.
  // NOTE: products that wait for each other are padded by ptxas. Where that pays, in long groups,
  // every other step of a group adds to a sum of its own.
  __device__ void add_constants(int first, const Activations& a, uint32_t odd) {
    constexpr uint32_t kOnes = 0x00010001;
    constexpr bool kHasTwoSums = S::kGroupRows == kTileDepth && S::kRowTiles == 1;
    float other[4] = {};
    if constexpr (S::kScalesTiles) clear_constants();
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; ++s) {
      // -8 and 7 in the halves, the 7 where complemented codes have their sign bit.
      const uint32_t o = sign_of(first + s, odd) == 0x80000000u ? 0x00078008u : 0x80080007u;
#pragma unroll
      for (int t = 0; t < S::kRowTiles; ++t) {
        float (&offset)[4] = kHasTwoSums && s % 2 == 1 ? other : offset_[t];
        product(offset, a[s][t], o, o, o, o, offset);
        if constexpr (S::kHasZeros) {
          product(total_[t], a[s][t], kOnes, kOnes, kOnes, kOnes, total_[t]);
        }
      }
    }
    if constexpr (kHasTwoSums) {
#pragma unroll
      for (int i = 0; i < 4; ++i) offset_[0][i] += other[i];
    }
  }

  __device__ void multiply_step(uint32_t stage, int step, const uint32_t (&a)[S::kRowTiles][4],
                                uint32_t odd, bool is_first,
                                const float (&starts)[kNibbles][S::kRowTiles][4]) {
    const uint4 words = ld_shared(weights_from_ + stage + step * 32 * kChunkBytes);
    const uint32_t sign = sign_of(step, odd);
    const Opened w0 = open(words.x, sign);
    const Opened w1 = open(words.y, sign);
    const Opened w2 = open(words.z, sign);
    const Opened w3 = open(words.w, sign);
#pragma unroll
    for (int p = 0; p < kNibbles; ++p) {
#pragma unroll
      for (int t = 0; t < S::kRowTiles; ++t) {
#pragma unroll
        for (int h = 0; h < S::kHalves; ++h) {
          float (&sums)[4] = sums_[t][p][h];
          const uint32_t low = h == 0 ? w0.nibble[p] : w1.nibble[p];
          const uint32_t high = h == 0 ? w2.nibble[p] : w3.nibble[p];
          if (S::kScalesTiles && is_first) {
            product(sums, a[t], low, w1.nibble[p], high, w3.nibble[p], starts[p][t]);
          } else {
            product(sums, a[t], low, w1.nibble[p], high, w3.nibble[p], sums);
          }
        }
      }
    }
  }

  // Adds the sums of a group, scaled, to the result. Eight columns after eight: of 8 rows a lane
  // has one of them, else two neighbours.
  __device__ void scale_sums(uint32_t stage, int group) {
    const uint32_t scales = scales_from_ + stage + group * S::kColumns * 2;
    const uint32_t zeros = zeros_from_ + stage + group * S::kColumns / 2;
    constexpr int kNeighbours = kIsSmall ? 1 : 2;
#pragma unroll
    for (int eight = 0; eight < kWarpColumns / 8; ++eight) {
      float scale[2];
      if constexpr (kIsSmall) {
        scale[0] = F::widen(ld_shared_half(scales + eight * 16));
      } else {
        F::widen(ld_shared_word(scales + eight * 16), scale);
      }
      [[maybe_unused]] uint32_t zero_word = 0;
      if constexpr (S::kHasZeros) zero_word = ld_shared_word(zeros + eight * 4) >> zero_shift_;
#pragma unroll
      for (int n = 0; n < kNeighbours; ++n) {
        const int p = eight / 2;
        const int h = kIsSmall ? 0 : eight % 2;
        const int c = kIsSmall ? eight % 2 : n;
        float zero = 0;
        if constexpr (S::kHasZeros) {
          zero = factor(p) * (8.0f - static_cast<float>(zero_word >> (4 * n) & 15u));
        }
        for_rows([&](int t, int r) {
          const int i = of_column(c, r);
          float sum = own_sum(t, p, h, i);
          if constexpr (S::kHasZeros) sum += zero * total_[t][i];
          result_[t][p][h][i] += scale[n] * sum;
        });
      }
    }
  }

  const GemmArguments& g_;
  uint32_t activations_from_[kChunkPlaces];  // of this lane, in the first stage
  uint32_t weights_from_, scales_from_, zeros_from_;
  uint32_t zero_shift_;  // of this lane's zero points in their words
  Sums<S> result_;
  Sums<S> sums_;
  float offset_[S::kRowTiles][4];  // sums of a * o, and of a, times 2^-24
  float total_[S::kRowTiles][4];
};

}  // namespace marlin::cuda
