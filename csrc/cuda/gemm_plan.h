// Which kernel multiplies, and how it is launched: a pure function, so that it can be tested alone,
// and the launcher and the simulator of the tests run the same plan.
#pragma once

#include <cstdint>

namespace marlin::cuda {

enum class Scalar : uint8_t { kFloat16, kBFloat16 };

struct Problem {
  int64_t m;
  int64_t n;           // a multiple of 8
  int64_t k;           // a multiple of group_size
  int64_t group_size;  // a multiple of 32, or k
  bool has_zeros;
  Scalar scalar;  // of activations and result
};

struct Device {
  int architecture;  // 80, 86, 89, 90
  int multiprocessors;
};

// One of the kernels that are compiled. Tiles are `rows` rows of the activations by 64 columns per
// warp by 128 rows of K.
struct Variant {
  Scalar scalar;
  int rows;        // 8 or 16
  int group_rows;  // rows of K that share scales inside a tile: 32, 64, 128; 0: all, once at the
                   // end
  bool has_zeros;
};

struct Launch {
  Variant variant;
  int blocks;
  int threads;
  int shared_bytes;
  int tiles_k;            // along K
  int tiles_n;            // along N
  int tiles_m;            // along M
  int tiles_of_block;     // tiles that a block multiplies, the last one maybe fewer
  int64_t partial_bytes;  // of the workspace: sums of columns that several blocks share
  int64_t lock_count;     // int32, all zero before and after each launch
};

inline constexpr int kTileDepth = 128;  // rows of K of a tile
inline constexpr int kWarps = 4;        // side by side along the columns of a tile

// Tiles in shared memory: the one in work, and those whose copies are in flight. As many as fit the
// 99 KiB that a block of sm_86 and sm_89 may have.
constexpr int stages_of(int rows, int group_rows) {
  const bool has_many_scales = group_rows == 32 || group_rows == 64;
  if (rows == 64) return has_many_scales ? 2 : 3;
  return rows == 32 && has_many_scales ? 3 : 4;
}

// Warps that share columns, each with a part of the rows.
constexpr int row_warps_of(int rows) { return rows == 64 ? 2 : 1; }

// Expects a problem that the ops have checked.
Launch plan_gemm(const Problem& problem, const Device& device);

}  // namespace marlin::cuda
