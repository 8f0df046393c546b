#include "access.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace ptx {
namespace {

constexpr uint64_t kSector = 32;
constexpr uint32_t kBanks = 32;
constexpr uint32_t kBankBytes = 4;

std::string hex(uint64_t value) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string digits;
  do {
    digits.insert(digits.begin(), kDigits[value & 15]);
    value >>= 4;
  } while (value != 0);
  return "0x" + digits;
}

std::string describe(Access access) {
  switch (access) {
    case Access::kRead:
      return "read";
    case Access::kWrite:
      return "write";
    case Access::kAtomic:
      break;
  }
  return "atomic";
}

bool is_in(uint64_t address, uint64_t window) {
  return address >= window && address - window < kWindowBytes;
}

}  // namespace

WarpAccess::WarpAccess(Warp& warp, const Instruction& instruction)
    : warp_(warp), instruction_(instruction) {}

WarpAccess::~WarpAccess() {
  Count& count = warp_.grid().count_of(instruction_);
  for (std::vector<uint64_t>* sectors : {&sectors_read_, &sectors_written_}) {
    std::sort(sectors->begin(), sectors->end());
    sectors->erase(std::unique(sectors->begin(), sectors->end()), sectors->end());
    count.sectors += sectors->size();
    for (const uint64_t sector : *sectors) {
      Region* region = warp_.grid().global().find(sector * kSector);
      if (region == nullptr) continue;
      (sectors == &sectors_read_ ? region->read_sectors : region->written_sectors) += 1;
    }
  }
  count_shared();
}

Place WarpAccess::locate(int lane, uint64_t address, uint32_t bytes, Space space) {
  Grid& grid = warp_.grid();
  if (space == Space::kGeneric) {
    if (is_in(address, kSharedWindow)) {
      space = Space::kShared;
      address -= kSharedWindow;
    } else if (is_in(address, kLocalWindow)) {
      space = Space::kLocal;
      address -= kLocalWindow;
    } else {
      space = Space::kGlobal;
    }
  }
  if (space == Space::kConst) space = Space::kGlobal;
  Place place;
  place.space = space;
  if (space == Space::kShared) place.region = &warp_.block().shared();
  if (space == Space::kLocal) place.region = &warp_.local(lane);
  if (space == Space::kGlobal) place.region = grid.global().find(address);
  if (place.region == nullptr || !place.region->contains(address, bytes)) {
    std::string message = std::to_string(bytes) + " bytes at " + hex(address);
    const Region* near = space == Space::kGlobal ? grid.global().before(address) : place.region;
    if (near == nullptr) {
      message += " lie in no memory.";
    } else {
      message += " lie outside of " + near->name + ": " + std::to_string(address - near->base) +
                 " bytes behind its start, and it has " + std::to_string(near->size()) + ".";
    }
    grid.report("out_of_bounds", message, warp_, instruction_, lane);
    return {};
  }
  place.offset = address - place.region->base;
  if (address % bytes != 0 && (bytes & (bytes - 1)) == 0) {
    grid.report("misaligned",
                std::to_string(bytes) + " bytes at " + hex(address) +
                    ": the address is no multiple of the size.",
                warp_, instruction_, lane);
    return {};
  }
  return place;
}

void WarpAccess::note(int lane, const Place& place, uint32_t bytes, const AccessKind& kind,
                      bool is_copy, bool changes_nothing) {
  Races* races = warp_.grid().races();
  if (races == nullptr || place.region->shadow == nullptr) return;
  const Actor actor = {warp_.grid_thread(lane), is_copy};
  const std::optional<Race> race =
      races->access(*place.region->shadow, place.offset, bytes, actor, kind, instruction_.number);
  if (!race) return;
  // The bytes of a copy on its way are not those that lie there.
  const bool is_equal_write = changes_nothing && race->is_with_writes_only;
  if (is_equal_write && !warp_.grid().options().reports_equal_writes) return;
  const Program& program = warp_.grid().program();
  const Instruction& earlier = program.instructions[race->earlier_at];
  const uint32_t threads = warp_.grid().threads_per_block();
  warp_.grid().report(
      is_equal_write ? "race_of_equal_writes" : "race",
      "A " + describe(kind.access) + " of byte " + std::to_string(race->offset) + " of " +
          place.region->name + " is not ordered after a " + describe(race->earlier_access) +
          (race->earlier.is_copy ? " of an asynchronous copy" : "") + " by thread " +
          std::to_string(race->earlier.thread % threads) + " of block " +
          std::to_string(race->earlier.thread / threads) + " at line " +
          std::to_string(earlier.line) + ", `" + program.opcodes[earlier.opcode] + "`.",
      warp_, instruction_, lane);
}

void WarpAccess::check_written(int lane, const Place& place, uint32_t bytes) {
  const uint8_t* written = place.region->written.data() + place.offset;
  const uint8_t* end = written + bytes;
  const uint8_t* first = std::find(written, end, uint8_t{0});
  if (first == end) return;
  warp_.grid().report("uninitialised",
                      "Byte " +
                          std::to_string(place.offset + static_cast<uint64_t>(first - written)) +
                          " of " + place.region->name + " is read, and nobody has written it.",
                      warp_, instruction_, lane);
}

void WarpAccess::note_use(int lane, const Place& place, uint32_t bytes, Use use) {
  if (place.region->uses.empty()) return;
  uint8_t* uses = place.region->uses.data() + place.offset;
  uint8_t all = 0;
  for (uint32_t i = 0; i < bytes; ++i) all |= uses[i] |= use;
  if (all == use) return;
  warp_.grid().report("not_constant",
                      place.region->name + " is read by ld.global.nc and written at byte " +
                          std::to_string(place.offset) + " or behind, by one grid.",
                      warp_, instruction_, lane);
}

void WarpAccess::expect_constant(int lane, const Place& place, uint32_t bytes) {
  note_use(lane, place, bytes, kReadAsConstant);
}

void WarpAccess::count(int lane, const Place& place, uint32_t bytes, bool is_write) {
  warp_.grid().count_of(instruction_).bytes += bytes;
  if (place.space == Space::kShared) {
    shared_.push_back({lane, place.offset, bytes});
  } else if (place.space == Space::kGlobal) {
    (is_write ? place.region->written_bytes : place.region->read_bytes) += bytes;
    std::vector<uint64_t>& sectors = is_write ? sectors_written_ : sectors_read_;
    const uint64_t first = place.region->base + place.offset;
    for (uint64_t s = first / kSector; s <= (first + bytes - 1) / kSector; ++s) {
      if (sectors.empty() || sectors.back() != s) sectors.push_back(s);
    }
  }
}

// Lanes are served 32, 16 or 8 at a time, by the size of their accesses; each bank gives one word
// at a time.
void WarpAccess::count_shared() {
  if (shared_.empty()) return;
  Count& count = warp_.grid().count_of(instruction_);
  const uint32_t bytes = shared_.front().bytes;
  const int at_a_time = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  std::vector<uint64_t> words;
  size_t next = 0;
  while (next < shared_.size()) {
    const int part = shared_[next].lane / at_a_time;
    words.clear();
    for (; next < shared_.size() && shared_[next].lane / at_a_time == part; ++next) {
      const Touched& touched = shared_[next];
      const uint64_t last = (touched.offset + touched.bytes - 1) / kBankBytes;
      for (uint64_t word = touched.offset / kBankBytes; word <= last; ++word) words.push_back(word);
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::array<uint64_t, kBanks> of_bank{};
    for (const uint64_t word : words) ++of_bank[word % kBanks];
    count.wavefronts += *std::max_element(of_bank.begin(), of_bank.end());
    count.ideal_wavefronts += (words.size() + kBanks - 1) / kBanks;
  }
}

void WarpAccess::read(int lane, const Place& place, std::byte* to, uint32_t bytes) {
  note(lane, place, bytes, instruction_.access, false);
  check_written(lane, place, bytes);
  std::memcpy(to, place.region->bytes.data() + place.offset, bytes);
  count(lane, place, bytes, false);
}

bool WarpAccess::is_read_only(int lane, const Place& place) {
  if (!place.region->is_read_only) return false;
  warp_.grid().report("read_only", place.region->name + " is written, and is for reading only.",
                      warp_, instruction_, lane);
  return true;
}

void WarpAccess::write(int lane, const Place& place, const std::byte* from, uint32_t bytes) {
  if (is_read_only(lane, place)) return;
  const bool changes_nothing =
      std::memcmp(place.region->bytes.data() + place.offset, from, bytes) == 0;
  note(lane, place, bytes, instruction_.access, false, changes_nothing);
  note_use(lane, place, bytes, kWritten);
  place.region->write(place.offset, from, bytes);
  warp_.grid().note_progress();
  count(lane, place, bytes, true);
}

void WarpAccess::read_atomic(int lane, const Place& place, std::byte* to, uint32_t bytes) {
  note(lane, place, bytes, instruction_.access, false);
  check_written(lane, place, bytes);
  std::memcpy(to, place.region->bytes.data() + place.offset, bytes);
  count(lane, place, bytes, true);
}

void WarpAccess::write_atomic(int lane, const Place& place, const std::byte* from, uint32_t bytes) {
  if (is_read_only(lane, place)) return;
  note_use(lane, place, bytes, kWritten);
  // A compare-and-swap that fails again and again is no progress.
  if (std::memcmp(place.region->bytes.data() + place.offset, from, bytes) == 0) return;
  place.region->write(place.offset, from, bytes);
  warp_.grid().note_progress();
}

void WarpAccess::start_copy_from(int lane, const Place& place, uint32_t bytes) {
  note(lane, place, bytes, {Access::kRead}, true);
  check_written(lane, place, bytes);
  count(lane, place, bytes, false);
}

void WarpAccess::start_copy_to(int lane, const Place& place, uint32_t bytes) {
  note(lane, place, bytes, {Access::kWrite}, true);
  count(lane, place, bytes, true);
}

}  // namespace ptx
