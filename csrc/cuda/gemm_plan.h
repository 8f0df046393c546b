// Which kernel multiplies, and how it is launched: a pure function, so that it can be tested alone,
// and the launcher and the simulator of the tests run the same plan.
#pragma once

#include <cstdint>

#include "layout.h"

namespace marlin::cuda {

enum class Scalar : uint8_t { kFloat16, kBFloat16 };

struct Problem {
  int64_t m;
  int64_t n;           // a multiple of 8
  int64_t k;           // a multiple of group_size
  int64_t group_size;  // a multiple of 32, or k
  int bits;            // 4 or 8
  bool has_zeros;      // only with 4 bits
  Scalar scalar;       // of activations and result
};

struct Device {
  int architecture;  // 80, 86, 89, 90
  int multiprocessors;
};

// One of the kernels that are compiled. A tile of its blocks is `rows` rows of the activations by
// kTileColumns columns by kTileDepth rows of K.
struct Variant {
  Scalar scalar;
  int bits;
  int rows;        // 8, 16, 32, 64 or 128
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
  int64_t counter_count;  // int32, all zero before and after each launch
};

// Whether sums of channels are scaled tile by tile, too: magic constants (gemm_opening_magic.cuh)
// would let them grow until float32 lost what they differ by.
#ifdef MARLIN_MAGIC_OPENING
inline constexpr bool kScalesChannels = true;
#else
inline constexpr bool kScalesChannels = false;
#endif

inline constexpr int kTileColumns = 256;
inline constexpr int kCounters = 16;  // of a column that several blocks share; 64 bytes

// How a tile is shared out over the warps of a block, and what a stage in shared memory holds. Few
// rows let a warp have 128 columns, so that fewer load the same activations; more have as many sums
// as registers allow with 64, and 128 rows with 32: two warps then share the words of a block of
// layout.h, and open half of each. A whole tile of those would leave room for one stage alone, so
// that it is copied in two slices of K; likewise one of 64 rows and codes of 8 bits.
struct TileShape {
  int warp_columns;
  int row_warps;  // warps that have the same columns, each with a part of the rows
  int warps;
  int slices;        // of a tile along K; a stage holds one
  int row_pitch;     // bytes of a row of the activations in a stage,
  int zero_pitch;    // and of the zero points of a group
  int weight_bytes;  // of a stage, as those below
  int activation_bytes;
  int scale_bytes;
  int zero_bytes;
  int stage_bytes;
  int stages;          // the one in work, and those whose copies are in flight
  int exchange_bytes;  // beside the stages

  constexpr int threads() const { return 32 * warps; }
  constexpr int shared_bytes() const { return stages * stage_bytes + exchange_bytes; }
};

// Two blocks of up to kThreadsOfTwo threads, which may have 255 registers each, share the 164 KiB
// of a multiprocessor of sm_80, and each takes one more than it asks for. A larger one has it
// alone, with the 99 KiB that sm_86 and sm_89 allow.
inline constexpr int kThreadsOfTwo = 128;
inline constexpr int kMaxSharedBytes = 99 * 1024;
// Whole tiles are in flight, so that copies are always at the same slice as products.
constexpr int stages_of(int threads, int slices, int stage_bytes, int exchange_bytes) {
  const int all = threads <= kThreadsOfTwo ? (164 / 2 - 1) * 1024 : kMaxSharedBytes;
  const int tiles_ahead = ((all - exchange_bytes) / stage_bytes - 1) / slices;
  return 1 + slices * (tiles_ahead < 1 ? 1 : tiles_ahead);
}

// Whether scales meet the weights, in float16, as they are opened. Else they meet the sums of each
// group in float32: more exact, and fewer instructions where rows are few; but sums and results
// then take twice the registers, and many short groups more time than all the products.
constexpr bool scales_weights(const Variant& v) {
  if (v.scalar != Scalar::kFloat16 || v.group_rows == 0) return false;
  return v.rows >= 64 || (v.rows == 32 && (v.group_rows < kTileDepth || v.has_zeros));
}

// Bytes of a column whose scale and zero point wait in shared memory, ready for weights; magic
// constants (gemm_scaled_opening_magic.cuh) prepare none.
#ifdef MARLIN_MAGIC_OPENING
inline constexpr int kPreparedBytes = 0;
#else
inline constexpr int kPreparedBytes = 4;
#endif

constexpr TileShape shape_of(const Variant& v) {
  const bool is_grouped = v.group_rows != 0;
  const bool has_one_sum = !is_grouped || scales_weights(v);
  const bool is_tall = v.rows == 128;
  TileShape shape{};
  const bool is_wide = v.rows == 8 || (v.rows == 16 && v.group_rows % kTileDepth == 0) ||
                       (v.rows == 32 && has_one_sum);
  shape.warp_columns = is_tall ? 32 : is_wide ? 128 : 64;
  shape.row_warps = v.rows == 64 && !has_one_sum ? 2 : 1;
  shape.warps = kTileColumns / shape.warp_columns * shape.row_warps;
  shape.slices = is_tall || (v.rows == 64 && v.bits == 8 && scales_weights(v)) ? 2 : 1;
  const int depth = kTileDepth / shape.slices;
  const int groups = !is_grouped ? 0 : v.group_rows < depth ? depth / v.group_rows : 1;
  // The 16 bytes more than a row has put eight of them, which are read at a time, into different
  // banks.
  shape.row_pitch = depth * 2 + 16;
  shape.weight_bytes = depth * kTileColumns * v.bits / 8;
  shape.activation_bytes = v.rows * shape.row_pitch;
  shape.scale_bytes = groups * kTileColumns * 2;
  // Those of a warp's blocks more, which puts the groups that it copies at a time into different
  // banks.
  const int copied_columns =
      shape.warp_columns < kBlockColumns ? kBlockColumns : shape.warp_columns;
  shape.zero_pitch = (kTileColumns + copied_columns) / 2;
  shape.zero_bytes = v.has_zeros ? groups * shape.zero_pitch : 0;
  shape.stage_bytes =
      shape.weight_bytes + shape.activation_bytes + shape.scale_bytes + shape.zero_bytes;
  if (scales_weights(v)) {
    shape.exchange_bytes = groups * kTileColumns * kPreparedBytes;
  } else if (v.rows >= 32 && !is_grouped) {
    // Sums of activations, and for zero points of another kind: floats.
    shape.exchange_bytes = v.rows * (v.has_zeros ? 8 : 4);
  }
  shape.stages = stages_of(shape.threads(), shape.slices, shape.stage_bytes, shape.exchange_bytes);
  return shape;
}

// Whether there is such a kernel: its stages fit everywhere. There are none of 128 rows of
// bfloat16: a warp would have to prepare the activations of all rows (SubnormalUnit) for its few
// columns.
constexpr bool exists(const Variant& v) {
  if (kScalesChannels && v.group_rows == 0) return false;
  const bool suits_tall = v.scalar == Scalar::kFloat16 && v.bits == 4;
  if (v.rows == 128 && !suits_tall) return false;
  return shape_of(v).shared_bytes() <= kMaxSharedBytes;
}

// Expects a problem that the ops have checked.
Launch plan_gemm(const Problem& problem, const Device& device);

}  // namespace marlin::cuda
