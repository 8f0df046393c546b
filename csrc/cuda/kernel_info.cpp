// What kernel_info.py asks about the CUDA library. It looks at no GPU: torch has done that.

#include "../kernel_info.h"

#include "architecture.h"

extern "C" {

[[gnu::visibility("default")]] const MarlinKernelInfo* marlin_cuda_kernel_info() {
  static const MarlinKernelInfo info = {
      .kernel = "mma_sync",
      .reason = "tensor cores by mma.sync, copies by cp.async",
      .available = "mma_sync",
      .torch_version = MARLIN_TORCH_VERSION,
      .forced = 0,
      .oldest_architecture = marlin::cuda::kOldestArchitecture,
  };
  return &info;
}

}  // extern "C"
