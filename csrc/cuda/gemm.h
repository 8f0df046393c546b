// The product of activations and packed weights on a GPU, and its launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../common/weights.h"
#include "gemm_plan.h"

namespace marlin::cuda {

inline constexpr int kGroupUnit = 16;  // rows of K, see group_magic
// Elements from one row of the activations to the next: in a tile, rows lie less than 2^31 apart.
inline constexpr int64_t kMaxStride = int64_t{1} << 24;

// The argument of every kernel, passed by value.
struct GemmArguments {
  const void* a;            // [m][k] of 16 bits, rows a_stride apart; both multiples of 8
  const uint32_t* weights;  // see layout.h
  const void* scales;       // [groups][n] in the type of `a`
  const uint32_t* zeros;    // [groups][n / 8], or null
  const void* bias;         // [n] in the type of `a`, or null
  void* out;                // [m][n]
  float* partial;           // Launch::partial_bytes, of any content
  int32_t* counters;        // Launch::counter_count, all zero before and after
  int64_t a_stride;         // below kMaxStride, if there are several rows
  int32_t m, n, k;
  int32_t groups;
  // ceil(2^32 / (group_size / 16)): row / group_size is the upper half of its product with row /
  // 16, while k < 2^20.
  uint32_t group_magic;
  int32_t tiles_k, tiles_m;
  int32_t tiles;  // in all
  int32_t tiles_of_block;
  int32_t last_start;  // the first tile of the last block's stripe
};

// What the plan and the weights say of the arguments; the pointers to activations, bias, result and
// workspace are the caller's to set.
GemmArguments arguments_of(const Launch& launch, int64_t m, const Weights& weights);

cudaError_t launch_gemm(const Launch& launch, const GemmArguments& arguments, cudaStream_t stream);

}  // namespace marlin::cuda
