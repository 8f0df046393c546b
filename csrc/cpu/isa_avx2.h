// AVX2 with FMA and F16C in the words that the templates use. What multiplies and adds integers is
// what AVX2 alone and AVX-VNNI differ in.
#pragma once

#include <immintrin.h>

#include "microkernel.h"

namespace marlin::cpu {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  static constexpr int kMaxRows = 5;
  static constexpr int kMaxRowsOfSeveral = 5;
  static constexpr int kManyRowsOfSeveral = 5;
  using Ints = __m256i;
  using Floats = __m256;

  // 10 sums leave room in the 16 registers for two weights, their mask, one unit of activations and
  // one product; beside 12, GCC 12 spills some of them. The partial results of several segments
  // wait in memory while a segment is summed.
  static constexpr int vectors_beside(int rows) { return rows <= 2 ? 4 : 2; }
  static constexpr int vectors_of_several(int rows) { return vectors_beside(2 * rows); }

  // All bits of the lanes 0 .. count - 1.
  static __m256i first(int64_t count) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
  }

  static Ints load(const uint32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Ints load(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Floats load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(uint32_t* p, Ints value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), value);
  }
  static void store(float* p, Floats value) { _mm256_storeu_ps(p, value); }

  static Ints broadcast(const std::byte* p) {
    int32_t value;
    __builtin_memcpy(&value, p, sizeof(value));
    return _mm256_set1_epi32(value);
  }
  static Ints broadcast(const int32_t* p) { return _mm256_set1_epi32(*p); }
  static Floats broadcast(const float* p) { return _mm256_set1_ps(*p); }
  static Ints zero_ints() { return _mm256_setzero_si256(); }
  static Floats zero_floats() { return _mm256_setzero_ps(); }

  // A shift of 16-bit halves brings in zeros, so it needs no mask where the mask is what it leaves.
  template <int shift>
  static Ints shift_and(Ints words, uint32_t mask) {
    if (mask == 0x10001u * (0xFFFFu >> shift)) return _mm256_srli_epi16(words, shift);
    return _mm256_and_si256(_mm256_srli_epi32(words, shift),
                            _mm256_set1_epi32(static_cast<int>(mask)));
  }
  static Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
  static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
  static Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static Floats to_floats(Ints a) { return _mm256_cvtepi32_ps(a); }
  static Ints round(Floats a) { return _mm256_cvtps_epi32(a); }

  // A NaN stays one: it is the second operand of both.
  static Floats at_least(Floats a, float low) { return _mm256_max_ps(_mm256_set1_ps(low), a); }
  static Floats clamp(Floats a, float low, float high) {
    return _mm256_min_ps(_mm256_set1_ps(high), at_least(a, low));
  }
  static Floats times_power_of_two(Floats a, Ints n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(n, 23)));
  }

  // The bits of magnitudes order as integers, NaN above infinity.
  static Ints max_magnitude(Ints largest, Floats a) {
    const Ints magnitude = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7FFFFFFF));
    return _mm256_max_epi32(largest, magnitude);
  }
  static uint32_t reduce_max(Ints a) {
    __m128i max = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    max = _mm_max_epi32(max, _mm_shuffle_epi32(max, 0b01'00'11'10));
    max = _mm_max_epi32(max, _mm_shuffle_epi32(max, 0b10'11'00'01));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(max));
  }
  static int32_t reduce_add(Ints a) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0b01'00'11'10));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0b10'11'00'01));
    return _mm_cvtsi128_si32(sum);
  }

  // Elements 0 .. min(count, 8) - 1 of 16 bits; the others are zero and not touched. There is no
  // masked load of 16 bits.
  static __m128i load_halves(const uint16_t* p, int64_t count) {
    if (count >= kLanes) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    uint16_t halves[kLanes] = {};
    for (int64_t i = 0; i < kLanes; ++i) {
      if (i < count) halves[i] = p[i];
    }
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(halves));
  }
  static void store_halves(uint16_t* p, __m128i value, int64_t count) {
    if (count >= kLanes) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), value);
    uint16_t halves[kLanes];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(halves), value);
    for (int64_t i = 0; i < count; ++i) p[i] = halves[i];
  }

  // Elements index .. index + min(count, 8) - 1 as float32; the others are zero and not touched.
  static Floats load_floats(const void* data, Dtype dtype, int64_t index, int64_t count) {
    switch (dtype) {
      case Dtype::kFloat16:
        return _mm256_cvtph_ps(load_halves(static_cast<const uint16_t*>(data) + index, count));
      case Dtype::kBFloat16: {
        const __m128i bits = load_halves(static_cast<const uint16_t*>(data) + index, count);
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
      }
      case Dtype::kFloat32:
        break;
    }
    const float* floats = static_cast<const float*>(data) + index;
    return count >= kLanes ? load(floats) : _mm256_maskload_ps(floats, first(count));
  }

  // Rounds to nearest even into elements index .. index + count - 1.
  static void store_rounded(void* data, Dtype dtype, int64_t index, Floats value, int64_t count) {
    switch (dtype) {
      case Dtype::kFloat16:
        return store_halves(static_cast<uint16_t*>(data) + index,
                            _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                            count);
      case Dtype::kBFloat16: {
        const Ints bits = _mm256_castps_si256(value);
        const Ints odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const Ints rounded =
            _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
        const Ints quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x00400000));
        const Ints is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
        const Ints chosen = _mm256_blendv_epi8(rounded, quiet, is_nan);
        return store_halves(static_cast<uint16_t*>(data) + index,
                            narrow(_mm256_srli_epi32(chosen, 16)), count);
      }
      case Dtype::kFloat32:
        _mm256_maskstore_ps(static_cast<float*>(data) + index, first(count), value);
        return;
    }
  }

  // The low half of every lane.
  static __m128i narrow(Ints value) {
    const __m128i low_halves =
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    const Ints packed = _mm256_shuffle_epi8(value, _mm256_broadcastsi128_si256(low_halves));
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0b11'01'10'00));
  }

  static void store_as_int16(std::byte* p, Ints value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(value));
  }

  // In the order in which a step opens the rows of a word: 0 4 1 5 2 6 3 7, or 0 2 1 3 for bytes.
  static void store_as_int8(std::byte* p, Ints value, int bits) {
    const __m128i nibbles =
        _mm_setr_epi8(0, 8, 2, 10, 4, 12, 6, 14, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i bytes = _mm_setr_epi8(0, 4, 2, 6, 8, 12, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i ordered = _mm_shuffle_epi8(narrow(value), bits == 4 ? nibbles : bytes);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), ordered);
  }
};

}  // namespace
}  // namespace marlin::cpu
