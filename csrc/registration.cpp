// The schemas of the ops and their CPU implementations. No logic. The library of another device
// adds its implementations to the same schemas (csrc/cuda).

#include <torch/csrc/stable/library.h>

#include "cpu/ops.h"

STABLE_TORCH_LIBRARY(marlin, library) {
  library.def(
      "gemm(Tensor a, Tensor qweight, Tensor scales, Tensor? qzeros, Tensor? bias, "
      "Tensor? perm, int size_n, int size_k, int group_size, int bits, str activation, "
      "str epilogue) -> Tensor");
  library.def("repack(Tensor qweight, int size_n, int size_k, int bits) -> Tensor");
  library.def("unpack(Tensor qweight, int size_n, int size_k, int bits) -> Tensor");
  library.def("join(Tensor[] parts) -> Tensor");
  library.def(
      "dequantize(Tensor qweight, Tensor scales, Tensor? qzeros, int size_n, int size_k, "
      "int group_size, int bits) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(marlin, CPU, library) {
  library.impl("gemm", TORCH_BOX(&marlin::cpu::gemm));
  library.impl("repack", TORCH_BOX(&marlin::cpu::repack));
  library.impl("unpack", TORCH_BOX(&marlin::cpu::unpack));
  library.impl("join", TORCH_BOX(&marlin::cpu::join));
  library.impl("dequantize", TORCH_BOX(&marlin::cpu::dequantize));
}
