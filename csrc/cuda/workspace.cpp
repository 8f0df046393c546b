#include "workspace.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "../common/error.h"

namespace marlin::cuda {
namespace {

constexpr int64_t kLeastCounters = 4096;

struct Counters {
  int32_t device;
  int32_t* first;
  int64_t count;
};

// The graph that is being captured on a stream.
struct Capture {
  unsigned long long id = 0;  // 0: none
  cudaGraph_t graph = nullptr;
};

struct StreamCounters {
  std::optional<Counters> of_launches;
  std::optional<Counters> of_capture;
  unsigned long long capture = 0;  // whose they are
};

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  fail("internal", concat("no counters for the gemm kernel: ", cudaGetErrorString(status)));
}

// What graphs had that are no more. Never destroyed, as are the counters themselves: at the end of
// the process CUDA may be gone before them.
class Returned {
 public:
  static Returned& all() {
    static auto* returned = new Returned;
    return *returned;
  }

  void add(const Counters& counters) {
    const std::lock_guard guard(mutex_);
    counters_.push_back(counters);
  }

  std::optional<Counters> take(int32_t device, int64_t count) {
    const std::lock_guard guard(mutex_);
    const auto suits = [&](const Counters& one) {
      return one.device == device && one.count >= count;
    };
    const auto found = std::find_if(counters_.begin(), counters_.end(), suits);
    if (found == counters_.end()) return std::nullopt;
    const Counters taken = *found;
    counters_.erase(found);
    return taken;
  }

 private:
  std::mutex mutex_;
  std::vector<Counters> counters_;
};

Capture capture_on(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  Capture capture;
  check(cudaStreamGetCaptureInfo(stream, &status, &capture.id, &capture.graph));
  return status == cudaStreamCaptureStatusNone ? Capture{} : capture;
}

// While any thread captures a graph, memory is allocated only by those who say that no captured
// work needs it to be.
Counters allocate(int32_t device, int64_t count) {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  check(cudaThreadExchangeStreamCaptureMode(&mode));
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(int32_t));
  check(cudaThreadExchangeStreamCaptureMode(&mode));
  check(status);
  return {device, static_cast<int32_t*>(memory), count};
}

// They come back when neither the graph nor anything made of it is left.
void lend(const Counters& counters, cudaGraph_t graph) {
  const auto come_back = [](void* lent) {
    Returned::all().add(*static_cast<Counters*>(lent));
    delete static_cast<Counters*>(lent);
  };
  cudaUserObject_t object = nullptr;
  check(cudaUserObjectCreate(&object, new Counters(counters), come_back, 1,
                             cudaUserObjectNoDestructorSync));
  check(cudaGraphRetainUserObject(graph, object, 1, cudaGraphUserObjectMove));
}

}  // namespace

int32_t* counters_of(int32_t device, cudaStream_t stream, int64_t count) {
  static std::mutex mutex;
  static auto* all = new std::map<std::pair<int32_t, cudaStream_t>, StreamCounters>;
  const std::lock_guard guard(mutex);
  const Capture capture = capture_on(stream);
  StreamCounters& known = (*all)[{device, stream}];
  if (capture.id != 0 && capture.id != known.capture) {
    known.of_capture.reset();
    known.capture = capture.id;
  }
  std::optional<Counters>& held = capture.id == 0 ? known.of_launches : known.of_capture;
  if (held.has_value() && held->count >= count) return held->first;
  // At least twice as many: all that came before, which work that was started may still use, take
  // no more than the last.
  const int64_t more = std::max({count, held.has_value() ? 2 * held->count : 0, kLeastCounters});
  std::optional<Counters> made;
  if (capture.id != 0) made = Returned::all().take(device, more);
  if (!made.has_value()) made = allocate(device, more);
  if (capture.id != 0) lend(*made, capture.graph);
  const auto bytes = static_cast<size_t>(made->count) * sizeof(int32_t);
  check(cudaMemsetAsync(made->first, 0, bytes, stream));
  held = made;
  return made->first;
}

}  // namespace marlin::cuda
