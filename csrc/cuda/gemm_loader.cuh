// The copies of the gemm kernel, from global to shared memory.
#pragma once

#include "gemm_shape.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

// Starts the copies of one tile of the stripe after the other. All addresses of a tile follow from
// those of the column's first one and `k_`, by one instruction each. Activations beyond the last
// row of K become zero: a copy of no bytes writes zeros and reads nothing. What else lies beyond an
// edge is read from inside it, because nobody writes what comes of it.
template <class S>
class Loader {
  using Scalar = typename S::Scalar;

 public:
  __device__ Loader(const GemmArguments& g, int first, uint32_t shared)
      : g_(g), policy_(g.tiles_m == 1 ? createpolicy_evict_first() : createpolicy_evict_normal()) {
    const int lane = lane_of_thread();
    const int r = threadIdx.x / kRowThreads;
    const int chunk = threadIdx.x % kRowThreads;
    weights_to_ = keep(shared + block_of_warp<S>() * S::kSliceBytes + share() * kCopiedBytes +
                       lane * kChunkBytes);
    activations_to_ = keep(shared + S::kActivationsAt + r * S::kRowPitch + chunk * kChunkBytes);
    if constexpr (S::kIsGrouped) {
      const int part = lane / kScaleChunks;
      const int chunk = first_scale_chunk();
      scales_to_ = keep(shared + S::kScalesAt + (part * kTileChunks + chunk) * kChunkBytes);
      zeros_to_ = keep(shared + S::kZerosAt + part * S::kZeroPitch + chunk * 4);
      scale_lane_ = keep(share() * 32 + lane);
      scale_row_bytes_ = keep(g.n * 2);
    }
    enter(first);
  }

  // Goes to a tile of the stripe, or to its end: the first tile of those that `start` copies.
  __device__ void enter(int tile) {
    const int end_of_stripe = cuda::end_of_stripe(g_);
    if (tile >= end_of_stripe) {  // tiles follow that nobody asks for: nothing is read for them
      k_ = k_end_of_weights_ = 0;
#pragma unroll
      for (int& k_end : k_end_of_activations_) k_end = 0;
      end_ = kNever;
      scale_lane_ = kNever;
      return;
    }
    const Column column = Column::of(g_, tile / g_.tiles_k);
    k_ = tile % g_.tiles_k;
    end_ = min(g_.tiles_k, k_ + end_of_stripe - tile);
    k_end_of_weights_ = g_.tiles_k;
    enter_weights(column);
    enter_activations(column);
    if constexpr (S::kIsGrouped) enter_scales(column);
  }

  // The tile of the column that it starts next, and how many it starts before it must enter one.
  __device__ int at() const { return k_; }
  __device__ int left() const { return end_ - k_; }

  // Starts the copies of a slice of a tile into the stage at byte `stage`, and after the last one
  // goes to the tile below.
  __device__ void start(uint32_t stage, int slice) {
    start_weights(stage, slice);
    start_activations(stage, slice);
    if (S::kIsGrouped && S::begins_groups(slice)) start_scales(stage, slice);
    if (slice == S::kSlices - 1) k_ = next(k_);
  }

 private:
  // Threads side by side along a row, eight of those at least one below the other: fewer rows of a
  // thread are fewer addresses.
  static constexpr int kRowThreads =
      S::kThreads == 64 || !S::kScalesSums || S::kHasZeros ? 8 : kRowChunks;
  static constexpr int kRowParts = kRowChunks / kRowThreads;
  static constexpr int kSliceParts = kRowParts / S::kSlices;
  static constexpr int kRowsAtATime = S::kThreads / kRowThreads;
  static constexpr int kCopiedRows = S::kRows / kRowsAtATime;  // by one thread
  static_assert((S::kRows - 1) * kMaxStride < int64_t{1} << 31, "offsets of rows have 32 bits");
  // Of a slice of a block, by one of the warps that share it.
  static constexpr int kCopiedBytes = S::kSliceBytes / (S::kRowWarps * S::kBlockWarps);
  // Immediate offsets of copies reach 2 KiB to both sides of an address.
  static constexpr int kReach = kCopiedBytes < 4096 ? kCopiedBytes : 4096;
  static constexpr bool kReachesSlices = kReach + (S::kSlices - 1) * S::kSliceBytes <= 4096;
  static constexpr int kSliceReaches = kCopiedBytes / kReach;
  static constexpr int kReaches = kReachesSlices ? kSliceReaches : S::kSlices * kSliceReaches;
  static constexpr int kSpan = kReach + (kReachesSlices ? (S::kSlices - 1) * S::kSliceBytes : 0);
  static constexpr int kMiddle = kSpan / 2;
  static constexpr int kTileChunks = kTileColumns / 8;                 // scales of a group,
  static constexpr int kScaleChunks = S::kBlocks * kBlockColumns / 8;  // and of a warp's blocks
  static constexpr int kScaleParts = 32 / kScaleChunks;  // groups that a warp copies at once
  static constexpr int kNever = 0x7FFFFFFF;
  static constexpr int kScaleCopies =
      S::kGroups > kScaleParts ? S::kGroups / kScaleParts : S::kGroups > 0;

  // Which of the warps that share blocks of weights this is. The first one copies their scales.
  static __device__ int share() { return row_warp<S>() * S::kBlockWarps + warp_of_block<S>(); }
  // Of a group, what this lane copies, in the tile.
  static __device__ int first_scale_chunk() {
    return block_of_warp<S>() * (kBlockColumns / 8) + lane_of_thread() % kScaleChunks;
  }

  __device__ void enter_weights(const Column& column) {
    const int64_t stride = static_cast<int64_t>(g_.tiles_k) * S::kBlockBytes;
    const int last = (g_.n - 1) / kBlockColumns;
    const int first = min(column.n * (kTileColumns / kBlockColumns) + block_of_warp<S>(), last);
    weights_ = reinterpret_cast<const char*>(g_.weights) + first * stride + share() * kCopiedBytes +
               kMiddle + lane_of_thread() * kChunkBytes;
#pragma unroll
    for (int b = 0; b < S::kBlocks; ++b) {
#pragma unroll
      for (int r = 0; r < kReaches; ++r) {
        const int at = r / kSliceReaches * S::kSliceBytes + r % kSliceReaches * kReach;
        const int64_t further = (min(first + b, last) - first) * stride + at;
        weight_chunks_[b][r] = static_cast<int32_t>(further / kChunkBytes);
      }
    }
  }

  __device__ void enter_activations(const Column& column) {
    const int first_row = column.m * S::kRows;
    const int last = g_.m - 1 - first_row;
    const int row = min(static_cast<int>(threadIdx.x) / kRowThreads, last);
    const int first = threadIdx.x % kRowThreads * 8;  // of its columns
    a_ = static_cast<const Scalar*>(g_.a) + (first_row + row) * g_.a_stride + first;
#pragma unroll
    for (int i = 1; i < kCopiedRows; ++i) {
      const int below = min(row + i * kRowsAtATime, last) - row;
      row_offsets_[i] = below * static_cast<int32_t>(g_.a_stride);
    }
#pragma unroll
    for (int part = 0; part < kRowParts; ++part) {
      const int left = g_.k - first - part * kRowThreads * 8;
      k_end_of_activations_[part] = (left + kTileDepth - 1) / kTileDepth;
    }
  }

  __device__ void enter_scales(const Column& column) {
    const int eight = column.n * kTileChunks + first_scale_chunk();
    const int existing = min(eight, g_.n / 8 - 1);
    scales_ = static_cast<const char*>(g_.scales) + existing * kChunkBytes;
    zeros_ = reinterpret_cast<const char*>(g_.zeros) + existing * 4;
  }

  __device__ void start_weights(uint32_t stage, int slice) {
    const int bytes = k_ < k_end_of_weights_ ? kChunkBytes : 0;
    const char* first = mad_wide(weights_, k_, S::kBlockBytes);
#pragma unroll
    for (int b = 0; b < S::kBlocks; ++b) {
#pragma unroll
      for (int r = 0; r < kSliceReaches; ++r) {
        const int reach = kReachesSlices ? r : slice * kSliceReaches + r;
        const bool is_first = b == 0 && reach == 0;
        const char* middle =
            is_first ? first : mad_wide(first, weight_chunks_[b][reach], kChunkBytes);
        const int from = (kReachesSlices ? slice * S::kSliceBytes : 0) - kMiddle;
#pragma unroll
        for (int at = 0; at < kReach; at += 32 * kChunkBytes) {
          cp_async_with_policy(weights_to_ + stage + b * S::kSliceBytes + r * kReach + at,
                               middle + (from + at), bytes, policy_);
        }
      }
    }
  }

  __device__ void start_activations(uint32_t stage, int slice) {
    const Scalar* first_row = mad_wide(a_, k_, kRowBytes);
#pragma unroll
    for (int i = 0; i < kCopiedRows; ++i) {
      const Scalar* row = i == 0 ? first_row : mad_wide(first_row, row_offsets_[i], sizeof(Scalar));
#pragma unroll
      for (int p = 0; p < kSliceParts; ++p) {
        const int part = slice * kSliceParts + p;
        const int bytes = k_ < k_end_of_activations_[part] ? kChunkBytes : 0;
        const int to = i * kRowsAtATime * S::kRowPitch + p * kRowThreads * kChunkBytes;
        cp_async(activations_to_ + stage + to, row + part * kRowThreads * 8, bytes);
      }
    }
  }

  // Of a group beyond the last one the last is taken: its activations are zero.
  __device__ void start_scales(uint32_t stage, int slice) {
    constexpr int kLanes = kScaleChunks * (S::kGroups < kScaleParts ? S::kGroups : kScaleParts);
    constexpr int kUnits = kTileDepth / kGroupUnit;
    constexpr int kGroupUnits = S::kGroupRows / kGroupUnit;
    const int first = slice * S::kSliceSteps * kStepRows / kGroupUnit;
#pragma unroll
    for (int i = 0; i < kScaleCopies; ++i) {
      const int part = S::kGroups > 1 ? i * kScaleParts + lane_of_thread() / kScaleChunks : 0;
      uint32_t group = __umulhi(k_ * kUnits + first + part * kGroupUnits, g_.group_magic);
      if constexpr (S::kGroupSteps < kTileSteps)
        group = min(group, static_cast<uint32_t>(g_.groups - 1));
      const char* scales = mad_wide(scales_, group, scale_row_bytes_);
      constexpr int kScalesBetween = kScaleParts * kTileChunks * kChunkBytes;
      constexpr int kZerosBetween = kScaleParts * S::kZeroPitch;
      const char* zeros = S::kHasZeros ? mad_wide(zeros_, group, scale_row_bytes_ / 4) : nullptr;
      if (scale_lane_ < kLanes) {
        cp_async(scales_to_ + stage + i * kScalesBetween, scales);
        if constexpr (S::kHasZeros) cp_async_word(zeros_to_ + stage + i * kZerosBetween, zeros);
      }
    }
  }

  const GemmArguments& g_;
  int k_;                                // the tile that is next, in its column,
  int end_;                              // and where the stripe leaves the column
  int k_end_of_weights_;                 // no tile from here on has any,
  int k_end_of_activations_[kRowParts];  // nor this thread's chunk of a row
  uint64_t policy_;
  const char* weights_;                          // of the column's first tile, and of this lane
  int32_t weight_chunks_[S::kBlocks][kReaches];  // from there, in chunks
  const Scalar* a_;
  int32_t row_offsets_[kCopiedRows];  // from the first row that this thread copies
  const char* scales_;
  const char* zeros_;
  int32_t scale_lane_;  // of the warps that copy them
  int32_t scale_row_bytes_;
  uint32_t weights_to_, activations_to_, scales_to_, zeros_to_;  // in the first stage
};

}  // namespace marlin::cuda
