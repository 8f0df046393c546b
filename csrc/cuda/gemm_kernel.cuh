// The kernel of gemm. A block multiplies a stripe of tiles: `rows` rows of the activations times
// 256 columns times 128 rows of K each, down K first. A warp has 64 columns and up to 32 rows of
// its own, so that no sum is shared inside a block.
//
//   stage:  weights [64 columns][step][lane] 16 bytes, activations [row][16 chunks of 16 bytes],
//           chunks swizzled, scales [group][column], zero points [group][column / 8]
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
constexpr int kRowBytes = kTileDepth * 2;  // of a row of the activations in a tile
constexpr int kRowChunks = kRowBytes / kChunkBytes;

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
  // Of 64 rows two warps share the columns, and the weights in shared memory, with 32 rows each.
  static constexpr int kRowWarps = row_warps_of(rows);
  static constexpr int kWarpRows = rows / kRowWarps;
  static constexpr int kThreads = kWarps * kRowWarps * 32;
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
  static constexpr int kRowTiles = rows == 8 ? 1 : kWarpRows / 16;

  // Steps whose activations are in registers together: those of a group, because the sums of the
  // group start from all of them; else as few as ldmatrix gives.
  static constexpr int kHeldSteps = kScalesTiles ? kGroupSteps : 2;
  // Of many rows several short groups at once would not fit the registers.
  static constexpr bool kUnrollsGroups = kWarpRows < 32 || !kScalesTiles;
};

// Which 64 of a block's columns the warp multiplies.
__device__ inline int warp_of_columns() { return threadIdx.x / 32 % kWarps; }

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

// The value in a way that the compiler can't compute it again: what the main loop needs of a lane
// stays in a register. Every lane must come here.
__device__ inline uint32_t keep(uint32_t value) {
  return __shfl_sync(0xFFFFFFFFu, value, threadIdx.x % 32);
}

// Starts the copies of one tile after the other. What lies beyond the last row or column becomes
// zero, and of a copy of no bytes the address is not read; only weights beyond the last column,
// whose results nobody writes, are read from where there are some.
template <class S>
class Loader {
  using Scalar = typename S::Scalar;

 public:
  __device__ Loader(const GemmArguments& g, int tile, uint32_t shared)
      : g_(g), at_(Place::of(g, tile)), policy_(createpolicy_evict_first()) {
    const int r = threadIdx.x / kRowChunks;
    const int chunk = threadIdx.x % kRowChunks;
    const int slot = (warp_of_columns() * kSteps + first_step()) * 32 + threadIdx.x % 32;
    weights_to_ = keep(shared + slot * kChunkBytes);
    // Chunks of a row change places by the row's number, so that the eight rows that ldmatrix reads
    // at a time lie in different banks.
    activations_to_ =
        keep(shared + S::kActivationsAt + (r * kRowChunks + (chunk ^ (r % 8))) * kChunkBytes);
    scales_to_ = keep(shared + S::kScalesAt + threadIdx.x * kChunkBytes);
    zeros_to_ = keep(shared + S::kZerosAt + threadIdx.x * 4);
    magic_ = keep(g.group_magic);
    enter_column();
  }

  // Starts the copies of the next tile into the stage at byte `stage`.
  __device__ void start(uint32_t stage) {
    start_weights(stage);
    start_activations(stage);
    if constexpr (S::kScalesTiles) start_scales(stage);
    left_ -= kTileDepth;
    if (left_ > 0) {
      ++at_.k;
      weights_ += kSteps * kStepWords;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) a_[i] += kTileDepth;
      scale_row_ += kTileDepth / kGroupUnit;
    } else {
      at_.k = g_.tiles_k - 1;
      at_.advance(g_);
      enter_column();
    }
  }

 private:
  static constexpr int kRowsAtATime = S::kThreads / kRowChunks;
  static constexpr int kCopies = S::kRows / kRowsAtATime;
  static constexpr int kScaleChunks = S::kColumns / 8;
  static constexpr int kCopiedSteps = kSteps / S::kRowWarps;  // by one warp
  static constexpr int kNever = 0x7FFFFFFF;                   // more rows of K than there are

  __device__ static int first_step() { return threadIdx.x / 32 / kWarps * kCopiedSteps; }

  __device__ void enter_column() {
    left_ = g_.k - at_.k * kTileDepth;
    // The middle of what is copied: immediate offsets of copies reach 2 KiB to both sides.
    const int block = min(at_.n * kWarps + warp_of_columns(), (g_.n - 1) / kWarpColumns);
    const int64_t step =
        static_cast<int64_t>(block) * (g_.k / kStepRows) + at_.k * kSteps + first_step();
    weights_ = g_.weights + (step + kCopiedSteps / 2) * kStepWords + threadIdx.x % 32 * kLaneWords;

    const int chunk = threadIdx.x % kRowChunks;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = at_.m * S::kRows + threadIdx.x / kRowChunks + i * kRowsAtATime;
      a_least_[i] = row < g_.m ? chunk * 8 : kNever;
      a_[i] = static_cast<const Scalar*>(g_.a) + row * g_.a_stride + at_.k * kTileDepth + chunk * 8;
    }

    const int part = threadIdx.x / kScaleChunks * S::kGroupRows;
    const int column = at_.n * S::kColumns + threadIdx.x % kScaleChunks * 8;
    scale_least_ = column < g_.n ? part : kNever;
    scale_column_ = column;
    scale_row_ = (at_.k * kTileDepth + part) / kGroupUnit;
  }

  __device__ void start_weights(uint32_t stage) {
    const int left = S::kRowWarps == 1 ? left_ : left_ - first_step() * kStepRows;
#pragma unroll
    for (int s = 0; s < kCopiedSteps; ++s) {
      // K is a multiple of two steps.
      const int bytes = left > s / 2 * 2 * kStepRows ? kChunkBytes : 0;
      cp_async_with_policy(weights_to_ + stage + s * 32 * kChunkBytes,
                           weights_ + (s - kCopiedSteps / 2) * kStepWords, bytes, policy_);
    }
  }

  __device__ void start_activations(uint32_t stage) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      cp_async(activations_to_ + stage + i * kRowsAtATime * kRowChunks * kChunkBytes, a_[i],
               left_ > a_least_[i] ? kChunkBytes : 0);
    }
  }

  __device__ void start_scales(uint32_t stage) {
    constexpr int kChunks = S::kGroups * kScaleChunks;
    static_assert(kChunks <= S::kThreads, "one chunk of scales per thread");
    if (kChunks < S::kThreads && threadIdx.x >= kChunks) return;
    const bool is_inside = left_ > scale_least_;
    const uint32_t group = __umulhi(scale_row_, magic_);
    const int64_t at = static_cast<int64_t>(group) * g_.n + scale_column_;
    cp_async(scales_to_ + stage, static_cast<const Scalar*>(g_.scales) + at,
             is_inside ? kChunkBytes : 0);
    if constexpr (S::kHasZeros)
      cp_async_word(zeros_to_ + stage, g_.zeros + at / 8, is_inside ? 4 : 0);
  }

  const GemmArguments& g_;
  Place at_;
  uint64_t policy_;
  int left_;  // rows of K from the tile on
  const uint32_t* weights_;
  const Scalar* a_[kCopies];
  int a_least_[kCopies];  // copied if more rows of K than these are left
  int scale_least_;
  int scale_column_;
  uint32_t scale_row_;  // in units of kGroupUnit
  uint32_t magic_;
  uint32_t weights_to_, activations_to_, scales_to_, zeros_to_;
};

template <typename Scalar>
struct Format;
template <>
struct Format<__half> {
  static constexpr float kUnit = 0x1p24f;
  static __device__ uint32_t enter(uint32_t a) { return a; }
  static __device__ float widen(__half value) { return __half2float(value); }
  static __device__ float widen(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
  static __device__ void widen(uint32_t pair, float (&to)[2]) {
    const float2 both = __half22float2(reinterpret_cast<const __half2&>(pair));
    to[0] = both.x;
    to[1] = both.y;
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
  static __device__ float widen(uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }
  static __device__ void widen(uint32_t pair, float (&to)[2]) {
    to[0] = __uint_as_float(pair << 16);
    to[1] = __uint_as_float(pair & 0xFFFF0000u);
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
