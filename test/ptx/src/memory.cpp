#include "memory.h"

#include <algorithm>
#include <cstring>

namespace ptx {
namespace {

constexpr uint64_t kFirstAddress = 0x7F00'0000'0000;
constexpr uint64_t kAlignment = 256;
constexpr uint64_t kGap = 1 << 20;  // no index that is off by a row reaches the next buffer

}  // namespace

Region::Region(std::string its_name, uint64_t first, uint64_t size)
    : name(std::move(its_name)), base(first), bytes(size), written(size, 0) {}

void Region::write(uint64_t offset, const std::byte* from, uint64_t count) {
  std::memcpy(bytes.data() + offset, from, count);
  std::memset(written.data() + offset, 1, count);
}

Region& GlobalMemory::add(std::string name, uint64_t size) {
  uint64_t base = kFirstAddress;
  if (!regions_.empty()) {
    const Region& last = *regions_.back();
    base = (last.base + last.size() + kGap + kAlignment - 1) / kAlignment * kAlignment;
  }
  regions_.push_back(std::make_unique<Region>(std::move(name), base, size));
  return *regions_.back();
}

void GlobalMemory::begin_grid() {
  for (const std::unique_ptr<Region>& region : regions_) {
    region->shadow = std::make_unique<Shadow>(region->size());
    region->uses.assign(region->size(), 0);
    region->read_bytes = region->written_bytes = 0;
    region->read_sectors = region->written_sectors = 0;
  }
}

const Region* GlobalMemory::before(uint64_t address) const {
  const auto after = std::upper_bound(
      regions_.begin(), regions_.end(), address,
      [](uint64_t wanted, const std::unique_ptr<Region>& region) { return wanted < region->base; });
  return after == regions_.begin() ? nullptr : std::prev(after)->get();
}

Region* GlobalMemory::find(uint64_t address) {
  // Lanes of a warp mostly ask for the same buffer.
  if (last_ < regions_.size() && regions_[last_]->contains(address, 1))
    return regions_[last_].get();
  const auto after = std::upper_bound(
      regions_.begin(), regions_.end(), address,
      [](uint64_t wanted, const std::unique_ptr<Region>& region) { return wanted < region->base; });
  if (after == regions_.begin()) return nullptr;
  const auto found = std::prev(after);
  if (!(*found)->contains(address, 1)) return nullptr;
  last_ = static_cast<size_t>(found - regions_.begin());
  return found->get();
}

}  // namespace ptx
