// The layout ops on the CPU, and dequantize: check, allocate, run the blocks in parallel.

#include <torch/csrc/stable/ops.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstring>

#include "../common/arguments.h"
#include "../common/math.h"
#include "dequantize.h"
#include "ops.h"
#include "prepack.h"

namespace marlin::cpu {
namespace {

// Asks for huge pages where fresh memory lies, which is before the first write: policies of
// `madvise` give none unasked. Measured on the product of one row, 4096 x 4096 codes of 4 bits
// out of memory, one thread: 243 us in small pages, 228 so; 226 where the memory also begins on
// a huge page, which would leave a tensor smaller than its storage.
void hint_huge_pages(void* data, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const auto start = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (start + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (start + bytes) / kHugePage * kHugePage;
  // Failure is no error: the pages stay small.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  static_cast<void>(data);
  static_cast<void>(bytes);
#endif
}

// Memory that kernels read again and again. Whoever fills it does so in parallel: the first touch
// brings in the pages.
Tensor new_weight(const Tensor& like, std::initializer_list<int64_t> sizes) {
  Tensor weight = torch::stable::new_empty(like, sizes);
  hint_huge_pages(weight.mutable_data_ptr(),
                  static_cast<size_t>(weight.numel()) * weight.element_size());
  return weight;
}

}  // namespace

Tensor repack(const Tensor& qweight, int64_t size_n, int64_t size_k, int64_t bits) {
  check_bits(bits);
  check_sizes(size_n, size_k);
  check_words("qweight", qweight, Place::kCpu, {size_k * bits / 32, size_n});
  const int64_t blocks = ceil_div(size_n, kBlockColumns);
  const PlainShape shape = {size_n, size_k, static_cast<int>(bits)};
  const Tensor plain = as_contiguous(qweight);
  const auto sizes = packed_shape(size_n, size_k, bits, Place::kCpu);
  Tensor packed = new_weight(plain, {sizes[0], sizes[1], sizes[2]});

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
  check_packed("qweight", qweight, size_n, size_k, bits, Place::kCpu);
  const Tensor packed = as_contiguous(qweight);
  Tensor plain = torch::stable::new_empty(packed, {size_k * bits / 32, size_n});

  const auto* from = static_cast<const uint32_t*>(packed.const_data_ptr());
  auto* to = static_cast<uint32_t*>(plain.mutable_data_ptr());
  torch::stable::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    unpack_blocks(from, shape, begin, end, to);
  });
  return plain;
}

Tensor join(const std::vector<Tensor>& parts) {
  const int64_t blocks = check_parts("parts", parts, Place::kCpu);
  const Tensor& first = parts.front();
  Tensor whole = new_weight(first, {blocks, first.size(1), first.size(2)});

  auto* to = static_cast<char*>(whole.mutable_data_ptr());
  const auto block_bytes =
      first.size(1) * first.size(2) * static_cast<int64_t>(first.element_size());
  for (const Tensor& part : parts) {
    const Tensor own = as_contiguous(part);
    const auto* from = static_cast<const char*>(own.const_data_ptr());
    torch::stable::parallel_for(0, own.size(0), 1, [&](int64_t begin, int64_t end) {
      std::memcpy(to + begin * block_bytes, from + begin * block_bytes,
                  static_cast<size_t>((end - begin) * block_bytes));
    });
    to += own.size(0) * block_bytes;
  }
  return whole;
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
