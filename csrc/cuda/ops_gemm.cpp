// The gemm op on CUDA: checks, allocates, launches on the current stream.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "../common/arguments.h"
#include "../common/error.h"
#include "arrange.h"
#include "devices.h"
#include "gemm.h"
#include "ops.h"
#include "workspace.h"

namespace marlin::cuda {
namespace {

constexpr int64_t kAlignment = 16;  // bytes that one copy of a kernel moves
constexpr int64_t kElementBytes = 2;
constexpr int64_t kMaxSize = int64_t{1} << 31;  // sizes are 32 bits in the kernel
constexpr int64_t kMaxK = int64_t{1} << 20;     // see GemmArguments::group_magic

void check_dtype(const char* name, Dtype got, Dtype expected) {
  if (got == expected) return;
  fail("unsupported", concat("`", name, "`: expected the dtype of `a` on CUDA, got another one"));
}

// As the kernel wants them: `k` columns in the order of the weights, aligned.
Rows arranged(const Tensor& a, int64_t m, int64_t k, const std::optional<Tensor>& perm,
              cudaStream_t stream) {
  const Rows rows = as_rows(a);
  const int64_t columns = a.size(a.dim() - 1);
  const auto address = reinterpret_cast<uintptr_t>(rows.storage.const_data_ptr());
  const bool is_aligned =
      address % kAlignment == 0 && (m <= 1 || rows.stride * kElementBytes % kAlignment == 0);
  if (!perm.has_value() && columns == k && is_aligned) {
    // Of one row the stride means nothing, and may be anything.
    return {rows.storage, m <= 1 ? k : rows.stride};
  }
  Tensor out = torch::stable::new_empty(a, {m, k});
  const auto* order =
      perm.has_value() ? static_cast<const int32_t*>(perm->const_data_ptr()) : nullptr;
  check_started(launch_arrange(rows.storage.const_data_ptr(), rows.stride, columns, order, m, k,
                               out.mutable_data_ptr(), stream),
                "arrange");
  return {out, k};
}

void check_options(const std::string& activation, const std::string& epilogue, Dtype dtype) {
  const bool is_same = (activation == "bfloat16" && dtype == Dtype::kBFloat16);
  if (activation != "auto" && !is_same) {
    fail("unsupported", concat("`activation`: expected `auto` on CUDA, got `", activation, "`"));
  }
  if (epilogue != "none") {
    fail("unsupported", concat("`epilogue`: expected `none` on CUDA, got `", epilogue, "`"));
  }
}

}  // namespace

Tensor gemm(const Tensor& a, const Tensor& qweight, const Tensor& scales,
            std::optional<Tensor> qzeros, std::optional<Tensor> bias, std::optional<Tensor> perm,
            int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits,
            std::string activation, std::string epilogue) {
  check_codes(bits);
  const CheckedWeights checked =
      check_weights(qweight, scales, qzeros, size_n, size_k, group_size, bits, Place::kCuda);
  check_same_device("a", a, "qweight", qweight);
  check_same_device("scales", scales, "qweight", qweight);
  if (qzeros.has_value()) check_same_device("qzeros", *qzeros, "qweight", qweight);
  if (a.dim() == 0) invalid_argument("a", "expected at least one dimension, got a scalar");
  if (a.size(a.dim() - 1) > size_k) {
    invalid_argument("a", "expected at most `size_k` = ", size_k, " columns, got shape ",
                     describe_shape(a));
  }
  const Dtype dtype = check_float("a", a);
  if (dtype == Dtype::kFloat32) {
    fail("unsupported", "`a`: expected float16 or bfloat16 on CUDA, got float32");
  }
  check_dtype("scales", checked.weights.scale_dtype, dtype);
  check_options(activation, epilogue, dtype);
  if (bias.has_value()) {
    check_same_device("bias", *bias, "qweight", qweight);
    check_shape("bias", *bias, {size_n});
    check_dtype("bias", check_float("bias", *bias), dtype);
    bias = as_contiguous(*bias);
  }
  if (perm.has_value()) {
    check_same_device("perm", *perm, "qweight", qweight);
    check_words("perm", *perm, Place::kCuda, {size_k});
    perm = as_contiguous(*perm);
  }

  const int32_t index = qweight.get_device_index();
  const Device device = device_of(index);
  const torch::stable::accelerator::DeviceGuard guard(index);
  const auto a_sizes = a.sizes();
  std::vector<int64_t> out_sizes(a_sizes.begin(), a_sizes.end());
  out_sizes.back() = size_n;
  Tensor out = torch::stable::new_empty(a, out_sizes);
  const int64_t m = out.numel() / size_n;
  if (m == 0) return out;
  if (m >= kMaxSize || size_n >= kMaxSize || size_k >= kMaxK) {
    invalid_argument("a",
                     "expected less than 2^31 rows and columns, and a `size_k` below 2^20, got ", m,
                     " rows, ", size_n, " x ", size_k);
  }

  cudaStream_t stream = current_stream(qweight);
  const Rows rows = arranged(a, m, size_k, perm, stream);
  const Launch launch =
      plan_gemm({m, size_n, size_k, checked.weights.group_size, qzeros.has_value(),
                 dtype == Dtype::kFloat16 ? Scalar::kFloat16 : Scalar::kBFloat16},
                device);
  const Tensor partial =
      torch::stable::new_empty(a, {launch.partial_bytes / 4}, torch::headeronly::ScalarType::Float);
  const Tensor locks = locks_of(a, stream, launch.lock_count);
  GemmArguments arguments = arguments_of(launch, m, checked.weights);
  arguments.a = rows.storage.const_data_ptr();
  arguments.a_stride = rows.stride;
  arguments.bias = bias.has_value() ? bias->const_data_ptr() : nullptr;
  arguments.out = out.mutable_data_ptr();
  arguments.partial = static_cast<float*>(partial.mutable_data_ptr());
  arguments.locks = static_cast<int32_t*>(locks.mutable_data_ptr());
  check_started(launch_gemm(launch, arguments, stream), "gemm");
  return out;
}

}  // namespace marlin::cuda
