// Weights in float16 from codes as subnormal numbers: gemm_scaled_opening.cuh says what it has.
//
// A code u in the lowest bits, not complemented any more, is x = u * 2^-24, and 16 times as much
// where it lies higher. So with a scale s and a power of two n
//   x S + D = (u - 8) s n^2 * 2^-24        S = s n^2, D = -8 * 2^-24 S
// is one instruction for a pair, beside one and a quarter that take the codes out of their words,
// and exact but for its rounding: D is (128 for codes of 8 bits). Of zero points z it would not be,
// and the weight is (x - z * 2^-24) S: the difference is exact.
//
// n brings the scales of a column near 2^13, where no large weight of theirs is subnormal. It
// begins as large as it gets; where a scale has outgrown it, n is lowered, and the column's sums
// with it. So a weight is off by its own rounding, or by 2^-15 of the largest one of its column.
//
// A lane prepares S and D of two columns in each 64, in shared memory, for those that open them.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "gemm_lane.cuh"
#include "gemm_pairs.cuh"
#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// Codes of a word as they were before some were complemented.
template <int bits>
struct PlainCodes;

template <>
struct PlainCodes<4> {
  static constexpr int kOperands = 4;
  static constexpr uint16_t kMiddle = 8;
  static constexpr uint32_t kMask = 0x000F000F;

  static __device__ constexpr int log2_factor(int p) { return p % 2 * 4; }
  static __device__ void open(uint32_t word, uint32_t low, uint32_t high, bool odd,
                              uint32_t (&to)[kOperands]) {
    const uint32_t flip = pair_of(odd, 0, 0x000F);
    const uint32_t upper = upper_bytes(word, 0);
    to[0] = and_xor(word, low, flip);
    to[1] = and_xor(word, high, flip << 4);
    to[2] = and_xor(upper, low, flip);
    to[3] = and_xor(upper, high, flip << 4);
  }
  // By a warp that has two of the kinds: those of the bytes that bytes_of_halves tells.
  static __device__ void open_half(uint32_t word, uint32_t bytes, uint32_t low, uint32_t high,
                                   bool odd, uint32_t (&to)[kOperands / 2]) {
    const uint32_t flip = pair_of(odd, 0, 0x000F);
    const uint32_t half = __byte_perm(word, 0, bytes);
    to[0] = and_xor(half, low, flip);
    to[1] = and_xor(half, high, flip << 4);
  }
};

template <>
struct PlainCodes<8> {
  static constexpr int kOperands = 2;
  static constexpr uint16_t kMiddle = 128;
  static constexpr uint32_t kMask = 0x00FF00FF;

  static __device__ constexpr int log2_factor(int) { return 0; }
  static __device__ void open(uint32_t word, uint32_t low, uint32_t, bool odd,
                              uint32_t (&to)[kOperands]) {
    const uint32_t flip = pair_of(odd, 0, 0x00FF);
    to[0] = and_xor(word, low, flip);
    to[1] = upper_bytes(word, 0) ^ flip;
  }
};

template <class S>
class ScaledSubnormalOpening {
  using Codes = PlainCodes<S::kBits>;
  using L = Lane<S>;

 public:
  static constexpr int kOperands = Codes::kOperands / S::kBlockWarps;
  static constexpr bool kHasUnits = true;

  __device__ ScaledSubnormalOpening(const GemmArguments& g, uint32_t shared) {
    const int lane = lane_of_thread();
    const int eight = lane / 4;
    const int p = lane % 4;
    const int first = block_of_warp<S>() * kBlockColumns;
    const uint32_t prepared =
        shared + S::kExchangeAt + column_warp<S>() * S::kWarpColumns * kColumnBytes;
    scales_from_ = keep(shared + S::kScalesAt + first * 2 + lane * 4);
    prepares_ = S::kBlockWarps == 1 || p / S::kKinds == warp_of_block<S>();
    prepared_to_ = keep(prepared + chunk_of(eight, p % S::kKinds / 2) + p % 2 * 8);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) prepared_from_[i] = keep(prepared + chunk_of(eight, i));
    if constexpr (S::kBlockWarps > 1) bytes_ = keep(bytes_of_halves(warp_of_block<S>() == 1));
    low_ = keep(Codes::kMask | hidden_zero(g));
    high_ = keep(Codes::kMask << 4 | hidden_zero(g));
    if constexpr (S::kHasZeros) {
      zeros_from_ = keep(shared + S::kZerosAt + first / 2 + eight * 4);
      zero_shift_ = keep(8 * p);
      zero_factor_ = keep(1 << Codes::log2_factor(p));
    } else {
      minus_middle_ = keep(twice(0x8000 | Codes::kMiddle << Codes::log2_factor(p)));
    }
    clear();
  }

  __device__ void clear() {
#pragma unroll
    for (uint32_t& norm : norms_) norm = twice(kLargestNorm);
  }

  template <typename Use>
  __device__ void enter(uint32_t stage, const Use& use) {
    PerGroup scales;
    PerGroup products;
#pragma unroll
    for (int g = 0; g < S::kGroups; ++g) {
      L::for_blocks([&](int b) {
        scales[g][b] = ld_shared_word(scales_from_ + stage + column_of(g, b) * 2);
      });
    }
    if (__any_sync(kAllLanes, !normalize(scales, products))) {
      lower(scales, use);
      normalize(scales, products);
    }
#pragma unroll
    for (int g = 0; g < S::kGroups; ++g) {
      L::for_blocks([&](int b) {
        const uint32_t offset = offset_of(stage, g, b, products[g][b]);
        if (prepares_) {
          st_shared_pair(prepared_to_ + column_of(g, b) * kColumnBytes, products[g][b], offset);
        }
      });
    }
    __syncwarp();
  }

  __device__ void enter_group(uint32_t, int group) {
    L::for_blocks([&](int b) {
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        const uint4 chunk = ld_shared(prepared_from_[i] + column_of(group, b) * kColumnBytes);
        scales_[b][2 * i] = chunk.x;
        offsets_[b][2 * i] = chunk.y;
        scales_[b][2 * i + 1] = chunk.z;
        offsets_[b][2 * i + 1] = chunk.w;
      }
    });
  }

  __device__ void open(uint32_t word, bool odd, uint32_t (&to)[kOperands]) const {
    if constexpr (S::kBlockWarps > 1) {
      Codes::open_half(word, bytes_, low_, high_, odd, to);
    } else {
      Codes::open(word, low_, high_, odd, to);
    }
  }

  __device__ uint32_t scaled(uint32_t operand, int, int b, int p, int h, bool) const {
    const __half2 scale = both(scales_[b][p], h);
    const __half2 offset = both(offsets_[b][p], h);
    if constexpr (S::kHasZeros) {
      return as_bits(__hmul2(__hadd2(as_pair(operand), offset), scale));
    } else {
      return as_bits(__hfma2(as_pair(operand), scale, offset));
    }
  }

  __device__ void units(int b, int e, float (&to)[S::kRun]) const {
    to_columns(norms_[b], e, kUnitExponent, Codes::log2_factor, to);
  }

 private:
  using PerGroup = uint32_t[S::kGroups][S::kBlocks];
  static constexpr int kChunks = S::kKinds / 2;  // that hold S and D of what a lane opens of eight
  static constexpr int kColumnBytes = 4;         // S and D
  static constexpr int kBias = 15;               // of exponents
  static constexpr uint16_t kLargestNorm = (14 + kBias) << 10;
  static constexpr uint32_t kInfinity = 0x7C007C00;
  static constexpr int kUnitExponent = 24 + 2 * kBias;  // of 2^24 / n^2, if n had a field of zero

  static __device__ constexpr int column_of(int group, int b) {
    return group * kTileColumns + b * kBlockColumns;
  }
  // S and D of four columns of eight: the 128 bytes of the second ones are turned by 64, so that
  // the lanes of half a warp write to different banks.
  static __device__ int chunk_of(int eight, int i) {
    return 128 * i + (eight * kChunkBytes + 64 * i) % 128;
  }
  static __device__ __half2 both(uint32_t pair, int h) {
    return h == 0 ? __low2half2(as_pair(pair)) : __high2half2(as_pair(pair));
  }

  // S of all scales. Whether all are finite.
  __device__ bool normalize(const PerGroup& scales, PerGroup& products) const {
    __half2 largest;
#pragma unroll
    for (int g = 0; g < S::kGroups; ++g) {
#pragma unroll
      for (int b = 0; b < S::kBlocks; ++b) {
        const __half2 norm = as_pair(norms_[b]);
        const __half2 product = __hmul2(__hmul2(as_pair(scales[g][b]), norm), norm);
        products[g][b] = as_bits(product);
        const __half2 size = __habs2(product);
        largest = g == 0 && b == 0 ? size : __hmax2(largest, size);
      }
    }
    return __hblt2(largest, as_pair(kInfinity));
  }

  // What the scales ask of n. The sums follow it.
  template <typename Use>
  __device__ void lower(const PerGroup& scales, const Use& use) {
    L::for_blocks([&](int b) {
      const uint32_t before = norms_[b];
#pragma unroll
      for (int g = 0; g < S::kGroups; ++g) {
        const __half2 norm = as_pair(norm_of(scales[g][b]));
        norms_[b] = as_bits(__hmin2(as_pair(norms_[b]), norm));
      }
      const uint32_t steps = before - norms_[b];
#pragma unroll
      for (int e = 0; e < S::kRuns; ++e) {
        float factors[S::kRun];
        to_columns(steps, e, 0, [](int) { return 0; }, factors);
        use(b, e, factors);
      }
    });
  }

  // The n that brings the scales of a pair from 2^12 to 2^14, but no more than the largest: with
  // the field E of a scale's exponent, that of n is (58 - E) / 2.
  static __device__ uint32_t norm_of(uint32_t pair) {
    const uint32_t exponents = pair >> 10 & 0x001F001F;
    return ((0x003A003A - exponents) >> 1 & 0x001F001F) << 10;
  }

  // Powers of two for a run of a lane's results: `exponent` less a kind's factor, and less twice
  // the exponent field of its column in the word of the lane that prepares it.
  template <typename Factor>
  static __device__ void to_columns(uint32_t fields, int e, int exponent, const Factor& log2_factor,
                                    float (&to)[S::kRun]) {
    const int first = lane_of_thread() % 4 * 8 + 4 * e + warp_of_block<S>() * S::kKinds;
#pragma unroll
    for (int q = 0; q < S::kRun; ++q) {
      const uint32_t pair = __shfl_sync(kAllLanes, fields, first + q / 2);
      const uint32_t field = q % 2 == 0 ? pair & 0xFFFF : pair >> 16;
      to[q] = __uint_as_float((127 + exponent - log2_factor(q / 2) << 23) - (field << 14));
    }
  }

  // -z * 2^-24 of a lane's two columns, 16 times as much where codes lie higher; or D.
  __device__ uint32_t offset_of(uint32_t stage, int group, int b, uint32_t scale) const {
    if constexpr (S::kHasZeros) {
      const int at = group * S::kZeroPitch + b * kBlockColumns / 2;
      const uint32_t word = ld_shared_word(zeros_from_ + stage + at);
      const uint32_t pair = word >> zero_shift_;
      return ((pair & 0x0F) + ((pair & 0xF0) << 12)) * zero_factor_ | 0x80008000;
    } else {
      return as_bits(__hmul2(as_pair(scale), as_pair(minus_middle_)));
    }
  }

  uint32_t scales_from_, zeros_from_;  // of this lane, in the first stage
  bool prepares_;                      // of a block that warps share, each prepares what it opens
  uint32_t prepared_to_, prepared_from_[kChunks];
  uint32_t bytes_;       // of words, that this warp opens
  uint32_t low_, high_;  // masks, which leave the place of a constant to others
  uint32_t minus_middle_, zero_shift_, zero_factor_;
  uint32_t norms_[S::kBlocks];  // n, of two columns in each block
  // S and D of a group, of the columns that this lane opens.
  uint32_t scales_[S::kBlocks][S::kKinds], offsets_[S::kBlocks][S::kKinds];
};

}  // namespace marlin::cuda
