// Which microkernel runs on this machine, and why. Knows no Torch.
#pragma once

#include <string>
#include <vector>

#include "microkernel.h"

namespace marlin::cpu {

struct CpuFeatures {
  bool avx512 = false;       // F, BW, DQ and VL, and an operating system that saves the registers
  bool avx512_bf16 = false;  // BF16 on top of those
};

struct Selection {
  const Microkernel* kernel;  // null when the forced kernel cannot run; `reason` then says why
  std::string reason;
  bool forced;
};

CpuFeatures detect_cpu();

// Names of the microkernels that `features` can run, best first.
std::vector<std::string> available_kernels(const CpuFeatures& features);

// `forced` is the value of MARLIN_CPU_KERNEL; null or empty: the best available one.
Selection select_kernel(const CpuFeatures& features, const char* forced);

// The selection of this process: made once, from the environment at that moment.
const Selection& selected_kernel();

}  // namespace marlin::cpu
