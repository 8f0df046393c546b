// Packed weights to floating point. Knows no Torch and no thread.
#pragma once

#include "microkernel.h"

namespace marlin::cpu {

// Writes rows [64 * first_block, 64 * last_block), cut at n, of out [n][k], in the dtype of the
// scales: (code - zero) * scale in float32, rounded once.
void dequantize_blocks(const Weights& weights, int64_t first_block, int64_t last_block, void* out);

}  // namespace marlin::cpu
