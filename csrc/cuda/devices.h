// What every CUDA op asks of devices and streams.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "gemm_plan.h"

namespace marlin::cuda {

using torch::stable::Tensor;

// Throws unless `tensor` is on the GPU of `first`, which is called `first_name`.
void check_same_device(const char* name, const Tensor& tensor, const char* first_name,
                       const Tensor& first);

// What the GPU of this index is: asked once per process, unless the answer is an error, which is
// thrown. Throws, too, where the kernels cannot run on it.
Device device_of(int32_t index);

// The index of the tensor's GPU; throws where the kernels cannot run on it.
int32_t usable_gpu(const Tensor& tensor);

// The current stream of the tensor's device.
cudaStream_t current_stream(const Tensor& tensor);

// Throws unless the launch of `kernel` went well.
void check_started(cudaError_t status, const char* kernel);

}  // namespace marlin::cuda
