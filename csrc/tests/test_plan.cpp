// The cutting of a product into tasks, for every size that matters.

#include "../common/math.h"
#include "../cpu/microkernel.h"
#include "../cpu/plan.h"
#include "check.h"

namespace marlin::test {

using cpu::make_plan;
using cpu::Plan;

MARLIN_TEST(plan_covers_all_rows_within_the_limits) {
  for (int64_t m = 1; m <= 2000; m += m < 40 ? 1 : 61) {
    for (int max_rows : {1, 6, 8, 16}) {
      for (int threads : {1, 2, 3, 64}) {
        for (int64_t n : {8, 64, 72, 4096, 14336}) {
          const Plan plan = make_plan({m, n, 4096, max_rows, threads});
          const auto where = [&] {
            return " for m " + std::to_string(m) + ", n " + std::to_string(n) + ", max_rows " +
                   std::to_string(max_rows) + ", threads " + std::to_string(threads);
          };
          expect(plan.chunk_rows >= 1 && plan.chunk_rows <= m, "chunk_rows", where());
          expect(plan.rows_per_pass >= 1 && plan.rows_per_pass <= max_rows, "pass", where());
          expect(plan.rows_per_task >= plan.rows_per_pass, "task", where());
          expect(plan.rows_per_task % plan.rows_per_pass == 0, "whole passes", where());
          expect(plan.workers >= 1 && plan.workers <= threads, "workers", where());
          expect(plan.prepare_workers >= 1 && plan.prepare_workers <= plan.workers,
                 "prepare_workers", where());
          expect(
              ceil_div(plan.chunk_rows, plan.rows_per_pass) == ceil_div(plan.chunk_rows, max_rows),
              "equal passes are as few as full ones", where());
        }
      }
    }
  }
}

MARLIN_TEST(plan_makes_equal_passes) {
  expect(make_plan({7, 4096, 4096, 6, 1}).rows_per_pass == 4, "7 rows are 4 + 3");
  expect(make_plan({16, 4096, 4096, 6, 1}).rows_per_pass == 6, "16 rows are 6 + 6 + 4");
  expect(make_plan({12, 4096, 4096, 6, 1}).rows_per_pass == 6, "12 rows are 6 + 6");
}

MARLIN_TEST(plan_wakes_no_thread_for_small_work) {
  expect(make_plan({1, 256, 256, 6, 8}).workers == 1, "a 256 x 256 row is serial");
  expect(make_plan({1, 1024, 1024, 6, 8}).workers == 1, "half a MiB of weights is serial");
  expect(make_plan({16, 4096, 4096, 6, 8}).prepare_workers == 1, "16 rows are prepared serially");
  expect(make_plan({512, 4096, 4096, 6, 8}).prepare_workers == 8, "512 rows are shared");
  expect(make_plan({1, 4096, 4096, 6, 8}).workers == 8, "a 4096 x 4096 row uses all threads");
}

MARLIN_TEST(plan_cuts_rows_only_when_columns_are_too_few) {
  expect(make_plan({512, 4096, 4096, 6, 4}).rows_per_task >= 512, "64 blocks are enough");
  const Plan narrow = make_plan({512, 64, 4096, 6, 4});
  expect(ceil_div(512, narrow.rows_per_task) >= 4, "one block is cut by rows");
}

MARLIN_TEST(plan_bounds_the_panels_in_memory) {
  expect(make_plan({100000, 4096, 4096, 6, 4}).chunk_rows <= 512, "chunks");
}

}  // namespace marlin::test
