// The plain layout of the codes to the packed one of layout.h and back. A warp converts a step of a
// block at a time. Every access of a warp takes whole sectors of 32 bytes: 16 bytes per lane where
// words are packed, 8 or 16 in a row where they are plain.
//
// 4 bits: lane 4 q + t holds, in word b + 2 a, the rows 2 t and 2 t + 1 of the upper (a = 0) or
// lower plain words of the columns 8 q + 2 p + b, p = 0 .. 3: byte t of four words. So the four
// lanes of q read the columns 8 q + 2 t and the next one, and transpose the 4 x 4 bytes that they
// have together of each.
//
// 8 bits: it holds, in part c, the rows 2 t and 2 t + 1 of eight, half t mod 2 of the plain words
// in row t / 2 + 2 a, of the columns 8 q + 4 c + 2 i + b, i = 0, 1. So it reads the four columns of
// c = t mod 2, and changes the halves that it doesn't need for those that its neighbour doesn't.

#include <type_traits>

#include "../common/math.h"
#include "grid.h"
#include "layout.cuh"
#include "repack.h"

namespace marlin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// Of codes that mean zero, where there are no zero points: 8 or 128.
template <int bits>
constexpr uint32_t kPaddingWord = bits == 4 ? 0x88888888u : 0x80808080u;

// Byte i of lane t becomes byte t of lane i, in each four lanes: first in 2 x 2 bytes, with the
// neighbour, then in 2 x 2 pairs of them.
class Transposer {
 public:
  __device__ explicit Transposer(int lane)
      : singles_(lane % 2 == 0 ? 0x6240u : 0x3715u),
        pairs_(lane / 2 % 2 == 0 ? 0x5410u : 0x3276u) {}

  __device__ uint32_t operator()(uint32_t bytes) const {
    bytes = __byte_perm(bytes, __shfl_xor_sync(kAllLanes, bytes, 1), singles_);
    return __byte_perm(bytes, __shfl_xor_sync(kAllLanes, bytes, 2), pairs_);
  }

 private:
  uint32_t singles_;
  uint32_t pairs_;
};

// Nibbles, from the lowest; both swaps are their own inverses:
//   plain bytes, transposed  0 1 2 3  4 5 6 7   even ones are even rows
//   middle nibbles swapped   0 2 1 3  4 6 5 7
//   then the middle bytes    0 2 4 6  1 3 5 7
__device__ uint32_t swap_middle_nibbles(uint32_t word) {
  const uint32_t change = (word ^ (word >> 4)) & 0x00F000F0u;
  return word ^ change ^ (change << 4);
}
__device__ uint32_t swap_middle_bytes(uint32_t word) { return __byte_perm(word, 0, 0x3120); }

// A step of one lane: plain words as they lie there, [row][column] of each lane's own.
template <int bits>
class Step;

template <>
class Step<4> {
 public:
  static constexpr int kRows = 2;     // of plain words in a step
  static constexpr int kColumns = 2;  // of a lane

  __device__ explicit Step(int lane) : column_(2 * lane), transpose_(lane) {}
  __device__ int column() const { return column_; }
  __device__ int row(int a) const { return a; }

  __device__ void pack(const uint32_t (&plain)[2][2], uint32_t complements, uint4 (&to)[1]) const {
    to[0] = {pack(plain[0][0], complements), pack(plain[0][1], complements),
             pack(plain[1][0], complements), pack(plain[1][1], complements)};
  }
  __device__ void unpack(const uint4 (&packed)[1], uint32_t complements,
                         uint32_t (&to)[2][2]) const {
    to[0][0] = unpack(packed[0].x, complements);
    to[0][1] = unpack(packed[0].y, complements);
    to[1][0] = unpack(packed[0].z, complements);
    to[1][1] = unpack(packed[0].w, complements);
  }

 private:
  __device__ uint32_t pack(uint32_t plain, uint32_t complements) const {
    return swap_middle_bytes(swap_middle_nibbles(transpose_(plain))) ^ complements;
  }
  __device__ uint32_t unpack(uint32_t packed, uint32_t complements) const {
    return transpose_(swap_middle_nibbles(swap_middle_bytes(packed ^ complements)));
  }

  int column_;
  Transposer transpose_;
};

template <>
class Step<8> {
 public:
  static constexpr int kRows = 2;
  static constexpr int kColumns = 4;

  __device__ explicit Step(int lane)
      : lane_(lane), own_(lane % 2 == 0 ? 0x5140u : 0x7362u), other_(own_ ^ 0x2222u) {}
  __device__ int column() const { return lane_ / 4 * 8 + lane_ % 2 * 4; }
  __device__ int row(int a) const { return 2 * a + lane_ / 2 % 2; }

  // Halves of the columns 2 i + b, interleaved: bytes i + 2 e.
  __device__ void pack(const uint32_t (&plain)[2][4], uint32_t complements, uint4 (&to)[2]) const {
    uint32_t mine[4];
    uint32_t theirs[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const uint32_t first = plain[w / 2][w % 2];
      const uint32_t second = plain[w / 2][w % 2 + 2];
      mine[w] = __byte_perm(first, second, own_) ^ complements;
      theirs[w] = exchange(__byte_perm(first, second, other_)) ^ complements;
    }
    const bool is_odd = lane_ % 2 != 0;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const bool is_mine = (c == 1) == is_odd;
      to[c] = {is_mine ? mine[0] : theirs[0], is_mine ? mine[1] : theirs[1],
               is_mine ? mine[2] : theirs[2], is_mine ? mine[3] : theirs[3]};
    }
  }
  __device__ void unpack(const uint4 (&packed)[2], uint32_t complements,
                         uint32_t (&to)[2][4]) const {
    const bool is_odd = lane_ % 2 != 0;
    const uint4 mine = is_odd ? packed[1] : packed[0];
    const uint4 theirs = is_odd ? packed[0] : packed[1];
    const uint32_t kept[4] = {mine.x, mine.y, mine.z, mine.w};
    const uint32_t given[4] = {theirs.x, theirs.y, theirs.z, theirs.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const uint32_t own = kept[w] ^ complements;
      const uint32_t got = exchange(given[w] ^ complements);
      const uint32_t low = is_odd ? got : own;
      const uint32_t high = is_odd ? own : got;
      to[w / 2][w % 2] = __byte_perm(low, high, 0x6420);
      to[w / 2][w % 2 + 2] = __byte_perm(low, high, 0x7531);
    }
  }

 private:
  static __device__ uint32_t exchange(uint32_t word) { return __shfl_xor_sync(kAllLanes, word, 1); }

  int lane_;
  uint32_t own_;    // of two words, the bytes of the half that this lane keeps
  uint32_t other_;  // and of the other one
};

// Plain words of neighbouring columns, in one access.
template <int columns>
using Run = std::conditional_t<columns == 2, uint2, uint4>;

template <int columns>
__device__ void load_run(const uint32_t* from, uint32_t (&to)[columns]) {
  reinterpret_cast<Run<columns>&>(to[0]) = *reinterpret_cast<const Run<columns>*>(from);
}
template <int columns>
__device__ void store_run(const uint32_t (&from)[columns], uint32_t* to) {
  __stcg(reinterpret_cast<Run<columns>*>(to), reinterpret_cast<const Run<columns>&>(from[0]));
}

__device__ int64_t first_step_of_warp() {
  return static_cast<int64_t>(blockIdx.y) * kWarps + threadIdx.y;
}
__device__ int64_t steps_at_a_time() { return static_cast<int64_t>(gridDim.y) * kWarps; }

// The four words of a lane in a part of a step.
template <int bits>
__device__ int64_t packed_at(int64_t steps, int64_t step, int part) {
  return ((blockIdx.x * steps + step) * parts_of(bits) + part) * kPartWords +
         threadIdx.x * kLaneWords;
}

template <int bits>
__global__ void __launch_bounds__(kWarps* kWarpLanes)
    repack(const uint32_t* __restrict__ plain, int64_t n, int64_t k, uint32_t* packed) {
  using S = Step<bits>;
  const S lane(threadIdx.x);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kBlockColumns + lane.column();
  const int64_t steps = packed_steps(k);
  for (int64_t step = first_step_of_warp(); step < steps; step += steps_at_a_time()) {
    alignas(16) uint32_t words[S::kRows][S::kColumns];
#pragma unroll
    for (int a = 0; a < S::kRows; ++a) {
      if (column < n && step < k / kStepRows) {
        load_run<S::kColumns>(plain + (step * (bits / 2) + lane.row(a)) * n + column, words[a]);
      } else {
#pragma unroll
        for (uint32_t& word : words[a]) word = kPaddingWord<bits>;
      }
    }
    uint4 parts[parts_of(bits)];
    lane.pack(words, complement_mask(step), parts);
#pragma unroll
    for (int part = 0; part < parts_of(bits); ++part) {
      store_chunk(packed + packed_at<bits>(steps, step, part), parts[part]);
    }
  }
}

template <int bits>
__global__ void __launch_bounds__(kWarps* kWarpLanes)
    unpack(const uint32_t* __restrict__ packed, int64_t n, int64_t k, uint32_t* plain) {
  using S = Step<bits>;
  const S lane(threadIdx.x);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kBlockColumns + lane.column();
  const int64_t steps = packed_steps(k);
  for (int64_t step = first_step_of_warp(); step < k / kStepRows; step += steps_at_a_time()) {
    uint4 parts[parts_of(bits)];
#pragma unroll
    for (int part = 0; part < parts_of(bits); ++part) {
      parts[part] = load_chunk(packed + packed_at<bits>(steps, step, part));
    }
    alignas(16) uint32_t words[S::kRows][S::kColumns];
    lane.unpack(parts, complement_mask(step), words);
    if (column >= n) continue;
#pragma unroll
    for (int a = 0; a < S::kRows; ++a) {
      store_run<S::kColumns>(words[a], plain + (step * (bits / 2) + lane.row(a)) * n + column);
    }
  }
}

dim3 grid_of_steps(int64_t n, int64_t steps) {
  return grid_of(ceil_div(n, kBlockColumns), ceil_div(steps, kWarps));
}

}  // namespace

cudaError_t launch_repack(const uint32_t* plain, int64_t n, int64_t k, int bits, uint32_t* packed,
                          cudaStream_t stream) {
  const dim3 grid = grid_of_steps(n, packed_steps(k));
  const dim3 block(kWarpLanes, kWarps);
  if (bits == 4) {
    repack<4><<<grid, block, 0, stream>>>(plain, n, k, packed);
  } else {
    repack<8><<<grid, block, 0, stream>>>(plain, n, k, packed);
  }
  return cudaGetLastError();
}

cudaError_t launch_unpack(const uint32_t* packed, int64_t n, int64_t k, int bits, uint32_t* plain,
                          cudaStream_t stream) {
  const dim3 grid = grid_of_steps(n, k / kStepRows);
  const dim3 block(kWarpLanes, kWarps);
  if (bits == 4) {
    unpack<4><<<grid, block, 0, stream>>>(packed, n, k, plain);
  } else {
    unpack<8><<<grid, block, 0, stream>>>(packed, n, k, plain);
  }
  return cudaGetLastError();
}

}  // namespace marlin::cuda
