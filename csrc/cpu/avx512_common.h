// Steps shared by the AVX-512 microkernels. Every function is static or always inlined, so that
// each of their files keeps its own copy and none can stand in for another file's.
#pragma once

#include <immintrin.h>

#include "microkernel.h"

namespace marlin::cpu::avx512 {

inline constexpr int kLanes = 16;
inline constexpr int kVectors =
    static_cast<int>(kBlockColumns) / kLanes;  // of one block of columns

// Rows that are summed before the scale is applied: a whole group, or an equal part of a long one.
// The kernels' accumulators carry an offset that is taken out again, and what that costs in
// accuracy grows with the length of the sum.
[[maybe_unused]] static int64_t segment_rows(int64_t group_size) {
  constexpr int64_t kLongest = 128;
  if (group_size <= kLongest) return group_size;
  if (group_size % kLongest == 0) return kLongest;
  return group_size % (kLongest / 2) == 0 ? kLongest / 2 : kGroupMultiple;
}

// Bit i is set when column first + i exists.
[[maybe_unused]] static __mmask16 column_mask(int64_t first, int64_t n) {
  if (first >= n) return 0;
  const int64_t left = n - first;
  return left >= kLanes ? static_cast<__mmask16>(0xFFFF)
                        : static_cast<__mmask16>((1u << left) - 1u);
}

[[maybe_unused]] static __m512 bfloat16_to_float(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Elements [index, index + 16) as float32; the masked ones are zero and not touched.
[[maybe_unused]] static __m512 load_floats(const void* data, Dtype dtype, int64_t index,
                                           __mmask16 mask) {
  switch (dtype) {
    case Dtype::kFloat16: {
      const uint16_t* p = static_cast<const uint16_t*>(data) + index;
      return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
    }
    case Dtype::kBFloat16: {
      const uint16_t* p = static_cast<const uint16_t*>(data) + index;
      return bfloat16_to_float(_mm256_maskz_loadu_epi16(mask, p));
    }
    case Dtype::kFloat32:
      break;
  }
  return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(data) + index);
}

// Zero points of the columns [first, first + 16) as float32; first is a multiple of 16.
[[maybe_unused]] static __m512 load_zeros(const Weights& weights, int64_t group, int64_t first) {
  if (weights.zeros == nullptr) return _mm512_set1_ps(8.0f);
  if (first >= weights.n) return _mm512_setzero_ps();
  // Lane i needs nibble i % 8 of word i / 8. n is a multiple of 8, so the second word may be
  // missing.
  const uint32_t* words = weights.zeros + (group * weights.n + first) / 8;
  const uint32_t low = words[0];
  const uint32_t high = first + 8 < weights.n ? words[1] : 0u;
  const __m512i both = _mm512_mask_set1_epi32(_mm512_set1_epi32(static_cast<int>(low)), 0xFF00,
                                              static_cast<int>(high));
  const __m512i shifts =
      _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  const __m512i codes = _mm512_and_epi32(_mm512_srlv_epi32(both, shifts), _mm512_set1_epi32(15));
  return _mm512_cvtepi32_ps(codes);
}

// Asks for words that are multiplied some steps later. The hardware follows the stream by itself,
// but stops at every 4 KiB page. Measured on Zen 5 with weights in DRAM, one thread, one row of
// activations: 28 GB/s without, 32 with 2 KiB, 35 with 4 KiB, 39 with 8 KiB, which is what reading
// alone reaches. Beyond the last word it may name memory that does not exist: a prefetch never
// faults.
[[gnu::always_inline]] inline void prefetch_ahead(const uint32_t* words) {
  constexpr int kDistance = 8192;  // bytes
  const char* ahead = reinterpret_cast<const char*>(words) + kDistance;
  for (int line = 0; line < 4; ++line) _mm_prefetch(ahead + line * 64, _MM_HINT_T0);
}

// Asks for the scales and zero points of one group, for 64 columns from `first` on. They lie a
// whole row of the scales apart from the next group's, which no hardware prefetcher follows:
// without this, one row of 4096 x 4096 took 480 us instead of 240. NOTE: always inlined, because
// GCC 12 takes a function that only prefetches for one without effect.
[[gnu::always_inline]] inline void prefetch_group(const Weights& weights, int64_t group,
                                                  int64_t first) {
  const int64_t bytes = weights.scale_dtype == Dtype::kFloat32 ? 4 : 2;
  const char* scales =
      static_cast<const char*>(weights.scales) + (group * weights.n + first) * bytes;
  for (int64_t at = 0; at < kBlockColumns * bytes; at += 64) {
    _mm_prefetch(scales + at, _MM_HINT_T0);
  }
  if (weights.zeros != nullptr) {
    _mm_prefetch(reinterpret_cast<const char*>(weights.zeros + (group * weights.n + first) / 8),
                 _MM_HINT_T0);
  }
}

// Groups between the one asked for and the one in work: about a microsecond at one row.
inline constexpr int64_t kGroupsAhead = 8;

[[gnu::always_inline]] inline void prefetch_first_groups(const Weights& weights, int64_t first) {
  for (int64_t group = 0; group < kGroupsAhead; ++group) prefetch_group(weights, group, first);
}

// tile = sums * scale for the first segment, tile += sums * scale for the others.
template <int rows>
[[maybe_unused]] static void add_scaled(const Weights& weights, int64_t group, int64_t first,
                                        bool is_first, const __m512 (&sums)[rows][kVectors],
                                        float* tile) {
  for (int v = 0; v < kVectors; ++v) {
    const int64_t column = first + v * kLanes;
    const __m512 scale = load_floats(weights.scales, weights.scale_dtype,
                                     group * weights.n + column, column_mask(column, weights.n));
    for (int r = 0; r < rows; ++r) {
      float* out = tile + r * kBlockColumns + v * kLanes;
      const __m512 total = is_first ? _mm512_setzero_ps() : _mm512_load_ps(out);
      _mm512_store_ps(out, _mm512_fmadd_ps(sums[r][v], scale, total));
    }
  }
}

}  // namespace marlin::cpu::avx512
