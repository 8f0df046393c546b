// The one signature of the CPU microkernels. Declarations only: the
// files compiled for one instruction set include nothing with a function body in it, because the
// linker may keep their copy of an inline function for the whole library, and older CPUs would
// fault.
#pragma once

#include <cstdint>

#include "../common/weights.h"

namespace marlin::cpu {

inline constexpr int64_t kPanelAlignment = 64;  // bytes; a cache line, and a 512-bit vector
inline constexpr int kMaxRowsPerPass = 16;      // upper bound of Microkernel::max_rows

// One row of activations as the caller has it.
struct ActivationRow {
  const void* data;  // `count` contiguous elements, any alignment
  Dtype dtype;
  int64_t count;  // <= k; the missing ones count as zero
};

struct Microkernel {
  const char* name;
  int max_rows;  // rows of one multiply()

  // Bytes of one prepared row (its panel); a multiple of kPanelAlignment.
  int64_t (*panel_bytes)(int64_t k, int64_t group_size, Dtype dtype);

  // Writes the panel of one row, aligned to kPanelAlignment.
  void (*prepare)(const ActivationRow& row, int64_t k, int64_t group_size, void* panel);

  // tile[r * 64 + c] = sum over k of panel r times column 64 * block + c, for 1 <= rows <=
  // max_rows. All 64 columns are written; those at and beyond n hold zero. Row r of the result
  // depends on panel r alone, bit by bit: neither `rows` nor the other panels change it.
  void (*multiply)(const Weights& weights, int64_t block, const void* panels, int64_t panel_bytes,
                   Dtype dtype, int rows, float* tile);
};

extern const Microkernel kGenericMicrokernel;
#if defined(__x86_64__)
extern const Microkernel kAvx512Microkernel;
extern const Microkernel kAvx512Bf16Microkernel;
#endif

}  // namespace marlin::cpu
