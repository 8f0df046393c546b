// A CUDA runtime without a GPU, as far as csrc/cuda/workspace.cpp asks for one: memory is the
// host's, and who captures is what the test says.

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../../csrc/cuda/workspace.h"

namespace {

struct Object {
  void* pointer;
  cudaHostFn_t destroy;
};

std::map<cudaStream_t, unsigned long long> captures;         // by stream
std::map<unsigned long long, std::vector<Object*>> objects;  // of each graph
cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
bool is_out_of_memory = false;
int clears_at_once = 0;
int clears_of_graphs = 0;
std::string last_error;

cudaStream_t stream_of(int index) { return reinterpret_cast<cudaStream_t>(intptr_t{index}); }

}  // namespace

extern "C" {

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t**, const cudaGraphEdgeData**, size_t*) {
  const auto found = captures.find(stream);
  *status = found == captures.end() ? cudaStreamCaptureStatusNone : cudaStreamCaptureStatusActive;
  if (found != captures.end()) {
    *id = found->second;
    *graph = reinterpret_cast<cudaGraph_t>(found->second);
  }
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (is_out_of_memory) return cudaErrorMemoryAllocation;
  if (!captures.empty() && thread_mode != cudaStreamCaptureModeRelaxed) {
    return cudaErrorStreamCaptureUnsupported;
  }
  *memory = std::malloc(bytes);
  std::memset(*memory, 0xFF, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (captures.contains(stream)) {
    ++clears_of_graphs;
  } else {
    ++clears_at_once;
    std::memset(memory, value, bytes);
  }
  return cudaSuccess;
}

cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void* pointer, cudaHostFn_t destroy,
                                 unsigned, unsigned) {
  *object = reinterpret_cast<cudaUserObject_t>(new Object{pointer, destroy});
  return cudaSuccess;
}

cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t object, unsigned,
                                      unsigned) {
  objects[reinterpret_cast<unsigned long long>(graph)].push_back(reinterpret_cast<Object*>(object));
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "another error";
}

// What the test calls.
void runtime_capture(int stream, unsigned long long id) { captures[stream_of(stream)] = id; }
void runtime_end_capture(int stream) { captures.erase(stream_of(stream)); }
void runtime_destroy_graph(unsigned long long id) {
  for (Object* object : objects[id]) {
    object->destroy(object->pointer);
    delete object;
  }
  objects.erase(id);
}
void runtime_run_out_of_memory(int is_out) { is_out_of_memory = is_out != 0; }
int runtime_clears_at_once() { return clears_at_once; }
int runtime_clears_of_graphs() { return clears_of_graphs; }
int runtime_is_strict_again() { return thread_mode == cudaStreamCaptureModeGlobal; }

// Null after an error.
int32_t* runtime_counters(int device, int stream, int64_t count) {
  try {
    return marlin::cuda::counters_of(device, stream_of(stream), count);
  } catch (const std::exception& error) {
    last_error = error.what();
    return nullptr;
  }
}
const char* runtime_last_error() { return last_error.c_str(); }

}  // extern "C"
