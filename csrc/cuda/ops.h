// The CUDA implementations of the ops; the schemas stand in ../registration.cpp.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace marlin::cuda {

using torch::stable::Tensor;

// a (..., k <= size_k) times packed weights: (..., size_n), in the dtype of a.
Tensor gemm(const Tensor& a, const Tensor& qweight, const Tensor& scales,
            std::optional<Tensor> qzeros, std::optional<Tensor> bias, std::optional<Tensor> perm,
            int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits,
            std::string activation, std::string epilogue);

// The packed layout of layout.h, from the plain one and back.
Tensor repack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits);
Tensor unpack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits);

// Packed tensors (blocks, rows, columns), one after the other.
Tensor join(const std::vector<Tensor>& parts);

// Packed weights as (size_n, size_k) in the dtype of the scales.
Tensor dequantize(const Tensor& qweight, const Tensor& scales, std::optional<Tensor> qzeros,
                  int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits);

}  // namespace marlin::cuda
