// Barriers of blocks and of warps, and what is said when nobody comes.

#include <algorithm>
#include <bit>

#include "lane_sets.h"
#include "machine.h"

namespace ptx {

// bar and barrier: `choice` 0 sync, 1 arrive. The number is the first source, the count of threads,
// if any, the second.
void Grid::arrive(Warp& warp, const Instruction& instruction, uint32_t group) {
  note_progress();
  const int first = std::countr_zero(group);
  const uint64_t number = warp.row(instruction.from[0])[first];
  Block& block = warp.block_;
  if (number >= block.barriers_.size()) {
    report("bad_barrier", "Expected a barrier 0 .. 15, got " + std::to_string(number) + ".", warp,
           instruction, first);
    return;
  }
  Barrier& barrier = block.barriers_[number];
  uint32_t expected = 0;
  // bar.red has a predicate behind them.
  const bool reduces = instruction.results > 0;
  if (instruction.sources > (reduces ? 2 : 1)) {
    expected = static_cast<uint32_t>(warp.row(instruction.from[1])[first]);
    if (expected == 0 || expected % kLanes != 0) {
      report(
          "bad_barrier",
          "Expected a multiple of 32 threads at a barrier, got " + std::to_string(expected) + ".",
          warp, instruction, first);
    }
  }
  if (barrier.arrived > 0 && barrier.expected != expected) {
    report("bad_barrier",
           "Threads expect different numbers of threads at barrier " + std::to_string(number) + ".",
           warp, instruction, first);
  }
  barrier.expected = expected;
  // A barrier counts warps: those of a warp that have ended, or never were, count as arrived.
  const bool is_whole = group == warp.live_ && expected != 0;
  barrier.arrived += is_whole ? kLanes : static_cast<uint32_t>(std::popcount(group));
  for_lanes(group, [&](int lane) {
    barrier.threads.push_back(warp.thread(lane));
    if (!reduces) return;
    const bool holds = warp.row(instruction.from[instruction.sources - 1])[lane] != 0;
    barrier.yes += holds != instruction.flag ? 1 : 0;
  });
  if (instruction.choice == 0) {
    for_lanes(group, [&](int lane) {
      warp.wait_[static_cast<size_t>(lane)] = Wait::kBarrier;
      warp.wait_for_[static_cast<size_t>(lane)] = static_cast<uint32_t>(number);
    });
    warp.waiting_ |= group;
  }
  check_barriers(block);
}

void Grid::check_barriers(Block& block) {
  for (uint32_t number = 0; number < block.barriers_.size(); ++number) {
    const Barrier& barrier = block.barriers_[number];
    if (barrier.arrived == 0) continue;
    const uint32_t expected = barrier.expected == 0 ? block.live_threads_ : barrier.expected;
    if (barrier.arrived >= expected) release_barrier(block, number);
  }
}

void Grid::release_barrier(Block& block, uint32_t number) {
  Barrier& barrier = block.barriers_[number];
  if (races_ != nullptr) {
    std::vector<uint32_t> threads = barrier.threads;
    for (uint32_t& thread : threads) thread += block.index_ * threads_per_block();
    races_->meet(threads);
  }
  for (const auto& warp : block.warps_) {
    for_lanes(warp->waiting_, [&](int lane) {
      const size_t i = static_cast<size_t>(lane);
      if (warp->wait_[i] != Wait::kBarrier || warp->wait_for_[i] != number) return;
      give_reduction(*warp, lane, barrier);
      warp->wait_[i] = Wait::kNone;
      warp->waiting_ &= ~bit(lane);
    });
  }
  barrier = {};
  note_progress();
}

// The result of bar.red, if that is what a lane waits at: its program counter stands behind it.
void Grid::give_reduction(Warp& warp, int lane, const Barrier& barrier) {
  const Instruction& instruction = program_.instructions[warp.pc_[static_cast<size_t>(lane)] - 1];
  if (instruction.results == 0) return;
  uint64_t result = barrier.yes;
  if (instruction.choice2 == kBarrierAnd) result = barrier.yes == barrier.threads.size();
  if (instruction.choice2 == kBarrierOr) result = barrier.yes > 0;
  warp.row(instruction.to[0])[lane] = result;
}

void Grid::arrive_in_warp(Warp& warp, const Instruction& instruction, uint32_t group) {
  note_progress();
  const uint64_t* members = warp.row(instruction.from[0]);
  for_lanes(group, [&](int lane) {
    const uint32_t mask = static_cast<uint32_t>(members[lane]);
    if ((mask & bit(lane)) == 0) {
      report("bad_barrier", "A lane waits for a mask of lanes that does not hold itself.", warp,
             instruction, lane);
      return;
    }
    warp.wait_[static_cast<size_t>(lane)] = Wait::kWarpBarrier;
    warp.wait_for_[static_cast<size_t>(lane)] = mask;
    warp.waiting_ |= bit(lane);
  });
  release_warp_barriers(warp);
}

void Grid::release_warp_barriers(Warp& warp) {
  uint32_t left = warp.waiting_;
  while (left != 0) {
    const size_t first = static_cast<size_t>(std::countr_zero(left));
    left &= left - 1;
    if (warp.wait_[first] != Wait::kWarpBarrier) continue;
    const uint32_t mask = warp.wait_for_[first];
    uint32_t here = 0;
    for_lanes(mask & warp.live_ & warp.waiting_, [&](int lane) {
      const size_t i = static_cast<size_t>(lane);
      if (warp.wait_[i] == Wait::kWarpBarrier && warp.wait_for_[i] == mask) here |= bit(lane);
    });
    if (here != (mask & warp.live_)) continue;
    if (races_ != nullptr) {
      std::vector<uint32_t> threads;
      for_lanes(here, [&](int lane) { threads.push_back(warp.grid_thread(lane)); });
      races_->meet(threads);
    }
    for_lanes(here, [&](int lane) { warp.wait_[static_cast<size_t>(lane)] = Wait::kNone; });
    warp.waiting_ &= ~here;
    left &= ~here;
  }
}

std::string Grid::describe_wait(Warp& warp) {
  const int lane = std::countr_zero(warp.live_);
  const size_t i = static_cast<size_t>(lane);
  const std::string who = "block " + std::to_string(warp.block_.index_) + ", thread " +
                          std::to_string(warp.thread(lane)) + " (" +
                          std::to_string(std::popcount(warp.live_)) + " of its warp live)";
  // The program counter stands behind the barrier that is waited at.
  const bool waits = warp.wait_[i] != Wait::kNone;
  const Instruction& instruction = program_.instructions[warp.pc_[i] - (waits ? 1 : 0)];
  return who + " waits at line " + std::to_string(instruction.line) + ", `" +
         program_.opcodes[instruction.opcode] + "`";
}

void Grid::report_deadlock() {
  std::string message = "No thread can go on: ";
  size_t told = 0;
  for (const auto& block : blocks_) {
    for (const auto& warp : block->warps_) {
      if (warp->live_ == 0 || told == 4) continue;
      message += (told++ == 0 ? "" : "; ") + describe_wait(*warp);
    }
  }
  stop("deadlock", message + ".");
}

}  // namespace ptx
