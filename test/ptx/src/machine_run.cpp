// How a grid runs: which warp, which of its lanes, one instruction.

#include <algorithm>
#include <bit>

#include "lane_sets.h"
#include "machine.h"

namespace ptx {

Result Grid::run() {
  std::vector<Warp*> live;
  for (const auto& block : blocks_) {
    for (const auto& warp : block->warps_) live.push_back(warp.get());
  }
  while (!live.empty() && !stopped_) {
    // From a random warp on, the first that can run.
    const size_t start = random_() % live.size();
    size_t chosen = live.size();
    for (size_t i = 0; i < live.size() && chosen == live.size(); ++i) {
      const size_t candidate = (start + i) % live.size();
      const uint32_t quantum = 1 + static_cast<uint32_t>(random_() % options_.max_quantum);
      if (is_runnable(*live[candidate]) && run_warp(*live[candidate], quantum)) chosen = candidate;
    }
    if (chosen == live.size()) {
      report_deadlock();
      break;
    }
    if (live[chosen]->live_ == 0) {
      live[chosen] = live.back();
      live.pop_back();
    }
    if (result_.steps > options_.max_steps) {
      stop("too_long", "The grid ran more instructions than `max_steps`.");
    }
    if (result_.steps - last_progress_ > options_.patience) {
      stop("livelock",
           "No thread has written, arrived anywhere or ended for long: threads spin for something "
           "that never comes.");
    }
  }
  return std::move(result_);
}

// Runs up to `quantum` instructions; false if none could run.
bool Grid::run_warp(Warp& warp, uint32_t quantum) {
  for (uint32_t i = 0; i < quantum; ++i) {
    const uint32_t group = choose_group(warp);
    if (group == 0) return i > 0;
    step(warp, group);
  }
  return true;
}

// Lanes at one instruction that can run it now; 0 if there are none.
uint32_t Grid::choose_group(Warp& warp) {
  const uint32_t ready = warp.live_ & ~warp.waiting_;
  if (ready == 0) return 0;
  uint32_t left = ready;
  const auto pc_of_first = [&](uint32_t lanes) {
    return warp.pc_[static_cast<size_t>(std::countr_zero(lanes))];
  };
  const auto group_at = [&](uint32_t pc) {
    uint32_t group = 0;
    for_lanes(left, [&](int lane) {
      if (warp.pc_[static_cast<size_t>(lane)] == pc) group |= bit(lane);
    });
    return group;
  };
  // Each place alike, however many lanes stand there: one that holds a lock for which all others
  // spin, and fall behind again and again, has to get its turn.
  const auto random_pc = [&] {
    std::array<uint32_t, kLanes> places{};
    size_t count = 0;
    for (uint32_t rest = left; rest != 0; rest &= ~group_at(places[count++])) {
      places[count] = pc_of_first(rest);
    }
    return places[random_() % count];
  };
  // Furthest behind first; now and then a random group.
  std::array<uint32_t, kLanes> tried;
  size_t tries = 0;
  const bool is_together = group_at(pc_of_first(ready)) == ready;
  bool at_random = !is_together && random_() % 16 == 0;
  while (left != 0) {
    uint32_t pc = UINT32_MAX;
    if (at_random) {
      pc = random_pc();
    } else {
      for_lanes(left, [&](int lane) { pc = std::min(pc, warp.pc_[static_cast<size_t>(lane)]); });
    }
    const uint32_t group = alike(warp, program_.instructions[pc], group_at(pc));
    tried[tries++] = group;
    left &= ~group;
    const Instruction& instruction = program_.instructions[pc];
    if (lanes_that_wait_for(warp, instruction, group) == 0) return group;
    at_random = false;
  }
  // Nobody can go on by waiting for lanes that run: those that are awaited may wait at a barrier
  // for others, or never come. If all live lanes stand before instructions that want the others,
  // they never will.
  if ((warp.live_ & warp.waiting_) == 0) {
    for (size_t i = 0; i < tries; ++i) {
      const int lane = std::countr_zero(tried[i]);
      const Instruction& instruction = program_.instructions[warp.pc_[static_cast<size_t>(lane)]];
      report("not_converged",
             "An instruction that wants lanes of its warp together was reached by " +
                 std::to_string(std::popcount(tried[i])) + " of " +
                 std::to_string(std::popcount(warp.live_)) +
                 " that live, while others wait elsewhere.",
             warp, instruction, lane);
    }
    return tried[0];  // goes on, as hardware would in some way
  }
  return 0;
}

// The lanes of `group` that name the same lanes as its lowest: tiles of a warp may stand at one
// instruction, each for itself.
uint32_t Grid::alike(Warp& warp, const Instruction& instruction, uint32_t group) {
  if (instruction.members == kNoRow) return group;
  const uint64_t* members = warp.row(instruction.members);
  const uint64_t wanted = members[std::countr_zero(group)];
  for_lanes(group, [&](int lane) {
    if (members[lane] != wanted) group &= ~bit(lane);
  });
  return group;
}

// Lanes that `group` has to wait for before it runs `instruction`.
uint32_t Grid::lanes_that_wait_for(Warp& warp, const Instruction& instruction, uint32_t group) {
  if (instruction.is_aligned) return warp.live_ & ~group;
  if (instruction.members == kNoRow) return 0;
  const int lane = std::countr_zero(group);
  const uint32_t members = static_cast<uint32_t>(warp.row(instruction.members)[lane]);
  return members & warp.live_ & ~group;
}

void Grid::step(Warp& warp, uint32_t group) {
  const uint32_t pc = warp.pc_[static_cast<size_t>(std::countr_zero(group))];
  const Instruction& instruction = program_.instructions[pc];
  uint32_t mask = group;
  if (instruction.guard != kNoRow) {
    const uint64_t* guard = warp.row(instruction.guard);
    uint32_t chosen = 0;
    for_lanes(group, [&](int lane) {
      if ((guard[lane] != 0) != instruction.guard_negated) chosen |= bit(lane);
    });
    mask = chosen;
  }
  if (mask != 0) check_members(warp, instruction, group, mask);
  ++result_.steps;
  const uint32_t lanes = static_cast<uint32_t>(std::popcount(mask));
  result_.lane_steps += lanes;
  Count& count = result_.counts[instruction.number];
  ++count.warps;
  count.lanes += lanes;
  for_lanes(group, [&](int lane) { warp.pc_[static_cast<size_t>(lane)] = pc + 1; });

  switch (instruction.control) {
    case Control::kNone:
      if (mask != 0) instruction.run(warp, instruction, mask);
      return;
    case Control::kBranch:
      for_lanes(mask, [&](int lane) { warp.pc_[static_cast<size_t>(lane)] = instruction.target; });
      // Said of the lanes that run it, not of the warp.
      if (instruction.flag && mask != 0 && mask != group) {
        report("not_converged",
               "A branch that was said to be uniform was taken by some lanes only.", warp,
               instruction, std::countr_zero(mask));
      }
      return;
    case Control::kTrap:
      if (mask == 0) return;
      report("trap", "The program stopped itself.", warp, instruction, std::countr_zero(mask));
      exit_lanes(warp, mask);
      return;
    case Control::kExit:
      check_copies(warp, instruction, mask);
      exit_lanes(warp, mask);
      return;
    case Control::kBarrier:
      if (mask != 0) arrive(warp, instruction, mask);
      return;
    case Control::kWarpBarrier:
      if (mask != 0) arrive_in_warp(warp, instruction, mask);
      return;
  }
}

// Lanes that stand at the instruction have to run it, too, and to be among those that it names.
void Grid::check_members(Warp& warp, const Instruction& instruction, uint32_t group,
                         uint32_t mask) {
  const int lane = std::countr_zero(mask);
  uint32_t awaited = instruction.is_aligned ? group : 0;
  if (instruction.members != kNoRow) {
    const uint32_t members = static_cast<uint32_t>(warp.row(instruction.members)[lane]);
    awaited = members & group;
    if ((mask & ~members) != 0) {
      report("not_converged", "An instruction is run by a lane that its mask leaves out.", warp,
             instruction, std::countr_zero(mask & ~members));
    }
  }
  if ((awaited & ~mask) != 0) {
    report("not_converged", "An instruction that wants lanes together has a guard that some fail.",
           warp, instruction, lane);
  }
}

void Grid::check_copies(Warp& warp, const Instruction& instruction, uint32_t lanes) {
  for_lanes(lanes, [&](int lane) {
    const CopyQueue& queue = warp.copies(lane);
    if (queue.open.empty() && queue.groups.empty()) return;
    report("unfinished_copy", "A thread ends while copies that it has started are on their way.",
           warp, instruction, lane);
  });
}

void Grid::exit_lanes(Warp& warp, uint32_t lanes) {
  if (lanes == 0) return;
  note_progress();
  for_lanes(lanes, [&](int lane) { finish_all_copies(warp, lane); });
  warp.live_ &= ~lanes;
  Block& block = warp.block_;
  block.live_threads_ -= static_cast<uint32_t>(std::popcount(lanes));
  release_warp_barriers(warp);
  check_barriers(block);
}

}  // namespace ptx
