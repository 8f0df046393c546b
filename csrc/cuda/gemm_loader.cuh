// The copies of the gemm kernel, from global to shared memory.
#pragma once

#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// Starts the copies of one tile after the other. What lies beyond the last row or column becomes
// zero, and of a copy of no bytes the address is not read; only weights beyond the last column,
// whose results nobody writes, are read from where there are some.
template <class S>
class Loader {
  using Scalar = typename S::Scalar;

 public:
  __device__ Loader(const GemmArguments& g, int tile, uint32_t shared)
      : g_(g), at_(Place::of(g, tile)), policy_(createpolicy_evict_first()) {
    const int r = threadIdx.x / kRowChunks;
    const int chunk = threadIdx.x % kRowChunks;
    const int slot = (warp_of_columns() * kSteps + first_step()) * 32 + threadIdx.x % 32;
    weights_to_ = keep(shared + slot * kChunkBytes);
    // Chunks of a row change places by the row's number, so that the eight rows that ldmatrix reads
    // at a time lie in different banks.
    activations_to_ =
        keep(shared + S::kActivationsAt + (r * kRowChunks + (chunk ^ (r % 8))) * kChunkBytes);
    scales_to_ = keep(shared + S::kScalesAt + threadIdx.x * kChunkBytes);
    zeros_to_ = keep(shared + S::kZerosAt + threadIdx.x * 4);
    magic_ = keep(g.group_magic);
    enter_column();
  }

  // Starts the copies of the next tile into the stage at byte `stage`.
  __device__ void start(uint32_t stage) {
    start_weights(stage);
    start_activations(stage);
    if constexpr (S::kScalesTiles) start_scales(stage);
    left_ -= kTileDepth;
    if (left_ > 0) {
      ++at_.k;
      weights_ += kSteps * kStepWords;
#pragma unroll
      for (int i = 0; i < kCopies; ++i) a_[i] += kTileDepth;
      scale_row_ += kTileDepth / kGroupUnit;
    } else {
      at_.k = g_.tiles_k - 1;
      at_.advance(g_);
      enter_column();
    }
  }

 private:
  static constexpr int kRowsAtATime = S::kThreads / kRowChunks;
  static constexpr int kCopies = S::kRows / kRowsAtATime;
  static constexpr int kScaleChunks = S::kColumns / 8;
  static constexpr int kCopiedSteps = kSteps / S::kRowWarps;  // by one warp
  static constexpr int kNever = 0x7FFFFFFF;                   // more rows of K than there are

  __device__ static int first_step() { return threadIdx.x / 32 / kWarps * kCopiedSteps; }

  __device__ void enter_column() {
    left_ = g_.k - at_.k * kTileDepth;
    // The middle of what is copied: immediate offsets of copies reach 2 KiB to both sides.
    const int block = min(at_.n * kWarps + warp_of_columns(), (g_.n - 1) / kWarpColumns);
    const int64_t step =
        static_cast<int64_t>(block) * (g_.k / kStepRows) + at_.k * kSteps + first_step();
    weights_ = g_.weights + (step + kCopiedSteps / 2) * kStepWords + threadIdx.x % 32 * kLaneWords;

    const int chunk = threadIdx.x % kRowChunks;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = at_.m * S::kRows + threadIdx.x / kRowChunks + i * kRowsAtATime;
      a_least_[i] = row < g_.m ? chunk * 8 : kNever;
      a_[i] = static_cast<const Scalar*>(g_.a) + row * g_.a_stride + at_.k * kTileDepth + chunk * 8;
    }

    const int part = threadIdx.x / kScaleChunks * S::kGroupRows;
    const int column = at_.n * S::kColumns + threadIdx.x % kScaleChunks * 8;
    scale_least_ = column < g_.n ? part : kNever;
    scale_column_ = column;
    scale_row_ = (at_.k * kTileDepth + part) / kGroupUnit;
  }

  __device__ void start_weights(uint32_t stage) {
    const int left = S::kRowWarps == 1 ? left_ : left_ - first_step() * kStepRows;
#pragma unroll
    for (int s = 0; s < kCopiedSteps; ++s) {
      // K is a multiple of two steps.
      const int bytes = left > s / 2 * 2 * kStepRows ? kChunkBytes : 0;
      cp_async_with_policy(weights_to_ + stage + s * 32 * kChunkBytes,
                           weights_ + (s - kCopiedSteps / 2) * kStepWords, bytes, policy_);
    }
  }

  __device__ void start_activations(uint32_t stage) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      cp_async(activations_to_ + stage + i * kRowsAtATime * kRowChunks * kChunkBytes, a_[i],
               left_ > a_least_[i] ? kChunkBytes : 0);
    }
  }

  __device__ void start_scales(uint32_t stage) {
    constexpr int kChunks = S::kGroups * kScaleChunks;
    static_assert(kChunks <= S::kThreads, "one chunk of scales per thread");
    if (kChunks < S::kThreads && threadIdx.x >= kChunks) return;
    const bool is_inside = left_ > scale_least_;
    const uint32_t group = __umulhi(scale_row_, magic_);
    const int64_t at = static_cast<int64_t>(group) * g_.n + scale_column_;
    cp_async(scales_to_ + stage, static_cast<const Scalar*>(g_.scales) + at,
             is_inside ? kChunkBytes : 0);
    if constexpr (S::kHasZeros)
      cp_async_word(zeros_to_ + stage, g_.zeros + at / 8, is_inside ? 4 : 0);
  }

  const GemmArguments& g_;
  Place at_;
  uint64_t policy_;
  int left_;  // rows of K from the tile on
  const uint32_t* weights_;
  const Scalar* a_[kCopies];
  int a_least_[kCopies];  // copied if more rows of K than these are left
  int scale_least_;
  int scale_column_;
  uint32_t scale_row_;  // in units of kGroupUnit
  uint32_t magic_;
  uint32_t weights_to_, activations_to_, scales_to_, zeros_to_;
};

}  // namespace marlin::cuda
