// The cutting of a product into tasks, for every size that matters.

#include <algorithm>

#include "../common/math.h"
#include "../cpu/plan.h"
#include "check.h"

namespace marlin::test {
namespace {

using cpu::Activation;
using cpu::cut_runs;
using cpu::make_plan;
using cpu::Plan;
using cpu::Problem;

constexpr Activation kActivations[] = {Activation::kBFloat16, Activation::kInt16,
                                       Activation::kInt8};

std::string describe(const Problem& p) {
  return " for m " + std::to_string(p.m) + ", n " + std::to_string(p.n) + ", k " +
         std::to_string(p.k) + ", group " + std::to_string(p.group_size) + ", format " +
         std::to_string(static_cast<int>(p.activation)) + ", max_rows " +
         std::to_string(p.tuning.one_segment.max_rows) + " or " +
         std::to_string(p.tuning.several.max_rows) + ", threads " + std::to_string(p.threads);
}

void expect_within_limits(const Problem& p) {
  const Plan plan = make_plan(p);
  const auto require = [&p](bool condition, const char* what) {
    if (!condition) expect(false, what, describe(p));
  };
  require(plan.stretch == (p.activation == Activation::kInt16 ? 64 : 128), "stretch");
  require(plan.segment == 32 || plan.segment == 64 || plan.segment == 128, "segment");
  require(plan.stretch % plan.segment == 0, "a segment is a part of a stretch");
  require(p.group_size % plan.segment == 0, "a segment lies inside a group");
  require(plan.chunk_rows >= 1 && plan.chunk_rows <= p.m, "chunk_rows");
  const cpu::PassTuning& tuning =
      plan.segment == plan.stretch ? p.tuning.one_segment : p.tuning.several;
  const int max_rows = plan.chunk_rows > 2 * tuning.max_rows ? tuning.many_rows : tuning.max_rows;
  require(plan.rows_per_pass >= 1 && plan.rows_per_pass <= max_rows, "rows_per_pass");
  require(plan.rows_per_slice >= plan.rows_per_pass, "rows_per_slice");
  require(plan.rows_per_slice % plan.rows_per_pass == 0, "whole passes");
  require(plan.rows_per_slice < plan.chunk_rows + plan.rows_per_pass, "no pass without rows");
  require(plan.workers >= 1 && plan.workers <= p.threads, "workers");
  require(plan.prepare_workers >= 1 && plan.prepare_workers <= plan.workers, "prepare_workers");
  require(ceil_div(plan.chunk_rows, plan.rows_per_pass) == ceil_div(plan.chunk_rows, max_rows),
          "equal passes are as few as full ones");
}

Problem problem(int64_t m, int64_t n, int64_t k, int threads) {
  return {m, n, k, 128, Activation::kInt16, {{6, 6, 48}, {3, 2, 96}}, threads};
}

}  // namespace

MARLIN_TEST(plan_covers_all_rows_within_the_limits) {
  for (int64_t m = 1; m <= 2000; m += m < 40 ? 1 : 61) {
    for (const int max_rows : {1, 4, 6, 12}) {
      for (const int threads : {1, 2, 3, 64}) {
        for (const int64_t n : {8, 64, 72, 4096, 14336}) {
          for (const Activation activation : kActivations) {
            for (const int64_t group_size : {32, 64, 128}) {
              const int several = (max_rows + 1) / 2;
              const cpu::Tuning tuning = {{max_rows, max_rows, 48},
                                          {several, (several + 1) / 2, 96}};
              expect_within_limits({m, n, 4096, group_size, activation, tuning, threads});
            }
          }
        }
      }
    }
  }
}

MARLIN_TEST(plan_takes_the_longest_segment_without_loss) {
  for (const Activation activation : kActivations) {
    const int64_t most = activation == Activation::kInt16 ? 64 : 128;
    for (int64_t group_size = 32; group_size <= 4096; group_size += 32) {
      const Problem p = {5, 256, 2 * group_size, group_size, activation, {{12, 12, 48}, {6, 6, 48}},
                         2};
      expect_within_limits(p);
      int64_t longest = most;
      while (group_size % longest != 0) longest /= 2;
      expect(make_plan(p).segment == longest, "the longest segment is ", longest, describe(p));
    }
  }
}

MARLIN_TEST(plan_makes_equal_passes) {
  expect(make_plan(problem(7, 4096, 4096, 1)).rows_per_pass == 4, "7 rows are 4 + 3");
  expect(make_plan(problem(16, 4096, 4096, 1)).rows_per_pass == 6, "16 rows are 6 + 6 + 4");
  expect(make_plan(problem(12, 4096, 4096, 1)).rows_per_pass == 6, "12 rows are 6 + 6");
  Problem several = problem(5, 4096, 4096, 1);
  several.group_size = 32;
  expect(make_plan(several).rows_per_pass == 3, "5 rows of short groups are 3 + 2");
  several.m = 7;
  expect(make_plan(several).rows_per_pass == 2, "7 rows of short groups are 2 + 2 + 2 + 1");
}

MARLIN_TEST(plan_wakes_no_thread_for_small_work) {
  expect(make_plan(problem(1, 256, 256, 8)).workers == 1, "a 256 x 256 row is serial");
  expect(make_plan(problem(1, 1024, 1024, 8)).workers == 1, "half a MiB of weights is serial");
  expect(make_plan(problem(16, 4096, 4096, 8)).prepare_workers == 1,
         "16 rows are prepared serially");
  expect(make_plan(problem(512, 4096, 4096, 8)).prepare_workers == 8, "512 rows are shared");
  expect(make_plan(problem(1, 4096, 4096, 8)).workers == 8, "a 4096 x 4096 row uses all threads");
}

MARLIN_TEST(plan_opens_codes_once_for_many_rows_of_a_task) {
  // Slices are whole passes: 47 rows, 6 at a time, are a slice of 48.
  expect(!make_plan(problem(42, 4096, 4096, 1)).decode_once, "42 of 48 rows");
  expect(make_plan(problem(48, 4096, 4096, 1)).decode_once, "48 of 48 rows");
  expect(!make_plan(problem(64, 64, 4096, 8)).decode_once, "slices of 64 rows are shorter");
  Problem several = problem(64, 4096, 4096, 1);
  several.group_size = 32;
  expect(!make_plan(several).decode_once, "64 of 96 rows of short groups");
  several.m = 96;
  expect(make_plan(several).decode_once, "96 of 96 rows of short groups");
}

MARLIN_TEST(plan_cuts_rows_only_when_columns_are_too_few) {
  expect(make_plan(problem(512, 4096, 4096, 4)).rows_per_slice >= 512, "64 blocks are enough");
  const Plan narrow = make_plan(problem(512, 64, 4096, 4));
  expect(ceil_div(512, narrow.rows_per_slice) >= 4, "one block is cut by rows");
  expect(make_plan(problem(512, 64, 4096, 1)).rows_per_slice >= 512, "not for one thread");
}

MARLIN_TEST(plan_bounds_the_panels_in_memory) {
  expect(make_plan(problem(100000, 4096, 4096, 4)).chunk_rows <= 512, "chunks");
}

MARLIN_TEST(plan_opens_the_codes_of_one_row_in_registers) {
  for (const Activation activation : kActivations) {
    expect(!make_plan({1, 4096, 4096, 128, activation, {{12, 12, 48}, {6, 6, 48}}, 4}).decode_once,
           "one row");
  }
}

MARLIN_TEST(runs_cover_all_blocks_once_and_never_grow) {
  for (int64_t blocks = 1; blocks <= 600; blocks += blocks < 70 ? 1 : 37) {
    for (const int workers : {1, 2, 3, 8, 64}) {
      const std::vector<int64_t> starts = cut_runs(blocks, workers);
      const auto where = [&] {
        return std::to_string(blocks) + " blocks, " + std::to_string(workers) + " workers";
      };
      expect(starts.front() == 0 && starts.back() == blocks, where(), ": not all are covered");
      expect(starts.size() >= 2, where(), ": no run");
      int64_t length = blocks;
      for (auto start = starts.begin(); start + 1 < starts.end(); ++start) {
        const int64_t next = start[1] - start[0];
        expect(next >= 1 && next <= length, where(), ": a run of ", next, " after ", length);
        length = next;
      }
      if (workers == 1) {
        expect(starts.size() == 2, where(), ": not one run");
        continue;
      }
      // Who takes the first run must not be the last to end, nor wait long for the last.
      expect(starts[1] <= ceil_div(blocks, workers), where(), ": the first run is ", starts[1]);
      expect(length == 1, where(), ": the last run is ", length);
      expect(static_cast<int64_t>(starts.size()) - 1 >= std::min<int64_t>(blocks, workers), where(),
             ": fewer runs than workers");
    }
  }
}

}  // namespace marlin::test
