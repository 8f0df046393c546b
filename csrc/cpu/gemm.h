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
  Weights weights;
  const void* bias;  // [n], or null
  Dtype bias_dtype;
  void* out;  // [m][n] contiguous
};

// Calls body(begin, end) on parts that cover [0, count), perhaps at the same time on several
// threads.
using ParallelFor =
    std::function<void(int64_t count, const std::function<void(int64_t, int64_t)>& body)>;

// The result is the same, bit by bit, for every number of threads.
void gemm(const Microkernel& kernel, const GemmArguments& arguments, int threads,
          const ParallelFor& parallel_for);

}  // namespace marlin::cpu
