// The path for AVX-512 F, BW, DQ and VL. Compiled with flags of its own.

#include "isa_avx512.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

struct Avx512Plain : Avx512 {
  static Ints dot_pairs(Ints sums, Ints a, Ints b) {
    return _mm512_add_epi32(sums, _mm512_madd_epi16(a, b));
  }

  template <int bits>
  static Ints dot_bytes(Ints sums, Ints codes, Ints b) {
    if constexpr (bits == 4) {  // two products fit 16 bits: 2 * 15 * 127
      return dot_pairs(sums, _mm512_maddubs_epi16(codes, b), _mm512_set1_epi16(1));
    } else {
      const Ints even = _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8);
      sums = dot_pairs(sums, _mm512_and_si512(codes, _mm512_set1_epi16(0xFF)), even);
      return dot_pairs(sums, _mm512_srli_epi16(codes, 8), _mm512_srai_epi16(b, 8));
    }
  }
};

using Int16 = Int16Format<Avx512Plain>;
using Int8 = Int8Format<Avx512Plain>;

constexpr Microkernel kInt16 =
    microkernel<Avx512Plain, Int16>(prepare_integers<Avx512Plain, Int16>, 24, 24);
constexpr Microkernel kInt8 = microkernel<Avx512Plain, Int8>(prepare_integers<Avx512Plain, Int8>);

}  // namespace

const Path kAvx512Path = {"avx512", nullptr, &kInt16, &kInt8, finish<Avx512Plain>};

}  // namespace marlin::cpu
