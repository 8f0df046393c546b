// Dot products in registers: one loop per kind of number and per set of instructions.

#pragma once

#include <cstdint>

namespace {

// Sets of instructions that may be used, in order. Numbers are shared with peaks.py.
enum Level : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };
enum Kind : int { kBfloat16 = 0, kInt16 = 1, kInt8 = 2, kFloat32 = 3 };

using DotLoop = void (*)(int64_t turns);

struct Dot {
  const char* instruction;  // null: this CPU has none
  DotLoop loop;
  int64_t operations;  // multiplications and additions of one turn
};

#if defined(__x86_64__)

// The loops are assembler, so that no compiler drops, spills or merges an accumulator. Operands are
// ones, in registers 30 and 31 (14 and 15 without AVX-512); a turn adds once into each accumulator.
#define EACH_4(STEP, a, b, c, d) STEP(a) STEP(b) STEP(c) STEP(d)
#define EACH_24(STEP)                  \
  EACH_4(STEP, "0", "1", "2", "3")     \
  EACH_4(STEP, "4", "5", "6", "7")     \
  EACH_4(STEP, "8", "9", "10", "11")   \
  EACH_4(STEP, "12", "13", "14", "15") \
  EACH_4(STEP, "16", "17", "18", "19") EACH_4(STEP, "20", "21", "22", "23")
#define EACH_12(STEP)              \
  EACH_4(STEP, "0", "1", "2", "3") \
  EACH_4(STEP, "4", "5", "6", "7") \
  EACH_4(STEP, "8", "9", "10", "11")
#define CLOBBERS_LOW                                                                       \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define CLOBBERS_HIGH                                                                       \
  "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", \
      "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"

#define ZERO_ZMM(i) "vpxord %%zmm" i ", %%zmm" i ", %%zmm" i "\n\t"
#define ZERO_YMM(i) "vpxor %%ymm" i ", %%ymm" i ", %%ymm" i "\n\t"

#define LOOP_AVX512(NAME, OPCODE, ONES)                                            \
  __attribute__((target("avx512f"))) void NAME(int64_t turns) {                    \
    asm volatile("vpbroadcastd %[ones], %%zmm30\n\t"                             \
                 "vpbroadcastd %[ones], %%zmm31\n\t" EACH_24(ZERO_ZMM)           \
                 ".p2align 5\n"                                                  \
                 "1:\n\t" EACH_24(OPCODE)                                        \
                 "decq %[turns]\n\t"                                             \
                 "jnz 1b\n\t"                                                    \
                 "vzeroupper"                                                    \
                 : [turns] "+r"(turns)                                           \
                 : [ones] "r"(ONES)                                              \
                 : "cc", CLOBBERS_LOW, CLOBBERS_HIGH); \
  }

#define LOOP_AVX2(NAME, STEPS, ONES)                                                \
  void NAME(int64_t turns) {                                                        \
    asm volatile("vmovd %[ones], %%xmm14\n\t"                                     \
                 "vpbroadcastd %%xmm14, %%ymm14\n\t"                              \
                 "vmovdqa %%ymm14, %%ymm15\n\t" EACH_12(ZERO_YMM)                 \
                 ".p2align 5\n"                                                   \
                 "1:\n\t" STEPS                                                   \
                 "decq %[turns]\n\t"                                              \
                 "jnz 1b\n\t"                                                     \
                 "vzeroupper"                                                     \
                 : [turns] "+r"(turns)                                            \
                 : [ones] "r"(ONES)                                               \
                 : "cc", CLOBBERS_LOW); \
  }

#define DPBF16_ZMM(i) "vdpbf16ps %%zmm30, %%zmm31, %%zmm" i "\n\t"
#define DPWSSD_ZMM(i) "vpdpwssd %%zmm30, %%zmm31, %%zmm" i "\n\t"
#define DPBUSD_ZMM(i) "vpdpbusd %%zmm30, %%zmm31, %%zmm" i "\n\t"
#define FMA_ZMM(i) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" i "\n\t"
#define FMA_YMM(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" i "\n\t"
// Without VNNI a product is an instruction of its own; that all go through register 12 costs
// nothing, as the CPU renames it.
#define MADDWD_YMM(i) \
  "vpmaddwd %%ymm14, %%ymm15, %%ymm12\n\tvpaddd %%ymm12, %%ymm" i ", %%ymm" i "\n\t"
#define MADDUBSW_YMM(i) \
  "vpmaddubsw %%ymm14, %%ymm15, %%ymm12\n\tvpaddw %%ymm12, %%ymm" i ", %%ymm" i "\n\t"

LOOP_AVX512(dot_bf16_avx512, DPBF16_ZMM, 0x3f803f80u)
LOOP_AVX512(dot_int16_avx512, DPWSSD_ZMM, 0x00010001u)
LOOP_AVX512(dot_int8_avx512, DPBUSD_ZMM, 0x01010101u)
LOOP_AVX512(dot_float_avx512, FMA_ZMM, 0x3f800000u)
LOOP_AVX2(dot_int16_avx2, EACH_12(MADDWD_YMM), 0x00010001u)
LOOP_AVX2(dot_int8_avx2, EACH_12(MADDUBSW_YMM), 0x01010101u)
LOOP_AVX2(dot_float_avx2, EACH_12(FMA_YMM), 0x3f800000u)

Level best_level() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return kAvx512;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? kAvx2 : kPortable;
}

Dot find_dot(int kind, int level) {
  const int allowed = level < best_level() ? level : best_level();
  if (allowed >= kAvx512) {
    const bool has_vnni = __builtin_cpu_supports("avx512vnni");
    if (kind == kBfloat16 && __builtin_cpu_supports("avx512bf16")) {
      return {"vdpbf16ps zmm", dot_bf16_avx512, 24 * 64};
    }
    if (kind == kInt16 && has_vnni) return {"vpdpwssd zmm", dot_int16_avx512, 24 * 64};
    if (kind == kInt8 && has_vnni) return {"vpdpbusd zmm", dot_int8_avx512, 24 * 128};
    if (kind == kFloat32) return {"vfmadd231ps zmm", dot_float_avx512, 24 * 32};
  }
  if (allowed >= kAvx2) {
    if (kind == kInt16) return {"vpmaddwd + vpaddd ymm", dot_int16_avx2, 12 * 32};
    if (kind == kInt8) return {"vpmaddubsw + vpaddw ymm", dot_int8_avx2, 12 * 64};
    if (kind == kFloat32) return {"vfmadd231ps ymm", dot_float_avx2, 12 * 16};
  }
  return {nullptr, nullptr, 0};
}

#else

Level best_level() { return kPortable; }
Dot find_dot(int, int) { return {nullptr, nullptr, 0}; }

#endif

}  // namespace
