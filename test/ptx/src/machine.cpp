#include "machine.h"

#include <algorithm>

#include "lane_sets.h"

namespace ptx {
namespace {

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

}  // namespace ptx
