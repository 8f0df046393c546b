// What strong accesses of one location, a place and a size, tell each other.
//
// Scopes come down to two reaches: an operation of gpu or system scope includes every thread, one
// of cta scope those of its block. So does one of cluster scope: grids here have no clusters.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "clocks.h"

namespace ptx::happens_before {

enum class Reach : uint8_t { kWeak, kBlock, kGrid };

constexpr Reach reach_of(Scope scope) {
  if (scope == Scope::kNone) return Reach::kWeak;
  return scope >= Scope::kGpu ? Reach::kGrid : Reach::kBlock;
}

// Do two operations include each other's thread?
constexpr bool include_each_other(Reach a, uint32_t block_a, Reach b, uint32_t block_b) {
  if (a == Reach::kWeak || b == Reach::kWeak) return false;
  return block_a == block_b || (a == Reach::kGrid && b == Reach::kGrid);
}

// What releases tell: null is nothing.
struct Released {
  ClockPtr to_block;  // those of the block, to operations of any scope
  ClockPtr to_grid;   // those that include every thread, to operations that do so too

  bool empty() const { return !to_block && !to_grid; }
  void add(const Released& other) {
    to_block = join(to_block, other.to_block);
    to_grid = join(to_grid, other.to_grid);
  }
};

// A strong write as others see it: the writes of a release sequence share a number, and count.
struct Version {
  uint32_t sequence = 0;  // 0: no strong write
  uint32_t position = 0;

  friend bool operator==(const Version&, const Version&) = default;
};

class Location {
 public:
  Location(uint32_t id, uint8_t first, uint8_t size) : id_(id), first_(first), size_(size) {}

  uint32_t id() const { return id_; }
  bool is_at(uint32_t first, uint32_t size) const { return first_ == first && size_ == size; }
  bool overlaps(uint32_t first, uint32_t size) const {
    return first_ < first + size && first < uint32_t{first_} + size_;
  }

  // Does a strong read by a thread of `block` observe the write that made the value?
  bool is_observed_by(Reach reach, uint32_t block) const {
    return include_each_other(reach, block, writer_reach_, writer_block_);
  }
  Released released_to(uint32_t block) const;  // to a thread of `block` that observes it
  Version version() const { return version_; }

  // A strong write; `continues`: by an atomic that observed the write before. Sequences have
  // numbers of their own.
  void write(const Knowledge& writer, Reach reach, const Released& released, bool continues,
             uint32_t new_sequence);
  // The value, or a part of it, was overwritten by something else.
  void end_sequence();

  // Notes a release by a thread, on which its later strong writes here carry on.
  void note_release(uint32_t slot, const Released& released) { releases_[slot].add(released); }
  Released release_by(uint32_t slot) const;

  // Strong writes are ordered before what is ordered after a strong read that observed them
  // (causality order: observation, then base causality).
  void note_observer(Epoch reader);
  bool was_observed_before(const Version& write, const Knowledge& now) const;

 private:
  struct Observer {
    Epoch reader;
    Version observed;
  };

  uint32_t id_;
  uint8_t first_;  // in its line
  uint8_t size_;
  Reach writer_reach_ = Reach::kWeak;
  uint32_t writer_block_ = 0;
  Version version_;
  ClockPtr to_grid_;
  std::vector<std::pair<uint32_t, ClockPtr>> to_blocks_;
  std::unordered_map<uint32_t, Released> releases_;
  std::vector<Observer> observers_;
};

}  // namespace ptx::happens_before
