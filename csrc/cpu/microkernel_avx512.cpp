// The microkernel for AVX-512 F, BW, DQ and VL: float32 multiply-adds, columns across the lanes.
// Compiled with flags of its own; see microkernel.h for what it may include.
//
// A code becomes a float with a shift and a table look-up: vpermps reads the low four bits of each
// lane and ignores the rest, so no mask is needed. The zero point is not subtracted per weight but
// once per segment (segment_rows), from the sum S of the segment's activations:
//   sum_k a_k (q_k - z) = sum_k a_k q_k - z S,   so the accumulator starts at -z S.
//
// A panel is k float32 (zeros beyond the row's end), then the sum of each segment.

#include "avx512_common.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

using avx512::kLanes;
using avx512::kVectors;

// Six rows by four vectors are 24 accumulators; with four weights, one broadcast and the table they
// fill the 32 registers.
constexpr int kMaxRows = 6;

int64_t panel_bytes(int64_t k, int64_t group_size, Dtype /*dtype*/) {
  const int64_t bytes =
      (k + k / avx512::segment_rows(group_size)) * static_cast<int64_t>(sizeof(float));
  return (bytes + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
}

void prepare(const ActivationRow& row, int64_t k, int64_t group_size, void* panel) {
  float* values = static_cast<float*>(panel);
  float* sums = values + k;
  const int64_t segment = avx512::segment_rows(group_size);
  for (int64_t begin = 0; begin < k; begin += segment) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = begin; i < begin + segment; i += kLanes) {
      const __m512 a =
          avx512::load_floats(row.data, row.dtype, i, avx512::column_mask(i, row.count));
      _mm512_storeu_ps(values + i, a);
      sum = _mm512_add_ps(sum, a);
    }
    *sums++ = _mm512_reduce_add_ps(sum);
  }
}

// The 64 floats of one row of codes: `shift` is the row's place in the words.
template <int shift>
[[gnu::always_inline]] inline void decode(const uint32_t* words, __m512 table,
                                          __m512 (&weight)[kVectors]) {
  for (int v = 0; v < kVectors; ++v) {
    const __m512i word = _mm512_load_si512(words + v * kLanes);
    weight[v] = _mm512_permutexvar_ps(_mm512_srli_epi32(word, shift), table);
  }
}

template <int rows>
[[gnu::always_inline]] inline void accumulate(const float* a, int64_t stride,
                                              const __m512 (&weight)[kVectors],
                                              __m512 (&sums)[rows][kVectors]) {
  for (int r = 0; r < rows; ++r) {
    const __m512 value = _mm512_set1_ps(a[r * stride]);
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_fmadd_ps(value, weight[v], sums[r][v]);
  }
}

// Two neighbouring rows of K, 2j and 2j + 1 of a word.
template <int rows, int j>
[[gnu::always_inline]] inline void multiply_pair(const uint32_t* words, __m512 table,
                                                 const float* a, int64_t stride,
                                                 __m512 (&sums)[rows][kVectors]) {
  __m512 weight[kVectors];
  decode<4 * j>(words, table, weight);
  accumulate<rows>(a + 2 * j, stride, weight, sums);
  decode<16 + 4 * j>(words, table, weight);
  accumulate<rows>(a + 2 * j + 1, stride, weight, sums);
}

template <int rows>
void multiply_rows(const Weights& weights, int64_t block, const float* panels, int64_t stride,
                   float* tile) {
  const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const int64_t first = block * kBlockColumns;
  const int64_t segment = avx512::segment_rows(weights.group_size);
  const uint32_t* words = weights.words + block * (weights.k / kWordRows) * kBlockColumns;
  const float* a = panels;
  const float* segment_sums = panels + weights.k;

  avx512::prefetch_first_groups(weights, first);
  for (int64_t begin = 0; begin < weights.k; begin += segment, ++segment_sums) {
    const int64_t group = begin / weights.group_size;
    avx512::prefetch_group(weights, group + avx512::kGroupsAhead, first);
    __m512 sums[rows][kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const __m512 zero = avx512::load_zeros(weights, group, first + v * kLanes);
      for (int r = 0; r < rows; ++r) {
        const __m512 sum = _mm512_set1_ps(segment_sums[r * stride]);
        sums[r][v] = _mm512_fnmadd_ps(zero, sum, _mm512_setzero_ps());
      }
    }
    for (int64_t i = 0; i < segment / kWordRows; ++i) {
      avx512::prefetch_ahead(words);
      multiply_pair<rows, 0>(words, table, a, stride, sums);
      multiply_pair<rows, 1>(words, table, a, stride, sums);
      multiply_pair<rows, 2>(words, table, a, stride, sums);
      multiply_pair<rows, 3>(words, table, a, stride, sums);
      words += kBlockColumns;
      a += kWordRows;
    }
    avx512::add_scaled<rows>(weights, group, first, begin == 0, sums, tile);
  }
}

using MultiplyRows = void (*)(const Weights&, int64_t, const float*, int64_t, float*);
constexpr MultiplyRows kMultiplyRows[kMaxRows] = {
    multiply_rows<1>, multiply_rows<2>, multiply_rows<3>,
    multiply_rows<4>, multiply_rows<5>, multiply_rows<6>,
};

void multiply(const Weights& weights, int64_t block, const void* panels, int64_t panel_bytes,
              Dtype /*dtype*/, int rows, float* tile) {
  kMultiplyRows[rows - 1](weights, block, static_cast<const float*>(panels),
                          panel_bytes / static_cast<int64_t>(sizeof(float)), tile);
}

}  // namespace

const Microkernel kAvx512Microkernel = {"avx512", kMaxRows, panel_bytes, prepare, multiply};

}  // namespace marlin::cpu
