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

constexpr int kSteps = 4;
constexpr int kRows = kSteps * kStepRows;
constexpr int kThreads = kSteps * 32;
constexpr int kStoreBytes = 16;

// Words from a step to the next in shared memory. Four more than there are, so that the threads of
// a warp read different banks: with results of 16 bits, those are 4 steps (4 banks apart), 2 halves
// of their rows (2 banks) and 4 words of a lane (1 and 16 banks). With 32 bits two threads meet in
// a bank.
template <int bits>
constexpr int kPitch = parts_of(bits) * kPartWords + 4;

__device__ float to_float(__half value) { return __half2float(value); }
__device__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ float to_float(float value) { return value; }

__device__ void round_to(__half& out, float value) { out = __float2half_rn(value); }
__device__ void round_to(__nv_bfloat16& out, float value) { out = __float2bfloat16_rn(value); }
__device__ void round_to(float& out, float value) { out = value; }

// Copies the steps of a tile that exist, with all codes as they are.
template <int bits>
__device__ void fetch_to_shared(const Weights& weights, int64_t tile, uint32_t* codes) {
  const int64_t step = tile * kSteps + threadIdx.x / 32;
  if (step >= weights.k / kStepRows) return;
#pragma unroll
  for (int part = 0; part < parts_of(bits); ++part) {
    const int place = part * kPartWords + threadIdx.x % 32 * kLaneWords;
    const int64_t start = (blockIdx.x * packed_steps(weights.k) + step) * parts_of(bits);
    uint4 words = load_chunk(weights.words + start * kPartWords + place);
    const uint32_t complements = complement_mask(step);
    words.x ^= complements;
    words.y ^= complements;
    words.z ^= complements;
    words.w ^= complements;
    reinterpret_cast<uint4&>(codes[threadIdx.x / 32 * kPitch<bits> + place]) = words;
  }
}

// The zero point of a column. Only codes of 4 bits have any but the middle.
template <int bits>
__device__ float zero_of(const Weights& weights, int64_t index) {
  if (bits != 4 || weights.zeros == nullptr) return static_cast<float>(1 << (bits - 1));
  return static_cast<float>((weights.zeros[index / 8] >> (4 * (index % 8))) & 15u);
}

// Writes `kRun` rows of the columns whose codes are in the same words, two columns apart.
template <typename Scalar, int bits, int kRun>
__device__ void write_run(const Weights& weights, int64_t row, int64_t first_column,
                          const uint32_t (&words)[kRun / 2], Scalar* out) {
  const auto* scales = static_cast<const Scalar*>(weights.scales);
  const int64_t group_start = row / weights.group_size * weights.n;
#pragma unroll
  for (int i = 0; i < 16 / bits; ++i) {
    const int64_t column = first_column + 2 * i;
    if (column >= weights.n) break;
    const float scale = to_float(scales[group_start + column]);
    const float zero = zero_of<bits>(weights, group_start + column);
    alignas(kStoreBytes) Scalar values[kRun];
#pragma unroll
    for (int r = 0; r < kRun; ++r) {
      const uint32_t code = words[r / 2] >> (bits * i + 16 * (r % 2)) & ((1u << bits) - 1);
      round_to(values[r], (static_cast<float>(code) - zero) * scale);
    }
    // Aligned: rows have a multiple of 32 elements, runs 16 bytes.
    store_chunk(out + column * weights.k + row, reinterpret_cast<const uint4&>(values[0]));
  }
}

// Scalar: element of the scales [k / group_size][n] and of out [n][k].
template <typename Scalar, int bits>
__global__ void __launch_bounds__(kThreads) dequantize(Weights weights, Scalar* out) {
  __shared__ __align__(16) uint32_t codes[kSteps * kPitch<bits>];
  constexpr int kRun = kStoreBytes / sizeof(Scalar);
  constexpr int kRuns = kRows / kRun;
  constexpr int kRunColumns = kBlockColumns / (16 / bits);  // that lie in words of their own
  const int64_t tiles = (weights.k + kRows - 1) / kRows;
  for (int64_t tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
    fetch_to_shared<bits>(weights, tile, codes);
    __syncthreads();
#pragma unroll
    for (int i = threadIdx.x; i < kRuns * kRunColumns; i += kThreads) {
      const int first = i % kRuns * kRun;  // row in the tile
      const int64_t row = tile * kRows + first;
      if (row >= weights.k) continue;
      // See layout.h: part c, lane 4 q + t, word b + 2 a.
      const int b = i / kRuns % 2;
      const int q = i / kRuns / 2 % 8;
      const int c = i / kRuns / 16;
      const int a = first % kStepRows / 8;
      const int t = first % 8 / 2;
      const uint32_t* from = codes + first / kStepRows * kPitch<bits> + c * kPartWords +
                             (4 * q + t) * kLaneWords + b + 2 * a;
      uint32_t words[kRun / 2];
#pragma unroll
      for (int w = 0; w < kRun / 2; ++w) words[w] = from[w * kLaneWords];
      const int column = 8 * q + 4 * c + b;
      write_run<Scalar, bits, kRun>(
          weights, row, static_cast<int64_t>(blockIdx.x) * kBlockColumns + column, words, out);
    }
    __syncthreads();  // all have read before the next tile is fetched
  }
}

template <typename Scalar>
cudaError_t launch(const Weights& weights, void* out, cudaStream_t stream) {
  const dim3 grid = grid_of(ceil_div(weights.n, kBlockColumns), ceil_div(weights.k, kRows));
  if (weights.bits == 4) {
    dequantize<Scalar, 4><<<grid, kThreads, 0, stream>>>(weights, static_cast<Scalar*>(out));
  } else {
    dequantize<Scalar, 8><<<grid, kThreads, 0, stream>>>(weights, static_cast<Scalar*>(out));
  }
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
