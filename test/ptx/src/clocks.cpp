#include "clocks.h"

#include <algorithm>

namespace ptx::happens_before {
namespace {

constexpr uint32_t kAtOnce = 8;  // times; every row is a multiple

struct Comparison {
  bool first_has_more;
  bool second_has_more;
};

Comparison compare(const uint32_t* a, const uint32_t* b, uint32_t size) {
  uint32_t first = 0;
  uint32_t second = 0;
  for (uint32_t i = 0; i < size; i += kAtOnce) {
    for (uint32_t j = i; j < i + kAtOnce; ++j) {
      first |= static_cast<uint32_t>(a[j] > b[j]);
      second |= static_cast<uint32_t>(b[j] > a[j]);
    }
  }
  return {first != 0, second != 0};
}

}  // namespace

Clock::Clock(const Slots& slots)
    : slots_(slots), rows_(slots.blocks(), Row(std::make_shared<uint32_t[]>(slots.row_size()))) {}

Clock& Join::changed() {
  if (!changed_) changed_ = std::make_shared<Clock>(*first_);
  return *changed_;
}

uint32_t* Join::own_row(uint32_t block) {
  for (const auto& [owner, row] : own_rows_) {
    if (owner == block) return row.get();
  }
  Row& row = changed().rows_[block];
  const uint32_t size = first_->slots_.row_size();
  std::shared_ptr<uint32_t[]> copy(new uint32_t[size]);
  std::copy_n(row.get(), size, copy.get());
  row = copy;
  return own_rows_.emplace_back(block, std::move(copy)).second.get();
}

void Join::add(const ClockPtr& other) {
  if (other == first_) return;
  const uint32_t size = first_->slots_.row_size();
  for (uint32_t block = 0; block < first_->slots_.blocks(); ++block) {
    const Row& mine = now().rows_[block];
    const Row& theirs = other->rows_[block];
    if (mine == theirs) continue;
    const Comparison more = compare(mine.get(), theirs.get(), size);
    if (!more.second_has_more) continue;
    if (!more.first_has_more) {
      // Sharing their row lets later joins see at once that nothing is new.
      std::erase_if(own_rows_, [block](const auto& own) { return own.first == block; });
      changed().rows_[block] = theirs;
      continue;
    }
    uint32_t* row = own_row(block);
    for (uint32_t i = 0; i < size; ++i) row[i] = std::max(row[i], theirs[i]);
  }
}

void Join::raise(uint32_t slot, uint32_t time) {
  const Slots& slots = first_->slots_;
  if (now().knows(epoch_of(slot, time))) return;
  own_row(slots.block(slot))[slots.column(slot)] = time;
}

ClockPtr Join::finish() {
  own_rows_.clear();
  if (changed_) return std::move(changed_);
  return first_;
}

ClockPtr join(const ClockPtr& a, const ClockPtr& b) {
  if (!a || a == b) return b;
  if (!b) return a;
  Join both(a);
  both.add(b);
  return both.finish();
}

void Knowledge::learn(const ClockPtr& clock) { base_ = join(base_, clock); }

ClockPtr Knowledge::publish() {
  Join all(base_);
  tell(all);
  ++time_;
  return all.finish();
}

void Knowledge::tell(Join& everything) const {
  everything.raise(slot_, time_);
  everything.raise(copies_of(slot_), copies_done_);
}

void Knowledge::meet(ClockPtr everything) {
  base_ = std::move(everything);
  ++time_;
}

}  // namespace ptx::happens_before
