// Codes opened and scaled in float16, for tiles whose sums leave no registers for results beside
// them: the weight (code - z) * scale, rounded once. As in gemm_opening.cuh, codes are subnormal
// numbers, or the last digits of ordinary ones.
//
// A scaled opening has
//   kOperands            operands of a word
//   kHasUnits            whether results are in units of their own, see units
//   clear()              a column of tiles begins
//   enter(stage, use)    a tile: before others, `use(b, e, factors)` may ask for the sums of eight
//                        columns to be multiplied by as many factors; the whole warp comes here
//   enter_group          one of its groups
//   open(word, odd, to)  the operands of a word
//   scaled               the weights of the operand i of a word, of the column 2 p + h of eight in
//                        the block b
//   units(b, e, to)      by what the sums of eight columns are too small; the whole warp comes here
#pragma once

#ifdef MARLIN_MAGIC_OPENING
#include "gemm_scaled_opening_magic.cuh"
#else
#include "gemm_scaled_opening_subnormal.cuh"
#endif

namespace marlin::cuda {

#ifdef MARLIN_MAGIC_OPENING
template <class S>
using ScaledOpening = ScaledMagicOpening<S>;
#else
template <class S>
using ScaledOpening = ScaledSubnormalOpening<S>;
#endif

// Of kernels whose scales meet sums.
struct UnscaledOpening {
  __device__ UnscaledOpening(const GemmArguments&, uint32_t) {}
  __device__ void clear() {}
};

}  // namespace marlin::cuda
