#include "locations.h"

#include <algorithm>

namespace ptx::happens_before {

Released Location::released_to(uint32_t block) const {
  for (const auto& [owner, clock] : to_blocks_) {
    if (owner == block) return {clock, to_grid_};
  }
  return {nullptr, to_grid_};
}

void Location::write(const Knowledge& writer, Reach reach, const Released& released, bool continues,
                     uint32_t new_sequence) {
  if (!continues) {
    end_sequence();
    version_ = {new_sequence, 0};
  }
  ++version_.position;
  writer_reach_ = reach;
  writer_block_ = writer.block();
  if (released.empty()) return;
  to_grid_ = join(to_grid_, released.to_grid);
  for (auto& [owner, clock] : to_blocks_) {
    if (owner == writer.block()) {
      clock = join(clock, released.to_block);
      return;
    }
  }
  to_blocks_.emplace_back(writer.block(), released.to_block);
}

void Location::end_sequence() {
  writer_reach_ = Reach::kWeak;
  version_ = {};
  to_grid_ = nullptr;
  to_blocks_.clear();
}

Released Location::release_by(uint32_t slot) const {
  const auto found = releases_.find(slot);
  return found == releases_.end() ? Released{} : found->second;
}

void Location::note_observer(Epoch reader) {
  // Who spins on one value is one observer.
  for (auto other = observers_.rbegin(); other != observers_.rend(); ++other) {
    if (other->observed != version_) break;
    if (slot_of(other->reader) == slot_of(reader)) return;
  }
  observers_.push_back({reader, version_});
}

bool Location::was_observed_before(const Version& write, const Knowledge& now) const {
  return std::any_of(observers_.begin(), observers_.end(), [&](const Observer& observer) {
    return observer.observed.sequence == write.sequence &&
           observer.observed.position >= write.position && now.covers(observer.reader);
  });
}

}  // namespace ptx::happens_before
