// Codes as the last digits of ordinary numbers, in the place of the subnormal ones of
// gemm_opening_subnormal.cuh: for GPUs whose tensor cores are slow on those. As many instructions
// open a pair of float16; bfloat16, which has fewer digits, takes more.
//
// A code u below the digits of 1024 makes 1024 + u, and -(1024 + 15 - u) with the sign bit beside
// it where it was complemented: so the base 1024 has another sign in every other row, as has the
// code. With o of gemm_opening_subnormal.cuh and a base g of -1024, or 1024 where it was
// complemented,
//   p = 0, 2: u - 8        = x + g + o
//   p = 1:    16 (u - 8)   = x + g + 16 o
//   p = 3:    16 (u - 8) + (u - 8 of p = 2) = x + g + 17 o
// for the operand x: sums start from those of a * g, one more product, beside those of a * o. The
// base makes them large, so those of channels are scaled group by group, too (kScalesChannels).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "gemm_pairs.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

struct MagicUnit {
  static constexpr float kUnit = 1.0f;
  static __device__ uint32_t enter(uint32_t a) { return a; }
};

template <typename Scalar, int bits>
struct MagicOpening;

template <>
struct MagicOpening<__half, 4> : MagicUnit, NibblesInPlace {
  static constexpr int kConstants = 2;
  static constexpr uint32_t kOnes = 0x3C003C00;

  static __device__ constexpr uint32_t constant(bool odd) { return pair_of(odd, 0x6400, 0xE400); }
  static __device__ constexpr uint32_t offset(bool odd) { return pair_of(odd, 0xC800, 0x4700); }
  static __device__ constexpr uint32_t base(bool odd) { return pair_of(odd, 0xE400, 0x6400); }
};

template <>
struct MagicOpening<__half, 8> : MagicUnit, BytesInPlace {
  static constexpr int kConstants = 2;
  static constexpr uint32_t kOnes = 0x3C003C00;

  static __device__ constexpr uint32_t constant(bool odd) { return pair_of(odd, 0x6400, 0xE400); }
  static __device__ constexpr uint32_t offset(bool odd) { return pair_of(odd, 0xD800, 0x57F0); }
  static __device__ constexpr uint32_t base(bool odd) { return pair_of(odd, 0xE400, 0x6400); }
};

// Seven digits hold 128 + u of a code of 4 bits, in the lowest bits alone: the other nibble is
// moved there first. Seven instructions for four pairs.
template <>
struct MagicOpening<__nv_bfloat16, 4> : MagicUnit {
  static constexpr int kOperands = 4;
  static constexpr int kMiddle = 8;
  static constexpr int kConstants = 2;
  static constexpr uint32_t kOnes = 0x3F803F80;

  static __device__ constexpr float factor(int) { return 1.0f; }
  static __device__ constexpr float offsets(int) { return 1.0f; }
  static __device__ constexpr bool carries(int) { return false; }

  static __device__ constexpr uint32_t constant(bool odd) { return pair_of(odd, 0x4300, 0xC300); }
  static __device__ void open(uint32_t word, uint32_t magic, bool, uint32_t (&to)[kOperands]) {
    const uint32_t shifted = word >> 4;
    to[0] = and_or<0x000F000F>(word, magic);
    to[1] = and_or<0x000F000F>(shifted, magic);
    to[2] = upper_bytes(word, magic) & 0xFF0FFF0F;
    to[3] = upper_bytes(shifted, magic) & 0xFF0FFF0F;
  }
  static __device__ constexpr uint32_t offset(bool odd) { return pair_of(odd, 0xC100, 0x40E0); }
  static __device__ constexpr uint32_t base(bool odd) { return pair_of(odd, 0xC300, 0x4300); }
};

// Codes of 8 bits fill the digits of a bfloat16: they become u - 128 by way of float32, below the
// digits of 2^23. Five instructions for a pair, and no constants.
template <>
struct MagicOpening<__nv_bfloat16, 8> : MagicUnit {
  static constexpr int kOperands = 2;
  static constexpr int kMiddle = 128;
  static constexpr int kConstants = 0;
  static constexpr uint32_t kOnes = 0;

  static __device__ constexpr float factor(int) { return 1.0f; }
  static __device__ constexpr float offsets(int) { return 0.0f; }
  static __device__ constexpr bool carries(int) { return false; }

  static __device__ constexpr uint32_t constant(bool) { return 0x4B000000; }
  static __device__ void open(uint32_t word, uint32_t magic, bool odd, uint32_t (&to)[kOperands]) {
#pragma unroll
    for (int i = 0; i < kOperands; ++i) {
      const float low = centred(__byte_perm(word, magic, 0x7440 | i), odd);
      const float high = centred(__byte_perm(word, magic, 0x7440 | (i + 2)), !odd);
      const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
      to[i] = reinterpret_cast<const uint32_t&>(pair);
    }
  }
  static __device__ constexpr uint32_t offset(bool) { return 0; }
  static __device__ constexpr uint32_t base(bool) { return 0; }

 private:
  // 2^23 + u, or 2^23 + 255 - u: both as u - 128.
  static __device__ float centred(uint32_t bits, bool is_complemented) {
    const float x = __uint_as_float(bits);
    return is_complemented ? 0x1p23f + 127.0f - x : x - (0x1p23f + 128.0f);
  }
};

}  // namespace marlin::cuda
