// A grid, running: all blocks resident together, a program counter per thread, warps that take
// turns in an order drawn from a seed.
//
// Threads of a warp that stand at the same instruction run it together. When they part, the group
// that is furthest behind mostly goes first, so that they meet again where the program lets them;
// now and then, by the seed, another goes first. An instruction that wants all of the warp
// (.aligned) waits for them; if they cannot come, that is a finding.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "memory.h"
#include "program.h"
#include "races.h"

namespace ptx {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint32_t count() const { return x * y * z; }
};

struct Options {
  uint64_t seed = 1;
  Generation generation = Generation::kAmpere;
  bool copies_late = true;  // bytes of cp.async move when they are waited for, else at once
  bool checks_races = true;
  // Whether writes of the bytes that are there already race, too. PTX says so; compilers rely on
  // the opposite.
  bool reports_equal_writes = true;
  uint32_t max_quantum = 64;      // instructions of a warp between two choices of the next
  uint64_t max_steps = 1u << 31;  // instructions of warps, in all
  uint64_t patience = 1u << 20;   // of them without any progress: a livelock
};

// What is wrong, once per instruction and kind, with the first case and the number of cases.
struct Finding {
  std::string kind;     // out_of_bounds, misaligned, uninitialised, race, ...
  std::string message;  // a sentence
  int line = 0;         // of the text
  std::string opcode;
  uint32_t block = 0;
  uint32_t thread = 0;  // of the block
  uint64_t count = 1;
};

// Of one instruction of the program.
struct Count {
  uint64_t warps = 0;  // issue slots
  uint64_t lanes = 0;
  uint64_t wavefronts = 0;        // of shared memory
  uint64_t ideal_wavefronts = 0;  // for the same bytes without a conflict
  uint64_t sectors = 0;           // of 32 bytes, of global memory
  uint64_t bytes = 0;             // that lanes asked for
};

struct Result {
  std::vector<Finding> findings;
  std::vector<Count> counts;  // per instruction
  uint64_t steps = 0;         // instructions of warps
  uint64_t lane_steps = 0;
};

class Grid;
class Block;

// An asynchronous copy whose bytes have not moved yet.
struct PendingCopy {
  Region* from;  // null: nothing but zeros
  uint64_t from_offset;
  uint32_t from_bytes;  // the rest of `bytes` becomes zero
  uint64_t to_offset;   // in the shared memory of the block
  uint32_t bytes;
};

// The asynchronous copies of one thread.
struct CopyQueue {
  std::vector<PendingCopy> open;
  std::deque<std::vector<PendingCopy>> groups;
  uint32_t committed = 0;
  uint32_t done = 0;
};

enum class Wait : uint8_t { kNone, kBarrier, kWarpBarrier };

class Warp {
 public:
  Warp(Block& block, uint32_t index, uint32_t lanes);

  uint64_t* row(Row row) { return registers_.data() + size_t{row} * kLanes; }
  Block& block() { return block_; }
  Grid& grid();
  uint32_t index() const { return index_; }
  uint32_t live() const { return live_; }
  uint32_t thread(int lane) const { return index_ * kLanes + static_cast<uint32_t>(lane); }
  uint32_t grid_thread(int lane) const;
  Region& local(int lane);
  CopyQueue& copies(int lane) { return copies_[static_cast<size_t>(lane)]; }

 private:
  friend class Grid;
  friend class Block;

  Block& block_;
  uint32_t index_;
  std::vector<uint64_t> registers_;
  std::array<uint32_t, kLanes> pc_{};
  uint32_t live_;
  std::array<Wait, kLanes> wait_{};
  std::array<uint32_t, kLanes> wait_for_{};  // number of the barrier, or mask of lanes
  uint32_t waiting_ = 0;                     // lanes whose wait_ is not kNone
  std::vector<std::unique_ptr<Region>> locals_;
  std::array<CopyQueue, kLanes> copies_;
};

struct Barrier {
  uint32_t arrived = 0;           // threads, among them those that don't wait
  uint32_t expected = 0;          // 0: all that live
  std::vector<uint32_t> threads;  // of the block
  uint32_t yes = 0;               // threads whose predicate of bar.red holds
};

class Block {
 public:
  Block(Grid& grid, uint32_t index, Dim3 place);

  Grid& grid() { return grid_; }
  uint32_t index() const { return index_; }
  Region& shared() { return *shared_; }

 private:
  friend class Grid;
  friend class Warp;

  Grid& grid_;
  uint32_t index_;
  Dim3 place_;
  std::unique_ptr<Region> shared_;
  std::vector<std::unique_ptr<Warp>> warps_;
  std::array<Barrier, 16> barriers_;
  uint32_t live_threads_;
};

class Grid {
 public:
  Grid(const Program& program, GlobalMemory& global, Dim3 grid, Dim3 block,
       uint64_t dynamic_shared_bytes, std::vector<std::byte> parameters, const Options& options);

  Result run();

  const Program& program() const { return program_; }
  const Options& options() const { return options_; }
  GlobalMemory& global() { return global_; }
  Races* races() { return races_.get(); }
  const std::vector<std::byte>& parameters() const { return parameters_; }
  uint32_t threads_per_block() const { return block_.count(); }
  Dim3 block_dim() const { return block_; }
  Dim3 grid_dim() const { return grid_; }
  uint64_t dynamic_shared_bytes() const { return dynamic_shared_bytes_; }
  Count& count_of(const Instruction& instruction) { return result_.counts[instruction.number]; }

  // Notes what is wrong with an access or an instruction of a lane.
  void report(std::string_view kind, const std::string& message, Warp& warp,
              const Instruction& instruction, int lane);
  // Memory has changed, or will be seen to have: spinning threads may find what they wait for.
  void note_progress() { last_progress_ = result_.steps; }
  uint64_t clock() const { return result_.steps; }

  // The bytes of the oldest groups of a thread's copies arrive, until `left` groups are left.
  void finish_copies(Warp& warp, int lane, uint32_t left);
  void finish_all_copies(Warp& warp, int lane);
  // The bytes of all closed groups arrive before anybody waits for them.
  void deliver_copies(Warp& warp, int lane);

 private:
  bool run_warp(Warp& warp, uint32_t quantum);
  uint32_t choose_group(Warp& warp);
  bool is_runnable(const Warp& warp) const;
  static uint32_t alike(Warp& warp, const Instruction& instruction, uint32_t group);
  uint32_t lanes_that_wait_for(Warp& warp, const Instruction& instruction, uint32_t group);
  void step(Warp& warp, uint32_t group);
  void check_members(Warp& warp, const Instruction& instruction, uint32_t group, uint32_t mask);
  void check_copies(Warp& warp, const Instruction& instruction, uint32_t lanes);
  void exit_lanes(Warp& warp, uint32_t lanes);
  void move_group(Warp& warp, const std::vector<PendingCopy>& group);
  void arrive(Warp& warp, const Instruction& instruction, uint32_t group);
  void arrive_in_warp(Warp& warp, const Instruction& instruction, uint32_t group);
  void release_barrier(Block& block, uint32_t number);
  void give_reduction(Warp& warp, int lane, const Barrier& barrier);
  void release_warp_barriers(Warp& warp);
  void check_barriers(Block& block);
  void report_deadlock();
  std::string describe_wait(Warp& warp);
  void stop(std::string_view kind, const std::string& message);

  const Program& program_;
  GlobalMemory& global_;
  Dim3 grid_;
  Dim3 block_;
  uint64_t dynamic_shared_bytes_;
  std::vector<std::byte> parameters_;
  Options options_;
  std::unique_ptr<Races> races_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::mt19937_64 random_;
  Result result_;
  std::vector<std::vector<size_t>> findings_of_;  // per instruction
  uint64_t last_progress_ = 0;
  bool stopped_ = false;
};

}  // namespace ptx
