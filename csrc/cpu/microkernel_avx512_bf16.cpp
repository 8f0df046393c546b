// The microkernel for AVX-512 with BF16: dot products of bfloat16 pairs, summed in float32.
// Compiled with flags of its own; see microkernel.h for what it may include.
//
// A pair of codes becomes a pair of bfloat16 with a shift and one three-way logic operation:
// 0x4300 is 128, whose unit in the last place is 1, so 0x4300 | q is exactly 128 + q. The 128 goes
// where the zero point goes, into the start of the accumulator; S is the sum of the segment's (see
// segment_rows) activations:
//   sum_k a_k (q_k - z) = sum_k a_k (128 + q_k) - (128 + z) S.
//
// Activations are split into bfloat16 terms: a bfloat16 is one term, a float16 is exactly two, and
// of a float32 two terms keep all but 2^-18. A panel is the terms' planes of k bfloat16 (zeros
// beyond the row's end), then float32 segment sums.

#include "avx512_common.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

using avx512::kLanes;
using avx512::kVectors;

// Six rows by four vectors are 24 accumulators; with four weights, one broadcast and two constants
// they fill the 32 registers.
constexpr int kMaxRows = 6;

constexpr int term_count(Dtype dtype) { return dtype == Dtype::kBFloat16 ? 1 : 2; }

int64_t panel_bytes(int64_t k, int64_t group_size, Dtype dtype) {
  const int64_t bytes = k * term_count(dtype) * static_cast<int64_t>(sizeof(uint16_t)) +
                        k / avx512::segment_rows(group_size) * static_cast<int64_t>(sizeof(float));
  return (bytes + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
}

// Rounds to bfloat16, stores that and returns it as float32.
__m512 store_term(uint16_t* out, __m512 value) {
  const __m256i term = (__m256i)_mm512_cvtneps_pbh(value);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), term);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(term), 16));
}

void prepare(const ActivationRow& row, int64_t k, int64_t group_size, void* panel) {
  uint16_t* first = static_cast<uint16_t*>(panel);
  uint16_t* second = first + k;
  const int terms = term_count(row.dtype);
  float* sums = reinterpret_cast<float*>(first + k * terms);  // k is a multiple of 32: aligned
  const int64_t segment = avx512::segment_rows(group_size);
  for (int64_t begin = 0; begin < k; begin += segment) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = begin; i < begin + segment; i += kLanes) {
      const __m512 a =
          avx512::load_floats(row.data, row.dtype, i, avx512::column_mask(i, row.count));
      __m512 kept = store_term(first + i, a);
      if (terms == 2) {
        kept = _mm512_add_ps(kept, store_term(second + i, _mm512_sub_ps(a, kept)));
      }
      sum = _mm512_add_ps(sum, kept);
    }
    *sums++ = _mm512_reduce_add_ps(sum);
  }
}

// One row of a pass and the strides to the next one and between its planes.
struct Panels {
  const uint16_t* data;
  int64_t row_stride;   // elements
  int64_t term_stride;  // elements
};

// A pair of bfloat16 in every lane.
[[gnu::always_inline]] inline __m512bh broadcast_pair(const uint16_t* pair) {
  int bits;
  __builtin_memcpy(&bits, pair, sizeof(bits));
  return (__m512bh)_mm512_set1_epi32(bits);
}

// Rows 2j and 2j + 1 of K of the words, times `rows` rows of `terms` terms.
template <int rows, int terms, int j>
[[gnu::always_inline]] inline void multiply_pair(const uint32_t* words, const Panels& panels,
                                                 int64_t k, __m512 (&sums)[rows][kVectors]) {
  const __m512i mask = _mm512_set1_epi32(0x000F000F);
  const __m512i bias = _mm512_set1_epi32(0x43004300);
  constexpr int kAndOr = 0xEA;  // (word & mask) | bias, as a truth table of vpternlogd
  __m512bh weight[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const __m512i word = _mm512_srli_epi32(_mm512_load_si512(words + v * kLanes), 4 * j);
    weight[v] = (__m512bh)_mm512_ternarylogic_epi32(word, mask, bias, kAndOr);
  }
  for (int r = 0; r < rows; ++r) {
    for (int term = 0; term < terms; ++term) {
      const __m512bh a = broadcast_pair(panels.data + r * panels.row_stride +
                                        term * panels.term_stride + k + 2 * j);
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], weight[v], a);
    }
  }
}

template <int rows, int terms>
void multiply_rows(const Weights& weights, int64_t block, const Panels& panels, float* tile) {
  const int64_t first = block * kBlockColumns;
  const uint32_t* words = weights.words + block * (weights.k / kWordRows) * kBlockColumns;
  const __m512 offset = _mm512_set1_ps(128.0f);

  const int64_t segment = avx512::segment_rows(weights.group_size);
  for (int64_t begin = 0; begin < weights.k; begin += segment) {
    const int64_t group = begin / weights.group_size;
    __m512 sums[rows][kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const __m512 zero =
          _mm512_add_ps(offset, avx512::load_zeros(weights, group, first + v * kLanes));
      for (int r = 0; r < rows; ++r) {
        const float* segment_sums = reinterpret_cast<const float*>(
            panels.data + r * panels.row_stride + terms * panels.term_stride);
        sums[r][v] = _mm512_fnmadd_ps(zero, _mm512_set1_ps(segment_sums[begin / segment]),
                                      _mm512_setzero_ps());
      }
    }
    for (int64_t k = begin; k < begin + segment; k += kWordRows) {
      multiply_pair<rows, terms, 0>(words, panels, k, sums);
      multiply_pair<rows, terms, 1>(words, panels, k, sums);
      multiply_pair<rows, terms, 2>(words, panels, k, sums);
      multiply_pair<rows, terms, 3>(words, panels, k, sums);
      words += kBlockColumns;
    }
    for (int v = 0; v < kVectors; ++v) {
      const int64_t column = first + v * kLanes;
      const __m512 scale =
          avx512::load_floats(weights.scales, weights.scale_dtype, group * weights.n + column,
                              avx512::column_mask(column, weights.n));
      for (int r = 0; r < rows; ++r) {
        float* out = tile + r * kBlockColumns + v * kLanes;
        const __m512 total = begin == 0 ? _mm512_setzero_ps() : _mm512_load_ps(out);
        _mm512_store_ps(out, _mm512_fmadd_ps(sums[r][v], scale, total));
      }
    }
  }
}

using MultiplyRows = void (*)(const Weights&, int64_t, const Panels&, float*);
constexpr MultiplyRows kMultiplyRows[2][kMaxRows] = {
    {multiply_rows<1, 1>, multiply_rows<2, 1>, multiply_rows<3, 1>, multiply_rows<4, 1>,
     multiply_rows<5, 1>, multiply_rows<6, 1>},
    {multiply_rows<1, 2>, multiply_rows<2, 2>, multiply_rows<3, 2>, multiply_rows<4, 2>,
     multiply_rows<5, 2>, multiply_rows<6, 2>},
};

void multiply(const Weights& weights, int64_t block, const void* panels, int64_t panel_bytes,
              Dtype dtype, int rows, float* tile) {
  const Panels rows_of = {static_cast<const uint16_t*>(panels),
                          panel_bytes / static_cast<int64_t>(sizeof(uint16_t)), weights.k};
  kMultiplyRows[term_count(dtype) - 1][rows - 1](weights, block, rows_of, tile);
}

}  // namespace

const Microkernel kAvx512Bf16Microkernel = {"avx512_bf16", kMaxRows, panel_bytes, prepare,
                                            multiply};

}  // namespace marlin::cpu
