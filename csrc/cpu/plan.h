// How one product is cut into tasks: a pure function of the sizes, so that it can be tested alone.
#pragma once

#include <cstdint>

namespace marlin::cpu {

struct Problem {
  int64_t m;
  int64_t n;
  int64_t k;
  int max_rows;  // of the microkernel
  int threads;   // that may be used
};

// The rows are cut into chunks (their panels are held at once), a chunk into passes of the
// microkernel; a task is one block of columns times one slice of the passes of a chunk.
struct Plan {
  int64_t chunk_rows;     // rows whose panels are in memory together
  int rows_per_pass;      // <= max_rows; the last pass of a chunk may have fewer
  int64_t rows_per_task;  // a multiple of rows_per_pass
  int workers;            // threads that share the tasks
  int prepare_workers;    // threads that share the preparation of the panels
};

// Expects m, n, k, max_rows, threads >= 1.
Plan make_plan(const Problem& problem);

}  // namespace marlin::cpu
