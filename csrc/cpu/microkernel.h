// The one signature of the CPU microkernels, and the layout that they read. Declarations only: the
// files compiled for one instruction set include nothing with a function body in it, because the
// linker may keep their copy of an inline function for the whole library, and older CPUs would
// fault.
#pragma once

#include <cstdint>

namespace marlin::cpu {

enum class Dtype : uint8_t { kFloat16, kBFloat16, kFloat32 };

inline constexpr int64_t kBlockColumns = 64;  // columns in one packed block: four 512-bit vectors
inline constexpr int64_t kWordRows = 8;       // rows of K in one 32-bit word
inline constexpr int64_t kGroupMultiple = 32;
inline constexpr int64_t kPanelAlignment = 64;  // bytes; a cache line, and a 512-bit vector
inline constexpr int kMaxRowsPerPass = 16;      // upper bound of Microkernel::max_rows

// Weights of one Linear. Element (k, n) is (code - zero) * scale of the group k / group_size.
struct Weights {
  const uint32_t*
      words;  // [ceil(n / 64)][k / 8][64]; in a word, row 2j has bits 4j.., row 2j + 1 16 + 4j..
  const void* scales;  // [k / group_size][n]
  const uint32_t*
      zeros;  // [k / group_size][n / 8], eight 4-bit zeros in a word; null: 8 everywhere
  Dtype scale_dtype;
  int64_t n;           // a multiple of 8
  int64_t k;           // a multiple of group_size
  int64_t group_size;  // a multiple of 32
};

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
