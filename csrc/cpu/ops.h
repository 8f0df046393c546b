// The CPU implementations of the ops; the schemas stand in registration.cpp.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace marlin::cpu {

using torch::stable::Tensor;

// a (..., k <= size_k) times the weights, plus bias (size_n,): (..., size_n) in the dtype of a.
// `perm` int32 (size_k,): row i of the weights meets column perm[i] of a. `activation`: "auto",
// "bfloat16", "int16" or "int8", the format in which activations are multiplied. `epilogue`:
// "none", or "silu_mul", where the first half of the columns gates the other: (..., size_n / 2).
Tensor gemm(const Tensor& a, const Tensor& qweight, const Tensor& scales,
            std::optional<Tensor> qzeros, std::optional<Tensor> bias, std::optional<Tensor> perm,
            int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits,
            std::string activation, std::string epilogue);

// int32 (size_k * bits / 32, size_n) to int32 (ceil(size_n / 64), size_k * bits / 32, 64), and
// back.
Tensor repack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits);
Tensor unpack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits);

// Packed tensors of one dtype and one K, (blocks, rows, columns), one after the other: codes,
// scales or zeros of columns side by side.
Tensor join(const std::vector<Tensor>& parts);

// Packed weights as (size_n, size_k) in the dtype of the scales.
Tensor dequantize(const Tensor& qweight, const Tensor& scales, std::optional<Tensor> qzeros,
                  int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits);

}  // namespace marlin::cpu
