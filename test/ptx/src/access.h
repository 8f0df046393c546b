// Accesses of lanes to memory: where they land, what is wrong with them, what they cost.
#pragma once

#include "machine.h"

namespace ptx {

struct Place {
  Region* region = nullptr;  // null: the access can't be done, and that has been reported
  uint64_t offset = 0;
  Space space = Space::kGeneric;  // kGlobal, kShared or kLocal
};

// The memory instruction of a warp that is in work: lanes first `locate` their bytes, then `read`,
// `write` or `copy` them. When it ends it counts what the warp has cost.
class WarpAccess {
 public:
  WarpAccess(Warp& warp, const Instruction& instruction);
  ~WarpAccess();
  WarpAccess(const WarpAccess&) = delete;
  WarpAccess& operator=(const WarpAccess&) = delete;

  // `bytes` at `address` of `space`. Reports accesses outside of everything, and misaligned ones.
  Place locate(int lane, uint64_t address, uint32_t bytes, Space space);

  // Each notes the access for races. `read` reports bytes that nobody has written.
  void read(int lane, const Place& place, std::byte* to, uint32_t bytes);
  void write(int lane, const Place& place, const std::byte* from, uint32_t bytes);
  // What `read` reads has to stay as it is for the whole grid: of ld.global.nc.
  void expect_constant(int lane, const Place& place, uint32_t bytes);
  // The two of an atomic: the value there, and the one that takes its place.
  void read_atomic(int lane, const Place& place, std::byte* to, uint32_t bytes);
  void write_atomic(int lane, const Place& place, const std::byte* from, uint32_t bytes);
  // The two ends of an asynchronous copy that starts; its bytes move later.
  void start_copy_from(int lane, const Place& place, uint32_t bytes);
  void start_copy_to(int lane, const Place& place, uint32_t bytes);

 private:
  void note(int lane, const Place& place, uint32_t bytes, const AccessKind& kind, bool is_copy,
            bool changes_nothing = false);
  void check_written(int lane, const Place& place, uint32_t bytes);
  bool is_read_only(int lane, const Place& place);  // reports it if so
  void note_use(int lane, const Place& place, uint32_t bytes, Use use);
  void count(int lane, const Place& place, uint32_t bytes, bool is_write);
  void count_shared();

  struct Touched {
    int lane;
    uint64_t offset;
    uint32_t bytes;
  };

  Warp& warp_;
  const Instruction& instruction_;
  std::vector<Touched> shared_;
  std::vector<uint64_t> sectors_read_;  // addresses of sectors of global memory
  std::vector<uint64_t> sectors_written_;
};

}  // namespace ptx
