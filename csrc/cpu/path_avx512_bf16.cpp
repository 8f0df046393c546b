// The path for AVX-512 with VNNI and BF16: dot products of bfloat16 pairs, summed in float32.
// Compiled with flags of its own.

#include "isa_avx512_vnni.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

// A pair of codes becomes a pair of bfloat16 with a shift and one three-way logic operation: 0x4300
// is 128, whose unit in the last place is 1, so 0x4300 | q is exactly 128 + q. The 128 goes where
// the zero point goes, into the start of the sum:
//   sum_k a_k (q_k - z) = sum_k a_k (128 + q_k) - (128 + z) S.
struct BFloat16Format {
  using Isa = Avx512Vnni;
  using Sums = __m512;
  using Opened = __m512i;
  static constexpr Activation kActivation = Activation::kBFloat16;
  static constexpr bool kOpensBytes = false;  // 128 + 255 has no place in 8 bits of precision
  static constexpr float kOffset = 128.0f;
  static constexpr int steps(int /*bits*/) { return 4; }

  static constexpr int32_t zero_word(int zero) {
    return __builtin_bit_cast(int32_t, -(kOffset + static_cast<float>(zero)));
  }
  static Sums start(__m512i zeros, __m512i row_sum) {
    return _mm512_mul_ps(_mm512_castsi512_ps(zeros), _mm512_castsi512_ps(row_sum));
  }
  template <int bits, int step>
  static Opened open(const uint32_t* words) {
    constexpr int kAndOr = 0xEA;  // (word & mask) | offset, as a truth table of vpternlogd
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(Isa::load(words), 4 * step),
                                     _mm512_set1_epi32(0x000F000F), _mm512_set1_epi32(0x43004300),
                                     kAndOr);
  }
  static Opened load_opened(const uint32_t* unit) { return Isa::load(unit); }
  static void store_opened(uint32_t* unit, Opened opened) { Isa::store(unit, opened); }

  template <int bits>
  static Sums multiply_add(Sums sums, Opened weight, __m512i unit) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(weight), "v"(unit));
    return sums;
  }
  static __m512 to_floats(Sums sums) { return sums; }
  static __m512 scale(__m512 weights, const float* /*row*/) { return weights; }
};

void prepare(const void* row, Dtype dtype, int64_t k, int /*bits*/, const Panels& panels,
             int64_t r) {
  for (int64_t begin = 0; begin < k; begin += panels.segment) {
    const int64_t at = begin / panels.segment * panels.rows + r;
    std::byte* out = panels.values + at * panels.segment_bytes;
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < panels.segment; i += Avx512::kLanes) {
      const __m512 a = Avx512::load_floats(row, dtype, begin + i, Avx512::kLanes);
      const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(a);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * 2), rounded);
      const __m512i widened = _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16);
      sum = _mm512_add_ps(sum, _mm512_castsi512_ps(widened));
    }
    panels.sums[at] = __builtin_bit_cast(int32_t, _mm512_reduce_add_ps(sum));
  }
}

constexpr Microkernel kBFloat16 = microkernel<Avx512Vnni, BFloat16Format>(prepare);

}  // namespace

const Path kAvx512Bf16Path = {"avx512_bf16", &kBFloat16, &kAvx512VnniInt16, &kAvx512VnniInt8,
                              finish<Avx512>};

}  // namespace marlin::cpu
