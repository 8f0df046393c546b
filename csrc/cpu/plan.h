// How one product is cut into tasks: pure functions of the sizes, so that they can be tested alone.
#pragma once

#include <cstdint>
#include <vector>

#include "microkernel.h"

namespace marlin::cpu {

struct Problem {
  int64_t m;
  int64_t n;
  int64_t k;
  int64_t group_size;
  Activation activation;
  Tuning tuning;  // of the microkernel
  int threads;    // that may be used
};

// The rows are cut into chunks (their panels are held at once), a chunk into slices, a slice into
// passes of the microkernel. A task is a run of blocks of columns times one slice of a chunk.
struct Plan {
  int64_t stretch;  // see Panels
  int64_t segment;
  int64_t chunk_rows;      // rows whose panels are in memory together
  int64_t rows_per_slice;  // a multiple of rows_per_pass; the last slice may have fewer
  int rows_per_pass;       // within the tuning; the last pass of a slice may have fewer
  bool decode_once;        // see RowSlice
  int workers;             // threads that share the tasks
  int prepare_workers;     // threads that share the preparation of the panels; with 1, each of
                           // `workers` prepares panels of its own
};

// Bytes of one prepared activation.
int64_t activation_bytes(Activation activation);

// Expects m, n, k, threads and the rows of the tuning >= 1.
Plan make_plan(const Problem& problem);

// The kernel that a product of `m` rows takes: `kernel`, or what it names for few rows. A row's
// bits may differ between the two, so the choice depends on nothing but m: not on chunks, slices or
// threads.
const Microkernel& kernel_for_rows(const Microkernel& kernel, int64_t m);

// Cuts `blocks` into runs for `workers` that each take the next run when they are free: long runs
// first, because each start of a run costs, and short ones last, because the others wait for the
// last. Returns the first block of each run, and `blocks` at the end.
std::vector<int64_t> cut_runs(int64_t blocks, int workers);

}  // namespace marlin::cpu
