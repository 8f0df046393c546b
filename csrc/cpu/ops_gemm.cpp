// The gemm op on the CPU: checks its arguments, allocates the result, hands raw pointers on.

#include <torch/csrc/stable/ops.h>

#include <vector>

#include "../common/arguments.h"
#include "../common/error.h"
#include "dispatch.h"
#include "gemm.h"
#include "ops.h"

namespace marlin::cpu {
namespace {

const Path& require_path() {
  const Selection& selection = selected_path();
  if (selection.path == nullptr) fail("kernel_unavailable", selection.reason);
  return *selection.path;
}

Activation parse_activation(const Path& path, const std::string& name, Dtype dtype, int bits) {
  if (name == "auto") return precise_activation(path, dtype, bits);
  if (name == "int16") return Activation::kInt16;
  if (name == "int8") return Activation::kInt8;
  if (name != "bfloat16") {
    invalid_argument("activation", "expected `auto`, `bfloat16`, `int16` or `int8`, got `", name,
                     "`");
  }
  if (path.bfloat16 == nullptr) {
    fail("unsupported",
         concat("`activation`: `bfloat16` needs a kernel with bfloat16 dot products, got `",
                path.name, "`"));
  }
  if (bits != 4) {
    fail("unsupported", "`activation`: `bfloat16` multiplies weights of 4 bits, got 8");
  }
  return Activation::kBFloat16;
}

// int32 (size_k,), contiguous, with values in 0 .. size_k - 1: the kernels read what it names.
Tensor checked_perm(const Tensor& perm, int64_t size_k) {
  check_words("perm", perm, Place::kCpu, {size_k});
  Tensor contiguous = as_contiguous(perm);
  const auto* columns = static_cast<const int32_t*>(contiguous.const_data_ptr());
  for (int64_t i = 0; i < size_k; ++i) {
    if (columns[i] < 0 || columns[i] >= size_k) {
      invalid_argument("perm", "expected values in 0 .. ", size_k - 1, ", got ", columns[i], " at ",
                       i);
    }
  }
  return contiguous;
}

}  // namespace

Tensor gemm(const Tensor& a, const Tensor& qweight, const Tensor& scales,
            std::optional<Tensor> qzeros, std::optional<Tensor> bias, std::optional<Tensor> perm,
            int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits,
            std::string activation, std::string epilogue) {
  const CheckedWeights checked =
      check_weights(qweight, scales, qzeros, size_n, size_k, group_size, bits, Place::kCpu);
  check_place("a", a, Place::kCpu);
  check_columns("a", a, size_k);
  const Dtype dtype = check_float("a", a);
  Dtype bias_dtype = dtype;
  if (bias.has_value()) {
    check_place("bias", *bias, Place::kCpu);
    bias_dtype = check_float("bias", *bias);
    check_shape("bias", *bias, {size_n});
    bias = as_contiguous(*bias);
  }
  if (perm.has_value()) perm = checked_perm(*perm, size_k);
  const bool gated = check_epilogue(epilogue, size_n);
  const Path& path = require_path();
  const Activation format = parse_activation(path, activation, dtype, static_cast<int>(bits));

  const auto a_sizes = a.sizes();
  std::vector<int64_t> out_sizes(a_sizes.begin(), a_sizes.end());
  out_sizes.back() = gated ? size_n / 2 : size_n;
  Tensor out = torch::stable::new_empty(a, out_sizes);

  const Rows rows = as_rows(a);
  const GemmArguments arguments = {
      rows.storage.const_data_ptr(),
      dtype,
      out.numel() / out_sizes.back(),
      a_sizes[a_sizes.size() - 1],
      rows.stride,
      perm.has_value() ? static_cast<const int32_t*>(perm->const_data_ptr()) : nullptr,
      checked.weights,
      bias.has_value() ? bias->const_data_ptr() : nullptr,
      bias_dtype,
      gated,
      out.mutable_data_ptr(),
  };
  gemm(path, format, arguments, static_cast<int>(torch::stable::get_num_threads()),
       [](int64_t count, const std::function<void(int64_t, int64_t)>& body) {
         torch::stable::parallel_for(0, count, 1, body);
       });
  return out;
}

}  // namespace marlin::cpu
