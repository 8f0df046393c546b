// The CUDA implementations of the schemas in ../registration.cpp, whose library is loaded first.

#include <torch/csrc/stable/library.h>

#include "ops.h"

STABLE_TORCH_LIBRARY_IMPL(marlin, CUDA, library) {
  library.impl("gemm", TORCH_BOX(&marlin::cuda::gemm));
  library.impl("repack", TORCH_BOX(&marlin::cuda::repack));
  library.impl("unpack", TORCH_BOX(&marlin::cuda::unpack));
  library.impl("join", TORCH_BOX(&marlin::cuda::join));
  library.impl("dequantize", TORCH_BOX(&marlin::cuda::dequantize));
}
