// The microkernel for AVX-512 with BF16: dot products of bfloat16 pairs, summed in float32.
// Compiled with flags of its own; see microkernel.h for what it may include.
//
// A pair of codes becomes a pair of bfloat16 with a shift and one three-way logic operation:
// 0x4300 is 128, whose unit in the last place is 1, so 0x4300 | q is exactly 128 + q. The 128 goes
// where the zero point goes, into the start of the accumulator; S is the sum of the segment's (see
// segment_rows) activations:
//   sum_k a_k (q_k - z) = sum_k a_k (128 + q_k) - (128 + z) S.
//
// Float16 and float32 activations go to the float32 microkernel: two bfloat16 terms would keep what
// they hold, but take two dot products, and were not faster than its multiply-adds for any row
// count.
//
// A panel is k bfloat16 (zeros beyond the row's end), then the float32 sum of each segment.

#include "avx512_common.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

using avx512::kLanes;
using avx512::kVectors;

// Six rows by four vectors are 24 accumulators; with four weights, one broadcast and two constants
// they fill the 32 registers.
constexpr int kMaxRows = 6;

int64_t panel_bytes(int64_t k, int64_t group_size, Dtype dtype) {
  if (dtype != Dtype::kBFloat16) return kAvx512Microkernel.panel_bytes(k, group_size, dtype);
  const int64_t bytes = k * static_cast<int64_t>(sizeof(uint16_t)) +
                        k / avx512::segment_rows(group_size) * static_cast<int64_t>(sizeof(float));
  return (bytes + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
}

void prepare(const ActivationRow& row, int64_t k, int64_t group_size, void* panel) {
  if (row.dtype != Dtype::kBFloat16) {
    return kAvx512Microkernel.prepare(row, k, group_size, panel);
  }
  const uint16_t* from = static_cast<const uint16_t*>(row.data);
  uint16_t* values = static_cast<uint16_t*>(panel);
  float* sums = reinterpret_cast<float*>(values + k);  // k is a multiple of 32: aligned
  const int64_t segment = avx512::segment_rows(group_size);
  for (int64_t begin = 0; begin < k; begin += segment) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = begin; i < begin + segment; i += kLanes) {
      const __m256i bits = _mm256_maskz_loadu_epi16(avx512::column_mask(i, row.count), from + i);
      _mm256_store_si256(reinterpret_cast<__m256i*>(values + i), bits);
      sum = _mm512_add_ps(sum, avx512::bfloat16_to_float(bits));
    }
    *sums++ = _mm512_reduce_add_ps(sum);
  }
}

// A pair of bfloat16 in every lane.
[[gnu::always_inline]] inline __m512bh broadcast_pair(const uint16_t* pair) {
  int bits;
  __builtin_memcpy(&bits, pair, sizeof(bits));
  return (__m512bh)_mm512_set1_epi32(bits);
}

// Rows 2j and 2j + 1 of K of the words, times `rows` rows of activations.
template <int rows, int j>
[[gnu::always_inline]] inline void multiply_pair(const uint32_t* words, const uint16_t* a,
                                                 int64_t stride, __m512 (&sums)[rows][kVectors]) {
  const __m512i mask = _mm512_set1_epi32(0x000F000F);
  const __m512i bias = _mm512_set1_epi32(0x43004300);
  constexpr int kAndOr = 0xEA;  // (word & mask) | bias, as a truth table of vpternlogd
  __m512bh weight[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const __m512i word = _mm512_srli_epi32(_mm512_load_si512(words + v * kLanes), 4 * j);
    weight[v] = (__m512bh)_mm512_ternarylogic_epi32(word, mask, bias, kAndOr);
  }
  for (int r = 0; r < rows; ++r) {
    const __m512bh pair = broadcast_pair(a + r * stride + 2 * j);
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], weight[v], pair);
  }
}

// Elements `stride` apart hold the same column of neighbouring rows.
template <int rows>
void multiply_rows(const Weights& weights, int64_t block, const uint16_t* panels, int64_t stride,
                   float* tile) {
  const int64_t first = block * kBlockColumns;
  const int64_t segment = avx512::segment_rows(weights.group_size);
  const uint32_t* words = weights.words + block * (weights.k / kWordRows) * kBlockColumns;
  const uint16_t* a = panels;
  const __m512 offset = _mm512_set1_ps(128.0f);

  avx512::prefetch_first_groups(weights, first);
  for (int64_t begin = 0; begin < weights.k; begin += segment) {
    const int64_t group = begin / weights.group_size;
    avx512::prefetch_group(weights, group + avx512::kGroupsAhead, first);
    __m512 sums[rows][kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const __m512 zero =
          _mm512_add_ps(offset, avx512::load_zeros(weights, group, first + v * kLanes));
      for (int r = 0; r < rows; ++r) {
        const float* segment_sums = reinterpret_cast<const float*>(panels + r * stride + weights.k);
        const __m512 sum = _mm512_set1_ps(segment_sums[begin / segment]);
        sums[r][v] = _mm512_fnmadd_ps(zero, sum, _mm512_setzero_ps());
      }
    }
    for (int64_t i = 0; i < segment / kWordRows; ++i) {
      avx512::prefetch_ahead(words);
      multiply_pair<rows, 0>(words, a, stride, sums);
      multiply_pair<rows, 1>(words, a, stride, sums);
      multiply_pair<rows, 2>(words, a, stride, sums);
      multiply_pair<rows, 3>(words, a, stride, sums);
      words += kBlockColumns;
      a += kWordRows;
    }
    avx512::add_scaled<rows>(weights, group, first, begin == 0, sums, tile);
  }
}

using MultiplyRows = void (*)(const Weights&, int64_t, const uint16_t*, int64_t, float*);
constexpr MultiplyRows kMultiplyRows[kMaxRows] = {
    multiply_rows<1>, multiply_rows<2>, multiply_rows<3>,
    multiply_rows<4>, multiply_rows<5>, multiply_rows<6>,
};

void multiply(const Weights& weights, int64_t block, const void* panels, int64_t panel_bytes,
              Dtype dtype, int rows, float* tile) {
  if (dtype != Dtype::kBFloat16) {
    return kAvx512Microkernel.multiply(weights, block, panels, panel_bytes, dtype, rows, tile);
  }
  kMultiplyRows[rows - 1](weights, block, static_cast<const uint16_t*>(panels),
                          panel_bytes / static_cast<int64_t>(sizeof(uint16_t)), tile);
}

}  // namespace

const Microkernel kAvx512Bf16Microkernel = {"avx512_bf16", kMaxRows, panel_bytes, prepare,
                                            multiply};

}  // namespace marlin::cpu
