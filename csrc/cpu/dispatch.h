// Which path runs on this machine, and why; and which of its microkernels a product takes. Knows no
// Torch.
#pragma once

#include <string>
#include <vector>

#include "microkernel.h"

namespace marlin::cpu {

struct CpuFeatures {
  bool avx2 = false;         // with FMA and F16C, and an operating system that saves the registers
  bool avx_vnni = false;     // AVX-VNNI on top of those
  bool avx512 = false;       // F, BW, DQ and VL, and an operating system that saves the registers
  bool avx512_vnni = false;  // VNNI on top of those
  bool avx512_bf16 = false;  // BF16 on top of VNNI
  bool amx_bf16 = false;     // AMX with BF16 and INT8 on top of that, with the system's permission

  bool neon = false;          // Advanced SIMD
  bool neon_dotprod = false;  // dot products of bytes on top of it
};

struct Selection {
  const Path* path;  // null when the forced one cannot run; `reason` then says why
  std::string reason;
  bool forced;
};

// Asks Linux for the use of AMX where the CPU has it: from then on every thread has it.
CpuFeatures detect_cpu();

// Names of the paths that `features` can run, best first.
std::vector<std::string> available_paths(const CpuFeatures& features);

// `forced` is the value of MARLIN_CPU_KERNEL; null or empty: the best available one.
Selection select_path(const CpuFeatures& features, const char* forced);

// The selection of this process: made once, from the environment at that moment.
const Selection& selected_path();

// The microkernel of a format, or null.
const Microkernel* microkernel_of(const Path& path, Activation activation);

// The format that keeps the precision of activations of `dtype`: bfloat16 ones as they are where
// the path multiplies them, everything else as 16-bit integers.
Activation precise_activation(const Path& path, Dtype dtype, int bits);

}  // namespace marlin::cpu
