#include "gemm_plan.h"

#include <algorithm>

#include "../common/math.h"
#include "layout.h"

namespace marlin::cuda {
namespace {

// Bytes of one stage in shared memory: weights, activations, scales, zero points.
int stage_bytes(const Variant& variant) {
  const int columns = kWarps * kWarpColumns;
  const int groups = variant.group_rows == 0 ? 0 : kTileDepth / variant.group_rows;
  const int weights = kTileDepth * columns / 2;
  const int activations = variant.rows * kTileDepth * 2;
  const int scales = groups * columns * 2;
  const int zeros = variant.has_zeros ? groups * columns / 2 : 0;
  return weights + activations + scales + zeros;
}

int tile_rows(int64_t m) {
  if (m <= 8) return 8;
  if (m <= 16) return 16;
  return m <= 32 ? 32 : 64;
}

int group_rows(const Problem& problem) {
  if (problem.group_size == problem.k) return 0;
  return problem.group_size % 128 == 0 ? 128 : problem.group_size % 64 == 0 ? 64 : 32;
}

}  // namespace

// Every multiprocessor takes an equal stripe of the tiles, counted down K first, then along N: a
// stripe may begin and end inside a column of tiles, whose sums the blocks then add in turn. So no
// multiprocessor idles, whatever the shape, and few sums pass through memory.
Launch plan_gemm(const Problem& problem, const Device& device) {
  Launch launch{};
  Variant& variant = launch.variant;
  variant.scalar = problem.scalar;
  variant.rows = tile_rows(problem.m);
  variant.group_rows = group_rows(problem);
  variant.has_zeros = problem.has_zeros;

  launch.tiles_k = static_cast<int>(ceil_div(problem.k, kTileDepth));
  launch.tiles_n = static_cast<int>(ceil_div(problem.n, kWarps * kWarpColumns));
  launch.tiles_m = static_cast<int>(ceil_div(problem.m, variant.rows));
  const int64_t tiles = int64_t{launch.tiles_k} * launch.tiles_n * launch.tiles_m;
  const int64_t most = std::min<int64_t>(tiles, device.multiprocessors);
  launch.tiles_of_block = static_cast<int>(ceil_div(tiles, most));
  launch.blocks = static_cast<int>(ceil_div(tiles, launch.tiles_of_block));
  launch.threads = kWarps * row_warps_of(variant.rows) * 32;
  launch.shared_bytes = stages_of(variant.rows, variant.group_rows) * stage_bytes(variant);
  const int64_t columns = int64_t{launch.tiles_n} * launch.tiles_m;
  launch.lock_count = columns;
  launch.partial_bytes = columns * variant.rows * kWarps * kWarpColumns * 4;
  return launch;
}

}  // namespace marlin::cuda
