#include "devices.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <map>
#include <mutex>

#include "../common/arguments.h"
#include "../common/error.h"
#include "architecture.h"

namespace marlin::cuda {
namespace {

int read_attribute(int32_t index, cudaDeviceAttr attribute) {
  int value = 0;
  const cudaError_t status = cudaDeviceGetAttribute(&value, attribute, index);
  if (status == cudaSuccess) return value;
  fail("internal",
       concat("cuda:", index, " doesn't tell what it is: ", cudaGetErrorString(status)));
}

Device read_device(int32_t index) {
  const int major = read_attribute(index, cudaDevAttrComputeCapabilityMajor);
  const int minor = read_attribute(index, cudaDevAttrComputeCapabilityMinor);
  const Device device{10 * major + minor, read_attribute(index, cudaDevAttrMultiProcessorCount)};
  if (device.architecture < kOldestArchitecture) {
    fail("unsupported",
         concat("the GPU has compute capability ", major, ".", minor, ", and the kernels need ",
                kOldestArchitecture / 10, ".", kOldestArchitecture % 10, " or later"));
  }
  return device;
}

}  // namespace

void check_same_device(const char* name, const Tensor& tensor, const char* first_name,
                       const Tensor& first) {
  check_place(name, tensor, Place::kCuda);
  if (tensor.get_device_index() == first.get_device_index()) return;
  invalid_argument(name, "expected the device of `", first_name,
                   "`, cuda:", first.get_device_index(), ", got cuda:", tensor.get_device_index());
}

Device device_of(int32_t index) {
  static std::mutex mutex;
  static std::map<int32_t, Device> devices;
  const std::lock_guard guard(mutex);
  const auto known = devices.find(index);
  if (known != devices.end()) return known->second;
  return devices.emplace(index, read_device(index)).first->second;
}

int32_t usable_gpu(const Tensor& tensor) {
  const int32_t index = tensor.get_device_index();
  device_of(index);
  return index;
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
