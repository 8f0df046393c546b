#include "workspace.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

namespace marlin::cuda {
namespace {

constexpr int64_t kLeastLocks = 4096;

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) == cudaSuccess &&
         status != cudaStreamCaptureStatusNone;
}

Tensor make_locks(const Tensor& like, int64_t count) {
  return torch::stable::new_zeros(like, {count}, torch::headeronly::ScalarType::Int);
}

}  // namespace

Tensor locks_of(const Tensor& like, cudaStream_t stream, int64_t count) {
  static std::mutex mutex;
  // Never destroyed: at the end of the process CUDA may be gone before it.
  static auto* locks = new std::map<std::pair<int32_t, cudaStream_t>, Tensor>;
  const std::lock_guard guard(mutex);
  const std::pair key(static_cast<int32_t>(like.get_device_index()), stream);
  const auto known = locks->find(key);
  if (known != locks->end() && known->second.numel() >= count) return known->second;
  if (is_capturing(stream)) return make_locks(like, count);
  Tensor made = make_locks(like, std::max(count, kLeastLocks));
  locks->insert_or_assign(key, made);
  return made;
}

}  // namespace marlin::cuda
