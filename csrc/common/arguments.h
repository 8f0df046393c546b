// Checks the tensors that come from Torch and turns them into the raw descriptions of the kernels.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "weights.h"

namespace marlin {

using torch::stable::Tensor;

// `sizes` as "(2, 3)", for messages.
std::string describe_shape(const Tensor& tensor);

// The kind of device that an implementation serves.
enum class Place { kCpu, kCuda };

void check_place(const char* name, const Tensor& tensor, Place place);
void check_shape(const char* name, const Tensor& tensor, std::initializer_list<int64_t> expected);

// int32, in its place, with exactly this shape.
void check_words(const char* name, const Tensor& tensor, Place place,
                 std::initializer_list<int64_t> expected);

// Throws unless the dtype is float16, bfloat16 or float32.
Dtype check_float(const char* name, const Tensor& tensor);

// At least one dimension, and at most `size_k` columns.
void check_columns(const char* name, const Tensor& tensor, int64_t size_k);

// Whether the epilogue is `silu_mul`, which takes a multiple of 128 columns, and not `none`; throws
// at any other.
bool check_epilogue(const std::string& name, int64_t size_n);

// size_n a positive multiple of 8, size_k a positive multiple of 32.
void check_sizes(int64_t size_n, int64_t size_k);

// 4 or 8.
void check_bits(int64_t bits);

// The packed layout of a GPU has whole tiles of 128 rows, in steps of 16: cuda/layout.h.
inline constexpr int64_t kCudaTileRows = 128;
inline constexpr int64_t kCudaTileSteps = 8;

// Of the packed codes there: [ceil(n / 64)][k * bits / 32][64] or, on CUDA,
// [ceil(n / 64)][8 ceil(k / 128)][32 * bits].
std::array<int64_t, 3> packed_shape(int64_t size_n, int64_t size_k, int64_t bits, Place place);

// int32, in its place, of packed_shape.
void check_packed(const char* name, const Tensor& tensor, int64_t size_n, int64_t size_k,
                  int64_t bits, Place place);

// Packed tensors that can stand one after the other: one dtype, and one shape but for the blocks,
// the first dimension. Returns the blocks of all.
int64_t check_parts(const char* name, const std::vector<Tensor>& parts, Place place);

// The tensor itself, or a contiguous copy of it.
Tensor as_contiguous(const Tensor& tensor);

// As kernels read it: contiguous and, on CUDA, aligned to the 16 bytes that they load at a time.
Tensor as_readable(const Tensor& tensor, Place place);

// The rows of a tensor, one stride apart (in elements) and contiguous inside. `storage` is the
// tensor itself, or a contiguous copy of it.
struct Rows {
  Tensor storage;
  int64_t stride;
};
Rows as_rows(const Tensor& tensor);

// Keeps the contiguous tensors alive as long as `weights` points into them.
struct CheckedWeights {
  Tensor qweight;
  Tensor scales;
  std::optional<Tensor> qzeros;
  Weights weights;
};

// Scales and zero points are plain, or packed on the CPU.
CheckedWeights check_weights(const Tensor& qweight, const Tensor& scales,
                             const std::optional<Tensor>& qzeros, int64_t size_n, int64_t size_k,
                             int64_t group_size, int64_t bits, Place place);

}  // namespace marlin
