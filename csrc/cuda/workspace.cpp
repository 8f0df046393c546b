#include "workspace.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

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
  // Never destroyed: at the end of the process CUDA may be gone before it. Nor is a tensor that a
  // larger one follows, because a graph that was captured on the stream still uses it.
  static auto* locks = new std::map<std::pair<int32_t, cudaStream_t>, std::vector<Tensor>>;
  const std::lock_guard guard(mutex);
  const std::pair key(static_cast<int32_t>(like.get_device_index()), stream);
  const auto known = locks->find(key);
  const int64_t held = known == locks->end() ? 0 : known->second.back().numel();
  if (held >= count) return known->second.back();
  if (is_capturing(stream)) return make_locks(like, count);
  // At least twice as many: all that came before take no more than the last.
  Tensor made = make_locks(like, std::max({count, 2 * held, kLeastLocks}));
  (*locks)[key].push_back(made);
  return made;
}

}  // namespace marlin::cuda
