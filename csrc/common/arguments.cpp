#include "arguments.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "error.h"
#include "math.h"

namespace marlin {
namespace {

using torch::headeronly::ScalarType;

constexpr uintptr_t kCudaAlignment = 16;  // bytes

std::string join(const int64_t* sizes, size_t count) {
  std::string text = "(";
  for (size_t i = 0; i < count; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
  }
  return text + (count == 1 ? ",)" : ")");
}

int64_t resolve_group_size(int64_t group_size, int64_t size_k) {
  if (group_size == -1) return size_k;
  if (group_size <= 0 || group_size % kGroupMultiple != 0) {
    invalid_argument("group_size", "expected -1 or a positive multiple of ", kGroupMultiple,
                     ", got ", group_size);
  }
  if (size_k % group_size != 0) {
    invalid_argument("group_size", "expected a divisor of `size_k` = ", size_k, ", got ",
                     group_size);
  }
  return group_size;
}

// True when all leading dimensions are one dimension with a single stride.
bool has_single_row_stride(const Tensor& a) {
  const int64_t dims = a.dim();
  if (a.size(dims - 1) > 1 && a.stride(dims - 1) != 1) return false;
  for (int64_t d = 0; d + 2 < dims; ++d) {
    if (a.stride(d) != a.stride(d + 1) * a.size(d + 1)) return false;
  }
  return true;
}

}  // namespace

std::string describe_shape(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return join(sizes.data(), sizes.size());
}

void check_place(const char* name, const Tensor& tensor, Place place) {
  const bool is_there = place == Place::kCpu ? tensor.is_cpu() : tensor.is_cuda();
  if (is_there) return;
  invalid_argument(name, "expected a tensor on ",
                   place == Place::kCpu ? "the CPU" : "a CUDA device", ", got one elsewhere");
}

void check_shape(const char* name, const Tensor& tensor, std::initializer_list<int64_t> expected) {
  const auto sizes = tensor.sizes();
  if (!std::equal(sizes.begin(), sizes.end(), expected.begin(), expected.end())) {
    invalid_argument(name, "expected shape ", join(expected.begin(), expected.size()), ", got ",
                     describe_shape(tensor));
  }
}

void check_words(const char* name, const Tensor& tensor, Place place,
                 std::initializer_list<int64_t> expected) {
  check_place(name, tensor, place);
  if (tensor.scalar_type() != ScalarType::Int) {
    invalid_argument(name, "expected dtype int32, got ",
                     torch::headeronly::toString(tensor.scalar_type()));
  }
  check_shape(name, tensor, expected);
}

Dtype check_float(const char* name, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Half:
      return Dtype::kFloat16;
    case ScalarType::BFloat16:
      return Dtype::kBFloat16;
    case ScalarType::Float:
      return Dtype::kFloat32;
    default:
      invalid_argument(name, "expected dtype float16, bfloat16 or float32, got ",
                       torch::headeronly::toString(tensor.scalar_type()));
  }
}

void check_columns(const char* name, const Tensor& tensor, int64_t size_k) {
  if (tensor.dim() == 0) {
    invalid_argument(name, "expected at least one dimension, got a scalar");
  }
  if (tensor.size(tensor.dim() - 1) > size_k) {
    invalid_argument(name, "expected at most `size_k` = ", size_k, " columns, got shape ",
                     describe_shape(tensor));
  }
}

bool check_epilogue(const std::string& name, int64_t size_n) {
  if (name == "none") return false;
  if (name != "silu_mul") {
    invalid_argument("epilogue", "expected `none` or `silu_mul`, got `", name, "`");
  }
  if (size_n % (2 * kBlockColumns) != 0) {
    invalid_argument("size_n", "expected a multiple of ", 2 * kBlockColumns,
                     " with the epilogue `silu_mul`, got ", size_n);
  }
  return true;
}

void check_sizes(int64_t size_n, int64_t size_k) {
  if (size_n <= 0 || size_n % 8 != 0) {
    invalid_argument("size_n", "expected a positive multiple of 8, got ", size_n);
  }
  if (size_k <= 0 || size_k % kGroupMultiple != 0) {
    invalid_argument("size_k", "expected a positive multiple of ", kGroupMultiple, ", got ",
                     size_k);
  }
}

void check_bits(int64_t bits) {
  if (bits != 4 && bits != 8) invalid_argument("bits", "expected 4 or 8, got ", bits);
}

std::array<int64_t, 3> packed_shape(int64_t size_n, int64_t size_k, int64_t bits, Place place) {
  const int64_t blocks = ceil_div(size_n, kBlockColumns);
  if (place == Place::kCuda) {
    return {blocks, ceil_div(size_k, kCudaTileRows) * kCudaTileSteps, 32 * bits};
  }
  return {blocks, size_k * bits / 32, kBlockColumns};
}

void check_packed(const char* name, const Tensor& tensor, int64_t size_n, int64_t size_k,
                  int64_t bits, Place place) {
  const auto shape = packed_shape(size_n, size_k, bits, place);
  check_words(name, tensor, place, {shape[0], shape[1], shape[2]});
}

int64_t check_parts(const char* name, const std::vector<Tensor>& parts, Place place) {
  const Tensor& first = parts.front();  // the dispatcher chose the implementation by one of them
  int64_t blocks = 0;
  for (const Tensor& part : parts) {
    check_place(name, part, place);
    if (part.dim() != 3) {
      invalid_argument(name, "expected packed tensors of 3 dimensions, got shape ",
                       describe_shape(part));
    }
    if (part.scalar_type() != first.scalar_type()) {
      invalid_argument(name, "expected one dtype, got ",
                       torch::headeronly::toString(first.scalar_type()), " and ",
                       torch::headeronly::toString(part.scalar_type()));
    }
    check_shape(name, part, {part.size(0), first.size(1), first.size(2)});
    blocks += part.size(0);
  }
  return blocks;
}

Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

Tensor as_readable(const Tensor& tensor, Place place) {
  const Tensor whole = as_contiguous(tensor);
  const auto address = reinterpret_cast<uintptr_t>(whole.const_data_ptr());
  const bool is_aligned = place == Place::kCpu || address % kCudaAlignment == 0;
  return is_aligned ? whole : torch::stable::clone(whole);
}

Rows as_rows(const Tensor& tensor) {
  const int64_t columns = tensor.size(tensor.dim() - 1);
  if (tensor.dim() == 1) return {as_contiguous(tensor), columns};
  if (has_single_row_stride(tensor)) return {tensor, tensor.stride(tensor.dim() - 2)};
  return {torch::stable::contiguous(tensor), columns};
}

CheckedWeights check_weights(const Tensor& qweight, const Tensor& scales,
                             const std::optional<Tensor>& qzeros, int64_t size_n, int64_t size_k,
                             int64_t group_size, int64_t bits, Place place) {
  check_bits(bits);
  check_sizes(size_n, size_k);
  const int64_t group = resolve_group_size(group_size, size_k);
  const int64_t groups = size_k / group;

  check_packed("qweight", qweight, size_n, size_k, bits, place);
  check_place("scales", scales, place);
  const Dtype scale_dtype = check_float("scales", scales);
  const int64_t blocks = ceil_div(size_n, kBlockColumns);
  const bool is_packed = place == Place::kCpu && scales.dim() == 3;
  if (is_packed) {
    check_shape("scales", scales, {blocks, groups, kBlockColumns});
  } else {
    check_shape("scales", scales, {groups, size_n});
  }
  if (qzeros.has_value() && bits != 4) {
    fail("unsupported", concat("`qzeros`: expected none with ", bits, " bits, got a tensor"));
  }
  if (qzeros.has_value() && is_packed) {
    check_words("qzeros", *qzeros, place, {blocks, groups, kBlockColumns / 8});
  } else if (qzeros.has_value()) {
    check_words("qzeros", *qzeros, place, {groups, size_n / 8});
  }

  CheckedWeights checked{as_readable(qweight, place), as_readable(scales, place), std::nullopt, {}};
  if (qzeros.has_value()) checked.qzeros = as_readable(*qzeros, place);
  checked.weights = {
      static_cast<const uint32_t*>(checked.qweight.const_data_ptr()),
      checked.scales.const_data_ptr(),
      checked.qzeros ? static_cast<const uint32_t*>(checked.qzeros->const_data_ptr()) : nullptr,
      is_packed ? kBlockColumns : size_n,
      is_packed ? kBlockColumns * groups : kBlockColumns,
      scale_dtype,
      static_cast<int>(bits),
      size_n,
      size_k,
      group,
  };
  return checked;
}

}  // namespace marlin
