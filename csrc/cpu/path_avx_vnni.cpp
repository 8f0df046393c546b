// The path for AVX2, FMA, F16C and AVX-VNNI: one instruction multiplies and adds two 16-bit or four
// 8-bit products. Compiled with flags of its own.

#include "isa_avx2.h"
#include "kernel_finish.h"
#include "kernel_formats.h"
#include "kernel_tiles.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

struct AvxVnni : Avx2 {
  // A sum waits about five cycles for its last dot product, so that one row wants eight sums.
  static constexpr int vectors_beside(int rows) {
    return rows == 1 ? 8 : Avx2::vectors_beside(rows);
  }

  // NOTE: assembly, as in isa_avx512_vnni.h. The prefix asks for the encoding without AVX-512.
  static Ints dot_pairs(Ints sums, Ints a, Ints b) {
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sums) : "x"(a), "x"(b));
    return sums;
  }
  template <int bits>
  static Ints dot_bytes(Ints sums, Ints codes, Ints b) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(codes), "x"(b));
    return sums;
  }
};

using Int16 = Int16Format<AvxVnni>;
using Int8 = Int8Format<AvxVnni>;

constexpr Microkernel kInt16 =
    microkernel<AvxVnni, Int16>(prepare_integers<AvxVnni, Int16>, 96, 96);
constexpr Microkernel kInt8 = microkernel<AvxVnni, Int8>(prepare_integers<AvxVnni, Int8>, 48, 48);

}  // namespace

const Path kAvxVnniPath = {"avx_vnni", nullptr, &kInt16, &kInt8, finish<AvxVnni>};

}  // namespace marlin::cpu
