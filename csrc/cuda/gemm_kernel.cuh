// The kernel of gemm. A block multiplies a stripe of tiles: `rows` rows of the activations times 64
// columns per warp times 128 rows of K each, down K first. Each warp has columns of its own, so
// that no sum is shared inside a block, and each lane copies the very weights that it will read
// itself.
//
//   stage:  weights [warp][step][lane] 16 bytes, activations [row][16 chunks of 16 bytes,
//   swizzled],
//           scales [group][column], zero points [group][column / 8]
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

#include "gemm.h"
#include "layout.h"
#include "ptx.cuh"

namespace marlin::cuda {

constexpr int kSteps = kTileDepth / kStepRows;
constexpr int kNibbles = 4;
constexpr int kChunkBytes = 16;
constexpr int kRowChunks = kTileDepth * 2 / kChunkBytes;  // of a row of the activations in a tile

template <typename Scalar_, int rows, int group_rows, bool has_zeros>
struct Shape {
  using Scalar = Scalar_;
  static constexpr int kRows = rows;
  static constexpr bool kScalesTiles = group_rows != 0;  // else everything once, at the end
  static constexpr int kGroupSteps = kScalesTiles ? group_rows / kStepRows : kSteps;
  static constexpr int kGroups = kScalesTiles ? kTileDepth / group_rows : 0;
  static constexpr int kGroupRows = group_rows;
  static constexpr bool kHasZeros = has_zeros;
  static constexpr int kStages = stages_of(rows, group_rows);
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kColumns = kWarps * kWarpColumns;

  static constexpr int kWeightBytes = kTileDepth * kColumns / 2;
  static constexpr int kActivationBytes = rows * kTileDepth * 2;
  static constexpr int kScaleBytes = kGroups * kColumns * 2;
  static constexpr int kZeroBytes = has_zeros ? kGroups * kColumns / 2 : 0;
  static constexpr int kActivationsAt = kWeightBytes;
  static constexpr int kScalesAt = kActivationsAt + kActivationBytes;
  static constexpr int kZerosAt = kScalesAt + kScaleBytes;
  static constexpr int kStageBytes = kZerosAt + kZeroBytes;

  // Sums of a lane, in fragments of four: of 16 columns by 8 rows, or of 8 columns by 16 rows.
  static constexpr int kHalves = rows == 8 ? 1 : 2;
  static constexpr int kRowTiles = rows == 8 ? 1 : rows / 16;

  // Steps whose activations are in registers together: those of a group, because the sums of the
  // group start from all of them; else as few as ldmatrix gives.
  static constexpr int kHeldSteps = kScalesTiles ? kGroupSteps : 2;
  // Of many rows several short groups at once would not fit the registers.
  static constexpr bool kUnrollsGroups = rows < 32 || !kScalesTiles;
};

// A tile: down K first, then along the columns, then along the rows of the activations.
struct Place {
  int k, n, m;

  __device__ static Place of(const GemmArguments& g, int tile) {
    const int column = tile / g.tiles_k;
    return {tile % g.tiles_k, column % g.tiles_n, column / g.tiles_n};
  }
  // Moves on; true at the first tile of a column.
  __device__ bool advance(const GemmArguments& g) {
    if (++k < g.tiles_k) return false;
    k = 0;
    if (++n == g.tiles_n) {
      n = 0;
      ++m;
    }
    return true;
  }
};

// Starts the copies of one tile after the other. Only activations beyond the last row or column are
// replaced by zeros: whatever meets them adds nothing. Weights and scales beyond the last column
// belong to results that nobody writes, and are read from where there are some.
template <class S>
class Loader {
  using Scalar = typename S::Scalar;

 public:
  __device__ Loader(const GemmArguments& g, int tile, uint32_t shared)
      : g_(g), at_(Place::of(g, tile)), shared_(shared), policy_(createpolicy_evict_first()) {
    enter_column();
  }

  // Starts the copies of the next tile into a stage.
  __device__ void start(int stage) {
    const uint32_t to = shared_ + stage * S::kStageBytes;
    start_weights(to);
    start_activations(to + S::kActivationsAt);
    if constexpr (S::kScalesTiles) start_scales(to);
    weights_ += kSteps * kStepWords;
    a_ += kTileDepth;
    if (at_.advance(g_)) enter_column();
  }

 private:
  static constexpr int kRowsAtATime = S::kThreads / kRowChunks;
  static constexpr int kCopies = S::kRows / kRowsAtATime;
  static constexpr int kScaleChunks = S::kColumns / 8;

  __device__ void enter_column() {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int block = min(at_.n * kWarps + warp, (g_.n - 1) / kWarpColumns);
    const int step = block * (g_.k / kStepRows) + at_.k * kSteps;
    weights_ = g_.weights + static_cast<int64_t>(step) * kStepWords + lane * kLaneWords;
    row_ = at_.m * S::kRows + threadIdx.x / kRowChunks;
    a_ = static_cast<const Scalar*>(g_.a) + row_ * g_.a_stride + at_.k * kTileDepth +
         threadIdx.x % kRowChunks * 8;
    scale_column_ = min(at_.n * S::kColumns + threadIdx.x % kScaleChunks * 8, g_.n - 8);
  }

  __device__ void start_weights(uint32_t to) {
    to += (threadIdx.x / 32 * kSteps * 32 + threadIdx.x % 32) * kChunkBytes;
    const int left = g_.k / kStepRows - at_.k * kSteps;
    if (left >= kSteps) {
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        cp_async_with_policy(to + s * 32 * kChunkBytes, weights_ + s * kStepWords, policy_);
      }
    } else {  // the last step again and again: activations are zero there
      for (int s = 0; s < kSteps; ++s) {
        cp_async_with_policy(to + s * 32 * kChunkBytes, weights_ + min(s, left - 1) * kStepWords,
                             policy_);
      }
    }
  }

  // Chunks of a row change places by the row's number, so that the eight rows that ldmatrix reads
  // at a time lie in different banks.
  __device__ void start_activations(uint32_t to) {
    const int r = threadIdx.x / kRowChunks;
    const int chunk = threadIdx.x % kRowChunks;
    to += (r * kRowChunks + (chunk ^ (r % 8))) * kChunkBytes;
    const bool has_column = at_.k * kTileDepth + chunk * 8 < g_.k;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const bool is_inside = has_column && row_ + i * kRowsAtATime < g_.m;
      const Scalar* from = a_ + i * kRowsAtATime * g_.a_stride;
      cp_async(to + i * kRowsAtATime * kRowChunks * kChunkBytes, is_inside ? from : g_.a,
               is_inside ? kChunkBytes : 0);
    }
  }

  __device__ void start_scales(uint32_t to) {
    constexpr int kChunks = S::kGroups * kScaleChunks;
    static_assert(kChunks <= S::kThreads, "one chunk of scales per thread");
    if (kChunks < S::kThreads && threadIdx.x >= kChunks) return;
    const int part = at_.k * S::kGroups + threadIdx.x / kScaleChunks;
    const int row = min(part * S::kGroupRows, g_.k - S::kGroupRows);
    const uint32_t parts = static_cast<uint32_t>(row) / kGroupMultiple;
    const uint32_t group = g_.group_magic == 0 ? parts : __umulhi(parts, g_.group_magic);
    const int64_t at = static_cast<int64_t>(group) * g_.n + scale_column_;
    cp_async(to + S::kScalesAt + threadIdx.x * kChunkBytes,
             static_cast<const Scalar*>(g_.scales) + at, kChunkBytes);
    if constexpr (S::kHasZeros) {
      cp_async_word(to + S::kZerosAt + threadIdx.x * 4, g_.zeros + at / 8);
    }
  }

  const GemmArguments& g_;
  Place at_;
  uint32_t shared_;
  uint64_t policy_;
  const uint32_t* weights_;  // of this lane, in the tile
  const Scalar* a_;          // the first chunk of this thread
  int row_;                  // of that chunk
  int scale_column_;
};

template <typename Scalar>
struct Format;
template <>
struct Format<__half> {
  static constexpr float kUnit = 0x1p24f;
  static __device__ uint32_t enter(uint32_t a) { return a; }
  static __device__ float widen(__half value) { return __half2float(value); }
  static __device__ uint32_t pair(float low, float high) {
    const __half2 both = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(both);
  }
  static __device__ __half narrow(float value) { return __float2half_rn(value); }
};
// A subnormal bfloat16 is 2^-133, and its products with activations near 1 would be no float32:
// activations are multiplied by 2^100, exactly, as long as they are below 2^28.
template <>
struct Format<__nv_bfloat16> {
  static constexpr float kUnit = 0x1p33f;
  static __device__ uint32_t enter(uint32_t a) {
    constexpr uint32_t kFactors = 0x71807180;
    const auto product = __hmul2(reinterpret_cast<const __nv_bfloat162&>(a),
                                 reinterpret_cast<const __nv_bfloat162&>(kFactors));
    return reinterpret_cast<const uint32_t&>(product);
  }
  static __device__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }
  static __device__ uint32_t pair(float low, float high) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(both);
  }
  static __device__ __nv_bfloat16 narrow(float value) { return __float2bfloat16_rn(value); }
};

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

  __device__ Multiplier(const GemmArguments& g, uint32_t shared)
      : g_(g), shared_(shared), first_chunk_(first_chunk()) {
    clear();
  }

  __device__ void clear() {
    for_sums<S>([&](int t, int p, int h, int i) { result_[t][p][h][i] = sums_[t][p][h][i] = 0; });
    clear_constants();
  }

  __device__ void multiply(int tile_k, int stage) {
    const uint32_t at = shared_ + stage * S::kStageBytes;
    // complements_odd_row of a step: the ones in its number are those of the tile's and those of
    // its own in the tile. The sign bit is in the upper half, or in the lower one.
    const uint32_t odd = (__popc(tile_k) & 1) == 0 ? 0x80000000u : 0x00008000u;
    if constexpr (S::kUnrollsGroups) {
#pragma unroll
      for (int first = 0; first < kSteps; first += S::kHeldSteps) multiply_held(at, first, odd);
    } else {
#pragma unroll 1
      for (int first = 0; first < kSteps; first += S::kHeldSteps) multiply_held(at, first, odd);
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

  __device__ float4& fragment(int index) {
    constexpr int kOfTile = kNibbles * S::kHalves;
    return reinterpret_cast<float4&>(
        scaled()[index / kOfTile][index % kOfTile / S::kHalves][index % S::kHalves]);
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
  static __device__ constexpr float factor(int p) { return p % 2 == 0 ? 1.0f : 16.0f; }

  // Where a sum of this lane belongs, in the block's columns and the tile's rows. Of 8 rows the
  // weights are the first operand of the product, and the columns lie where rows do otherwise.
  static __device__ int column_of(int p, int h, int i) {
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const int inside = S::kRows == 8 ? lane / 4 + 8 * (i / 2) : 8 * h + lane % 4 * 2 + i % 2;
    return warp * kWarpColumns + 16 * p + inside;
  }
  static __device__ int row_of(int t, int i) {
    const int lane = threadIdx.x % 32;
    return S::kRows == 8 ? lane % 4 * 2 + i % 2 : 16 * t + lane / 4 + 8 * (i / 2);
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
  __device__ void multiply_held(uint32_t at, int first, uint32_t odd) {
    Activations a;
    load_activations(at + S::kActivationsAt, first, a);
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
    for (int s = 0; s < S::kHeldSteps; ++s) multiply_step(at, first + s, a[s], odd, s == 0, starts);
    if constexpr (S::kScalesTiles) scale_sums(at, first / S::kHeldSteps);
  }

  // Where ldmatrix finds the chunk of this lane in the first step, in the activations of a stage.
  // Of 8 rows it reads two steps at a time. A later step's chunk differs by bits that no other part
  // of the address has: an exclusive-or leads there.
  static __device__ uint32_t first_chunk() {
    const int lane = threadIdx.x % 32;
    const int row = S::kRows == 8 ? lane % 8 : lane % 16;
    const int chunk = S::kRows == 8 ? lane / 8 : lane / 16;
    return static_cast<uint32_t>((row * kRowChunks + (chunk ^ (row % 8))) * kChunkBytes);
  }

  __device__ void load_activations(uint32_t from, int first, Activations& a) {
    constexpr bool kIsSmall = S::kRows == 8;
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; s += kIsSmall ? 2 : 1) {
      const uint32_t at = first_chunk_ ^ static_cast<uint32_t>(2 * (first + s) * kChunkBytes);
#pragma unroll
      for (int t = 0; t < S::kRowTiles; ++t) {
        uint32_t words[4];
        ldmatrix_x4(words, from + at + t * 16 * kRowChunks * kChunkBytes);
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
  __device__ void add_constants(int first, const Activations& a, uint32_t odd) {
    constexpr uint32_t kOnes = 0x00010001;
    if constexpr (S::kScalesTiles) clear_constants();
#pragma unroll
    for (int s = 0; s < S::kHeldSteps; ++s) {
      // -8 and 7 in the halves, the 7 where complemented codes have their sign bit.
      const uint32_t o = sign_of(first + s, odd) == 0x80000000u ? 0x00078008u : 0x80080007u;
#pragma unroll
      for (int t = 0; t < S::kRowTiles; ++t) {
        product(offset_[t], a[s][t], o, o, o, o, offset_[t]);
        if constexpr (S::kHasZeros) {
          product(total_[t], a[s][t], kOnes, kOnes, kOnes, kOnes, total_[t]);
        }
      }
    }
  }

  __device__ void multiply_step(uint32_t at, int step, const uint32_t (&a)[S::kRowTiles][4],
                                uint32_t odd, bool is_first,
                                const float (&starts)[kNibbles][S::kRowTiles][4]) {
    const int slot = (threadIdx.x / 32 * kSteps + step) * 32 + threadIdx.x % 32;
    const uint4 words = ld_shared(at + slot * kChunkBytes);
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

  __device__ void scale_sums(uint32_t at, int group) {
    // Generic pointers, so that the compiler chooses the loads.
    const auto* scales = reinterpret_cast<const Scalar*>(
        __cvta_shared_to_generic(at + S::kScalesAt + group * S::kColumns * 2));
    const auto* zeros = reinterpret_cast<const uint32_t*>(
        __cvta_shared_to_generic(at + S::kZerosAt + group * S::kColumns / 2));
    for_columns([&](int p, int h, int c) {
      const int column = column_of(p, h, of_column(c, 0));
      const float scale = F::widen(scales[column]);
      float zero = 0;
      if constexpr (S::kHasZeros) {
        zero =
            factor(p) * (8.0f - static_cast<float>(zeros[column / 8] >> (4 * (column % 8)) & 15u));
      }
      for_rows([&](int t, int r) {
        const int i = of_column(c, r);
        float sum = own_sum(t, p, h, i);
        if constexpr (S::kHasZeros) sum += zero * total_[t][i];
        result_[t][p][h][i] += scale * sum;
      });
    });
  }

  const GemmArguments& g_;
  uint32_t shared_;
  uint32_t first_chunk_;
  Sums<S> result_;
  Sums<S> sums_;
  float offset_[S::kRowTiles][4];  // sums of a * o, and of a, times 2^-24
  float total_[S::kRowTiles][4];
};

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
      float4& mine = multiplier.fragment(i);
      mine = {before.x + mine.x, before.y + mine.y, before.z + mine.z, before.w + mine.w};
    }
  }
  if (!is_last) {
#pragma unroll
    for (int i = 0; i < Multiplier<S>::kFragments; ++i) {
      __stcg(partial + i * S::kThreads, multiplier.fragment(i));
    }
    __syncthreads();  // what all have written, thread 0 releases
    if (threadIdx.x == 0) st_release(lock, turn + 1);
  } else if (threadIdx.x == 0) {
    *lock = 0;  // for the next launch, which begins when this one has ended
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) gemm(const __grid_constant__ GemmArguments g) {
  extern __shared__ __align__(128) unsigned char memory[];
  const uint32_t shared = shared_address(memory);
  const int first = blockIdx.x * g.tiles_of_block;
  const int end = min(first + g.tiles_of_block, g.tiles);
  Loader<S> loader(g, first, shared);
  Multiplier<S> multiplier(g, shared);

#pragma unroll
  for (int s = 0; s < S::kStages - 1; ++s) {
    if (first + s < end) loader.start(s);
    cp_async_commit();
  }
  Place place = Place::of(g, first);
  int stage = 0;
  for (int tile = first; tile < end; ++tile) {
    cp_async_wait<S::kStages - 2>();
    // Activations and scales were copied by other threads; and the stage that is filled next is the
    // one that all have read before they came here.
    __syncthreads();
    if (tile + S::kStages - 1 < end) loader.start(stage == 0 ? S::kStages - 1 : stage - 1);
    cp_async_commit();

    multiplier.multiply(place.k, stage);
    stage = stage + 1 == S::kStages ? 0 : stage + 1;
    const Place done = place;
    if (place.advance(g) || tile + 1 == end) {
      multiplier.finish(done);
      bool is_last;
      reduce<S>(g, multiplier, done.m * g.tiles_n + done.n, is_last);
      if (is_last) multiplier.store(done);
      multiplier.clear();
    }
  }
}

}  // namespace marlin::cuda
