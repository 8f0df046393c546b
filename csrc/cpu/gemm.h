// The product of activations and packed weights on raw pointers: panels, tasks, epilogue. Knows no
// Torch; the caller brings the threads.
#pragma once

#include <functional>

#include "microkernel.h"

namespace marlin::cpu {

struct GemmArguments {
  const void*
      a;        // [m] rows, `a_row_stride` elements apart, each `a_count` <= k contiguous elements
  Dtype dtype;  // of a and out
  int64_t m;
  int64_t a_count;
  int64_t a_row_stride;
  const int32_t* perm;  // [k], or null: row i of the weights meets column perm[i] of a; a column
                        // >= a_count counts as zero
  Weights weights;
  const void* bias;  // [n], or null
  Dtype bias_dtype;
  bool gated;  // the first half of the columns is a gate: out = silu(gate) * other half. The half
               // is a multiple of 64.
  void* out;   // [m][n, or n / 2 when gated] contiguous
};

// Calls body(begin, end) on parts that cover [0, count), perhaps at the same time on several
// threads.
using ParallelFor =
    std::function<void(int64_t count, const std::function<void(int64_t, int64_t)>& body)>;

// `activation` is one of the formats that the path has (see choose_activation in dispatch.h). The
// result is the same, bit by bit, for every number of threads.
void gemm(const Path& path, Activation activation, const GemmArguments& arguments, int threads,
          const ParallelFor& parallel_for);

}  // namespace marlin::cpu
