// Packed weights to floating point: one thread per word, eight rows of one column.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "dequantize.h"

namespace marlin::cuda {
namespace {

constexpr int64_t kWordRows = 8;                            // rows of K in one word of 4-bit codes
constexpr int kThreadsX = static_cast<int>(kBlockColumns);  // lanes read neighbouring words
constexpr int kThreadsY = 4;                                // 256 threads in all
constexpr unsigned kMaxGridY = 65535;                       // a limit of the hardware

__device__ float to_float(__half value) { return __half2float(value); }
__device__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ float to_float(float value) { return value; }

__device__ void store(__half* out, float value) { *out = __float2half_rn(value); }
__device__ void store(__nv_bfloat16* out, float value) { *out = __float2bfloat16_rn(value); }
__device__ void store(float* out, float value) { *out = value; }

// Scalar: element of the scales [k / group_size][n] and of out [n][k].
template <typename Scalar>
__global__ void dequantize(Weights weights, Scalar* out) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kBlockColumns + threadIdx.x;
  if (column >= weights.n) return;
  const int64_t word_rows = weights.k / kWordRows;
  const uint32_t* words = weights.words + blockIdx.x * word_rows * kBlockColumns + threadIdx.x;
  const Scalar* scales = static_cast<const Scalar*>(weights.scales);

  const int64_t stride = static_cast<int64_t>(gridDim.y) * kThreadsY;
  for (int64_t r = blockIdx.y * kThreadsY + threadIdx.y; r < word_rows; r += stride) {
    const int64_t group = r * kWordRows / weights.group_size;
    const int64_t at =
        group * weights.scale_group_stride + blockIdx.x * weights.scale_block_stride + threadIdx.x;
    const float scale = to_float(scales[at]);
    float zero = 8.0f;
    if (weights.zeros != nullptr) {
      const uint32_t packed = weights.zeros[at / 8];
      zero = static_cast<float>((packed >> (4 * (column % 8))) & 15u);
    }
    const uint32_t word = words[r * kBlockColumns];
    Scalar* row = out + column * weights.k + r * kWordRows;
    for (int i = 0; i < kWordRows; ++i) {
      const float code = static_cast<float>((word >> (4 * (i / 2) + 16 * (i % 2))) & 15u);
      store(row + i, (code - zero) * scale);
    }
  }
}

template <typename Scalar>
cudaError_t launch(const Weights& weights, void* out, cudaStream_t stream) {
  const int64_t tiles = (weights.k / kWordRows + kThreadsY - 1) / kThreadsY;
  const dim3 grid(static_cast<unsigned>((weights.n + kBlockColumns - 1) / kBlockColumns),
                  tiles < kMaxGridY ? static_cast<unsigned>(tiles) : kMaxGridY);
  dequantize<<<grid, dim3(kThreadsX, kThreadsY), 0, stream>>>(weights, static_cast<Scalar*>(out));
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
