// The path for AVX2, FMA and F16C. Compiled with flags of its own.

#include "isa_avx2.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

struct Avx2Plain : Avx2 {
  // NOTE: assembly, because GCC 12 adds the products of several steps among themselves first, and
  // spills sums to memory for them.
  static Ints dot_pairs(Ints sums, Ints a, Ints b) {
    asm("vpaddd %1, %0, %0" : "+x"(sums) : "x"(_mm256_madd_epi16(a, b)));
    return sums;
  }

  // With codes of 4 bits the sums are pairs of 16 bits.
  template <int bits>
  static Ints dot_bytes(Ints sums, Ints codes, Ints b) {
    if constexpr (bits == 4) {
      asm("vpaddw %1, %0, %0" : "+x"(sums) : "x"(_mm256_maddubs_epi16(codes, b)));
      return sums;
    } else {
      const Ints even = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8);
      sums = dot_pairs(sums, _mm256_and_si256(codes, _mm256_set1_epi16(0xFF)), even);
      return dot_pairs(sums, _mm256_srli_epi16(codes, 8), _mm256_srai_epi16(b, 8));
    }
  }
};

// Two instructions per step instead of three. Of 32 rows, 16 meet in a half of a lane:
// 16 * 15 * 127 = 30480 < 2^15.
struct Int8 : Int8Format<Avx2Plain> {
  static constexpr int64_t kPartRows = 32;

  template <int bits>
    requires(bits == 4)
  static Sums add_part(Sums sums, Sums part) {
    return Avx2Plain::dot_pairs(sums, part, _mm256_set1_epi16(1));
  }
};

using Int16 = Int16Format<Avx2Plain>;

constexpr Microkernel kInt16 =
    microkernel<Avx2Plain, Int16>(prepare_integers<Avx2Plain, Int16>, 24, 24);
constexpr Microkernel kInt8 =
    microkernel<Avx2Plain, Int8>(prepare_integers<Avx2Plain, Int8>, 24, 24);

}  // namespace

const Path kAvx2Path = {"avx2", nullptr, &kInt16, &kInt8, finish<Avx2Plain>};

}  // namespace marlin::cpu
