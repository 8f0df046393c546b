// How codes of layout.h become operands of the tensor cores: chosen when the library is built.
//
// gemm_opening_subnormal.cuh is what is built. MARLIN_OPENING=magic builds gemm_opening_magic.cuh
// in its place, should a GPU be slow on subnormal numbers.
//
// An opening has
//   kOperands         operands of a word
//   kMiddle           the code of zero, where there are no zero points
//   kConstants        0; 1: sums of a * o are added; 2: and sums of a * base (see the magic ones)
//   factor(p)         by how much the operands of a kind are too large, p as in layout.h
//   offsets(p)        how often the sums of `a` times opened codes lack those of a * o
//   carries(p)        whether its sums hold those of p - 1, too
//   constant(odd)     what opens codes of an even or odd step (is_odd_step)
//   open              the operands of a word
//   offset, base(odd) pairs of o and of the base; kOnes: a pair of ones
//   enter, kUnit      activations as the products take them, and by what sums are too small
// Of warps that share words it is that of their halves (gemm_pairs.cuh).
#pragma once

#include <type_traits>

#ifdef MARLIN_MAGIC_OPENING
#include "gemm_opening_magic.cuh"
#else
#include "gemm_opening_subnormal.cuh"
#endif

namespace marlin::cuda {

#ifdef MARLIN_MAGIC_OPENING
template <typename Scalar, int bits>
using Opening = MagicOpening<Scalar, bits>;
#else
template <typename Scalar, int bits>
using Opening = SubnormalOpening<Scalar, bits>;
#endif

// Of the warps of a Shape.
template <class S>
using OpeningOf = std::conditional_t<S::kBlockWarps == 1, Opening<typename S::Scalar, S::kBits>,
                                     HalvesOfWords<Opening<typename S::Scalar, S::kBits>>>;

}  // namespace marlin::cuda
