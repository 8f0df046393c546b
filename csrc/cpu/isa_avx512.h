// AVX-512 F, BW, DQ and VL in the words that the templates use. `Dots` multiplies and adds: it is
// what AVX-512 alone and VNNI differ in.
#pragma once

#include <immintrin.h>

#include "microkernel.h"

namespace marlin::cpu {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxRowsOfSeveral = 6;
  static constexpr int kManyRowsOfSeveral = 6;
  using Ints = __m512i;
  using Floats = __m512;

  // 24 sums, with the weights, one unit of activations and the constants, fill the 32 registers.
  static constexpr int vectors_beside(int rows) { return rows <= 6 ? 4 : 2; }
  static constexpr int vectors_of_several(int rows) { return rows <= 4 ? 4 : 2; }

  // Bits 0 .. count - 1; count may lie outside 0 .. 16.
  static __mmask16 first(int64_t count) {
    if (count >= kLanes) return 0xFFFF;
    return static_cast<__mmask16>((1u << (count < 0 ? 0 : count)) - 1u);
  }

  static Ints load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static Ints load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static Floats load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(uint32_t* p, Ints value) { _mm512_storeu_si512(p, value); }
  static void store(float* p, Floats value) { _mm512_storeu_ps(p, value); }

  static Ints broadcast(const std::byte* p) {
    int32_t value;
    __builtin_memcpy(&value, p, sizeof(value));
    return _mm512_set1_epi32(value);
  }
  static Ints broadcast(const int32_t* p) { return _mm512_set1_epi32(*p); }
  static Floats broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static Ints zero_ints() { return _mm512_setzero_si512(); }
  static Floats zero_floats() { return _mm512_setzero_ps(); }

  template <int shift>
  static Ints shift_and(Ints words, uint32_t mask) {
    return _mm512_and_si512(_mm512_srli_epi32(words, shift),
                            _mm512_set1_epi32(static_cast<int>(mask)));
  }
  static Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
  static Ints round(Floats a) { return _mm512_cvtps_epi32(a); }

  // The bits of magnitudes order as integers, NaN above infinity.
  static Ints max_magnitude(Ints largest, Floats a) {
    const Ints magnitude = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7FFFFFFF));
    return _mm512_max_epi32(largest, magnitude);
  }
  static uint32_t reduce_max(Ints a) { return static_cast<uint32_t>(_mm512_reduce_max_epi32(a)); }
  static int32_t reduce_add(Ints a) { return _mm512_reduce_add_epi32(a); }

  // Elements index .. index + min(count, 16) - 1 as float32; the others are zero and not touched.
  static Floats load_floats(const void* data, Dtype dtype, int64_t index, int64_t count) {
    const __mmask16 mask = first(count);
    switch (dtype) {
      case Dtype::kFloat16:
        return _mm512_cvtph_ps(
            _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(data) + index));
      case Dtype::kBFloat16: {
        const __m256i bits =
            _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(data) + index);
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
      }
      case Dtype::kFloat32:
        break;
    }
    return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(data) + index);
  }

  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  // A NaN stays one: it is the second operand of both.
  static Floats at_least(Floats a, float low) { return _mm512_max_ps(_mm512_set1_ps(low), a); }
  static Floats clamp(Floats a, float low, float high) {
    return _mm512_min_ps(_mm512_set1_ps(high), at_least(a, low));
  }
  static Floats times_power_of_two(Floats a, Ints n) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(n, 23)));
  }

  // Rounds to nearest even into elements index .. index + count - 1.
  static void store_rounded(void* data, Dtype dtype, int64_t index, Floats value, int64_t count) {
    const __mmask16 mask = first(count);
    switch (dtype) {
      case Dtype::kFloat16:
        _mm256_mask_storeu_epi16(
            static_cast<uint16_t*>(data) + index, mask,
            _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        return;
      case Dtype::kBFloat16: {
        const Ints bits = _mm512_castps_si512(value);
        const Ints odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const Ints rounded =
            _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
        const Ints quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x00400000));
        const __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        const Ints chosen = _mm512_mask_mov_epi32(rounded, is_nan, quiet);
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(data) + index, mask,
                                 _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)));
        return;
      }
      case Dtype::kFloat32:
        _mm512_mask_storeu_ps(static_cast<float*>(data) + index, mask, value);
        return;
    }
  }

  static void store_as_int16(std::byte* p, Ints value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(value));
  }

  // In the order in which a step opens the rows of a word: 0 4 1 5 2 6 3 7, or 0 2 1 3 for bytes.
  static void store_as_int8(std::byte* p, Ints value, int bits) {
    const __m128i order = bits == 4
                              ? _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15)
                              : _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_shuffle_epi8(_mm512_cvtepi32_epi8(value), order));
  }
};

}  // namespace
}  // namespace marlin::cpu
