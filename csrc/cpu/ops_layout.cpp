// The repack, unpack and dequantize ops on the CPU: check, allocate, run the blocks in parallel.

#include <torch/csrc/stable/ops.h>

#include "../common/arguments.h"
#include "../common/math.h"
#include "dequantize.h"
#include "ops.h"
#include "prepack.h"

namespace marlin::cpu {

Tensor repack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits) {
  check_bits(bits);
  check_sizes(size_n, size_k);
  check_words("qweight", qweight, Place::kCpu, {size_k * bits / 32, size_n});
  const int64_t blocks = ceil_div(size_n, kBlockColumns);
  const PlainShape shape = {size_n, size_k, static_cast<int>(bits)};
  const Tensor plain = as_contiguous(qweight);
  Tensor packed = torch::stable::new_empty(plain, {blocks, size_k * bits / 32, kBlockColumns});

  const auto* from = static_cast<const uint32_t*>(plain.const_data_ptr());
  auto* to = static_cast<uint32_t*>(packed.mutable_data_ptr());
  torch::stable::parallel_for(
      0, blocks, 1, [&](int64_t begin, int64_t end) { pack_blocks(from, shape, begin, end, to); });
  return packed;
}

Tensor unpack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits) {
  check_bits(bits);
  check_sizes(size_n, size_k);
  const int64_t blocks = ceil_div(size_n, kBlockColumns);
  const PlainShape shape = {size_n, size_k, static_cast<int>(bits)};
  check_words("qweight", qweight, Place::kCpu, {blocks, size_k * bits / 32, kBlockColumns});
  const Tensor packed = as_contiguous(qweight);
  Tensor plain = torch::stable::new_empty(packed, {size_k * bits / 32, size_n});

  const auto* from = static_cast<const uint32_t*>(packed.const_data_ptr());
  auto* to = static_cast<uint32_t*>(plain.mutable_data_ptr());
  torch::stable::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    unpack_blocks(from, shape, begin, end, to);
  });
  return plain;
}

Tensor dequantize(const Tensor& qweight, const Tensor& scales, std::optional<Tensor> qzeros,
                  int64_t size_n, int64_t size_k, int64_t group_size, int64_t bits) {
  const CheckedWeights checked =
      check_weights(qweight, scales, qzeros, size_n, size_k, group_size, bits, Place::kCpu);
  Tensor out = torch::stable::new_empty(scales, {size_n, size_k});

  void* to = out.mutable_data_ptr();
  const int64_t blocks = ceil_div(size_n, kBlockColumns);
  torch::stable::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    dequantize_blocks(checked.weights, begin, end, to);
  });
  return out;
}

}  // namespace marlin::cpu
