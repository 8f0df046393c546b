#include "gemm.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "../common/math.h"
#include "load.h"
#include "plan.h"

namespace marlin::cpu {
namespace {

struct AlignedDelete {
  void operator()(std::byte* memory) const {
    ::operator delete[](memory, std::align_val_t{static_cast<size_t>(kPanelAlignment)});
  }
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedDelete>;

AlignedBytes allocate(int64_t bytes) {
  return AlignedBytes(new (std::align_val_t{static_cast<size_t>(kPanelAlignment)})
                          std::byte[static_cast<size_t>(bytes)]);
}

size_t element_bytes(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

const void* at(const void* data, Dtype dtype, int64_t index) {
  return static_cast<const std::byte*>(data) + static_cast<size_t>(index) * element_bytes(dtype);
}

// Adds the bias in float32 and rounds once to the output dtype.
void store_tile(const GemmArguments& arguments, int64_t first_row, int rows, int64_t block,
                const float* tile) {
  const int64_t n = arguments.weights.n;
  const int64_t first = block * kBlockColumns;
  const int64_t columns = std::min(kBlockColumns, n - first);
  for (int r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      float value = tile[r * kBlockColumns + c];
      if (arguments.bias != nullptr) {
        value += load_float(arguments.bias, arguments.bias_dtype, first + c);
      }
      store_float(arguments.out, arguments.dtype, (first_row + r) * n + first + c, value);
    }
  }
}

// Runs tasks 0 .. count - 1, each on whichever worker is free.
void run_tasks(int64_t count, int workers, const ParallelFor& parallel_for,
               const std::function<void(int64_t)>& task) {
  if (workers == 1) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  std::atomic<int64_t> next{0};
  parallel_for(workers, [&](int64_t, int64_t) {
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task(i);
  });
}

}  // namespace

void gemm(const Microkernel& kernel, const GemmArguments& arguments, int threads,
          const ParallelFor& parallel_for) {
  if (arguments.m == 0) return;
  const Weights& weights = arguments.weights;
  const Plan plan = make_plan({arguments.m, weights.n, weights.k, kernel.max_rows, threads});
  const int64_t panel_bytes = kernel.panel_bytes(weights.k, weights.group_size, arguments.dtype);
  const AlignedBytes panels = allocate(plan.chunk_rows * panel_bytes);
  const int64_t blocks = ceil_div(weights.n, kBlockColumns);

  for (int64_t chunk = 0; chunk < arguments.m; chunk += plan.chunk_rows) {
    const int64_t rows = std::min(plan.chunk_rows, arguments.m - chunk);

    run_tasks(rows, plan.prepare_workers, parallel_for, [&](int64_t r) {
      const ActivationRow row = {
          at(arguments.a, arguments.dtype, (chunk + r) * arguments.a_row_stride), arguments.dtype,
          arguments.a_count};
      kernel.prepare(row, weights.k, weights.group_size, panels.get() + r * panel_bytes);
    });

    const int64_t slices = ceil_div(rows, plan.rows_per_task);
    run_tasks(blocks * slices, plan.workers, parallel_for, [&](int64_t task) {
      alignas(kPanelAlignment) float tile[kMaxRowsPerPass * kBlockColumns];
      const int64_t block = task / slices;
      const int64_t begin = (task % slices) * plan.rows_per_task;
      const int64_t end = std::min(begin + plan.rows_per_task, rows);
      for (int64_t r = begin; r < end; r += plan.rows_per_pass) {
        const int pass_rows = static_cast<int>(std::min<int64_t>(plan.rows_per_pass, end - r));
        kernel.multiply(weights, block, panels.get() + r * panel_bytes, panel_bytes,
                        arguments.dtype, pass_rows, tile);
        store_tile(arguments, chunk + r, pass_rows, block, tile);
      }
    });
  }
}

}  // namespace marlin::cpu
