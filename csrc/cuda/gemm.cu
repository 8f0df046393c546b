// The kernels of gemm that are compiled, and their launch.

#include <atomic>

#include "gemm_kernel.cuh"

namespace marlin::cuda {
namespace {

// What has to be done once on each device, and is done again on those with high numbers.
class DeviceSet {
 public:
  // Calls `prepare` unless it has gone well on the current device before.
  template <typename Prepare>
  cudaError_t once(const Prepare& prepare) {
    int device = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status != cudaSuccess) return status;
    const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
    if ((done_.load(std::memory_order_relaxed) & bit) != 0) return cudaSuccess;
    status = prepare();
    if (status == cudaSuccess) done_.fetch_or(bit, std::memory_order_relaxed);
    return status;
  }

 private:
  std::atomic<uint64_t> done_{0};
};

template <typename Scalar, int bits, int rows, int group_rows, bool has_zeros>
cudaError_t launch(const Launch& plan, const GemmArguments& arguments, cudaStream_t stream) {
  using S = Shape<Scalar, bits, rows, group_rows, has_zeros>;
  if constexpr (exists(S::kVariant)) {
    const auto kernel = gemm<S>;
    static DeviceSet prepared;
    const cudaError_t status = prepared.once([&] {
      // All of it, so that the two blocks that the plan counts on find room.
      const cudaError_t carved = cudaFuncSetAttribute(
          kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
      if (carved != cudaSuccess) return carved;
      return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  plan.shared_bytes);
    });
    if (status != cudaSuccess) return status;
    kernel<<<plan.blocks, plan.threads, plan.shared_bytes, stream>>>(arguments);
    return cudaGetLastError();
  } else {
    return cudaErrorInvalidValue;  // no plan has it
  }
}

template <typename Scalar, int bits, int rows, bool has_zeros>
cudaError_t launch_groups(const Launch& plan, const GemmArguments& g, cudaStream_t stream) {
  switch (plan.variant.group_rows) {
    case 0:
      return launch<Scalar, bits, rows, 0, has_zeros>(plan, g, stream);
    case 32:
      return launch<Scalar, bits, rows, 32, has_zeros>(plan, g, stream);
    case 64:
      return launch<Scalar, bits, rows, 64, has_zeros>(plan, g, stream);
    default:
      return launch<Scalar, bits, rows, 128, has_zeros>(plan, g, stream);
  }
}

template <typename Scalar, int rows>
cudaError_t launch_bits(const Launch& plan, const GemmArguments& g, cudaStream_t stream) {
  if (plan.variant.bits == 8) return launch_groups<Scalar, 8, rows, false>(plan, g, stream);
  return plan.variant.has_zeros ? launch_groups<Scalar, 4, rows, true>(plan, g, stream)
                                : launch_groups<Scalar, 4, rows, false>(plan, g, stream);
}

template <typename Scalar>
cudaError_t launch_rows(const Launch& plan, const GemmArguments& g, cudaStream_t stream) {
  switch (plan.variant.rows) {
    case 8:
      return launch_bits<Scalar, 8>(plan, g, stream);
    case 16:
      return launch_bits<Scalar, 16>(plan, g, stream);
    case 32:
      return launch_bits<Scalar, 32>(plan, g, stream);
    case 64:
      return launch_bits<Scalar, 64>(plan, g, stream);
    default:
      return launch_bits<Scalar, 128>(plan, g, stream);
  }
}

}  // namespace

GemmArguments arguments_of(const Launch& launch, int64_t m, const Weights& weights) {
  GemmArguments arguments{};
  arguments.weights = weights.words;
  arguments.scales = weights.scales;
  arguments.zeros = weights.zeros;
  arguments.m = static_cast<int32_t>(m);
  arguments.n = static_cast<int32_t>(weights.n);
  arguments.k = static_cast<int32_t>(weights.k);
  arguments.groups = static_cast<int32_t>(weights.k / weights.group_size);
  const uint64_t parts = static_cast<uint64_t>(weights.group_size / kGroupUnit);
  arguments.group_magic = static_cast<uint32_t>(((uint64_t{1} << 32) + parts - 1) / parts);
  arguments.tiles_k = launch.tiles_k;
  arguments.tiles_m = launch.tiles_m;
  arguments.tiles = launch.tiles_k * launch.tiles_n * launch.tiles_m;
  arguments.tiles_of_block = launch.tiles_of_block;
  arguments.last_start = (launch.blocks - 1) * launch.tiles_of_block;
  return arguments;
}

cudaError_t launch_gemm(const Launch& plan, const GemmArguments& arguments, cudaStream_t stream) {
  if (plan.variant.scalar == Scalar::kFloat16) return launch_rows<__half>(plan, arguments, stream);
  return launch_rows<__nv_bfloat16>(plan, arguments, stream);
}

}  // namespace marlin::cuda
