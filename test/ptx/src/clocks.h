// Vector clocks over the threads of a grid and their asynchronous copies.
//
// A clock has one row of times per block. Rows are immutable and shared: what a block learns of
// another one is a pointer, and only rows that differ are compared time by time.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "races.h"

namespace ptx::happens_before {

// Who (upper half: a slot) and when (lower half: a time of that slot). Times start at 1, so that 0
// is nobody, whom everybody knows.
using Epoch = uint64_t;

constexpr Epoch epoch_of(uint32_t slot, uint32_t time) { return Epoch{slot} << 32 | time; }
constexpr uint32_t slot_of(Epoch epoch) { return static_cast<uint32_t>(epoch >> 32); }
constexpr uint32_t time_of(Epoch epoch) { return static_cast<uint32_t>(epoch); }

// A thread has an even slot and its copies the odd one after it. The slots of a block are padded to
// a power of two: two shifts find a time.
constexpr bool is_copy(uint32_t slot) { return (slot & 1) != 0; }
constexpr uint32_t copies_of(uint32_t thread_slot) { return thread_slot | 1; }

class Slots {
 public:
  Slots(uint32_t blocks, uint32_t threads_per_block)
      : blocks_(blocks),
        threads_per_block_(threads_per_block),
        row_bits_(static_cast<uint32_t>(std::bit_width(2 * threads_per_block - 1))) {
    // Rows are joined eight times at once.
    if (row_bits_ < 3) row_bits_ = 3;
  }

  uint32_t blocks() const { return blocks_; }
  uint32_t row_size() const { return 1u << row_bits_; }
  uint32_t block(uint32_t slot) const { return slot >> row_bits_; }
  uint32_t column(uint32_t slot) const { return slot & (row_size() - 1); }
  uint32_t slot(uint32_t thread) const {
    return (thread / threads_per_block_ << row_bits_) + 2 * (thread % threads_per_block_);
  }
  Actor actor(uint32_t slot) const {
    return {block(slot) * threads_per_block_ + column(slot) / 2, is_copy(slot)};
  }

 private:
  uint32_t blocks_;
  uint32_t threads_per_block_;
  uint32_t row_bits_;
};

using Row = std::shared_ptr<const uint32_t[]>;

// Of every slot, the time up to which its deeds are known.
class Clock {
 public:
  explicit Clock(const Slots& slots);  // knows nothing

  bool knows(Epoch epoch) const {
    const uint32_t slot = slot_of(epoch);
    return rows_[slots_.block(slot)][slots_.column(slot)] >= time_of(epoch);
  }
  uint32_t block_of(uint32_t slot) const { return slots_.block(slot); }

 private:
  friend class Join;
  Slots slots_;
  std::vector<Row> rows_;
};

using ClockPtr = std::shared_ptr<const Clock>;

// Makes a clock out of others; copies the rows that change, each once.
class Join {
 public:
  explicit Join(ClockPtr first) : first_(std::move(first)) {}
  void add(const ClockPtr& other);
  void raise(uint32_t slot, uint32_t time);
  ClockPtr finish();

 private:
  const Clock& now() const { return changed_ ? *changed_ : *first_; }
  Clock& changed();
  uint32_t* own_row(uint32_t block);

  ClockPtr first_;
  std::shared_ptr<Clock> changed_;
  std::vector<std::pair<uint32_t, std::shared_ptr<uint32_t[]>>> own_rows_;
};

ClockPtr join(const ClockPtr& a, const ClockPtr& b);  // either may be null: it knows nothing

// What a thread knows: a clock, shared with those it met, and its own time beyond it.
class Knowledge {
 public:
  Knowledge(ClockPtr base, uint32_t slot)
      : base_(std::move(base)), slot_(slot), block_(base_->block_of(slot)) {}

  uint32_t slot() const { return slot_; }
  uint32_t block() const { return block_; }
  Epoch now() const { return epoch_of(slot_, time_); }

  // Is what was done then ordered before what the thread, or a copy that it starts, does now?
  bool covers(Epoch epoch) const {
    const uint32_t slot = slot_of(epoch);
    if (slot == slot_) return true;
    if (slot == copies_of(slot_)) return time_of(epoch) <= copies_done_;
    return base_->knows(epoch);
  }

  const ClockPtr& base() const { return base_; }
  void learn(const ClockPtr& clock);
  void finish_copies(uint32_t groups) {
    if (groups > copies_done_) copies_done_ = groups;
  }

  // All that the thread knows and has done. What it does afterwards is another time.
  ClockPtr publish();

  // Raises a join by what the thread has done; afterwards it knows the whole join.
  void tell(Join& everything) const;
  void meet(ClockPtr everything);

 private:
  ClockPtr base_;
  uint32_t slot_;
  uint32_t block_;
  uint32_t time_ = 1;
  uint32_t copies_done_ = 0;
};

}  // namespace ptx::happens_before
