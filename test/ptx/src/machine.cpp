#include "machine.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace ptx {
namespace {

uint32_t bit(int lane) { return 1u << lane; }

template <typename Function>
void for_lanes(uint32_t lanes, const Function& function) {
  for (; lanes != 0; lanes &= lanes - 1) function(std::countr_zero(lanes));
}

uint32_t lower_lanes(uint32_t count) {
  return count >= kLanes ? kAllLanes : bit(static_cast<int>(count)) - 1;
}

Dim3 place_of(uint32_t index, Dim3 size) {
  return {index % size.x, index / size.x % size.y, index / size.x / size.y};
}

uint64_t special_value(Special special, const Block& block, Dim3 block_place, const Grid& grid,
                       uint32_t warp, uint32_t lane) {
  const Dim3 size = grid.block_dim();
  const Dim3 blocks = grid.grid_dim();
  const Dim3 thread = place_of(warp * kLanes + lane, size);
  switch (special) {
    case Special::kConstant:
    case Special::kGridid:
    case Special::kNsmid:
      return 0;
    case Special::kTidX:
      return thread.x;
    case Special::kTidY:
      return thread.y;
    case Special::kTidZ:
      return thread.z;
    case Special::kNtidX:
      return size.x;
    case Special::kNtidY:
      return size.y;
    case Special::kNtidZ:
      return size.z;
    case Special::kCtaidX:
      return block_place.x;
    case Special::kCtaidY:
      return block_place.y;
    case Special::kCtaidZ:
      return block_place.z;
    case Special::kNctaidX:
      return blocks.x;
    case Special::kNctaidY:
      return blocks.y;
    case Special::kNctaidZ:
      return blocks.z;
    case Special::kLaneid:
      return lane;
    case Special::kWarpid:
      return warp;
    case Special::kNwarpid:
      return (size.count() + kLanes - 1) / kLanes;
    case Special::kLanemaskEq:
      return bit(static_cast<int>(lane));
    case Special::kLanemaskLt:
      return lower_lanes(lane);
    case Special::kLanemaskLe:
      return lower_lanes(lane + 1);
    case Special::kLanemaskGt:
      return ~lower_lanes(lane + 1) & kAllLanes;
    case Special::kLanemaskGe:
      return ~lower_lanes(lane) & kAllLanes;
    case Special::kSmid:
      return block.index();
    case Special::kDynamicSharedSize:
      return grid.dynamic_shared_bytes();
    case Special::kTotalSharedSize:
      return grid.program().static_shared_bytes + grid.dynamic_shared_bytes();
  }
  return 0;
}

}  // namespace

Warp::Warp(Block& block, uint32_t index, uint32_t lanes)
    : block_(block), index_(index), live_(lower_lanes(lanes)) {
  const Program& program = block.grid().program();
  registers_.assign(static_cast<size_t>(program.rows) * kLanes, 0);
  locals_.resize(kLanes);
  for (const FilledRow& filled : program.filled) {
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      row(filled.row)[lane] =
          filled.special == Special::kConstant
              ? filled.value
              : special_value(filled.special, block, block.place_, block.grid(), index, lane);
    }
  }
}

Grid& Warp::grid() { return block_.grid(); }

uint32_t Warp::grid_thread(int lane) const {
  return block_.index() * block_.grid_.threads_per_block() + thread(lane);
}

Region& Warp::local(int lane) {
  std::unique_ptr<Region>& local = locals_[static_cast<size_t>(lane)];
  if (local == nullptr) {
    local = std::make_unique<Region>("local memory", 0, block_.grid().program().local_bytes);
  }
  return *local;
}

Block::Block(Grid& grid, uint32_t index, Dim3 place) : grid_(grid), index_(index), place_(place) {
  const uint64_t bytes = grid.program().static_shared_bytes + grid.dynamic_shared_bytes();
  shared_ = std::make_unique<Region>("shared memory", 0, bytes);
  if (grid.options().checks_races) shared_->shadow = std::make_unique<Shadow>(bytes);
  live_threads_ = grid.threads_per_block();
  for (uint32_t first = 0; first < live_threads_; first += kLanes) {
    const uint32_t lanes = std::min<uint32_t>(kLanes, live_threads_ - first);
    warps_.push_back(std::make_unique<Warp>(*this, first / kLanes, lanes));
  }
}

Grid::Grid(const Program& program, GlobalMemory& global, Dim3 grid, Dim3 block,
           uint64_t dynamic_shared_bytes, std::vector<std::byte> parameters, const Options& options)
    : program_(program),
      global_(global),
      grid_(grid),
      block_(block),
      dynamic_shared_bytes_(dynamic_shared_bytes),
      parameters_(std::move(parameters)),
      options_(options),
      random_(options.seed) {
  result_.counts.resize(program.instructions.size());
  findings_of_.resize(program.instructions.size());
  if (options.checks_races) races_ = std::make_unique<Races>(grid.count(), block.count());
  for (uint32_t i = 0; i < grid.count(); ++i) {
    blocks_.push_back(std::make_unique<Block>(*this, i, place_of(i, grid)));
  }
}

void Grid::report(std::string_view kind, const std::string& message, Warp& warp,
                  const Instruction& instruction, int lane) {
  std::vector<size_t>& known = findings_of_[instruction.number];
  for (const size_t index : known) {
    if (result_.findings[index].kind == kind) {
      ++result_.findings[index].count;
      return;
    }
  }
  known.push_back(result_.findings.size());
  result_.findings.push_back({std::string(kind), message, instruction.line,
                              program_.opcodes[instruction.opcode], warp.block().index(),
                              warp.thread(lane), 1});
}

void Grid::stop(std::string_view kind, const std::string& message) {
  result_.findings.push_back({std::string(kind), message, 0, "", 0, 0, 1});
  stopped_ = true;
}

bool Grid::is_runnable(const Warp& warp) const { return (warp.live_ & ~warp.waiting_) != 0; }

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

void Grid::move_group(Warp& warp, const std::vector<PendingCopy>& group) {
  for (const PendingCopy& copy : group) {
    std::byte bytes[16] = {};
    if (copy.from != nullptr) {
      std::memcpy(bytes, copy.from->bytes.data() + copy.from_offset, copy.from_bytes);
    }
    warp.block().shared().write(copy.to_offset, bytes, copy.bytes);
  }
}

void Grid::deliver_copies(Warp& warp, int lane) {
  for (std::vector<PendingCopy>& group : warp.copies(lane).groups) {
    move_group(warp, group);
    group.clear();
  }
}

void Grid::finish_copies(Warp& warp, int lane, uint32_t left) {
  CopyQueue& queue = warp.copies(lane);
  while (queue.groups.size() > left) {
    move_group(warp, queue.groups.front());
    queue.groups.pop_front();
    ++queue.done;
  }
  if (races_ != nullptr) races_->wait(warp.grid_thread(lane), queue.done);
}

void Grid::finish_all_copies(Warp& warp, int lane) {
  CopyQueue& queue = warp.copies(lane);
  if (queue.open.empty() && queue.groups.empty()) return;
  if (!queue.open.empty()) {
    queue.groups.push_back(std::move(queue.open));
    queue.open.clear();
    ++queue.committed;
    if (races_ != nullptr) races_->commit(warp.grid_thread(lane));
  }
  finish_copies(warp, lane, 0);
}

}  // namespace ptx
