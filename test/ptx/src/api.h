// The simulator for other languages: plain C functions, text and numbers. ptxsim/ is its Python
// side.
#pragma once

#include <cstdint>

#if defined(__cplusplus)
extern "C" {
#endif

typedef struct ptxsim ptxsim;

typedef struct {
  uint64_t seed;
  uint32_t generation;  // 0 exact, 1 Ampere and Ada, 2 Hopper
  uint32_t copies_late;
  uint32_t checks_races;
  uint32_t reports_equal_writes;
  uint32_t max_quantum;
  uint64_t max_steps;
  uint64_t patience;
} ptxsim_options;

typedef struct {
  const char* entry;
  uint32_t grid[3];
  uint32_t block[3];
  uint64_t dynamic_shared_bytes;
  const void* parameters;
  uint64_t parameter_bytes;
} ptxsim_launch_plan;

// A module, read from its text; null if it can't be, and then ptxsim_error says why.
ptxsim* ptxsim_open(const char* text);
void ptxsim_close(ptxsim* simulator);
// What went wrong in the last call of this thread, or an empty string.
const char* ptxsim_error(void);

// JSON: the entries of the module with their parameters, shared and local memory.
const char* ptxsim_describe(ptxsim* simulator);

// A new buffer of global memory, none of whose bytes is written; returns its address.
uint64_t ptxsim_add_buffer(ptxsim* simulator, const char* name, uint64_t size);
// The address of a variable of the module, or 0.
uint64_t ptxsim_symbol(ptxsim* simulator, const char* name);
// 0 if all bytes lie in one buffer, else -1.
int ptxsim_write(ptxsim* simulator, uint64_t address, const void* from, uint64_t size);
int ptxsim_read(ptxsim* simulator, uint64_t address, void* to, uint64_t size);
// One byte for each: 1 if it has been written since the buffer was made.
int ptxsim_read_written(ptxsim* simulator, uint64_t address, void* to, uint64_t size);
int ptxsim_set_read_only(ptxsim* simulator, uint64_t address, int is_read_only);

// Runs a grid to its end. JSON: findings, counts per instruction, traffic per buffer; null if the
// launch itself is wrong. The text lives until the next launch.
const char* ptxsim_launch(ptxsim* simulator, const ptxsim_launch_plan* plan,
                          const ptxsim_options* options);

#if defined(__cplusplus)
}
#endif
