#include "gemm.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "../common/math.h"
#include "dispatch.h"
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

int64_t element_bytes(Dtype dtype) { return dtype == Dtype::kFloat32 ? 4 : 2; }

const std::byte* at(const void* data, Dtype dtype, int64_t index) {
  return static_cast<const std::byte*>(data) + index * element_bytes(dtype);
}

const void* at_or_null(const void* data, Dtype dtype, int64_t index) {
  return data == nullptr ? nullptr : at(data, dtype, index);
}

int64_t output_columns(const GemmArguments& arguments) {
  return arguments.gated ? arguments.weights.n / 2 : arguments.weights.n;
}

// The panels of a chunk, and the memory they stand in.
struct OwnedPanels {
  AlignedBytes memory;
  Panels panels;
};

OwnedPanels make_panels(const Plan& plan, int64_t k, Activation activation) {
  const int64_t sums = k / plan.segment * plan.chunk_rows;
  const int64_t scales = ceil_div(k, plan.stretch) * plan.chunk_rows;
  const int64_t row_bytes = kPanelRows * activation_bytes(activation) + kPanelPadding;
  const int64_t values = ceil_div(k, kPanelRows) * plan.chunk_rows * row_bytes;
  OwnedPanels owned{allocate(values + (sums + scales) * 4), {}};
  std::byte* after_values = owned.memory.get() + values;  // aligned: values is a multiple of 8
  owned.panels = {owned.memory.get(),
                  reinterpret_cast<int32_t*>(after_values),
                  reinterpret_cast<float*>(after_values + sums * 4),
                  plan.chunk_rows,
                  plan.stretch,
                  plan.segment};
  return owned;
}

// A row in the order of the weights' rows, padded with zeros to k.
template <typename Element>
void gather_row(const GemmArguments& arguments, const void* row, std::byte* out) {
  const auto* from = static_cast<const Element*>(row);
  auto* to = reinterpret_cast<Element*>(out);
  for (int64_t i = 0; i < arguments.weights.k; ++i) {
    const int64_t column = arguments.perm == nullptr ? i : arguments.perm[i];
    to[i] = column < arguments.a_count ? from[column] : Element{0};
  }
}

// Runs tasks 0 .. count - 1, each on whichever worker is free. `make_task` is called once per
// worker, so that a task may own memory.
template <typename MakeTask>
void run_tasks(int64_t count, int workers, const ParallelFor& parallel_for,
               const MakeTask& make_task) {
  if (workers == 1) {
    auto task = make_task();
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  std::atomic<int64_t> next{0};
  parallel_for(workers, [&](int64_t, int64_t) {
    auto task = make_task();
    for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task(i);
  });
}

// Prepares `rows` rows of the activations, from `first_row` on.
void prepare_rows(const Microkernel& kernel, const GemmArguments& arguments, int64_t first_row,
                  int64_t rows, int workers, const Panels& panels,
                  const ParallelFor& parallel_for) {
  const int64_t k = arguments.weights.k;
  const bool gathers = arguments.perm != nullptr || arguments.a_count < k;
  run_tasks(rows, workers, parallel_for, [&] {
    AlignedBytes whole = gathers ? allocate(k * element_bytes(arguments.dtype)) : nullptr;
    return [&, whole = std::move(whole)](int64_t r) {
      const void* row = at(arguments.a, arguments.dtype, (first_row + r) * arguments.a_row_stride);
      if (gathers && element_bytes(arguments.dtype) == 2) {
        gather_row<uint16_t>(arguments, row, whole.get());
      } else if (gathers) {
        gather_row<uint32_t>(arguments, row, whole.get());
      }
      kernel.prepare(gathers ? whole.get() : row, arguments.dtype, arguments.weights, panels, r);
    };
  });
}

// Multiplies one block of columns (with its gate, another block) and writes the outputs.
class BlockTask {
 public:
  BlockTask(const Path& path, const Microkernel& kernel, const GemmArguments& arguments,
            const Panels& panels, int64_t max_rows)
      : path_(path),
        kernel_(kernel),
        arguments_(arguments),
        panels_(panels),
        columns_(output_columns(arguments)),
        tile_bytes_(max_rows * kBlockColumns * static_cast<int64_t>(sizeof(float))),
        tiles_(allocate(tile_bytes_ * (arguments.gated ? 2 : 1))) {}

  void run(int64_t block, int64_t chunk, const RowSlice& rows) const {
    const GemmArguments& g = arguments_;
    const int64_t first = block * kBlockColumns;
    float* tile = reinterpret_cast<float*>(tiles_.get());
    float* gate = g.gated ? reinterpret_cast<float*>(tiles_.get() + tile_bytes_) : nullptr;
    const int64_t gate_blocks = g.gated ? columns_ / kBlockColumns : 0;
    if (g.gated) kernel_.multiply(g.weights, block, panels_, rows, gate);
    kernel_.multiply(g.weights, gate_blocks + block, panels_, rows, tile);

    Finish row{};
    row.bias = at_or_null(g.bias, g.bias_dtype, gate_blocks * kBlockColumns + first);
    row.gate_bias = g.gated ? at_or_null(g.bias, g.bias_dtype, first) : nullptr;
    row.bias_dtype = g.bias_dtype;
    row.columns = std::min(kBlockColumns, columns_ - first);
    row.dtype = g.dtype;
    for (int64_t i = 0; i < rows.count; ++i) {
      row.tile = tile + i * kBlockColumns;
      row.gate = g.gated ? gate + i * kBlockColumns : nullptr;
      const int64_t index = (chunk + rows.first + i) * columns_ + first;
      row.out = static_cast<std::byte*>(g.out) + index * element_bytes(g.dtype);
      path_.finish(row);
    }
  }

 private:
  const Path& path_;
  const Microkernel& kernel_;
  const GemmArguments& arguments_;
  Panels panels_;
  int64_t columns_;
  int64_t tile_bytes_;
  AlignedBytes tiles_;
};

}  // namespace

void gemm(const Path& path, Activation activation, const GemmArguments& arguments, int threads,
          const ParallelFor& parallel_for) {
  if (arguments.m == 0) return;
  const Weights& weights = arguments.weights;
  const Microkernel& kernel = kernel_for_rows(*microkernel_of(path, activation), arguments.m);
  const Plan plan = make_plan(
      {arguments.m, weights.n, weights.k, weights.group_size, activation, kernel.tuning, threads});
  // Few rows are prepared by each worker for itself: to read what another core has just written
  // takes longer, and so does waiting for it.
  const bool is_shared = plan.prepare_workers > 1 || plan.workers == 1;
  const OwnedPanels shared = is_shared ? make_panels(plan, weights.k, activation) : OwnedPanels{};
  const int64_t blocks = ceil_div(output_columns(arguments), kBlockColumns);
  const std::vector<int64_t> runs = cut_runs(blocks, plan.workers);

  for (int64_t chunk = 0; chunk < arguments.m; chunk += plan.chunk_rows) {
    const int64_t rows = std::min(plan.chunk_rows, arguments.m - chunk);
    if (is_shared) {
      prepare_rows(kernel, arguments, chunk, rows, plan.prepare_workers, shared.panels,
                   parallel_for);
    }
    const int64_t slices = ceil_div(rows, plan.rows_per_slice);
    const int64_t tasks = (static_cast<int64_t>(runs.size()) - 1) * slices;
    run_tasks(tasks, plan.workers, parallel_for, [&] {
      OwnedPanels own = is_shared ? OwnedPanels{} : make_panels(plan, weights.k, activation);
      if (!is_shared) prepare_rows(kernel, arguments, chunk, rows, 1, own.panels, parallel_for);
      const Panels panels = is_shared ? shared.panels : own.panels;
      return [&, memory = std::move(own.memory),
              block_task =
                  BlockTask(path, kernel, arguments, panels, plan.rows_per_slice)](int64_t task) {
        const size_t run = static_cast<size_t>(task / slices);
        const int64_t first = task % slices * plan.rows_per_slice;
        const RowSlice slice = {first, std::min(plan.rows_per_slice, rows - first),
                                plan.rows_per_pass, plan.decode_once};
        for (int64_t block = runs[run]; block < runs[run + 1]; ++block) {
          block_task.run(block, chunk, slice);
        }
      };
    });
  }
}

}  // namespace marlin::cpu
