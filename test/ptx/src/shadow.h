// What is remembered of every byte of a memory: its last accesses.
//
// A line of 16 bytes has one cell for as long as its bytes have the same history, then four of 4
// bytes, each of which may have four of a byte. Most accesses are 4 or 16 bytes wide and aligned:
// they find one cell.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "locations.h"
#include "races.h"

namespace ptx::happens_before {

constexpr uint32_t kLineBytes = 16;
constexpr uint32_t kParts = 4;  // of a line or a word that is split

struct Note {
  Epoch epoch = 0;
  uint32_t at = 0;
  Access access = Access::kRead;
  Reach reach = Reach::kWeak;
  uint8_t first = 0;  // in its line; of strong accesses
  uint8_t size = 0;
  Version version;  // of strong writes

  bool writes() const { return access != Access::kRead; }
  bool is_strong() const { return reach != Reach::kWeak; }
};

// The last weak write, and a weak read after it. Concurrent readers and strong accesses are among
// the others. 0 is none.
struct Cell {
  Epoch write = 0;
  Epoch read = 0;
  uint32_t write_at = 0;
  uint32_t read_at = 0;
  uint32_t others = 0;  // in the pool of notes
  uint32_t parts = 0;   // in the pool of parts; then the rest is unused

  friend bool operator==(const Cell&, const Cell&) = default;
};

// Items that stay where they are, by numbers from 1 on.
template <typename Item>
class Pool {
 public:
  uint32_t take() {
    if (free_.empty()) {
      items_.emplace_back();
      return static_cast<uint32_t>(items_.size());
    }
    const uint32_t number = free_.back();
    free_.pop_back();
    return number;
  }
  void give_back(uint32_t number) { free_.push_back(number); }
  Item& operator[](uint32_t number) { return items_[number - 1]; }

 private:
  std::deque<Item> items_;
  std::vector<uint32_t> free_;
};

// Concurrent accesses to the same bytes.
struct Notes {
  // Each access looks through so few. Into more readers, as when all threads read one number, a
  // reader only puts itself, and those that are superseded leave when their number has doubled.
  static constexpr size_t kFew = 8;

  std::vector<Note> list;
  size_t most = kFew;
  bool has_strong = false;

  bool are_many_readers() const { return list.size() >= kFew && !has_strong; }
};

class Lines {
 public:
  explicit Lines(size_t bytes) : bytes_(bytes), lines_((bytes + kLineBytes - 1) / kLineBytes) {}

  size_t bytes() const { return bytes_; }
  Cell& line(uint64_t number) { return lines_[number]; }

  std::array<Cell, kParts>& parts(const Cell& cell) { return parts_[cell.parts]; }
  void split(Cell& cell);
  void merge_if_equal(Cell& cell);

  Notes& others(const Cell& cell) { return notes_[cell.others]; }
  void add_other(Cell& cell, const Note& note);
  void forget_others(Cell& cell);

  // The locations of strong accesses, which are aligned and thus do not leave their line.
  Location* find_location(uint64_t line, uint32_t first, uint32_t size);
  Location& location(uint64_t line, uint32_t first, uint32_t size, uint32_t new_id);
  // Ends the release sequences of the locations that overlap, but not of the very one.
  void overwrite(uint64_t line, uint32_t first, uint32_t size, const Location* except);

 private:
  size_t bytes_;
  std::vector<Cell> lines_;
  Pool<std::array<Cell, kParts>> parts_;
  Pool<Notes> notes_;
  std::unordered_map<uint64_t, std::vector<Location>> locations_;
};

}  // namespace ptx::happens_before
