// AVX-512 with VNNI and BF16: dot products of bfloat16 pairs, summed in float32; and the number
// format of bfloat16 (see kernel_formats.h), which no lesser instruction set has.
#pragma once

#include "isa_avx512_vnni.h"
#include "kernel_formats.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

struct Avx512Bf16 : Avx512Vnni {
  // A sum waits six cycles for its last dot product, of which two start in each (Zen 5): it takes a
  // dozen sums, and better 14 or 16, to keep them coming.
  static constexpr int kMaxRowsOfSeveral = 8;
  static constexpr int kManyRowsOfSeveral = 7;
  static constexpr int vectors_of_several(int rows) { return rows <= 5 ? 4 : 2; }

  // Rounds to nearest even; what float32 holds in subnormal numbers becomes zero.
  static __m256i to_bfloat16(Floats value) { return (__m256i)_mm512_cvtneps_pbh(value); }
};

// A pair of codes becomes a pair of bfloat16 with a shift and a table look-up: vpermw reads the low
// five bits of each half and the table says twice what the low four mean, so no mask is needed. The
// table holds q - 8, which makes symmetric sums start at zero:
//   sum_k a_k (q_k - z) = sum_k a_k (q_k - 8) - (z - 8) S.
struct BFloat16Format : EqualUnits<Avx512Bf16> {
  using Isa = Avx512Bf16;
  using Sums = __m512;
  using Opened = __m512i;
  static constexpr int64_t kBytes = 2;
  static constexpr Activation kActivation = Activation::kBFloat16;
  static constexpr bool kOpensBytes = false;
  static constexpr bool kHasRowScales = false;
  static constexpr int steps(int /*bits*/) { return 4; }

  static constexpr int32_t zero_word(int zero) {
    return __builtin_bit_cast(int32_t, static_cast<float>(8 - zero));
  }
  static Sums add_start(Sums sums, __m512i zeros, __m512i row_sum) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(zeros), _mm512_castsi512_ps(row_sum), sums);
  }
  static Sums start(__m512i zeros, __m512i row_sum) {
    return _mm512_mul_ps(_mm512_castsi512_ps(zeros), _mm512_castsi512_ps(row_sum));
  }
  static Sums start_at_middle(const int32_t* /*row_sum*/) { return _mm512_setzero_ps(); }
  static Sums add_start_at_middle(Sums sums, const int32_t* /*row_sum*/) { return sums; }
  template <int bits, int step>
  static Opened open(const uint32_t* words) {
    // -8 to 7 as bfloat16.
    const __m256i table = _mm256_setr_epi16(
        static_cast<short>(0xC100), static_cast<short>(0xC0E0), static_cast<short>(0xC0C0),
        static_cast<short>(0xC0A0), static_cast<short>(0xC080), static_cast<short>(0xC040),
        static_cast<short>(0xC000), static_cast<short>(0xBF80), 0x0000, 0x3F80, 0x4000, 0x4040,
        0x4080, 0x40A0, 0x40C0, 0x40E0);
    const __m512i codes =
        step == 0 ? Isa::load(words) : _mm512_srli_epi32(Isa::load(words), 4 * step);
    return _mm512_permutexvar_epi16(codes, _mm512_broadcast_i64x4(table));
  }
  static Opened load_opened(const uint32_t* unit) { return Isa::load(unit); }
  static void store_opened(uint32_t* unit, Opened opened) { Isa::store(unit, opened); }

  template <int bits>
  static Sums multiply_add(Sums sums, Opened weight, __m512i unit) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(weight), "v"(unit));
    return sums;
  }
  static __m512 to_floats(Sums sums) { return sums; }
  static __m512 add_stretch(__m512 total, Sums sums, __m512 scale, const float* /*row_scale*/) {
    return _mm512_fmadd_ps(sums, scale, total);
  }
};

inline void prepare_bfloat16(const void* row, Dtype dtype, const Weights& weights,
                             const Panels& panels, int64_t r) {
  for (int64_t begin = 0; begin < weights.k; begin += panels.segment) {
    std::byte* out = panel_at<BFloat16Format>(panels, begin, r);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < panels.segment; i += Avx512::kLanes) {
      const __m512 a = Avx512::load_floats(row, dtype, begin + i, Avx512::kLanes);
      const __m256i rounded = Avx512Bf16::to_bfloat16(a);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * 2), rounded);
      const __m512i widened = _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16);
      sum = _mm512_add_ps(sum, _mm512_castsi512_ps(widened));
    }
    panels.sums[begin / panels.segment * panels.rows + r] =
        __builtin_bit_cast(int32_t, _mm512_reduce_add_ps(sum));
  }
}

}  // namespace
}  // namespace marlin::cpu
