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

// The rows of `a` as the kernel wants them: one stride between rows, contiguous inside a row.
struct Rows {
  Tensor storage;  // keeps `data` alive
  int64_t stride;
};

// True when all leading dimensions are one dimension with a single stride.
bool has_single_row_stride(const Tensor& a) {
  const int64_t dims = a.dim();
  if (a.size(dims - 1) > 1 && a.stride(dims - 1) != 1) return false;
  for (int64_t d = 0; d + 2 < dims; ++d) {
    if (a.stride(d) != a.stride(d + 1) * a.size(d + 1)) return false;
  }
  return true;
}

Rows as_rows(const Tensor& a) {
  const int64_t k = a.size(a.dim() - 1);
  if (a.dim() == 1) return {as_contiguous(a), k};
  if (has_single_row_stride(a)) return {a, a.stride(a.dim() - 2)};
  return {torch::stable::contiguous(a), k};
}

const Microkernel& require_kernel() {
  const Selection& selection = selected_kernel();
  if (selection.kernel == nullptr) fail("kernel_unavailable", selection.reason);
  return *selection.kernel;
}

void check_activations(const Tensor& a, int64_t size_k) {
  check_place("a", a, Place::kCpu);
  if (a.dim() == 0) invalid_argument("a", "expected at least one dimension, got a scalar");
  if (a.size(a.dim() - 1) > size_k) {
    invalid_argument("a", "expected at most `size_k` = ", size_k, " columns, got shape ",
                     describe_shape(a));
  }
}

}  // namespace

Tensor gemm(const Tensor& a, const Tensor& qweight, const Tensor& scales,
            std::optional<Tensor> qzeros, std::optional<Tensor> bias, int64_t size_n,
            int64_t size_k, int64_t group_size) {
  const CheckedWeights checked =
      check_weights(qweight, scales, qzeros, size_n, size_k, group_size, Place::kCpu);
  check_activations(a, size_k);
  const Dtype dtype = check_float("a", a);
  Dtype bias_dtype = dtype;
  if (bias.has_value()) {
    check_place("bias", *bias, Place::kCpu);
    bias_dtype = check_float("bias", *bias);
    check_shape("bias", *bias, {size_n});
    bias = as_contiguous(*bias);
  }
  const Microkernel& kernel = require_kernel();

  const auto a_sizes = a.sizes();
  std::vector<int64_t> out_sizes(a_sizes.begin(), a_sizes.end());
  out_sizes.back() = size_n;
  Tensor out = torch::stable::new_empty(a, out_sizes);

  const Rows rows = as_rows(a);
  const GemmArguments arguments = {
      rows.storage.const_data_ptr(),
      dtype,
      out.numel() / size_n,
      a_sizes[a_sizes.size() - 1],
      rows.stride,
      checked.weights,
      bias.has_value() ? bias->const_data_ptr() : nullptr,
      bias_dtype,
      out.mutable_data_ptr(),
  };
  gemm(kernel, arguments, static_cast<int>(torch::stable::get_num_threads()),
       [](int64_t count, const std::function<void(int64_t, int64_t)>& body) {
         torch::stable::parallel_for(0, count, 1, body);
       });
  return out;
}

}  // namespace marlin::cpu
