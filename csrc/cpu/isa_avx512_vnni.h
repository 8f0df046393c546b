// AVX-512 with VNNI: one instruction multiplies and adds two 16-bit or four 8-bit products.
#pragma once

#include "isa_avx512.h"

namespace marlin::cpu {
namespace {

struct Avx512Vnni : Avx512 {
  // NOTE: assembly, because GCC 12 spills sums to memory around the intrinsics of these
  // instructions when two dozen of them are live.
  static Ints dot_pairs(Ints sums, Ints a, Ints b) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
    return sums;
  }
  template <int bits>
  static Ints dot_bytes(Ints sums, Ints codes, Ints b) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(b));
    return sums;
  }
};

}  // namespace
}  // namespace marlin::cpu
