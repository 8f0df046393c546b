#include "shadow.h"

#include <algorithm>

namespace ptx::happens_before {

void Lines::split(Cell& cell) {
  const Cell whole = cell;
  cell = Cell{};
  cell.parts = parts_.take();
  std::array<Cell, kParts>& parts = parts_[cell.parts];
  parts.fill(whole);
  if (whole.others == 0) return;
  for (size_t i = 1; i < kParts; ++i) {
    parts[i].others = notes_.take();
    notes_[parts[i].others] = notes_[whole.others];
  }
}

void Lines::merge_if_equal(Cell& cell) {
  const std::array<Cell, kParts>& parts = parts_[cell.parts];
  const Cell& first = parts[0];
  // No two cells have the same others or parts: equal cells have none.
  for (size_t i = 1; i < kParts; ++i) {
    if (!(parts[i] == first)) return;
  }
  const uint32_t number = cell.parts;
  cell = first;
  parts_.give_back(number);
}

void Lines::add_other(Cell& cell, const Note& note) {
  if (cell.others == 0) cell.others = notes_.take();
  Notes& notes = notes_[cell.others];
  notes.list.push_back(note);
  notes.has_strong |= note.is_strong();
}

void Lines::forget_others(Cell& cell) {
  Notes& notes = notes_[cell.others];
  notes.list.clear();
  notes.most = Notes::kFew;
  notes.has_strong = false;
  notes_.give_back(cell.others);
  cell.others = 0;
}

Location* Lines::find_location(uint64_t line, uint32_t first, uint32_t size) {
  const auto found = locations_.find(line);
  if (found == locations_.end()) return nullptr;
  for (Location& location : found->second) {
    if (location.is_at(first, size)) return &location;
  }
  return nullptr;
}

Location& Lines::location(uint64_t line, uint32_t first, uint32_t size, uint32_t new_id) {
  if (Location* known = find_location(line, first, size)) return *known;
  return locations_[line].emplace_back(new_id, static_cast<uint8_t>(first),
                                       static_cast<uint8_t>(size));
}

void Lines::overwrite(uint64_t line, uint32_t first, uint32_t size, const Location* except) {
  const auto found = locations_.find(line);
  if (found == locations_.end()) return;
  for (Location& location : found->second) {
    if (&location != except && location.overlaps(first, size)) location.end_sequence();
  }
}

}  // namespace ptx::happens_before
