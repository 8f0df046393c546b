// Weights in float16 from codes as the last digits of ordinary numbers: gemm_scaled_opening.cuh
// says what it has.
//
// A code u below the digits of 1024 makes x = 1024 + u, or -(1024 + 15 - u) where it was
// complemented (255 - u), and 16 times the code where it lies higher. Then, exactly,
//   u - z = x + d         d = -(1024 + z), complemented 1024 + 15 - z
//   u - z = x / 16 + d    d = -(64 + z), complemented 64 + 15 - z
// and one more product scales it: three instructions for a pair, beside a quarter of one that moves
// upper bytes down.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "gemm_lane.cuh"
#include "gemm_pairs.cuh"
#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

template <int bits>
struct MagicCodes;

template <>
struct MagicCodes<4> {
  static constexpr int kOperands = 4;

  // Operands that are 16 times the codes.
  static __device__ constexpr bool is_high(int i) { return i % 2 == 1; }
  static __device__ constexpr uint32_t magic(bool odd) { return pair_of(odd, 0x6400, 0xE400); }
  static __device__ void open(uint32_t word, uint32_t magic, uint32_t (&to)[kOperands]) {
    to[0] = and_or<0x000F000F>(word, magic);
    to[1] = and_or<0x00F000F0>(word, magic);
    const uint32_t upper = upper_bytes(word, magic);
    to[2] = upper & 0xFF0FFF0F;
    to[3] = upper & 0xFFF0FFF0;
  }
  // By a warp that has two of the kinds: those of the bytes that bytes_of_halves tells.
  static __device__ void open_half(uint32_t word, uint32_t bytes, uint32_t magic,
                                   uint32_t (&to)[kOperands / 2]) {
    const uint32_t half = __byte_perm(word, magic, bytes);
    to[0] = half & 0xFF0FFF0F;
    to[1] = half & 0xFFF0FFF0;
  }
  // d, of the zero point 8; and as it is of a zero point z, with 64 + z still to be taken from it.
  static __device__ constexpr uint32_t middle(bool odd, bool is_high) {
    return is_high ? pair_of(odd, 0xD480, 0x5470)   // -72, 71
                   : pair_of(odd, 0xE408, 0x6407);  // -1032, 1031
  }
  static __device__ constexpr uint32_t before_zero(bool odd, bool is_high) {
    return is_high ? pair_of(odd, 0x0000, 0x5878)   // 0, 143
                   : pair_of(odd, 0xE380, 0x644F);  // -960, 1103
  }
};

template <>
struct MagicCodes<8> {
  static constexpr int kOperands = 2;

  static __device__ constexpr bool is_high(int) { return false; }
  static __device__ constexpr uint32_t magic(bool odd) { return pair_of(odd, 0x6400, 0xE400); }
  static __device__ void open(uint32_t word, uint32_t magic, uint32_t (&to)[kOperands]) {
    to[0] = and_or<0x00FF00FF>(word, magic);
    to[1] = upper_bytes(word, magic);
  }
  static __device__ constexpr uint32_t middle(bool odd, bool) {
    return pair_of(odd, 0xE480, 0x647F);  // -1152, 1151
  }
  static __device__ constexpr uint32_t before_zero(bool, bool) { return 0; }
};

template <class S>
class ScaledMagicOpening {
  using Codes = MagicCodes<S::kBits>;
  using L = Lane<S>;

 public:
  static constexpr int kOperands = Codes::kOperands / S::kBlockWarps;
  static constexpr bool kHasUnits = false;

  __device__ ScaledMagicOpening(const GemmArguments&, uint32_t shared) {
    const int column = L::first_weight_column();
    scales_from_ = keep(shared + S::kScalesAt + column * 2);
    zeros_from_ = keep(shared + S::kZerosAt + column / 8 * 4);
    if constexpr (S::kBlockWarps > 1) bytes_ = keep(bytes_of_halves(warp_of_block<S>() == 1));
  }

  __device__ void clear() {}
  template <typename Use>
  __device__ void enter(uint32_t, const Use&) {}

  __device__ void enter_group(uint32_t stage, int group) {
    L::for_blocks([&](int b) {
      const int column = group * kTileColumns + b * kBlockColumns;
      uint32_t words[S::kRun / 2];
      load_scales(scales_from_ + stage + column * 2, words);
      uint32_t zeros = 0;
      if constexpr (S::kHasZeros) {
        zeros = ld_shared_word(zeros_from_ + stage + group * S::kZeroPitch + b * kBlockColumns / 2);
        if constexpr (S::kBlockWarps > 1) zeros >>= warp_of_block<S>() * S::kRun * 4;
      }
#pragma unroll
      for (int q = 0; q < S::kRun; ++q) {
        scales_[b][q] = __byte_perm(words[q / 2], 0, q % 2 == 0 ? 0x1010 : 0x3232);
        if constexpr (S::kHasZeros) {
          // 64 + z in both halves: the nibble as the upper one of its byte.
          const uint32_t source = q % 2 == 0 ? zeros << 4 : zeros;
          zeros_[b][q] = __byte_perm(source, 0x00000054, 0x4040 | q / 2 | q / 2 << 8) & 0xFFF0FFF0;
        }
      }
    });
  }

  __device__ void open(uint32_t word, bool odd, uint32_t (&to)[kOperands]) const {
    if constexpr (S::kBlockWarps > 1) {
      Codes::open_half(word, bytes_, Codes::magic(odd), to);
    } else {
      Codes::open(word, Codes::magic(odd), to);
    }
  }

  __device__ uint32_t scaled(uint32_t operand, int i, int b, int p, int h, bool odd) const {
    const int q = 2 * p + h;
    const __half2 d = as_pair(distance(i, b, q, odd));
    const __half2 x = as_pair(operand);
    const __half2 centred =
        Codes::is_high(i) ? __hfma2(x, as_pair(twice(0x2C00)), d) : __hadd2(x, d);
    return as_bits(__hmul2(centred, as_pair(scales_[b][q])));
  }

 private:
  static __device__ void load_scales(uint32_t from, uint32_t (&to)[4]) {
    const uint4 chunk = ld_shared(from);
    to[0] = chunk.x;
    to[1] = chunk.y;
    to[2] = chunk.z;
    to[3] = chunk.w;
  }
  static __device__ void load_scales(uint32_t from, uint32_t (&to)[2]) {
    const uint2 pair = ld_shared_pair(from);
    to[0] = pair.x;
    to[1] = pair.y;
  }
  __device__ uint32_t distance(int i, int b, int q, bool odd) const {
    if constexpr (S::kHasZeros) {
      return as_bits(
          __hsub2(as_pair(Codes::before_zero(odd, Codes::is_high(i))), as_pair(zeros_[b][q])));
    } else {
      return Codes::middle(odd, Codes::is_high(i));
    }
  }

  uint32_t scales_from_, zeros_from_;     // of this lane, in the first stage
  uint32_t bytes_;                        // of words, that this warp opens
  uint32_t scales_[S::kBlocks][S::kRun];  // of a group, of the columns that this lane opens
  uint32_t zeros_[S::kBlocks][S::kRun];
};

}  // namespace marlin::cuda
