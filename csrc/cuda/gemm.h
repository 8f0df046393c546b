// The product of activations and packed weights on a GPU, and its launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../common/weights.h"
#include "gemm_plan.h"

namespace marlin::cuda {

inline constexpr int kGroupUnit = 16;  // rows of K, see group_magic

// The argument of every kernel, passed by value.
struct GemmArguments {
  const void* a;            // [m][k] of 16 bits, rows a_stride < 2^25 apart; both multiples of 8
  const uint32_t* weights;  // see layout.h
  const void* scales;       // [groups][n] in the type of `a`
  const uint32_t* zeros;    // [groups][n / 8], or null
  const void* bias;         // [n] in the type of `a`, or null
  void* out;                // [m][n]
  float* partial;           // Launch::partial_bytes, of any content
  int32_t* locks;           // Launch::lock_count
  int64_t a_stride;
  int32_t m, n, k;
  int32_t groups;
  // ceil(2^32 / (group_size / 16)): row / group_size is the upper half of its product with row /
  // 16, while k < 2^20.
  uint32_t group_magic;
  int32_t tiles_k, tiles_n;
  int32_t tiles;  // in all
  int32_t tiles_of_block;

  // The tiles of a block.
  MARLIN_EVERYWHERE int start_of_stripe(int block) const { return block * tiles_of_block; }
  MARLIN_EVERYWHERE int end_of_stripe(int block) const {
    const int end = start_of_stripe(block + 1);
    return end < tiles ? end : tiles;
  }
};

// What the plan and the weights say of the arguments; the pointers to activations, bias, result and
// workspace are the caller's to set.
GemmArguments arguments_of(const Launch& launch, int64_t m, const Weights& weights);

cudaError_t launch_gemm(const Launch& launch, const GemmArguments& arguments, cudaStream_t stream);

}  // namespace marlin::cuda
