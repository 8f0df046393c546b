// The CPU implementations of the ops; the schemas stand in registration.cpp.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

namespace marlin::cpu {

using torch::stable::Tensor;

// a (..., k <= size_k) times the weights, plus bias (size_n,): (..., size_n) in the dtype of a.
Tensor gemm(const Tensor& a, const Tensor& qweight, const Tensor& scales,
            std::optional<Tensor> qzeros, std::optional<Tensor> bias, int64_t size_n,
            int64_t size_k, int64_t group_size);

// int32 (size_k / 8, size_n) to int32 (ceil(size_n / 64), size_k / 8, 64), and back.
Tensor repack(const Tensor& qweight, int64_t size_n, int64_t size_k);
Tensor unpack(const Tensor& qweight, int64_t size_n, int64_t size_k);

// Packed weights as (size_n, size_k) in the dtype of the scales.
Tensor dequantize(const Tensor& qweight, const Tensor& scales, std::optional<Tensor> qzeros,
                  int64_t size_n, int64_t size_k, int64_t group_size);

}  // namespace marlin::cpu
