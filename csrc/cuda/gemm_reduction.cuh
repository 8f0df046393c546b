// Columns of tiles that several blocks share, in the gemm kernel.
//
// Every block leaves its sums in a place of its own, and counts itself. Those that the column is
// the last one for then share the work of adding up what all have left: a warp claims a part, which
// is a tile of rows by a block of columns, of those that the same warps of the blocks have left,
// adds it in the order of the stripes, and writes the result. So it is the same in every run,
// whoever adds.
//
// The block with the first tiles waits for all others, which were started before it
// (stripe_of_block), and takes part until nothing is unclaimed. The others wait a while only: where
// not all blocks find a place at a time, the first one may need theirs. The last one to leave sets
// the counters to zero.
#pragma once

#include "gemm_lane.cuh"
#include "gemm_shape.cuh"
#include "gemm_sums.cuh"
#include "ptx.cuh"

namespace marlin::cuda {

template <class S>
class SharedColumn {
  using L = Lane<S>;

 public:
  // Column `index` of tiles, and this block's stripe in it.
  __device__ SharedColumn(const GemmArguments& g, int index)
      : g_(g), stripe_(stripe_of_block()), first_(index * g.tiles_k / g.tiles_of_block) {
    const int end = (index + 1) * g.tiles_k;
    const int last = (end - 1) / g.tiles_of_block;
    blocks_ = last - first_ + 1;
    const bool goes_on = min((last + 1) * g.tiles_of_block, g.tiles) > end;
    adders_ = goes_on ? blocks_ - 1 : blocks_;
  }

  // Whether it is this block's alone.
  __device__ bool is_whole() const { return blocks_ == 1; }

  // Where this block leaves its sums (leave_sums). A stripe has two places: it may begin with later
  // tiles of one column, and end with the first ones of another.
  __device__ float4* place() const { return place_of(stripe_ - first_); }

  // What the block has left is there for all. All of its threads come here.
  __device__ void arrive() const {
    __syncthreads();  // what all have written, thread 0 releases
    if (threadIdx.x == 0) red_add_release(counter(kArrived), 1);
  }

  // Adds up, unless the block goes on to another column. Sums of the kind p are to be multiplied by
  // unit(p). All threads of the block come here.
  template <typename Unit>
  __device__ void add_up(const Column& column, const Unit& unit) const {
    const bool adds = stripe_ - first_ < adders_;
    if (adds && all_have_arrived()) {
      for (int part = claim(); part < kParts; part = claim()) write_part(column, part, unit);
    }
    __syncthreads();  // what all have claimed, thread 0 may take back
    if (adds && threadIdx.x == 0) leave();
  }

 private:
  enum Counter { kArrived, kLeft, kClaimed };  // one of the last for each warp
  static constexpr int kParts = S::kRowTiles * S::kBlocks;
  static constexpr int kPieces = S::kKinds * S::kHalves;  // of a part
  // Of those that don't wait for ever: some 40 us. A number that stands nowhere else in the kernel.
  static constexpr int kPolls = 61;
  static constexpr int kWarps = S::kThreads / 32;
  static_assert(kClaimed + kWarps <= kCounters);

  __device__ int32_t* counter(int which) const { return g_.counters + first_ * kCounters + which; }

  // Of the block `i` of those of the column.
  __device__ float4* place_of(int i) const {
    const int64_t place = 2 * (first_ + i) + (i == 0 ? 1 : 0);
    return reinterpret_cast<float4*>(g_.partial) + place * (S::kRows * kTileColumns / 4) +
           threadIdx.x;
  }

  __device__ bool all_have_arrived() const {
    int32_t arrived = 0;
    if (lane_of_thread() == 0) {
      for (int poll = 0; arrived < blocks_ && (poll < kPolls || stripe_ == first_); ++poll) {
        arrived = ld_acquire(counter(kArrived));
      }
    }
    __syncwarp();  // what the first lane has acquired, all have
    return __shfl_sync(kAllLanes, arrived, 0) >= blocks_;
  }

  // A part that no other warp adds up.
  __device__ int claim() const {
    int part = 0;
    if (lane_of_thread() == 0) part = atom_add(counter(kClaimed + threadIdx.x / 32), 1);
    return __shfl_sync(kAllLanes, part, 0);
  }

  template <typename Unit>
  __device__ void write_part(const Column& column, int part, const Unit& unit) const {
    const int t = part / S::kBlocks;
    const int b = part % S::kBlocks;
    float sums[S::kKinds][S::kHalves][4] = {};
#pragma unroll 2
    for (int i = 0; i < blocks_; ++i) {
      const float4* left = place_of(i) + part * kPieces * S::kThreads;
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) {
        const float4 theirs = __ldcg(left + piece * S::kThreads);
        float (&four)[4] = sums[piece / S::kHalves][piece % S::kHalves];
        four[0] += theirs.x;
        four[1] += theirs.y;
        four[2] += theirs.z;
        four[3] += theirs.w;
      }
    }
#pragma unroll
    for (int e = 0; e < S::kRuns; ++e) {
      const int n = column.n * kTileColumns + L::column_of(b, e);
      if (n >= g_.n) continue;
      float bias[S::kRun];
      load_bias<S>(g_, n, bias);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        store_run<S>(g_, column, t, r, n, bias, unit,
                     [&](int q) { return sums[q / 2][L::half_of(q)][L::place_of(e, r, q)]; });
      }
    }
  }

  // For the next launch, which begins when this one has ended.
  __device__ void leave() const {
    if (atom_add_acq_rel(counter(kLeft), 1) != adders_ - 1) return;
#pragma unroll
    for (int which = 0; which < kClaimed + kWarps; ++which) *counter(which) = 0;
  }

  const GemmArguments& g_;
  int stripe_;
  int first_;   // stripe of the column
  int blocks_;  // that share it,
  int adders_;  // and those of them that add up: all but one that goes on to another column
};

}  // namespace marlin::cuda
