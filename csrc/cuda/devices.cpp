#include "devices.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "../common/arguments.h"
#include "../common/error.h"

namespace marlin::cuda {

void check_same_device(const char* name, const Tensor& tensor, const char* first_name,
                       const Tensor& first) {
  check_place(name, tensor, Place::kCuda);
  if (tensor.get_device_index() == first.get_device_index()) return;
  invalid_argument(name, "expected the device of `", first_name,
                   "`, cuda:", first.get_device_index(), ", got cuda:", tensor.get_device_index());
}

cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_started(cudaError_t status, const char* kernel) {
  if (status == cudaSuccess) return;
  fail("internal", concat("the ", kernel, " kernel did not start: ", cudaGetErrorString(status)));
}

}  // namespace marlin::cuda
