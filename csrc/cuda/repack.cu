// The plain layout of the codes to the packed one of layout.h and back. A warp converts a step at a
// time: two rows of 64 plain words to 16 bytes per lane. Every access of a warp takes whole sectors
// of 32 bytes: 16 bytes per lane in a row where it is packed, four pieces of eight words where it
// is plain.
//
// Lane 4 q + t holds, in word j, the rows 2 t and 2 t + 1 of the plain words of the columns
// 16 p + 8 (j mod 2) + q, p = 0 .. 3: byte t of four words. So the four lanes of q read one of the
// four words each, that with p = t, and transpose the 4 x 4 bytes that they have together.

#include "../common/math.h"
#include "grid.h"
#include "layout.cuh"
#include "repack.h"

namespace marlin::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr uint32_t kPaddingWord = 0x88888888u;  // code 8: zero, where there are no zero points

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

__device__ uint32_t pack_word(uint32_t plain, const Transposer& transpose, uint32_t complements) {
  return swap_middle_bytes(swap_middle_nibbles(transpose(plain))) ^ complements;
}
__device__ uint32_t unpack_word(uint32_t packed, const Transposer& transpose,
                                uint32_t complements) {
  return transpose(swap_middle_nibbles(swap_middle_bytes(packed ^ complements)));
}

// Where a lane reads or writes, in a block of columns and the steps of its warp.
struct LanePlace {
  int64_t steps;         // of the block
  int64_t first_step;    // of this warp
  int64_t stride;        // from a step of this warp to its next
  int64_t packed_start;  // of the lane's words in the first step of the block
  int64_t column;        // of words 0 and 2; the others are 8 further
  bool exists;           // column < n
  bool next_exists;      // column + 8 < n
};

__device__ LanePlace place_of(int64_t n, int64_t k) {
  const int lane = threadIdx.x;
  const int64_t block = blockIdx.x;
  const int64_t steps = k / kStepRows;
  const int64_t column = block * kWarpColumns + 16 * (lane % 4) + lane / 4;
  return {
      steps,
      static_cast<int64_t>(blockIdx.y) * kWarps + threadIdx.y,
      static_cast<int64_t>(gridDim.y) * kWarps,
      block * steps * kStepWords + lane * kLaneWords,
      column,
      column < n,
      column + 8 < n,
  };
}

__global__ void __launch_bounds__(kWarps* kWarpLanes)
    repack(const uint32_t* __restrict__ plain, int64_t n, int64_t k, uint32_t* packed) {
  const LanePlace at = place_of(n, k);
  const Transposer transpose(threadIdx.x);
  for (int64_t step = at.first_step; step < at.steps; step += at.stride) {
    const uint32_t* upper = plain + 2 * step * n + at.column;
    const uint32_t* lower = upper + n;
    const uint32_t x = at.exists ? upper[0] : kPaddingWord;
    const uint32_t y = at.next_exists ? upper[8] : kPaddingWord;
    const uint32_t z = at.exists ? lower[0] : kPaddingWord;
    const uint32_t w = at.next_exists ? lower[8] : kPaddingWord;
    const uint32_t complements = complement_mask(step);
    const uint4 words = {pack_word(x, transpose, complements), pack_word(y, transpose, complements),
                         pack_word(z, transpose, complements),
                         pack_word(w, transpose, complements)};
    store_chunk(packed + at.packed_start + step * kStepWords, words);
  }
}

__global__ void __launch_bounds__(kWarps* kWarpLanes)
    unpack(const uint32_t* __restrict__ packed, int64_t n, int64_t k, uint32_t* plain) {
  const LanePlace at = place_of(n, k);
  const Transposer transpose(threadIdx.x);
  for (int64_t step = at.first_step; step < at.steps; step += at.stride) {
    const auto words = reinterpret_cast<const uint4&>(packed[at.packed_start + step * kStepWords]);
    const uint32_t complements = complement_mask(step);
    const uint32_t x = unpack_word(words.x, transpose, complements);
    const uint32_t y = unpack_word(words.y, transpose, complements);
    const uint32_t z = unpack_word(words.z, transpose, complements);
    const uint32_t w = unpack_word(words.w, transpose, complements);
    uint32_t* upper = plain + 2 * step * n + at.column;
    uint32_t* lower = upper + n;
    if (at.exists) upper[0] = x;
    if (at.next_exists) upper[8] = y;
    if (at.exists) lower[0] = z;
    if (at.next_exists) lower[8] = w;
  }
}

dim3 grid_of_matrix(int64_t n, int64_t k) {
  return grid_of(ceil_div(n, kWarpColumns), ceil_div(k / kStepRows, kWarps));
}

}  // namespace

cudaError_t launch_repack(const uint32_t* plain, int64_t n, int64_t k, uint32_t* packed,
                          cudaStream_t stream) {
  repack<<<grid_of_matrix(n, k), dim3(kWarpLanes, kWarps), 0, stream>>>(plain, n, k, packed);
  return cudaGetLastError();
}

cudaError_t launch_unpack(const uint32_t* packed, int64_t n, int64_t k, uint32_t* plain,
                          cudaStream_t stream) {
  unpack<<<grid_of_matrix(n, k), dim3(kWarpLanes, kWarps), 0, stream>>>(packed, n, k, plain);
  return cudaGetLastError();
}

}  // namespace marlin::cuda
