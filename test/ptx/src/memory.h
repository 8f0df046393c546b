// The memories of a grid, byte by byte: what exists, what was written, who touched it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "module.h"
#include "races.h"

namespace ptx {

// Generic addresses. Everything outside the two windows is global memory.
constexpr uint64_t kSharedWindow = 0x0100'0000'0000;
constexpr uint64_t kLocalWindow = 0x0200'0000'0000;
constexpr uint64_t kWindowBytes = 0x0010'0000'0000;

// Bits: loads through the cache that nobody keeps coherent (ld.global.nc), and writes.
enum Use : uint8_t { kReadAsConstant = 1, kWritten = 2 };

// A piece of memory with bounds: a buffer, the shared memory of a block, the local one of a thread.
struct Region {
  Region(std::string its_name, uint64_t first, uint64_t size);

  std::string name;
  uint64_t base;  // address of the first byte, in its space
  std::vector<std::byte> bytes;
  std::vector<uint8_t> written;    // per byte
  std::vector<uint8_t> uses;       // per byte of global memory: of Use, by this grid
  std::unique_ptr<Shadow> shadow;  // null: only one thread reaches it
  bool is_read_only = false;

  // Traffic, counted by the machine.
  uint64_t read_bytes = 0;
  uint64_t written_bytes = 0;
  uint64_t read_sectors = 0;
  uint64_t written_sectors = 0;

  uint64_t size() const { return bytes.size(); }
  bool contains(uint64_t address, uint64_t count) const {
    return address >= base && count <= size() && address - base <= size() - count;
  }
  void write(uint64_t offset, const std::byte* from, uint64_t count);
};

// The buffers in global memory, with gaps between them that belong to none.
class GlobalMemory {
 public:
  // Every buffer begins at a multiple of 256, as cudaMalloc gives them.
  Region& add(std::string name, uint64_t size);
  // Forgets who touched what: the end of a grid comes before the start of the next.
  void begin_grid();
  Region* find(uint64_t address);  // the one that holds `address`, or null
  // The last one that begins at or before `address`, to say what was missed; or null.
  const Region* before(uint64_t address) const;
  std::vector<std::unique_ptr<Region>>& regions() { return regions_; }

 private:
  std::vector<std::unique_ptr<Region>> regions_;  // by address
  size_t last_ = 0;
};

}  // namespace ptx
