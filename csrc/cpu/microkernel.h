// The one signature of the CPU microkernels, and what a path offers. Declarations only: the files
// compiled for one instruction set include nothing whose functions have external linkage, because
// the linker may keep their copy of an inline function for the whole library, and older CPUs would
// fault.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../common/weights.h"

namespace marlin::cpu {

inline constexpr int64_t kPanelAlignment = 64;  // bytes; a cache line, and a 512-bit vector
inline constexpr int64_t kPanelRows = 128;      // of K; see Panels

// Bytes between neighbouring rows of the panels, so that loads from them meet different banks of
// the first-level cache: 2 % at many rows.
inline constexpr int64_t kPanelPadding = 8;

// The number format in which activations meet the codes.
//   kBFloat16  as they are, or rounded to bfloat16; sums in float32
//   kInt16     16-bit integers with one scale per stretch; sums are exact integers
//   kInt8      8-bit integers with one scale per stretch; sums are exact integers
enum class Activation : uint8_t { kBFloat16, kInt16, kInt8 };

// The activations of `rows` rows, prepared. 128 rows of K of all of them stand together, so that a
// walk along K reads memory in order, a fixed length apart, so that kernels reach them from one
// pointer. K is walked in stretches, which share a scale of the activations, and these in segments,
// which share one of the weights.
struct Panels {
  std::byte* values;  // [ceil(k / 128)][rows], each 128 elements of the format, then
                      // kPanelPadding; elements beyond k are neither written nor used
  int32_t* sums;      // [k / segment][rows]; of the elements, as the format writes them for
                      // these weights
  float* scales;      // [ceil(k / stretch)][rows]; unused by kBFloat16
  int64_t rows;
  int64_t stretch;  // rows of K: 64 or 128; the last one may be shorter
  int64_t segment;  // rows of K: 32, 64 or 128, a part of a group and of a stretch
};

// Consecutive rows of the panels, and how one task walks them.
struct RowSlice {
  int64_t first;
  int64_t count;     // >= 1
  int per_pass;      // rows that one pass keeps in registers, <= max_rows
  bool decode_once;  // open each segment of weights into memory for all passes, instead of in
                     // registers for each
};

inline constexpr int64_t kNeverDecodeOnce = int64_t{1} << 62;

// How a microkernel is best given its rows: measured, by bench/tune_plan.py.
struct PassTuning {
  int max_rows;              // of a pass
  int many_rows;             // of one of many passes; <= max_rows
  int64_t decode_once_rows;  // of a slice, from which decode_once pays
};

// A pass over a stretch of several segments keeps more in registers, and scales more often.
struct Tuning {
  PassTuning one_segment;
  PassTuning several;
};

struct Microkernel {
  Tuning tuning;
  bool takes_bytes;  // weights of 8 bits, too

  // Writes row `r` of the panels from weights.k contiguous elements, of any alignment. What it
  // writes depends on no more of the weights than their k, bits, and having zero points.
  void (*prepare)(const void* row, Dtype dtype, const Weights& weights, const Panels& panels,
                  int64_t r);

  // tile[i * 64 + c] = sum over k of row rows.first + i times column 64 * block + c. `tile` is
  // aligned to kPanelAlignment. All 64 columns are written; those at and beyond n mean nothing. A
  // row of the result depends on the row of the panels alone, bit by bit: not on the slice.
  void (*multiply)(const Weights& weights, int64_t block, const Panels& panels,
                   const RowSlice& rows, float* tile);

  // What products of few rows take in its place (see kernel_for_rows in plan.h), or null. Of the
  // same format; floating point it may sum in another order.
  const Microkernel* of_few_rows = nullptr;
};

// One row of a tile, on its way to the output: out = tile + bias, or, with a gate,
// out = silu(gate + gate_bias) * (tile + bias), computed in float32 and rounded once.
struct Finish {
  const float* tile;  // [64]
  const float* gate;  // [64], or null
  const void* bias;   // [columns], or null
  const void* gate_bias;
  Dtype bias_dtype;
  int64_t columns;  // 1 .. 64
  void* out;        // [columns]
  Dtype dtype;
};

// What one instruction set offers. A format that it lacks is null.
struct Path {
  const char* name;
  const Microkernel* bfloat16;
  const Microkernel* int16;
  const Microkernel* int8;
  void (*finish)(const Finish& row);
};

extern const Path kGenericPath;
#if defined(__x86_64__)
extern const Path kAvx2Path;
extern const Path kAvxVnniPath;
extern const Path kAvx512Path;
extern const Path kAvx512VnniPath;
extern const Path kAvx512Bf16Path;
extern const Path kAmxPath;
extern const Microkernel kAvx512VnniInt16;
extern const Microkernel kAvx512VnniInt8;
extern const Microkernel kAvx512BFloat16;
#elif defined(__aarch64__)
extern const Path kNeonPath;
extern const Path kNeonDotprodPath;
#endif

}  // namespace marlin::cpu
