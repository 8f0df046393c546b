// The dequantize op on CUDA: checks, allocates, launches on the current stream.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "../common/arguments.h"
#include "../common/error.h"
#include "dequantize.h"
#include "ops.h"

namespace marlin::cuda {
namespace {

void check_same_device(const char* name, const Tensor& tensor, const Tensor& qweight) {
  if (tensor.get_device_index() == qweight.get_device_index()) return;
  invalid_argument(name, "expected the device of `qweight`, cuda:", qweight.get_device_index(),
                   ", got cuda:", tensor.get_device_index());
}

}  // namespace

Tensor dequantize(const Tensor& qweight, const Tensor& scales, std::optional<Tensor> qzeros,
                  int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits) {
  if (bits != 4) fail("unsupported", concat("`bits`: expected 4 on CUDA, got ", bits));
  const CheckedWeights checked =
      check_weights(qweight, scales, qzeros, size_n, size_k, group_size, bits, Place::kCuda);
  check_same_device("scales", scales, qweight);
  if (qzeros.has_value()) check_same_device("qzeros", *qzeros, qweight);

  const int32_t device = qweight.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  Tensor out = torch::stable::new_empty(scales, {size_n, size_k});
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const cudaError_t status =
      launch_dequantize(checked.weights, out.mutable_data_ptr(), static_cast<cudaStream_t>(stream));
  if (status != cudaSuccess) {
    fail("internal", concat("the dequantize kernel did not start: ", cudaGetErrorString(status)));
  }
  return out;
}

}  // namespace marlin::cuda
