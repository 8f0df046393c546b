// The gemm op on CUDA: checks, allocates, launches on the current stream.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "../common/arguments.h"
#include "../common/error.h"
#include "arrange.h"
#include "devices.h"
#include "gemm.h"
#include "ops.h"
#include "silu_mul.h"
#include "workspace.h"

namespace marlin::cuda {
namespace {

using torch::headeronly::ScalarType;

constexpr int64_t kAlignment = 16;  // bytes that one copy of a kernel moves
constexpr int64_t kElementBytes = 2;
constexpr int64_t kMaxSize = int64_t{1} << 31;  // sizes are 32 bits in the kernel
constexpr int64_t kMaxK = int64_t{1} << 20;     // see GemmArguments::group_magic

// What a product is made of; the tensors have been checked.
struct Operands {
  Tensor a;
  CheckedWeights checked;
  std::optional<Tensor> bias;
  std::optional<Tensor> perm;
};

// The type of a product: float16 only where all that comes is float16. Bfloat16 holds the numbers
// of the other types with fewer digits (its kernels take activations below 2^28); float16 would
// make infinities of large ones, and nobody would be told, since that takes a look at them.
Dtype product_dtype(const std::string& activation, std::initializer_list<Dtype> given) {
  if (activation != "auto" && activation != "bfloat16") {
    fail("unsupported",
         concat("`activation`: expected `auto` or `bfloat16` on CUDA, got `", activation, "`"));
  }
  const bool is_float16 =
      std::all_of(given.begin(), given.end(), [](Dtype d) { return d == Dtype::kFloat16; });
  return is_float16 && activation == "auto" ? Dtype::kFloat16 : Dtype::kBFloat16;
}

ScalarType scalar_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat16:
      return ScalarType::Half;
    case Dtype::kBFloat16:
      return ScalarType::BFloat16;
    case Dtype::kFloat32:
      break;
  }
  return ScalarType::Float;
}

// The tensor itself, or a contiguous copy of another type.
Tensor converted(const Tensor& tensor, Dtype dtype) {
  if (tensor.scalar_type() == scalar_type(dtype)) return tensor;
  Tensor copy = torch::stable::new_empty(tensor, tensor.sizes(), scalar_type(dtype));
  torch::stable::copy_(copy, tensor);
  return copy;
}

// As the kernel wants them: `k` columns in the order of the weights, aligned.
Rows arranged(const Tensor& a, int64_t m, int64_t k, const std::optional<Tensor>& perm,
              cudaStream_t stream) {
  const Rows rows = as_rows(a);
  const int64_t columns = a.size(a.dim() - 1);
  const auto address = reinterpret_cast<uintptr_t>(rows.storage.const_data_ptr());
  const bool is_aligned =
      address % kAlignment == 0 && (m <= 1 || rows.stride * kElementBytes % kAlignment == 0);
  const bool is_near = m <= 1 || rows.stride < kMaxStride;
  if (!perm.has_value() && columns == k && is_aligned && is_near) {
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

// The product in `dtype`, float16 or bfloat16, with the bias: m rows into `out`, which is
// contiguous.
void multiply(const Operands& operands, Dtype dtype, int64_t m, const Device& device, Tensor& out) {
  const Tensor a = converted(operands.a, dtype);
  const Tensor scales = converted(operands.checked.scales, dtype);
  Weights weights = operands.checked.weights;
  weights.scales = scales.const_data_ptr();
  weights.scale_dtype = dtype;
  std::optional<Tensor> bias;
  if (operands.bias.has_value()) bias = as_readable(converted(*operands.bias, dtype), Place::kCuda);

  cudaStream_t stream = current_stream(a);
  const Rows rows = arranged(a, m, weights.k, operands.perm, stream);
  const Scalar scalar = dtype == Dtype::kFloat16 ? Scalar::kFloat16 : Scalar::kBFloat16;
  const Launch launch = plan_gemm(
      {m, weights.n, weights.k, weights.group_size, weights.bits, weights.zeros != nullptr, scalar},
      device);
  if (int64_t{launch.tiles_k} * launch.tiles_n * launch.tiles_m >= kMaxSize) {
    invalid_argument("a", "expected a product of less than 2^31 tiles, got ", m, " rows, ",
                     weights.n, " x ", weights.k);
  }
  const Tensor partial = torch::stable::new_empty(a, {launch.partial_bytes / 4}, ScalarType::Float);
  GemmArguments arguments = arguments_of(launch, m, weights);
  arguments.a = rows.storage.const_data_ptr();
  arguments.a_stride = rows.stride;
  arguments.bias = bias.has_value() ? bias->const_data_ptr() : nullptr;
  arguments.out = out.mutable_data_ptr();
  arguments.partial = static_cast<float*>(partial.mutable_data_ptr());
  arguments.counters = counters_of(a.get_device_index(), stream, launch.counter_count);
  check_started(launch_gemm(launch, arguments, stream), "gemm");
}

}  // namespace

Tensor gemm(const Tensor& a, const Tensor& qweight, const Tensor& scales,
            std::optional<Tensor> qzeros, std::optional<Tensor> bias, std::optional<Tensor> perm,
            int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits,
            std::string activation, std::string epilogue) {
  Operands operands = {
      a, check_weights(qweight, scales, qzeros, size_n, size_k, group_size, bits, Place::kCuda),
      bias, perm};
  check_same_device("a", a, "qweight", qweight);
  check_same_device("scales", scales, "qweight", qweight);
  if (qzeros.has_value()) check_same_device("qzeros", *qzeros, "qweight", qweight);
  check_columns("a", a, size_k);
  const Dtype dtype = check_float("a", a);
  Dtype bias_dtype = dtype;
  if (bias.has_value()) {
    check_same_device("bias", *bias, "qweight", qweight);
    bias_dtype = check_float("bias", *bias);
    check_shape("bias", *bias, {size_n});
  }
  if (perm.has_value()) {
    check_same_device("perm", *perm, "qweight", qweight);
    check_words("perm", *perm, Place::kCuda, {size_k});
    operands.perm = as_contiguous(*perm);
  }
  const Dtype inner =
      product_dtype(activation, {dtype, bias_dtype, operands.checked.weights.scale_dtype});
  const bool is_gated = check_epilogue(epilogue, size_n);

  const int32_t index = qweight.get_device_index();
  const Device device = device_of(index);
  const torch::stable::accelerator::DeviceGuard guard(index);
  const auto a_sizes = a.sizes();
  std::vector<int64_t> sizes(a_sizes.begin(), a_sizes.end());
  sizes.back() = size_n;
  Tensor product = torch::stable::new_empty(a, sizes, scalar_type(inner));
  const int64_t m = product.numel() / size_n;
  if (m >= kMaxSize || size_n >= kMaxSize || size_k >= kMaxK) {
    invalid_argument("a",
                     "expected less than 2^31 rows and columns, and a `size_k` below 2^20, got ", m,
                     " rows, ", size_n, " x ", size_k);
  }
  if (m > 0) multiply(operands, inner, m, device, product);
  if (!is_gated) return converted(product, dtype);

  sizes.back() = size_n / 2;
  Tensor out = torch::stable::new_empty(a, sizes);
  if (m > 0) {
    check_started(launch_silu_mul(product.const_data_ptr(), inner, m, size_n / 2,
                                  out.mutable_data_ptr(), dtype, current_stream(a)),
                  "silu_mul");
  }
  return out;
}

}  // namespace marlin::cuda
