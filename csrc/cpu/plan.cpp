#include "plan.h"

#include <algorithm>

#include "../common/math.h"
#include "microkernel.h"

namespace marlin::cpu {
namespace {

// 512 rows of k = 14336 in float32 are 28 MiB of panels; the weights are read again per chunk,
// which at this many rows costs under one percent.
constexpr int64_t kMaxChunkRows = 512;

// Multiply-adds that repay a second thread. One row against 1 MiB of weights is two of these: 30 us
// on one core of this decade, where waking a thread costs 5 us, and far more on a busy machine.
constexpr int64_t kMinWorkPerThread = 1 << 20;

// Elements of activations whose preparation repays a second thread, by the same count.
constexpr int64_t kMinElementsPerThread = 1 << 18;

// Threads take tasks as they get free. Four per thread even out a core that is busy elsewhere.
constexpr int64_t kTasksPerThread = 4;

int clamp_workers(int64_t wanted, int most) {
  return static_cast<int>(std::clamp<int64_t>(wanted, 1, most));
}

}  // namespace

Plan make_plan(const Problem& problem) {
  Plan plan{};
  plan.chunk_rows = std::min(problem.m, kMaxChunkRows);

  // Equal passes: 7 rows at most 6 at a time run as 4 + 3, since a pass of 1 decodes as much as one
  // of 6.
  const int64_t passes = ceil_div(plan.chunk_rows, problem.max_rows);
  plan.rows_per_pass = static_cast<int>(ceil_div(plan.chunk_rows, passes));

  const int64_t elements = plan.chunk_rows * problem.k;
  plan.workers = clamp_workers(elements * problem.n / kMinWorkPerThread, problem.threads);
  plan.prepare_workers = clamp_workers(elements / kMinElementsPerThread, plan.workers);

  // Columns are cut first: a slice of the rows reads all the weights again.
  const int64_t blocks = ceil_div(problem.n, kBlockColumns);
  const int64_t wanted = plan.workers == 1 ? 1 : plan.workers * kTasksPerThread;
  const int64_t slices = std::clamp<int64_t>(ceil_div(wanted, blocks), 1, passes);
  plan.rows_per_task = ceil_div(passes, slices) * plan.rows_per_pass;
  return plan;
}

}  // namespace marlin::cpu
