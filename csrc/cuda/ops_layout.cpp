// The layout ops on CUDA, and dequantize: check, allocate, launch on the current stream.

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include "../common/arguments.h"
#include "../common/error.h"
#include "dequantize.h"
#include "devices.h"
#include "layout.h"
#include "ops.h"
#include "repack.h"

namespace marlin::cuda {
namespace {

using torch::stable::accelerator::DeviceGuard;

static_assert(kCudaTileRows == kTileDepth && kCudaTileSteps == kTileSteps,
              "common/arguments.h and layout.h describe one layout");

}  // namespace

Tensor repack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits) {
  check_bits(bits);
  check_sizes(size_n, size_k);
  check_words("qweight", qweight, Place::kCuda, {size_k * bits / 32, size_n});

  const DeviceGuard guard(usable_gpu(qweight));
  const Tensor plain = as_readable(qweight, Place::kCuda);
  Tensor packed = torch::stable::new_empty(plain, packed_shape(size_n, size_k, bits, Place::kCuda));
  check_started(
      launch_repack(static_cast<const uint32_t*>(plain.const_data_ptr()), size_n, size_k,
                    static_cast<int>(bits), static_cast<uint32_t*>(packed.mutable_data_ptr()),
                    current_stream(plain)),
      "repack");
  return packed;
}

Tensor unpack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits) {
  check_bits(bits);
  check_sizes(size_n, size_k);
  check_packed("qweight", qweight, size_n, size_k, bits, Place::kCuda);

  const DeviceGuard guard(usable_gpu(qweight));
  const Tensor packed = as_readable(qweight, Place::kCuda);
  Tensor plain = torch::stable::new_empty(packed, {size_k * bits / 32, size_n});
  check_started(
      launch_unpack(static_cast<const uint32_t*>(packed.const_data_ptr()), size_n, size_k,
                    static_cast<int>(bits), static_cast<uint32_t*>(plain.mutable_data_ptr()),
                    current_stream(packed)),
      "unpack");
  return plain;
}

Tensor join(const std::vector<Tensor>& parts) {
  const int64_t blocks = check_parts("parts", parts, Place::kCuda);
  const Tensor& first = parts.front();
  for (const Tensor& part : parts) check_same_device("parts", part, "parts[0]", first);

  const DeviceGuard guard(usable_gpu(first));
  Tensor whole = torch::stable::new_empty(first, {blocks, first.size(1), first.size(2)});
  int64_t start = 0;
  for (const Tensor& part : parts) {
    Tensor place = torch::stable::narrow(whole, 0, start, part.size(0));
    torch::stable::copy_(place, part);
    start += part.size(0);
  }
  return whole;
}

Tensor dequantize(const Tensor& qweight, const Tensor& scales, std::optional<Tensor> qzeros,
                  int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits) {
  check_bits(bits);
  const CheckedWeights checked =
      check_weights(qweight, scales, qzeros, size_n, size_k, group_size, bits, Place::kCuda);
  check_same_device("scales", scales, "qweight", qweight);
  if (qzeros.has_value()) check_same_device("qzeros", *qzeros, "qweight", qweight);

  const DeviceGuard guard(usable_gpu(qweight));
  Tensor out = torch::stable::new_empty(scales, {size_n, size_k});
  check_started(launch_dequantize(checked.weights, out.mutable_data_ptr(), current_stream(qweight)),
                "dequantize");
  return out;
}

}  // namespace marlin::cuda
