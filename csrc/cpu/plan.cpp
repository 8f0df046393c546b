#include "plan.h"

#include <algorithm>

#include "../common/math.h"

namespace marlin::cpu {
namespace {

// Panels held at once: a share of the third-level cache, out of which every block of columns reads
// all of them. The weights are read again per chunk, which at this many rows costs under one
// percent. 512 rows of k = 14336 in 16 bits: 139 ms as one chunk of 14 MiB, 127 as two.
constexpr int64_t kPanelBytes = 8 << 20;
constexpr int64_t kMinChunkRows = 128;
constexpr int64_t kMaxChunkRows = 512;

// Multiply-adds that repay a second thread: 26 us of reading codes at one row, 8 us of arithmetic
// at many, on one core of this decade. Waking a thread costs 5 us, and far more on a busy machine.
constexpr int64_t kMinWorkPerThread = 2 << 20;

// Elements of activations whose preparation repays a second thread, by the same count.
constexpr int64_t kMinElementsPerThread = 1 << 18;

// Slices of the rows are cut only where columns are too few for this many tasks per thread.
constexpr int64_t kTasksPerThread = 4;

int clamp_workers(int64_t wanted, int most) {
  return static_cast<int>(std::clamp<int64_t>(wanted, 1, most));
}

// Rows of K that share a scale of the activations. In 64 rows with one giant 16 bits keep the error
// of the others below 1e-4 (64^0.5 / (12^0.5 * 32767) = 7e-5); in 128 they would not.
int64_t stretch_rows(Activation activation) {
  return activation == Activation::kInt16 ? 64 : kPanelRows;
}

// The longest part of a stretch that lies inside a group.
int64_t segment_rows(int64_t group_size, int64_t stretch) {
  int64_t rows = stretch;
  while (group_size % rows != 0) rows /= 2;
  return rows;
}

int64_t max_chunk_rows(int64_t k, Activation activation) {
  const int64_t row_bytes = k * activation_bytes(activation);
  return std::clamp(kPanelBytes / row_bytes, kMinChunkRows, kMaxChunkRows);
}

// The most rows of a pass over `rows` rows. Two passes are no more than they must be.
int max_rows(const PassTuning& tuning, int64_t rows) {
  return rows <= 2 * tuning.max_rows ? tuning.max_rows : tuning.many_rows;
}

// Below this the kernel of few rows runs, where there is one. Estimated for AMX, where nothing has
// been measured yet: per 64 bytes of codes, one row costs vectors 4 cycles and tiles 1/4, but tiles
// first need the codes in memory (8 cycles) and their sums in registers again (1/5 per row). Few
// rows wait for memory anyway.
constexpr int64_t kManyRows = 16;

}  // namespace

int64_t activation_bytes(Activation activation) { return activation == Activation::kInt8 ? 1 : 2; }

const Microkernel& kernel_for_rows(const Microkernel& kernel, int64_t m) {
  return kernel.of_few_rows != nullptr && m < kManyRows ? *kernel.of_few_rows : kernel;
}

Plan make_plan(const Problem& problem) {
  Plan plan{};
  plan.stretch = stretch_rows(problem.activation);
  plan.segment = segment_rows(problem.group_size, plan.stretch);
  // Equal chunks, for the same reason as equal passes below.
  const int64_t chunks = ceil_div(problem.m, max_chunk_rows(problem.k, problem.activation));
  plan.chunk_rows = ceil_div(problem.m, chunks);

  // Equal passes: 7 rows at most 6 at a time run as 4 + 3, since a pass of 1 decodes as much as one
  // of 6.
  const PassTuning& tuning =
      plan.segment == plan.stretch ? problem.tuning.one_segment : problem.tuning.several;
  const int64_t passes = ceil_div(plan.chunk_rows, max_rows(tuning, plan.chunk_rows));
  plan.rows_per_pass = static_cast<int>(ceil_div(plan.chunk_rows, passes));

  const int64_t elements = plan.chunk_rows * problem.k;
  plan.workers = clamp_workers(elements * problem.n / kMinWorkPerThread, problem.threads);
  plan.prepare_workers = clamp_workers(elements / kMinElementsPerThread, plan.workers);

  // Columns are cut first: a slice of the rows reads all the weights again.
  const int64_t blocks = ceil_div(problem.n, kBlockColumns);
  const int64_t wanted = plan.workers == 1 ? 1 : plan.workers * kTasksPerThread;
  const int64_t slices = std::clamp<int64_t>(ceil_div(wanted, blocks), 1, passes);
  plan.rows_per_slice = ceil_div(passes, slices) * plan.rows_per_pass;
  plan.decode_once = plan.rows_per_slice >= tuning.decode_once_rows;
  return plan;
}

std::vector<int64_t> cut_runs(int64_t blocks, int workers) {
  std::vector<int64_t> starts;
  for (int64_t at = 0; at < blocks;) {
    starts.push_back(at);
    at += workers == 1 ? blocks : ceil_div(3 * (blocks - at), 4 * int64_t{workers});
  }
  starts.push_back(blocks);
  return starts;
}

}  // namespace marlin::cpu
