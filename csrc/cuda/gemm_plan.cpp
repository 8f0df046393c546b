#include "gemm_plan.h"

#include <algorithm>

#include "../common/math.h"

namespace marlin::cuda {
namespace {

int group_rows(const Problem& problem) {
  if (problem.group_size == problem.k) return kScalesChannels ? kTileDepth : 0;
  return problem.group_size % 128 == 0 ? 128 : problem.group_size % 64 == 0 ? 64 : 32;
}

// Whether tiles of 128 rows are filled up with no more rows than those of 64 would be: products
// with these would take more time than it saves to open and read weights half as often.
bool fills_tall(int64_t m) { return 128 * ceil_div(m, 128) <= 64 * ceil_div(m, 64); }

Variant variant_of(const Problem& problem) {
  const auto with_rows = [&](int rows) {
    return Variant{problem.scalar, problem.bits, rows, group_rows(problem), problem.has_zeros};
  };
  if (problem.m <= 8) return with_rows(8);
  if (problem.m <= 16) return with_rows(16);
  if (problem.m <= 32) return with_rows(32);
  if (fills_tall(problem.m) && exists(with_rows(128))) return with_rows(128);
  return with_rows(exists(with_rows(64)) ? 64 : 32);
}

// KiB of all blocks of a multiprocessor together: CUDA C++ Programming Guide, technical
// specifications. What is not known is taken for the smallest.
int shared_kib(int architecture) {
  switch (architecture) {
    case 80:
    case 87:
      return 164;
    case 90:
    case 100:
    case 103:
      return 228;
    default:
      return 100;
  }
}

// Blocks that a multiprocessor is given. Two keep each other's schedulers busy at barriers and at
// the ends of columns; more would only share the columns more finely.
int blocks_of_multiprocessor(const TileShape& shape, int architecture) {
  const int block_kib = static_cast<int>(ceil_div(shape.shared_bytes(), 1024));
  const bool is_small = shape.threads() <= kThreadsOfTwo;
  return is_small && 2 * (block_kib + 1) <= shared_kib(architecture) ? 2 : 1;
}

}  // namespace

// Every block takes an equal stripe of the tiles, counted down K first, then along M and N: one may
// begin and end inside a column of tiles, whose sums the blocks then add. So no multiprocessor
// idles, whatever the shape, and few sums pass through memory.
Launch plan_gemm(const Problem& problem, const Device& device) {
  Launch launch{};
  launch.variant = variant_of(problem);
  const TileShape shape = shape_of(launch.variant);
  const int rows = launch.variant.rows;

  launch.tiles_k = static_cast<int>(ceil_div(problem.k, kTileDepth));
  launch.tiles_n = static_cast<int>(ceil_div(problem.n, kTileColumns));
  launch.tiles_m = static_cast<int>(ceil_div(problem.m, rows));
  const int64_t columns = int64_t{launch.tiles_n} * launch.tiles_m;
  const int64_t tiles = launch.tiles_k * columns;
  const int64_t places =
      int64_t{device.multiprocessors} * blocks_of_multiprocessor(shape, device.architecture);
  launch.tiles_of_block = static_cast<int>(ceil_div(tiles, std::min(tiles, places)));
  launch.blocks = static_cast<int>(ceil_div(tiles, launch.tiles_of_block));
  launch.threads = shape.threads();
  launch.shared_bytes = shape.shared_bytes();
  // A block has the first tiles of one shared column at most, and some of the others of another.
  launch.counter_count = int64_t{launch.blocks} * kCounters;
  launch.partial_bytes = int64_t{launch.blocks} * 2 * rows * kTileColumns * 4;
  return launch;
}

}  // namespace marlin::cuda
