// Packed weights to floating point, in tiles of 64 columns and 64 rows of K. Codes lie along the
// columns in memory and results along K, so a tile goes through shared memory: 16 packed bytes per
// thread into it, 16 bytes of results per thread and column out of it.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../common/math.h"
#include "dequantize.h"
#include "grid.h"
#include "layout.cuh"

namespace marlin::cuda {
namespace {

constexpr int kTileSteps = 4;
constexpr int kTileRows = kTileSteps * kStepRows;
constexpr int kThreads = kTileSteps * 32;  // each fetches 16 bytes
constexpr int kStoreBytes = 16;
constexpr int kWordColumns = 4;                       // pairs of codes in a word
constexpr int kPlaces = kWarpColumns / kWordColumns;  // columns of different words

// Words from a step to the next in shared memory. Four more than there are, so that the threads of
// a warp read different banks: with results of 16 bits, those are 4 steps (4 banks apart), 2 halves
// of their rows (2 banks) and 4 places (1 and 16 banks). With 32 bits two threads meet in a bank.
constexpr int kPitch = kStepWords + 4;

__device__ float to_float(__half value) { return __half2float(value); }
__device__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ float to_float(float value) { return value; }

__device__ void round_to(__half& out, float value) { out = __float2half_rn(value); }
__device__ void round_to(__nv_bfloat16& out, float value) { out = __float2bfloat16_rn(value); }
__device__ void round_to(float& out, float value) { out = value; }

// Copies the steps of a tile that exist, with all codes as they are.
__device__ void fetch_to_shared(const Weights& weights, int64_t tile, uint32_t* codes) {
  const int64_t steps = weights.k / kStepRows;
  const int64_t step = tile * kTileSteps + threadIdx.x / 32;
  if (step >= steps) return;
  const int lane_start = threadIdx.x % 32 * kLaneWords;
  const uint32_t* from = weights.words + (blockIdx.x * steps + step) * kStepWords + lane_start;
  // Aligned to 16 bytes on both sides: four words per lane.
  uint4 words = reinterpret_cast<const uint4&>(*from);
  const uint32_t complements = complement_mask(step);
  words.x ^= complements;
  words.y ^= complements;
  words.z ^= complements;
  words.w ^= complements;
  reinterpret_cast<uint4&>(codes[threadIdx.x / 32 * kPitch + lane_start]) = words;
}

// Writes `kRun` rows of the four columns whose codes are in the same words: column 16 p + place.
template <typename Scalar, int kRun>
__device__ void write_run(const Weights& weights, int64_t row, int place,
                          const uint32_t (&words)[kRun / 2], Scalar* out) {
  const auto* scales = static_cast<const Scalar*>(weights.scales);
  const int64_t group_start = row / weights.group_size * weights.n;
#pragma unroll
  for (int p = 0; p < kWordColumns; ++p) {
    const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarpColumns + kPlaces * p + place;
    if (column >= weights.n) break;
    const float scale = to_float(scales[group_start + column]);
    float zero = 8.0f;
    if (weights.zeros != nullptr) {
      const uint32_t eight = weights.zeros[(group_start + column) / 8];
      zero = static_cast<float>((eight >> (4 * (column % 8))) & 15u);
    }
    alignas(kStoreBytes) Scalar values[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const float code = static_cast<float>((words[i / 2] >> (4 * p + 16 * (i % 2))) & 15u);
      round_to(values[i], (code - zero) * scale);
    }
    // Aligned: rows have a multiple of 32 elements, runs 16 bytes.
    store_chunk(out + column * weights.k + row, reinterpret_cast<const uint4&>(values[0]));
  }
}

// Scalar: element of the scales [k / group_size][n] and of out [n][k].
template <typename Scalar>
__global__ void __launch_bounds__(kThreads) dequantize(Weights weights, Scalar* out) {
  __shared__ __align__(16) uint32_t codes[kTileSteps * kPitch];
  constexpr int kRun = kStoreBytes / sizeof(Scalar);
  constexpr int kRuns = kTileRows / kRun;
  const int64_t tiles = (weights.k + kTileRows - 1) / kTileRows;
  for (int64_t tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
    fetch_to_shared(weights, tile, codes);
    __syncthreads();
#pragma unroll
    for (int i = threadIdx.x; i < kRuns * kPlaces; i += kThreads) {
      const int first = i % kRuns * kRun;  // row in the tile
      const int64_t row = tile * kTileRows + first;
      if (row >= weights.k) continue;
      // Lane 4 q + t, word b + 2 a: column 8 b + q, rows 8 a + 2 t.
      const int q = i / kRuns / 2;
      const int b = i / kRuns % 2;
      const int a = first % kStepRows / 8;
      const int t = first % 8 / 2;
      const uint32_t* from =
          codes + first / kStepRows * kPitch + (4 * q + t) * kLaneWords + b + 2 * a;
      uint32_t words[kRun / 2];
#pragma unroll
      for (int w = 0; w < kRun / 2; ++w) words[w] = from[w * kLaneWords];
      write_run<Scalar, kRun>(weights, row, 8 * b + q, words, out);
    }
    __syncthreads();  // all have read before the next tile is fetched
  }
}

template <typename Scalar>
cudaError_t launch(const Weights& weights, void* out, cudaStream_t stream) {
  const dim3 grid = grid_of(ceil_div(weights.n, kWarpColumns), ceil_div(weights.k, kTileRows));
  dequantize<<<grid, kThreads, 0, stream>>>(weights, static_cast<Scalar*>(out));
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_dequantize(const Weights& weights, void* out, cudaStream_t stream) {
  switch (weights.scale_dtype) {
    case Dtype::kFloat16:
      return launch<__half>(weights, out, stream);
    case Dtype::kBFloat16:
      return launch<__nv_bfloat16>(weights, out, stream);
    case Dtype::kFloat32:
      break;
  }
  return launch<float>(weights, out, stream);
}

}  // namespace marlin::cuda
